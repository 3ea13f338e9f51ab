"""The ladder: down while work waits, up when it has been calm, never back and forth."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from service.ladder import LOWEST, Standing, moved
from service.routes import Ladder

LADDER = Ladder(down_s=0.5, up_s=0.1, hold_s=2.0)


def walked(*waiting: tuple[float, float]) -> list[int]:
    """The rung after each (time, seconds of waiting work)."""
    standing, rungs = Standing(), []
    for now, seconds in waiting:
        standing = moved(LADDER, standing, seconds, now)
        rungs.append(standing.rung)
    return rungs


def test_it_goes_down_at_once_and_further_only_when_that_has_not_helped() -> None:
    assert walked((10, 0.6), (10.1, 0.9), (10.4, 0.9), (10.6, 0.9), (11.2, 0.9)) == [1, 1, 1, 2, 3]


def test_it_goes_up_a_rung_at_a_time_after_it_has_been_calm_for_long() -> None:
    down = [(10.0, 0.6), (10.6, 0.6)]
    assert walked(*down, (11, 0.05), (12.9, 0.0), (13.1, 0.0), (15.0, 0.0), (15.2, 0.0)) == [
        1, 2, 2, 2, 1, 1, 0,
    ]  # fmt: skip


def test_between_the_two_it_stays_where_it_is() -> None:
    assert walked((10, 0.6), *((10 + second, 0.3) for second in range(1, 60))) == [1] * 60


def test_calm_is_counted_anew_when_it_was_broken() -> None:
    assert walked((10, 0.6), (11, 0.0), (12.5, 0.2), (13, 0.0), (14.5, 0.0), (15.1, 0.0)) == [
        1, 1, 1, 1, 1, 0,
    ]  # fmt: skip


def test_an_hour_in_which_nobody_asked_was_calm() -> None:
    down = [(10.0, 0.6), (10.6, 0.6), (11.2, 0.6), (11.8, 0.6)]
    assert walked(*down, (3600, 0.0)) == [1, 2, 3, 4, 0]
    assert walked(*down, (15.0, 0.0)) == [1, 2, 3, 4, 3]  # what waited was done at 12.4


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 3)), max_size=60))
def test_it_never_goes_down_two_rungs_at_once_and_stays_on_the_ladder(
    steps: list[tuple[float, float]],
) -> None:
    standing, now = Standing(), 0.0
    for later, waiting_s in steps:
        now += later
        after = moved(LADDER, standing, waiting_s, now)
        assert after.rung <= standing.rung + 1 and 0 <= after.rung <= LOWEST
        assert after.rung <= standing.rung or waiting_s >= LADDER.down_s
        assert after.rung >= standing.rung or waiting_s <= LADDER.up_s
        standing = after

"""The bucket: how many requests may be sent, and what is said of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.rate import Rate, Standing, ask


def test_after_a_rest_the_burst_may_be_sent_and_no_more() -> None:
    rate = Rate(requests=60, seconds=60, burst=3)
    spent, seen = 0.0, []
    for _ in range(5):
        spent, standing = ask(spent, 0.0, rate)
        seen.append((standing.admitted, standing.left))
    assert seen == [(True, 2), (True, 1), (True, 0), (False, 0), (False, 0)]


def test_without_a_burst_all_of_them_may_be_sent_at_once() -> None:
    assert Rate(requests=5).most == 5
    assert Rate(requests=5, burst=2).most == 2


def test_what_is_spent_comes_back_steadily() -> None:
    rate = Rate(requests=2, seconds=1)
    assert ask(2.0, 0.0, rate) == (2.0, Standing(admitted=False, left=0, next_s=0.5))
    assert ask(2.0, 0.25, rate) == (1.5, Standing(admitted=False, left=0, next_s=0.25))
    assert ask(2.0, 0.5, rate) == (2.0, Standing(admitted=True, left=0, next_s=0.5))
    assert ask(2.0, 1e9, rate) == (1.0, Standing(admitted=True, left=1, next_s=0.5))


def test_a_refused_request_costs_nothing() -> None:
    rate = Rate(requests=1, seconds=10)
    spent, first = ask(0.0, 0.0, rate)
    for _ in range(100):
        spent, refused = ask(spent, 0.0, rate)
        assert not refused.admitted
    assert first.admitted
    assert ask(spent, refused.next_s, rate)[1].admitted


def test_who_has_spent_more_than_a_new_limit_waits_no_longer_than_for_one() -> None:
    spent, _ = ask(90.0, 0.0, Rate(requests=100))
    lowered = Rate(requests=2, seconds=1)
    spent, refused = ask(spent, 0.0, lowered)
    assert refused == Standing(admitted=False, left=0, next_s=0.5)
    assert ask(spent, refused.next_s, lowered)[1].admitted


@given(
    requests=st.integers(1, 1000),
    seconds=st.integers(1, 3600),
    burst=st.none() | st.integers(1, 1000),
    pauses=st.lists(st.floats(0, 100), min_size=1, max_size=200),
)
def test_in_no_time_are_more_sent_than_the_burst_and_what_came_back(
    requests: int, seconds: int, burst: int | None, pauses: list[float]
) -> None:
    rate = Rate(requests=requests, seconds=seconds, burst=burst)
    spent, sent = 0.0, 0
    for pause in pauses:
        spent, standing = ask(spent, pause, rate)
        sent += standing.admitted
        assert 0 <= standing.left < rate.most
        assert 0 <= standing.next_s <= seconds / requests * (1 + 1e-6)
        assert standing.admitted or standing.left == 0
    assert sent <= rate.most + sum(pauses) * requests / seconds + 1e-6


@pytest.mark.parametrize("pause", [0.7, 1 / 3, 0.1])
def test_whoever_keeps_to_the_pace_is_never_refused(pause: float) -> None:
    rate = Rate(requests=7, seconds=5, burst=1)
    spent, standing = ask(0.0, 0.0, rate)
    for _ in range(1000):
        waited = 0.0
        while waited < standing.next_s:
            waited += pause
        spent, standing = ask(spent, waited, rate)
        assert standing.admitted

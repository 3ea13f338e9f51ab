"""Always-valid intervals, by simulation: looking after every value is no cheating."""

from __future__ import annotations

import random
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.sequential import Seen, add, interval

ALPHA = 0.05


def ever_wrong(mean: float, draw: random.Random, values: int) -> bool:
    """Whether the interval misses the mean at any moment."""
    seen = Seen()
    for _ in range(values):
        seen = add(seen, float(draw.random() < mean), alpha=ALPHA)
        low, high = interval(seen, alpha=ALPHA)
        if not low <= mean <= high:
            return True
    return False


@pytest.mark.parametrize("mean", [0.01, 0.1, 0.5])
def test_the_mean_is_missed_at_any_moment_no_more_often_than_promised(mean: float) -> None:
    draw = random.Random(3)
    wrong = sum(ever_wrong(mean, draw, 1000) for _ in range(200))
    assert wrong / 200 <= ALPHA


def test_the_interval_closes_around_the_mean() -> None:
    draw, seen, widths = random.Random(4), Seen(), []
    for number in range(1, 20_001):
        seen = add(seen, float(draw.random() < 0.02), alpha=ALPHA)
        if number in (200, 2000, 20_000):
            low, high = interval(seen, alpha=ALPHA)
            assert low <= 0.02 <= high
            widths.append(high - low)
    assert widths[0] > 2 * widths[1] > 4 * widths[2]
    assert widths[2] < 0.01


@given(st.lists(st.floats(0, 1), min_size=1, max_size=200))
def test_the_mean_of_what_was_seen_is_never_left_far_behind(values: list[float]) -> None:
    seen = Seen()
    for value in values:
        seen = add(seen, value, alpha=ALPHA)
    low, high = interval(seen, alpha=ALPHA)
    assert low <= high and seen.n == len(values)
    assert seen.total == pytest.approx(sum(values))


def test_nothing_seen_is_nothing_known() -> None:
    assert interval(Seen(), alpha=ALPHA) == (-inf, inf)

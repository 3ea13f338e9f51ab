"""The cost line: what it was taught, it says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.cost import Line, Mean

sizes = st.lists(st.integers(1, 1000), min_size=2, max_size=50, unique=True)


@given(sizes, st.floats(0, 1), st.floats(1e-6, 1))
def test_a_line_is_learnt_from_points_on_it(sizes: list[int], fixed: float, each: float) -> None:
    line = Line()
    for size in sizes:
        line.learn(size, fixed + each * size)
    for size in sizes:
        assert line(size) == pytest.approx(fixed + each * size, rel=1e-3, abs=1e-6)


@given(st.lists(st.tuples(st.integers(1, 1000), st.floats(0, 10)), min_size=1))
def test_no_measurements_make_anything_cost_less_than_nothing(
    measured: list[tuple[int, float]],
) -> None:
    line = Line()
    for size, seconds in measured:
        line.learn(size, seconds)
    assert line.fixed >= 0 and line.each >= 0


def test_of_one_size_only_the_rate_is_learnt() -> None:
    line = Line()
    for _ in range(5):
        line.learn(10, 2.0)
    assert line(10) == pytest.approx(2.0) and line(20) == pytest.approx(4.0)


def test_long_runs_that_vary_do_not_hide_what_short_ones_cost() -> None:
    line = Line()
    for turn in range(200):
        line.learn(10, 0.0004 + 0.00003 * 10)
        for noise in (0.85, 1.05, 1.3) if turn % 10 == 0 else (1.2,):
            line.learn(256, noise * (0.0004 + 0.00003 * 256))
    assert line(10) == pytest.approx(0.0007, rel=0.03) and line.fixed > 0.0003


def test_a_change_is_believed_after_some_hundred_runs() -> None:
    line, mean = Line(), Mean()
    for seconds in (1.0, 3.0):
        for _ in range(500):
            for size in (1, 10):
                line.learn(size, seconds * size)
                mean.learn(seconds * size, size)
    assert line(5) == pytest.approx(15, rel=0.01) and mean() == pytest.approx(3, rel=0.01)


def test_a_mean_of_quotients_weighs_them_by_their_size() -> None:
    mean = Mean()
    assert mean() == 0
    mean.learn(1, 1)
    mean.learn(1, 99)
    assert mean() == pytest.approx(0.02, rel=0.02)

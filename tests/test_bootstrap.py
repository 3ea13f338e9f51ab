"""Laws of the intervals: they hold what is true as often as they say, and noise is none."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t

from loadtest import bootstrap
from loadtest.bootstrap import (
    Difference,
    Drawn,
    Interval,
    Plan,
    drawn,
    in_proportion,
    interval,
    noise,
    percentiles,
    quotient,
    ratio,
)
from tests.queues import Floats, latencies

SHARES = (0.5, 0.99)
SECONDS, RATE, SERVICE_S = 5, 100.0, 0.004


def world(
    seed: int, rounds: int, drift: float, wobble: float, factors: tuple[float, ...]
) -> list[list[Floats]]:
    """
    Latencies by slices of a second of servers that take so many times as long, over the same
    arrivals. Each is slower or faster in every round by `drift`, and from second to second by a
    `wobble` that lasts. The first second of a round, which begins idle, is left out.
    """
    whole = 1 + SECONDS
    rng = np.random.default_rng(seed)
    found: list[list[Floats]] = [[] for _ in factors]
    for _ in range(rounds):
        due = np.sort(rng.uniform(0, whole, rng.poisson(RATE * whole)))
        texts = rng.lognormal(0, 0.5, len(due))
        for slices, factor in zip(found, factors, strict=True):
            slow = np.zeros(whole)
            for i in range(1, whole):
                slow[i] = 0.6 * slow[i - 1] + rng.normal(0, wobble)
            turn = SERVICE_S * factor * math.exp(rng.normal(0, drift))
            service = turn * np.exp(slow[due.astype(int)]) * texts * rng.lognormal(0, 0.3, len(due))
            times = latencies(due, service)
            slices += [times[due.astype(int) == second] for second in range(1, whole)]
    return found


def draws(times: list[Floats], rounds: int, seed: int = 1) -> list[Drawn]:
    plan = Plan(rounds=rounds, slices=SECONDS, resamples=150, seed=seed)
    return drawn(percentiles(times, SHARES), plan)


@pytest.mark.parametrize(
    ("worlds", "rounds", "drift", "wobble"), [(240, 8, 0.05, 0.1), (120, 5, 0.02, 0.03)]
)
def test_intervals_hold_what_is_true_about_19_times_in_20(
    worlds: int, rounds: int, drift: float, wobble: float
) -> None:
    # Within 5 points: the p99 of the wilder one, of 4,000 requests, is held in 93 % of 600 worlds,
    # all else in 94 to 96 %; and of 120 worlds those may be two points fewer by chance.
    factors, least = (1.0, 0.8, 1.0, 1.0), 0.9
    whole = [np.concatenate(each) for each in world(999, 600, drift, wobble, factors[:2])]
    true = np.quantile(whole[1], SHARES) / np.quantile(whole[0], SHARES)
    held, alike, undecided = np.zeros(2), np.zeros(2), np.zeros(2)
    for seed in range(worlds):
        a, b, again, c = (
            draws(each, rounds, seed) for each in world(seed, rounds, drift, wobble, factors)
        )
        for i in range(2):
            found = ratio(b[i], a[i])
            held[i] += found.low <= true[i] <= found.high
            same = Difference(ratio(c[i], a[i]), noise(a[i], again[i]))
            alike[i] += same.ratio.low <= 1 <= same.ratio.high
            undecided[i] += bool(same.undecided)
    assert (held / worlds >= least).all() and (alike / worlds >= least).all()
    # Too wide an interval proves nothing either.
    assert (held / worlds).mean() <= 0.995
    # With the noise beside it, what is the same is called so more often still.
    assert (undecided / worlds >= 0.95).all()


def test_a_difference_of_a_fifth_is_seen_on_a_machine_that_drifts_by_a_fiftieth() -> None:
    seen = 0
    for seed in range(20):
        a, b, again = (draws(each, 8, seed) for each in world(seed, 8, 0.02, 0.02, (1, 0.8, 1)))
        seen += not Difference(ratio(b[0], a[0]), noise(a[0], again[0])).undecided
    assert seen >= 19


def test_what_hits_all_alike_cancels_out() -> None:
    rng = np.random.default_rng(1)
    hard = rng.lognormal(0, 1, 12)  # rounds that are harder for everybody
    plan = Plan(rounds=12)
    [slow] = drawn(quotient(hard, [1.0] * 12), plan)
    [fast] = drawn(quotient(hard / 2, [1.0] * 12), plan)
    found = ratio(fast, slow)
    assert found == Interval(pytest.approx(0.5), pytest.approx(0.5), pytest.approx(0.5))
    assert interval(slow).high / interval(slow).low > 1.5


@given(st.lists(st.lists(st.floats(0.001, 10), min_size=1, max_size=9), min_size=1, max_size=9))
def test_percentiles_are_those_of_all_values(slices: list[list[float]]) -> None:
    found = percentiles([np.array(each) for each in slices], (0, 0.25, 0.5, 0.99, 1))
    joined = [value for each in slices for value in each]
    expected = np.quantile(joined, (0, 0.25, 0.5, 0.99, 1), method="inverted_cdf")
    assert found(np.ones((1, len(slices))))[0].tolist() == expected.tolist()


def test_a_slice_that_is_drawn_twice_counts_twice() -> None:
    found = percentiles([np.array([1.0]), np.array([2.0]), np.array([3.0])], (0.5,))
    assert found(np.array([[2.0, 0, 1], [0, 1, 2], [0, 3, 0]]))[:, 0].tolist() == [1, 3, 2]


def test_a_percentile_that_never_came_has_no_interval() -> None:
    times = [np.array([1.0, math.inf])] * 4
    [found] = drawn(percentiles(times, (0.99,)), Plan(rounds=4))
    assert interval(found) == Interval(math.inf, 0.0, math.inf)
    [other] = drawn(percentiles([np.ones(2)] * 4, (0.99,)), Plan(rounds=4))
    for mine, theirs in ((found, found), (found, other), (other, found)):
        assert "too many failed" in Difference(ratio(mine, theirs), 1.1).undecided


def test_of_one_round_nothing_is_known() -> None:
    [one] = drawn(quotient([3.0], [2.0]), Plan(rounds=1))
    assert interval(one) == Interval(pytest.approx(1.5), 0.0, math.inf)
    assert Difference(ratio(one, one), 1.1).undecided.startswith("the interval has no end")


def test_the_same_seed_draws_the_same() -> None:
    times = world(1, 4, 0.1, 0.1, (1.0,))[0]
    assert interval(draws(times, 4)[1]) == interval(draws(times, 4)[1])
    assert interval(draws(times, 4, seed=2)[1]) != interval(draws(times, 4)[1])


@pytest.mark.parametrize("rounds", [2, 3, 8, 31, 60])
def test_few_rounds_widen_an_interval_as_students_t_does(rounds: int) -> None:
    right = float(t.ppf(0.975, rounds - 1)) * math.sqrt(rounds / (rounds - 1))
    assert right <= bootstrap._student(rounds) * 1.001 <= right * 1.02


def test_a_difference_says_why_it_is_none() -> None:
    assert Difference(Interval(1.5, 1.4, 1.6), 1.05).undecided == ""
    assert "holds 1" in Difference(Interval(1.02, 0.99, 1.05), 1.01).undecided
    assert "noise" in Difference(Interval(0.97, 0.95, 0.99), 1.04).undecided
    assert "noise" in Difference(Interval(1.5, 1.4, 1.6), math.inf).undecided


def test_noise_is_in_proportion_to_how_much_a_figure_varies() -> None:
    rng = np.random.default_rng(1)
    wild, calm = (Drawn(0.0, rng.normal(0, sd, 500), np.zeros(500), 8) for sd in (0.1, 0.02))
    assert math.log(in_proportion(1.5, wild, calm)) == pytest.approx(math.log(1.5) / 5, rel=0.2)
    assert in_proportion(1.5, wild, wild) == pytest.approx(1.5)
    assert in_proportion(math.inf, wild, calm) == math.inf
    assert in_proportion(1e300, calm, wild) == math.inf

"""Laws of validity and of the search, on a simulated queue whose answer is known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from loadtest.record import Request, Run
from loadtest.search import Found, largest
from loadtest.validity import Generator, generator, in_the_way, invalid, unhindered
from tests.queues import kept, request, run

SERVICE_S = 0.01
LIMIT_S = 0.05


def _p99(rate: float, seconds: float, seed: int) -> float:
    """Of a queue with Poisson arrivals and one server who takes ever the same (M/D/1)."""
    gaps = np.random.default_rng(seed).exponential(1 / rate, max(2, int(rate * seconds)))
    waits, wait = np.empty(len(gaps)), 0.0
    for i, gap in enumerate(gaps):
        wait = max(0.0, wait + SERVICE_S - gap) if i else 0.0
        waits[i] = wait
    return float(np.quantile(waits + SERVICE_S, 0.99))


def _search(seed: int, *, start: float = 10.0) -> Found[float]:
    runs = iter(range(10**6))

    def measure(rate: float, longer: bool) -> tuple[bool, float]:
        found = _p99(rate, 120 if longer else 30, seed * 1000 + next(runs))
        return found <= LIMIT_S, found

    return largest(measure, start=start)


@pytest.fixture(scope="module")
def right() -> float:
    rates = np.arange(50, 100, 1.0)
    return float(max(rate for rate in rates if _p99(rate, 3000, 1) <= LIMIT_S))


@pytest.mark.parametrize("start", [0.5, 10, 5000])
def test_the_search_finds_the_limit_of_a_queue(start: float, right: float) -> None:
    found = _search(1, start=start)
    assert found.bounded and found.rate == pytest.approx(right, rel=0.12)


def test_the_answer_is_much_the_same_for_other_noise(right: float) -> None:
    rates = [_search(seed).rate for seed in range(20)]
    assert all(rates) and np.median([rate or 0 for rate in rates]) == pytest.approx(right, rel=0.08)
    assert max(rates) / min(rates) < 1.35  # type: ignore[operator,type-var]


def test_the_answer_was_confirmed_for_longer_and_every_step_is_kept() -> None:
    found = _search(3)
    last = found.steps[-1]
    assert last.confirming and last.kept and last.rate == found.rate and last.figures <= LIMIT_S
    assert {step.kept for step in found.steps} == {True, False}
    nearest = min(step.rate for step in found.steps if step.rate > (found.rate or 0))
    assert nearest <= (found.rate or 0) * 1.05 * 1.0001


def test_a_hiccup_does_not_halve_the_answer() -> None:
    asked: list[float] = []

    def measure(rate: float, longer: bool) -> tuple[bool, None]:
        asked.append(rate)
        return rate <= 100 and len(asked) % 4 != 1, None

    found = largest(measure, start=10)
    assert found.rate == pytest.approx(100, rel=0.11)


def test_what_is_not_confirmed_gives_way_to_a_lower_rate() -> None:
    found = largest(lambda rate, longer: (rate <= (90 if longer else 100), None), start=10)
    assert found.rate is not None and 90 / 1.05 <= found.rate <= 90


def test_a_limit_that_nothing_keeps_has_no_rate() -> None:
    found = largest(lambda rate, longer: (False, None), start=10, least=1)
    assert found.rate is None and min(step.rate for step in found.steps) == 1


def test_a_limit_that_everything_keeps_is_not_bounded() -> None:
    found = largest(lambda rate, longer: (True, None), start=10, most=75)
    assert found == replace(found, rate=75, bounded=False)


def test_a_rate_that_is_kept_for_long_is_found_however_much_lower_it_is() -> None:
    found = largest(lambda rate, longer: (rate <= (3 if longer else 100), None), start=10)
    assert found.rate is not None and 1.5 <= found.rate <= 3 and found.bounded


def test_what_is_never_confirmed_has_no_rate_and_ends() -> None:
    found = largest(lambda rate, longer: (rate <= 100 and not longer, None), start=10, least=1)
    assert found.rate is None and len(found.steps) < 40
    assert found.steps[-1].rate == 1 and found.steps[-1].confirming


GOOD = Generator(seconds=10, sent=1000, dropped=0, late_p99_s=0.002, p99_s=0.02, cores=0.2)


def test_a_generator_that_keeps_up_is_believed() -> None:
    assert invalid(GOOD) == []
    # A tenth of the p99 is no matter.
    assert invalid(replace(GOOD, late_p99_s=0.009, p99_s=0.1)) == []
    assert GOOD.offered == GOOD.achieved == 100


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"late_p99_s": 0.006}, "the p99 of lateness is 6.0 ms, above 5.0 ms"),
        ({"late_p99_s": 0.02, "p99_s": 0.1}, "the p99 of lateness is 20.0 ms, above 10.0 ms"),
        ({"dropped": 20}, "2.0% of the arrivals were dropped, above 1%"),
        ({"cores": 0.9}, "the generator took 0.90 of its one core, above 0.7"),
        ({"sent": 0}, "nothing was sent"),
    ],
)
def test_a_generator_in_the_way_is_not_believed(change: dict[str, float], said: str) -> None:
    [reason] = invalid(replace(GOOD, **change))  # type: ignore[arg-type]
    assert said in reason


def test_what_waited_for_the_server_or_was_dropped_meanwhile_is_not_the_generators() -> None:
    due = [request(i, i / 100, 0.01) for i in range(1000)]
    # Of five senders each is busy for a second: five a second are sent of a hundred.
    busy = kept(run("v", due, seconds=10, dropped=500), 5, 1.0)
    assert len(invalid(generator(busy))) == 2
    assert in_the_way(busy, 5) == [] and unhindered(busy, 5).dropped == 0
    assert 0 < len(unhindered(busy, 5).requests) <= 5
    # Nobody was kept: what was dropped was the generator's to send.
    free = run("v", due, seconds=10, dropped=500)
    [why] = in_the_way(free, 5)
    assert "of the arrivals were dropped" in why and unhindered(free, 5) == free


def test_a_run_says_how_its_generator_did() -> None:
    requests = tuple(
        Request(call=0, due_s=i / 10, sent_s=i / 10 + i / 1000, done_s=i / 10 + 0.5, status=200)
        for i in range(101)
    )
    run = Run(
        variant="v",
        task="ner",
        arrivals="constant:10",
        seconds=10.0,
        requests=requests,
        dropped=9,
        cores=0.3,
    )
    found = generator(run)
    assert found.late_p99_s == pytest.approx(0.099) and found.p99_s == pytest.approx(0.5)
    assert (found.offered, found.achieved) == (11, 10.1)
    empty = generator(replace(run, requests=(), dropped=0))
    assert empty.p99_s == 0 and math.isfinite(empty.offered)

"""Laws of arrivals: each process is the one that it says it is, and shares add up to the whole."""

from __future__ import annotations

import json
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from loadtest.arrivals import (
    BadArrivals,
    Bursts,
    Closed,
    Constant,
    Diurnal,
    Open,
    Poisson,
    Ramp,
    Replay,
    due,
    length_s,
    opening,
    parse,
    phases,
    plan,
    share,
)

RATES = {
    "poisson:40": 40,
    "constant:40": 40,
    "bursts:20/5s,200/1s": (20 * 5 + 200) / 6,
    "ramp:5-80": (5 + 80) / 2,
    "diurnal:5-80/30s": (5 + 80) / 2,
}
SPECS = list(RATES)


def _times(spec: str, *, seconds: float, seed: int = 1) -> np.ndarray:
    found = parse(spec)
    assert not isinstance(found, Closed)
    return np.array(list(due(found, seconds=seconds, seed=seed)))


def _dispersion(times: np.ndarray, seconds: int) -> float:
    """Variance of the counts of a second, over their mean: 1 of Poisson, 0 of constant arrivals."""
    counts = np.histogram(times, bins=seconds, range=(0, seconds))[0]
    return float(counts.var() / counts.mean())


@pytest.mark.parametrize(
    ("spec", "value"),
    [
        ("poisson:200", Poisson(200)),
        ("constant:0.5", Constant(0.5)),
        ("bursts:50/20s,400/2.5s", Bursts(50, 20, 400, 2.5)),
        ("ramp:200-10", Ramp(200, 10)),
        ("diurnal:20-200", Diurnal(20, 200, None)),
        ("diurnal:20-200/60s", Diurnal(20, 200, 60)),
        ("closed:16", Closed(16)),
    ],
)
def test_a_spec_names_a_process(spec: str, value: object) -> None:
    assert parse(spec) == value


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("", "arrivals '' are none of poisson, constant, bursts, ramp, diurnal, closed, replay"),
        ("poison:200", "none of poisson"),
        ("poisson", "not like poisson:200, of numbers above 0"),
        ("poisson:0", "of numbers above 0"),
        ("poisson:-5", "not like poisson:200"),
        ("poisson:1e400", "not like poisson:200"),
        ("poisson:" + "9" * 400, "of numbers above 0"),
        ("ramp:10", "not like ramp:10-200"),
        ("bursts:50/20,400/2", "not like bursts:50/20s,400/2s"),
        ("diurnal:200-20", "diurnal:20-200 is right"),
        ("closed:1.5", "no whole number of callers, as closed:16 is"),
        ("closed:0", "not like closed:16"),
        ("replay:/nowhere/trace.txt", "no text file that can be read"),
    ],
)
def test_a_wrong_spec_is_answered_in_one_line_with_what_is_right(spec: str, said: str) -> None:
    with pytest.raises(BadArrivals) as error:
        parse(spec)
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("spec", SPECS)
def test_arrivals_rise_within_the_run_and_are_the_same_for_a_seed(spec: str) -> None:
    times = _times(spec, seconds=30)
    assert (times == _times(spec, seconds=30)).all()
    assert times[0] >= 0 and times[-1] < 30 and (np.diff(times) >= 0).all()
    if not spec.startswith("constant"):
        assert list(times) != list(_times(spec, seconds=30, seed=2))


@pytest.mark.parametrize("spec", SPECS)
def test_the_rate_over_many_seeds_is_the_expected_one(spec: str) -> None:
    counts = [len(_times(spec, seconds=60, seed=seed)) for seed in range(200)]
    # Bursts begin calm: a run of a few turns has somewhat fewer than a long one.
    rel = 0.12 if "bursts" in spec else 0.02
    assert np.mean(counts) / 60 == pytest.approx(RATES[spec], rel=rel)


def test_gaps_of_a_poisson_process_are_exponential() -> None:
    gaps = np.diff(_times("poisson:50", seconds=400))
    assert stats.kstest(gaps, "expon", args=(0, 1 / 50)).pvalue > 0.01
    assert _dispersion(_times("poisson:50", seconds=400), 400) == pytest.approx(1, abs=0.2)


def test_gaps_of_constant_arrivals_are_all_alike() -> None:
    times = _times("constant:50", seconds=10)
    assert len(times) == 500 and times[0] == 0
    assert np.diff(times) == pytest.approx(0.02)


def test_constant_arrivals_at_a_rate_below_one_are_not_lost() -> None:
    assert list(_times("constant:0.5", seconds=3)) == [0, 2]


def test_bursts_are_dispersed_and_each_phase_has_its_own_rate() -> None:
    spec, seconds = Bursts(20, 5, 200, 1), 2000
    times = np.array(list(due(spec, seconds=seconds, seed=1)))
    assert _dispersion(times, seconds) > 5
    found = phases(spec, seconds=seconds, seed=1)
    assert found[0].start_s == 0 and found[-1].end_s == seconds
    assert all(a.end_s == b.start_s and a.burst != b.burst for a, b in pairwise(found))
    for burst, rate, stay in ((False, 20, 5), (True, 200, 1)):
        ours = [each for each in found[:-1] if each.burst is burst]
        lengths = np.array([each.end_s - each.start_s for each in ours])
        inside = sum(((times >= p.start_s) & (times < p.end_s)).sum() for p in ours)
        assert inside / lengths.sum() == pytest.approx(rate, rel=0.05)
        assert stats.kstest(lengths, "expon", args=(0, stay)).pvalue > 0.01


@pytest.mark.parametrize(("start", "end"), [(10, 200), (200, 10)])
def test_a_ramp_is_linear(start: float, end: float) -> None:
    seconds = 400.0
    times = np.array(list(due(Ramp(start, end), seconds=seconds, seed=1)))

    def share_until(t: np.ndarray) -> np.ndarray:
        return (start * t + (end - start) * t**2 / (2 * seconds)) / ((start + end) / 2 * seconds)

    assert stats.kstest(times, share_until).pvalue > 0.01


def test_a_day_has_its_counts_in_each_hour() -> None:
    times = _times("diurnal:100-900/24s", seconds=24 * 20)
    hours = np.bincount((times % 24).astype(int), minlength=24) / 20
    ends = np.arange(25.0)
    whole = 100 * ends + 400 * (ends - np.sin(2 * np.pi * ends / 24) * 24 / (2 * np.pi))
    expected = np.diff(whole)
    assert stats.chisquare(hours * 20, expected * 20 * (hours.sum() / expected.sum())).pvalue > 0.01
    assert hours.argmin() in (0, 23) and hours.argmax() in (11, 12)


def test_a_day_without_a_length_is_the_whole_run() -> None:
    assert list(_times("diurnal:5-50", seconds=20)) == list(_times("diurnal:5-50/20s", seconds=20))


@pytest.mark.parametrize("text", ["0\n1.5\n\n2\n9\n", '{"due_s": 0}\n1.5\n{"due_s": 2, "x": 1}\n9'])
def test_a_trace_is_replayed_as_it_was(tmp_path: Path, text: str) -> None:
    (tmp_path / "trace").write_text(text)
    found = parse(f"replay:{tmp_path / 'trace'}")
    assert isinstance(found, Replay)
    assert list(due(found, seconds=9, seed=5)) == [0, 1.5, 2]


@pytest.mark.parametrize(("lines", "seconds"), [("0.5\n2.25\n", 2.251), ("0\n0\n", 1.0)])
def test_a_trace_says_how_long_it_takes_and_all_its_lines_are_due(
    tmp_path: Path, lines: str, seconds: float
) -> None:
    (tmp_path / "trace").write_text(lines)
    found = parse(f"replay:{tmp_path / 'trace'}")
    assert isinstance(found, Replay)
    assert length_s(found) == seconds
    assert len(list(due(found, seconds=seconds, seed=1))) == 2
    assert length_s(Poisson(2)) is length_s(Closed(2)) is None


def test_a_trace_may_say_which_call(tmp_path: Path) -> None:
    lines = [{"due_s": 0, "call": 2}, {"due_s": 1}, {"due_s": 2, "call": 0}]
    (tmp_path / "trace").write_text("\n".join(map(json.dumps, lines)))
    found = parse(f"replay:{tmp_path / 'trace'}")
    assert isinstance(found, Replay)
    assert list(plan(found, seconds=9, seed=1, calls=3)) == [(0, 2), (1, 1), (2, 0)]
    with pytest.raises(BadArrivals, match=r"asks for call 2: there are 2"):
        plan(found, seconds=9, seed=1, calls=2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no line with a due second"),
        ("1\nKano", ":2 is neither a second"),
        ('{"call": 1}', ":1 is neither a second"),
        ("-1", ":1 is neither"),
        ("NaN", ":1 is neither"),
        ("true", ":1 is neither"),
        ('{"due_s": 1, "call": -1}', ":1 is neither"),
        ("2\n1", "not in the order of its seconds"),
    ],
)
def test_a_wrong_trace_is_answered_without_its_text(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "trace").write_text(text)
    with pytest.raises(BadArrivals) as error:
        parse(f"replay:{tmp_path / 'trace'}")
    assert said in str(error.value) and "Kano" not in str(error.value)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_shares_of_workers_are_the_whole_schedule(spec: str, workers: int) -> None:
    found = parse(spec)
    assert not isinstance(found, Closed)

    def whole() -> list[tuple[float, int]]:
        return list(plan(found, seconds=10, seed=3, calls=7))

    shares = [list(share(whole(), i, workers)) for i in range(workers)]
    assert sorted(chain(*shares)) == whole()
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_calls_come_one_after_another_and_from_the_first_again() -> None:
    assert [call for _, call in plan(Constant(1), seconds=5, seed=1, calls=3)] == [0, 1, 2, 0, 1]


@pytest.mark.parametrize(
    ("process", "rate"),
    [(Poisson(7), 7), (Bursts(3, 1, 9, 1), 3), (Ramp(4, 9), 4), (Diurnal(2, 5, None), 2)],
)
def test_a_warm_up_is_at_the_rate_of_the_start(process: Open, rate: float) -> None:
    assert opening(process) == rate

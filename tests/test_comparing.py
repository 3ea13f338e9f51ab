"""Laws of a comparison, over queues that are only reckoned: turns, rates, figures and findings."""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import loadtest
from loadtest import checker, command, figures, traffic
from loadtest.checker import Checked
from loadtest.compare import Comparison, Settings, compare, turns
from loadtest.complaint import Complaint
from loadtest.figures import DROPPED
from loadtest.findings import Findings, Search, findings
from loadtest.promises import Promises, parse
from loadtest.record import Call, Request, Run, Unusable
from loadtest.report.verdict import verdict
from loadtest.validity import generator, late, stalled
from loadtest.watch import Fact, Look, Quality
from tests.queues import CALLS, Queues, kept, request, run

SETTINGS = Settings(rounds=6, peak_s=1.0, open_s=4.0, warmup_s=0.5, follow_s=0.0)
SERVICE_S = {"base": 0.010, "alike": 0.010, "fast": 0.004}


def compared(service_s: dict[str, float] = SERVICE_S, **changes: object) -> Comparison:
    settings = replace(SETTINGS, **changes)  # type: ignore[arg-type]
    return compare("ner", list(service_s), CALLS, Queues(service_s, drift=0.01), settings=settings)


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return compared()


@pytest.fixture(scope="module")
def found(comparison: Comparison) -> Findings:
    return findings(comparison, limit_s=0.05, resamples=200)


# --- turns -----------------------------------------------------------------------------------


def test_every_other_round_runs_backwards_and_the_first_variant_has_two_turns() -> None:
    said = "".join(name + ("'" if again else "") for _, (name, again) in turns("ab", 2))
    assert said == "aba'a'ba"


@given(st.integers(1, 6), st.integers(1, 5))
def test_all_are_as_early_as_all_others(variants: int, pairs: int) -> None:
    places = defaultdict(list)
    for place, (_, turn) in enumerate(turns([str(n) for n in range(variants)], 2 * pairs)):
        places[turn].append(place)
    assert len({sum(each) for each in places.values()}) == 1
    assert len(places) == variants + 1


def test_odd_rounds_are_doubted_for_they_do_not_treat_all_alike() -> None:
    quick = {"rate": 5.0, "open_s": 0.5}
    odd = findings(compared(rounds=5, **quick), resamples=50).doubts
    assert any(str(each).startswith("5 rounds are odd") for each in odd)
    even = findings(compared(rounds=6, **quick), resamples=50).doubts
    assert not any("odd" in str(each) for each in even)


def test_a_p99_of_few_requests_is_doubted_with_how_many_it_rests_on(found: Findings) -> None:
    assert not any(row.short for row in found.rows) and not found.doubts
    few = findings(compared(rounds=4, rate=50.0, open_s=1.5), resamples=50)
    [said] = few.doubts
    assert all(row.short for row in few.rows)
    assert re.match(r"Short: the p99 rests on the [23] slowest of [23]\d\d requests;", str(said))


def test_in_a_round_all_meet_the_same_arrivals_which_begin_with_the_warm_up() -> None:
    engine = Queues(SERVICE_S)
    compare("ner", list(SERVICE_S), CALLS, engine, settings=SETTINGS)
    seeds = defaultdict(set)
    for name, arrivals, seconds, seed in engine.asked:
        if arrivals.startswith("poisson"):
            seeds[seed].add((name, arrivals, seconds))
    assert len(seeds) == SETTINGS.rounds
    assert all(len(each) == len(SERVICE_S) for each in seeds.values())
    lasting = {seconds for each in seeds.values() for *_, seconds in each}
    assert lasting == {SETTINGS.warmup_s + SETTINGS.open_s}


def test_a_slow_one_is_favoured_by_an_idle_start_and_less_by_one_that_is_not_measured() -> None:
    settings = Settings(rounds=600, rate=17.1, follow_s=0.0)
    engine = Queues({"slow": 1 / 24.4})
    blocks = compare("ner", ["slow"], CALLS, engine, settings=settings).of("slow", "open")
    # The same runs, but from their beginning on.
    idle = [
        replace(
            each.run,
            requests=tuple(r for r in each.run.requests if r.due_s < settings.open_s),
        )
        for each in blocks
    ]
    lasting = [engine("slow", "poisson:17.1", 30_000.0, 5)]
    told = [each.measured for each in blocks]
    half, most = (
        [figures.percentile_s(runs, share) for runs in (idle, told, lasting)]
        for share in (0.5, 0.99)
    )
    assert half[0] < 0.98 * half[2] and half[1] == pytest.approx(half[2], rel=0.02)
    assert 1.02 * most[0] < most[1] < 1.02 * most[2]


def test_what_was_due_in_the_lead_is_not_measured_and_the_clock_begins_after_it(
    comparison: Comparison,
) -> None:
    [block, *_] = comparison.of("base", "open")
    lead, after = SETTINGS.warmup_s, block.measured
    late = [each for each in block.run.requests if each.due_s >= lead]
    assert 0 < len(late) < len(block.run.requests)
    assert after.seconds == SETTINGS.open_s == block.run.seconds - lead
    assert [each.due_s + lead for each in after.requests] == pytest.approx(
        [each.due_s for each in late]
    )
    assert [each.latency_s for each in after.requests] == pytest.approx(
        [each.latency_s for each in late]
    )
    assert all(0 <= each.due_s < SETTINGS.open_s for each in after.requests)


def test_the_common_rate_is_what_the_slowest_can_serve(comparison: Comparison) -> None:
    assert comparison.rate == pytest.approx(0.7 * 100, rel=0.1)
    assert compared(rate=20.0, rounds=1).rate == 20.0


def test_a_peak_is_one_figure_wherever_it_stands() -> None:
    class Tiring(Queues):
        """The machine slows down, and every second turn of a round shows it."""

        def __call__(self, variant: str, arrivals: str, seconds: float, seed: int) -> Run:
            asked = sum(kind.startswith("closed") for _, kind, _, _ in self.asked)
            self.service_s = {"base": 0.020 if asked in {1, 2} else 0.010}
            return super().__call__(variant, arrivals, seconds, seed)

    settings = replace(SETTINGS, rounds=2, warmup_s=0.0, follow_s=2.0)
    engine = Tiring({"base": 0.010})
    found = compare("ner", ["base"], CALLS, engine, settings=settings, watch=_Watch())
    row = findings(found, resamples=50).row("base")
    assert row.rate.mean == pytest.approx(100, rel=0.1)
    assert found.climbs["base"].peak == pytest.approx(row.rate.mean)
    assert found.rate == pytest.approx(0.7 * row.rate.mean)


class Batches(Queues):
    """Two workers, each of whom takes three of those who wait at once."""

    def __call__(self, variant: str, arrivals: str, seconds: float, seed: int) -> Run:
        if not arrivals.startswith("closed"):
            return super().__call__(variant, arrivals, seconds, seed)
        took = self._rng.lognormal(-0.101, 0.45, (2, int(seconds / self.service_s[variant]) + 9))
        ends = np.cumsum(took * self.service_s[variant] * 3 * 2, axis=1)
        begins = np.hstack([np.zeros((2, 1)), ends[:, :-1]])
        found = [
            request(3 * i, begin, end - begin)
            for i, (begin, end) in enumerate(zip(begins.flat, ends.flat, strict=True))
            if begin < seconds
            for _ in range(3)
        ]
        return run(variant, found, arrivals=arrivals, seconds=seconds)


def test_a_slow_one_is_not_wronged_by_what_is_under_way_at_the_end() -> None:
    settings = replace(SETTINGS, rounds=500, peak_s=2.0, open_s=0.1, warmup_s=1.0, rate=5.0)
    engine = Batches({"base": 1 / 24})
    found = compare("ner", ["base"], CALLS, engine, settings=settings)
    assert findings(found, resamples=50).row("base").rate.mean == pytest.approx(24, rel=0.015)
    whole = [figures.rate([block.run]) for block in found.of("base", "peak")]
    assert np.mean(whole) < 0.98 * 24


def test_the_warm_up_at_the_peak_is_a_part_of_the_run_that_is_not_counted() -> None:
    engine = Queues(SERVICE_S)
    found = compare("ner", list(SERVICE_S), CALLS, engine, settings=SETTINGS)
    asked = {seconds for _, arrivals, seconds, _ in engine.asked if arrivals.startswith("closed")}
    assert asked == {SETTINGS.warmup_s + SETTINGS.peak_s}
    [block, *_] = found.of("base", "peak")
    late = [each for each in block.run.right if SETTINGS.warmup_s <= each.done_s <= 1.5]
    assert block.answered() == [len(late)] and block.seconds == SETTINGS.peak_s
    assert sum(block.answered(4)) == len(late) and len(block.answered(4)) == 4


def test_a_variant_that_answers_nothing_ends_it() -> None:
    def silent(variant: str, arrivals: str, seconds: float, seed: int) -> Run:
        return run(variant, [request(0, 0.0, 0.1, "HTTP 503")], seconds=seconds)

    with pytest.raises(Unusable, match="base gave no right answer: HTTP 503"):
        compare("ner", ["base"], CALLS, silent, settings=SETTINGS)


def test_a_turn_whose_requests_went_out_late_is_taken_again() -> None:
    class Stalling(Queues):
        """The generator, now and then, stands still."""

        def __call__(self, variant: str, arrivals: str, seconds: float, seed: int) -> Run:
            stalled = len(self.asked) % 20 == 7
            found = super().__call__(variant, arrivals, seconds, seed)
            behind = (replace(each, sent_s=each.due_s + 0.2) for each in found.requests)
            return replace(found, requests=tuple(behind)) if stalled else found

    engine = Stalling(SERVICE_S)
    settings = replace(SETTINGS, warmup_s=0.0)
    found = compare("ner", list(SERVICE_S), CALLS, engine, settings=settings)
    repeated = [block for block in found.blocks if block.before]
    assert repeated and len(engine.asked) == len(found.blocks) + len(repeated)
    assert not any(late(generator(block.run)) for block in found.blocks)
    said = findings(found, resamples=200)
    assert not said.void
    again = f"{len(repeated)} of {len(found.blocks)} turns were taken again"
    assert any(str(each).startswith(again) for each in said.doubts)


def test_what_waited_for_a_server_that_stalled_is_no_lateness_of_the_generator() -> None:
    waited = [replace(request(i, i / 100, 3.0), sent_s=i / 100 + 1.0) for i in range(4, 100)]
    slow = run("a", [*(request(i, i / 100, 3.0) for i in range(4)), *waited])
    assert late(generator(slow)) and stalled(slow, senders=256)
    assert not stalled(slow, senders=4)


class _Watch:
    """Looks, each with a count that grows."""

    def __init__(self) -> None:
        self.looks = 0

    def look(self) -> Look:
        self.looks += 1
        return Look(
            at_s=float(self.looks),
            metrics=f'kadogo_texts_total{{variant="base"}} {self.looks}\n',
            cpu_s=self.looks / 10,
            memory=1000 + self.looks,
        )

    @contextmanager
    def following(self, every_s: float) -> Iterator[list[Look]]:
        yield []


def test_the_server_is_looked_at_around_what_is_measured_alone() -> None:
    watch, engine = _Watch(), Queues(SERVICE_S)
    found = compare(
        "ner", ["base"], CALLS, engine, settings=replace(SETTINGS, follow_s=2.0), watch=watch
    )
    assert watch.looks == 2 * len(found.blocks) == 4 * 2 * SETTINGS.rounds
    for block in found.blocks:
        assert block.window and block.window.cpu_s == pytest.approx(0.1)
        assert block.window.total("kadogo_texts_total") == 1
    assert found.climbs["base"].run.arrivals.startswith("ramp:")


# --- figures of runs ---------------------------------------------------------------------------


def test_what_failed_or_was_dropped_took_for_ever() -> None:
    requests = [request(i, 0.0, 0.1) for i in range(97)] + [request(98, 0.0, 0.01, "HTTP 503")]
    one = run("a", requests, dropped=2)
    assert figures.percentile_s([one], 0.97) == pytest.approx(0.1)
    assert figures.percentile_s([one], 0.98) == math.inf
    assert figures.failures([one]) == {DROPPED: 2, "HTTP 503": 1}
    assert figures.arrivals([one]) == 100 and figures.percentile_s([], 0.5) == 0


def test_answers_after_the_end_are_none_of_a_closed_loops_rate() -> None:
    requests = [request(i, i / 10, 0.25) for i in range(10)]
    assert figures.rate([run("a", requests, seconds=1.0)]) == 8
    assert figures.goodput([run("a", requests, seconds=1.0)], 0.2) == 0
    assert figures.goodput([run("a", requests, seconds=1.0)], 0.3) == 10


@given(st.lists(st.floats(1e-5, 100), min_size=1, max_size=200))
def test_histograms_are_right_to_three_digits_and_add_up(seconds: list[float]) -> None:
    whole = figures.encoded(seconds)
    halves = figures.added([figures.encoded(seconds[::2]), figures.encoded(seconds[1::2])])
    shares = (0.0, 0.5, 0.99, 1.0)
    exact = np.quantile(seconds, shares, method="inverted_cdf")
    assert figures.percentiles_s(whole, shares) == pytest.approx(list(exact), rel=2e-3, abs=1e-6)
    assert figures.percentiles_s(halves, shares) == figures.percentiles_s(whole, shares)
    assert figures.percentiles_s(figures.encoded([]), shares) == [0.0] * 4


# --- findings -----------------------------------------------------------------------------------


def test_figures_are_those_of_the_queues(found: Findings) -> None:
    base, _, fast = found.rows
    assert base.rate.low <= 100 * math.exp(0) <= base.rate.high * 1.02
    assert fast.rate.mean == pytest.approx(250, rel=0.05)
    assert base.p99.mean > fast.p99.mean and base.failed == 0 and not base.least
    assert fast.goodput == pytest.approx(found.rate, rel=0.15)


def test_rounds_that_are_alike_by_chance_do_not_make_a_rate_sure() -> None:
    """128 answers in both of two rounds, but not as many in each second."""

    def uneven(variant: str, arrivals: str, seconds: float, seed: int) -> Run:
        if not arrivals.startswith("closed"):
            return Queues({"base": 0.001})(variant, arrivals, seconds, seed)
        counts = (60, 68) if seed % 2 else (66, 62)
        done = [np.linspace(second, second + 0.99, n) for second, n in enumerate(counts)]
        return run(variant, [request(0, d, 0.0) for each in done for d in each], seconds=seconds)

    settings = replace(SETTINGS, rounds=2, peak_s=2.0, warmup_s=0.0)
    told = findings(compare("ner", ["base"], CALLS, uneven, settings=settings))
    assert told.row("base").rounds["rate"] == [64.0, 64.0]
    rate = told.row("base").rate
    assert 50 < rate.low < 63.5 and 64.5 < rate.high < 80


def test_what_is_faster_is_told_from_what_is_the_same(found: Findings) -> None:
    for name in ("rate", "p50", "p99"):
        assert not found.differences["fast", "base", name].undecided, name
        assert found.differences["alike", "base", name].undecided, name
        one = found.differences["fast", "base", name]
        other = found.differences["base", "fast", name]
        assert one.ratio.mean == pytest.approx(1 / other.ratio.mean)
    assert found.differences["fast", "base", "rate"].ratio.mean == pytest.approx(2.5, rel=0.05)
    assert 1 < found.noise["rate"] < 1.1
    assert ("fast", "base", "cpu") not in found.differences


def test_what_failed_at_the_peak_is_told() -> None:
    def refuses(variant: str, arrivals: str, seconds: float, seed: int) -> Run:
        found = Queues({"a": 0.01, "b": 0.003})(variant, arrivals, seconds, seed)
        if variant == "a" or not arrivals.startswith("closed"):
            return found
        odd = [
            replace(each, status=503, error="HTTP 503") if i % 2 else each
            for i, each in enumerate(found.requests)
        ]
        return replace(found, requests=tuple(odd))

    told = findings(compare("ner", ["a", "b"], CALLS, refuses, settings=SETTINGS), resamples=50)
    row = told.row("b")
    assert row.peak_failed == pytest.approx(0.5, abs=0.01) and row.failed == 0
    assert row.peak_failures.keys() == {"HTTP 503"} and told.row("a").peak_failed == 0
    [doubt] = [str(each) for each in told.doubts if "failed" in str(each)]
    assert re.fullmatch(
        r"b: (50\.0|49\.9)% of its requests failed at its peak, mostly HTTP 503", doubt
    )


def test_answers_that_were_compared_with_nothing_are_doubted(comparison: Comparison) -> None:
    known = Checked(compared=100, unknown=0, wrong=(), sight=1.0)
    told = findings(
        comparison, checked={"base": known, "fast": replace(known, unknown=7)}, resamples=50
    )
    [doubt] = [str(each) for each in told.doubts if "alone" in str(each)]
    assert told.proves
    none = findings(
        comparison, checked={"fast": replace(known, compared=0, unknown=7)}, resamples=50
    )
    [why] = none.void
    assert verdict(none).headline.startswith("Nothing is proved: of a variant no swapped answer")
    assert why.variant == "fast" and "none of its answers could be compared" in why.why
    assert doubt.startswith("fast: 7 of its 107 answers were compared with nothing")


def test_promises_are_judged_on_the_figures(comparison: Comparison) -> None:
    promised = parse("[defaults]\nmin_rate = 200\n[variants.fast]\np99_ms = 1\nmin_f1 = 0.5")
    said = findings(comparison, promises=promised, resamples=50).broken
    assert [each.variant for each in said] == ["base", "alike", "fast", "fast"]
    assert "fewer than the 200 promised" in said[0].why and "nobody knows its F1" in said[3].why


def test_quality_is_of_the_evidence_or_of_the_very_answers(comparison: Comparison) -> None:
    facts = {"base": Fact(name="base", task="ner", quality=Quality(0.7, 0.69, 0.71, 0.0), bytes=9)}
    told = findings(comparison, facts=facts, resamples=50)
    assert not told.labelled and told.row("base").quality == Quality(0.7, 0.69, 0.71, 0.0)
    assert told.row("base").bytes == 9 and told.row("fast").quality is None
    facts["fast"] = Fact(name="fast", task="ner", labels=("O", "B-PER", "I-PER"))
    labelled = findings(answered(comparison, ("hau", "yor")), facts=facts, resamples=50)
    assert labelled.doubts == (Complaint("fast", "it cannot find LOC"),) and not told.doubts
    assert labelled.labelled
    assert [row.quality and row.quality.mean for row in labelled.rows] == [1.0, 1.0, 0.0]
    assert [row.quality and row.quality.drop for row in labelled.rows] == [0.0, 0.0, 1.0]
    assert {row.quality and row.quality.n for row in labelled.rows} == {64}


def test_a_variant_that_answers_no_text_has_no_quality_and_takes_it_from_none(
    comparison: Comparison,
) -> None:
    def dead(names: set[str]) -> Findings:
        scored = answered(comparison, ("hau", "yor"))
        blocks = [
            replace(block, run=replace(block.run, requests=tuple(map(refused, block.run.requests))))
            if block.variant in names and block.kind == "open"
            else block
            for block in scored.blocks
        ]
        facts = {
            name: Fact(name=name, task="ner", quality=Quality(0.7, 0.69, 0.71, 0.0))
            for name in comparison.variants
        }
        promised = parse("[defaults]\nmin_f1 = 0.5")
        found = replace(scored, blocks=tuple(blocks))
        return findings(found, facts=facts, promises=promised, resamples=50)

    def refused(each: Request) -> Request:
        return replace(each, status=503, error="HTTP 503", answer=None)

    told = dead({"alike"})
    assert told.labelled
    assert [row.quality and row.quality.mean for row in told.rows] == [1.0, None, 0.0]
    wrong = [str(each) for each in told.broken if "F1" in str(each)]
    assert [each.partition(":")[0] for each in wrong] == ["alike", "fast"]
    assert "nobody knows its F1" in wrong[0]
    none = dead(set(comparison.variants))
    assert none.labelled and not any(row.quality for row in none.rows)


def test_labelled_texts_that_are_too_few_prove_no_quality(comparison: Comparison) -> None:
    told = findings(answered(comparison, ("hau", "yor", "swa")), resamples=50)
    assert [row.quality and row.quality.mean for row in told.rows] == [1.0, 1.0, 0.0]
    assert {row.quality and row.quality.drop for row in told.rows} == {None}
    assert told.doubts == (
        "F1 has no interval, so no limit on it is surely kept: fewer than 30 texts in hau, swa, "
        "yor: send more calls",
    )
    said = verdict(told)
    assert said.headline == "Nobody can say which keeps a limit on F1: too few texts are labelled."
    assert not said.picks


def answered(comparison: Comparison, languages: tuple[str, ...]) -> Comparison:
    """On labelled texts in these languages: right by all but the fast one, who finds nothing."""
    gold = frozenset({(0, 4, "LOC")})
    calls = [
        Call(task="ner", texts=each.texts, languages=(languages[i % len(languages)],), gold=(gold,))
        for i, each in enumerate(CALLS)
    ]
    blocks = []
    for block in comparison.blocks:
        said = frozenset() if block.variant == "fast" else gold
        requests = tuple(replace(each, answer=(said,)) for each in block.run.requests)
        blocks.append(replace(block, run=replace(block.run, requests=requests)))
    return replace(comparison, calls=calls, blocks=tuple(blocks))


def test_a_variant_too_slow_for_the_rate_breaks_its_promise_and_spoils_nothing() -> None:
    class Slow(Queues):
        """It answers within three seconds, whatever the rate: all senders are busy."""

        def __call__(self, variant: str, arrivals: str, seconds: float, seed: int) -> Run:
            found = super().__call__(variant, arrivals, seconds, seed)
            slow = variant == "slow" and arrivals.startswith("poisson")
            return kept(found, SETTINGS.senders, 3.0) if slow else found

    settings = replace(SETTINGS, rate=150.0)
    engine = Slow({"fast": 0.004, "slow": 0.004})
    found = compare("ner", ["fast", "slow"], CALLS, engine, settings=settings)
    told = findings(found, promises=parse("[defaults]\np99_ms = 250"), limit_s=0.25, resamples=50)
    assert late(told.row("slow").load) and not told.void
    assert [each.variant for each in told.broken] == ["slow"]
    assert verdict(told).headline.startswith("Deploy `fast`")


def test_a_load_that_was_in_the_way_proves_nothing(comparison: Comparison) -> None:
    assert not findings(comparison, resamples=50).void
    late = tuple(
        replace(
            block,
            run=replace(
                block.run,
                requests=tuple(
                    replace(each, sent_s=each.due_s + 0.1, done_s=each.done_s + 0.1)
                    for each in block.run.requests
                ),
            ),
        )
        if block.kind == "open" and block.variant == "fast"
        else block
        for block in comparison.blocks
    )
    told = findings(replace(comparison, blocks=late), resamples=50)
    assert told.row("fast").load.late_p99_s == pytest.approx(0.1)
    assert told.row("base").load.offered == pytest.approx(comparison.rate, rel=0.2)
    [reason] = told.void
    assert reason.variant == "fast" and reason.why.startswith("requests went out late")
    assert told.spoilt == told.void


def test_a_search_that_proves_nothing_is_doubted(comparison: Comparison) -> None:
    searches = {"fast": Search(rate=9.0, invalid=["nothing was sent"]), "base": Search(rate=1.0)}
    told = findings(comparison, searches=searches, resamples=50)
    [doubt] = told.doubts
    assert str(doubt) == "fast: its largest rate is not known: nothing was sent"
    assert not told.void


@pytest.mark.parametrize("where", ["closed", "poisson:", "ramp", "search", "never"])
def test_a_swapped_answer_is_found_wherever_it_was_given(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    queues, asked = Queues({"base": 0.01}), CALLS
    said = {call.texts[0]: frozenset({(0, i, "LOC")}) for i, call in enumerate(asked)}

    def run(host: str, *, variant: str, arrivals: str, seconds: float, seed: int, **_: Any) -> Run:
        swaps = arrivals.startswith(where) or (where, seconds) == ("search", 3.0)
        found = queues(variant, arrivals, seconds, seed)
        answers = (said[asked[(each.call + swaps) % 64].texts[0]] for each in found.requests)
        told = (replace(r, answer=(a,)) for r, a in zip(found.requests, answers, strict=True))
        return replace(found, requests=tuple(told))

    # In the engine's stead: it patches ssl, which this process has imported.
    engine = SimpleNamespace(run=run, headers_of=lambda key: {})
    monkeypatch.setitem(sys.modules, "loadtest.engine", engine)
    monkeypatch.setattr(loadtest, "engine", engine, raising=False)
    monkeypatch.setattr(traffic, "calls", lambda *_, **__: asked)
    known = {("ner", text): answer for text, answer in said.items()}
    monkeypatch.setattr(checker, "alone", lambda *_: known)
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    short = ("--rounds", "1", "--peak", "1", "--open", "1", "--climb", "1", "--confirm", "3")
    args = parser.parse_args([*short, "--search", "--p99-ms", "50"])
    watch: Any = _Watch()
    found = command._compared(args, watch, "ner", ["base"], {}, Promises())
    swapped = [each for each in found.mismatches if "answers were swapped" in each.why]
    assert bool(swapped) == (where != "never")


def test_a_peak_that_filled_the_generator_is_a_least(comparison: Comparison) -> None:
    blocks = tuple(
        replace(block, run=replace(block.run, cores=0.9)) if block.kind == "peak" else block
        for block in comparison.blocks
    )
    promised = parse("[defaults]\nmin_rate = 200")
    told = findings(replace(comparison, blocks=blocks), promises=promised, resamples=50)
    assert all(row.least for row in told.rows) and len(told.doubts) == 3
    assert not told.broken and not told.spoilt
    assert [each.variant for each in told.void] == ["base", "alike"]
    assert command._status([told]) == 2


def test_a_variant_that_fails_is_told_so() -> None:
    class Failing(Queues):
        def __call__(self, variant: str, arrivals: str, seconds: float, seed: int) -> Run:
            found = super().__call__(variant, arrivals, seconds, seed)
            if variant != "fast":
                return found
            failed = tuple(
                replace(each, status=503, error="HTTP 503") if i % 10 == 0 else each
                for i, each in enumerate(found.requests)
            )
            return replace(found, requests=failed)

    engine = Failing(SERVICE_S)
    told = findings(compare("ner", list(SERVICE_S), CALLS, engine, settings=SETTINGS), resamples=50)
    assert told.row("fast").p99.mean == math.inf
    assert told.row("fast").failed == pytest.approx(0.1, abs=0.01)
    assert "too many failed" in told.differences["fast", "base", "p99"].undecided
    assert any("of its requests failed, mostly HTTP 503" in str(each) for each in told.doubts)
    assert any(each.variant == "fast" and "failed" in each.why for each in told.broken)

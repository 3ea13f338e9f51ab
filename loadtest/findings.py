"""
What a comparison found: a row a variant, differences with intervals, noise, and what is doubtful.

Pure; knows nothing of how it is told.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from loadtest import bootstrap, checker, figures, labelled
from loadtest.bootstrap import Difference, Drawn, Interval, Plan
from loadtest.checker import Checked
from loadtest.compare import Block, Climb, Comparison, rate
from loadtest.complaint import Complaint
from loadtest.crosscheck import mismatches
from loadtest.promises import Measured, Promises, broken, kept, unjudged
from loadtest.record import Run
from loadtest.validity import CORES, Generator, generator, invalid, unhindered
from loadtest.watch import Fact, Quality

SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
RATE, COST = "rate", "cpu"
STATISTICS = (RATE, *SHARES, COST)

# A queue at load r forgets within about 1 / (1 - sqrt r)^2 services what it was: so long, and twice
# that, belongs together.
FORGETS = 2
LEAST_SLICE_S = 0.5
LEAST_PARTS = 2  # of a turn at the peak, where it is shorter than so many seconds
BELIEVED_FAILURES = 0.01
LEAST_REQUESTS = 1_000  # of a p99: with fewer it hangs on a handful of them


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """
    What a server says of the rounds at one rate; None: it is not known.

    cpu_s      of an answer
    memory     bytes at most, of all its processes with all that they hold
    energy_j   of an answer: of the whole processor, the load included
    queue_s    that a request waits for its first run; batch: windows a run; padding: share of it
    """

    cpu_s: Interval | None = None
    memory: int | None = None
    energy_j: float | None = None
    queue_s: float | None = None
    batch: float | None = None
    padding: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """
    One variant.

    rate      right answers a second at the peak; at least that, where the load was the limit
    p50 ...   seconds, at the comparison's rate
    goodput   right answers within the limit, a second, at that rate
    failed    share of the arrivals; peak_failed: at the peak
    load      how its generator did, in all rounds at that rate
    histogram of right answers, HDR
    rounds    p99 and peak rate of every round, in their order
    """

    variant: str
    rate: Interval
    least: bool
    percentiles: Mapping[str, Interval]
    p999_s: float
    goodput: float | None
    answers: int
    failed: float
    failures: Mapping[str, int]
    peak_failed: float
    peak_failures: Mapping[str, int]
    load: Generator
    server: Server
    histogram: str
    bytes: int | None
    quality: Quality | None
    rounds: Mapping[str, Sequence[float]]

    @property
    def p99(self) -> Interval:
        return self.percentiles["p99"]

    @property
    def requests(self) -> int:
        """That its percentiles are of: those that failed or were dropped took for ever."""
        return self.load.sent + self.load.dropped

    @property
    def short(self) -> bool:
        return self.requests < LEAST_REQUESTS

    @property
    def measured(self) -> Measured:
        return Measured(
            variant=self.variant,
            p99_ms=self.p99.mean * 1000,
            rate=self.rate.mean,
            failures=self.failed,
            least=self.least,
            f1=self.quality.mean if self.quality else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """
    For the largest rate of a variant whose p99 is within the limit.

    rate     requests a second; None: there is none. `bounded`: more are not within it
    steps    (rate, p99, whether the limit was kept) that were tried
    invalid  why nothing was proved
    """

    rate: float | None
    bounded: bool = True
    steps: Sequence[tuple[float, float, bool]] = ()
    invalid: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """
    Of one task.

    noise        of each statistic: how many times its own the first variant's may be here
    differences  (variant, other, statistic) -> how many times the other's
    broken       promises, and kept: those that were not
    mismatches   between the server's figures and the client's, and swapped answers
    doubts       why figures may not be believed
    spoilt       why none of them may: the load was in the way
    blind        or no swapped answer could be seen
    unjudged     promises of which nothing was proved, for the load was the limit
    ended        how it was broken off, which proves nothing; empty where it was not
    labelled     quality is of the very answers
    checked      all answers of a variant against those of their texts alone
    """

    task: str
    rate: float
    seconds: float
    limit_s: float | None
    rows: tuple[Row, ...]
    noise: Mapping[str, float]
    differences: Mapping[tuple[str, str, str], Difference]
    broken: tuple[Complaint, ...] = ()
    kept: tuple[str, ...] = ()
    mismatches: tuple[Complaint, ...] = ()
    doubts: tuple[Complaint | str, ...] = ()
    spoilt: tuple[Complaint, ...] = ()
    blind: tuple[Complaint, ...] = ()
    unjudged: tuple[Complaint, ...] = ()
    ended: str = ""
    labelled: bool = False
    climbs: Mapping[str, Climb] = field(default_factory=dict)
    searches: Mapping[str, Search] = field(default_factory=dict)
    checked: Mapping[str, Checked] = field(default_factory=dict)

    def against(self, variant: str) -> list[str]:
        """What it broke or answered as nobody should."""
        return [each.why for each in self.complaints if each.variant == variant]

    @property
    def proves(self) -> bool:
        """Whether anything may be concluded from its figures."""
        return not (self.spoilt or self.blind or self.ended)

    @property
    def void(self) -> tuple[Complaint, ...]:
        """Why nothing was proved, be it of all or of one promise."""
        return (*self.spoilt, *self.blind, *self.unjudged)

    @property
    def complaints(self) -> tuple[Complaint, ...]:
        return (*self.broken, *self.mismatches)

    def row(self, variant: str) -> Row:
        return next(row for row in self.rows if row.variant == variant)


def findings(
    found: Comparison,
    *,
    facts: Mapping[str, Fact] | None = None,
    promises: Promises | None = None,
    limit_s: float | None = None,
    swapped: Sequence[Complaint] = (),
    searches: Mapping[str, Search] | None = None,
    checked: Mapping[str, Checked] | None = None,
    resamples: int = bootstrap.RESAMPLES,
) -> Findings:
    """
    facts     what the server says of its variants
    swapped   answers that were others'
    checked   of each variant, all that it answered
    """
    searches, checked = searches or {}, checked or {}
    promises = promises or Promises()
    draws = {turn: _drawn(found, *turn, resamples) for turn in _turns(found)}
    noise = _noise(draws, found.variants[0])
    scored = _scored(found)
    qualities = scored.of if scored else _evident(found, facts or {})
    rows = tuple(
        _row(found, name, draws[name, False], (facts or {}).get(name), qualities.get(name), limit_s)
        for name in found.variants
    )
    measured = [row.measured for row in rows]
    return Findings(
        task=found.task,
        rate=found.rate,
        seconds=found.settings.open_s * found.settings.rounds,
        limit_s=limit_s,
        rows=rows,
        noise=noise,
        differences=_differences(draws, found.variants, noise),
        broken=tuple(broken(promises, measured)),
        kept=tuple(kept(promises, found.variants)),
        mismatches=(*_mismatches(found), *swapped),
        doubts=(
            *_doubts(found, rows),
            *_lacking(found, facts or {}),
            *_few(scored),
            *_unknown(checked),
            *unproved(searches),
        ),
        spoilt=tuple(_spoilt(found)),
        blind=tuple(_blind(checked)),
        unjudged=tuple(unjudged(promises, measured)),
        labelled=scored is not None,
        climbs=found.climbs,
        searches=searches,
        checked=checked,
    )


def slowest(requests: int) -> str:
    """
    What a p99 of so many rests on.

    150 -> the slowest   2796 -> the 27 slowest
    """
    count = requests // 100
    return f"the {count:,} slowest" if count > 1 else "the slowest"


def unproved(searches: Mapping[str, Search]) -> list[Complaint]:
    """Why it is not known what a variant keeps within the limit."""
    return [
        Complaint(name, f"its largest rate is not known: {each}")
        for name, search in searches.items()
        for each in search.invalid
    ]


# --- figures with intervals --------------------------------------------------------------------


def _turns(found: Comparison) -> list[tuple[str, bool]]:
    return [*((name, False) for name in found.variants), (found.variants[0], True)]


Draws = Mapping[tuple[str, bool], Mapping[str, Drawn]]
"""(variant, whether its second turns) -> statistic -> as it is drawn."""


def _noise(draws: Draws, first: str) -> dict[str, float]:
    once, again = draws[first, False], draws[first, True]
    return {name: bootstrap.noise(once[name], again[name]) for name in once if name in again}


def _differences(
    draws: Draws, variants: Sequence[str], noise: Mapping[str, float]
) -> dict[tuple[str, str, str], Difference]:
    """Each variant's from each other; of two the one that is noisier counts."""
    first = draws[variants[0], False]
    own = {
        (variant, name): bootstrap.in_proportion(noise.get(name, math.inf), first[name], figure)
        for variant in variants
        for name, figure in draws[variant, False].items()
        if name in first
    }
    return {
        (mine, theirs, name): Difference(
            bootstrap.ratio(figure, draws[theirs, False][name]),
            max(own.get((each, name), math.inf) for each in (mine, theirs)),
        )
        for mine in variants
        for theirs in variants
        if mine != theirs
        for name, figure in draws[mine, False].items()
        if name in draws[theirs, False]
    }


def _drawn(found: Comparison, variant: str, again: bool, resamples: int) -> dict[str, Drawn]:
    """Statistic -> as it is drawn; those of the server only where it was looked at."""
    settings = found.settings
    peak = found.of(variant, "peak", again=again)
    loaded = found.of(variant, "open", again=again)
    rounds = Plan(rounds=settings.rounds, resamples=resamples, seed=settings.seed)
    slices, parts = (replace(rounds, slices=n) for n in (_slices(found), _parts(found)))
    right = [count for block in peak for count in block.answered(parts.slices)]
    spent = [block.seconds / parts.slices for block in peak for _ in range(parts.slices)]
    [rates] = bootstrap.drawn(bootstrap.quotient(right, spent), parts)
    times = [each for block in loaded for each in _sliced(block.measured, slices.slices)]
    percentiles = bootstrap.drawn(bootstrap.percentiles(times, list(SHARES.values())), slices)
    draws = {RATE: rates, **dict(zip(SHARES, percentiles, strict=True))}
    cpu = [each.window.cpu_s for each in loaded if each.window and each.window.cpu_s is not None]
    if len(cpu) == len(loaded):
        # Read before and after a turn, its lead too: what differs within one nobody sees.
        answers = [len(each.run.right) for each in loaded]
        [draws[COST]] = bootstrap.drawn(bootstrap.quotient(cpu, answers), rounds)
    return draws


def _slices(found: Comparison) -> int:
    """Of a block in the open loop."""
    slowest = min(rate(found.of(name, "peak")) for name in found.variants)
    load = min(0.95, found.rate / slowest)
    together = max(LEAST_SLICE_S, FORGETS / slowest / (1 - math.sqrt(load)) ** 2)
    return max(1, int(found.settings.open_s / together))


def _parts(found: Comparison) -> int:
    """Of a turn at the peak, a second each."""
    return max(LEAST_PARTS, int(found.settings.peak_s))


def _sliced(run: Run, slices: int) -> list[figures.Floats]:
    """Latencies by when the request was due."""
    due = np.array([each.due_s for each in run.requests])
    place = np.clip((due / run.seconds * slices).astype(int), 0, slices - 1)
    times = figures.latencies_s([replace(run, dropped=0)])
    found = [times[place == number] for number in range(slices)]
    # Nobody wrote down when they were due.
    found[-1] = np.append(found[-1], [math.inf] * run.dropped)
    return found


# --- rows ------------------------------------------------------------------------------------


def _row(
    found: Comparison,
    name: str,
    draws: Mapping[str, Drawn],
    fact: Fact | None,
    quality: Quality | None,
    limit_s: float | None,
) -> Row:
    peak, loaded = found.of(name, "peak"), found.of(name, "open")
    runs = [each.measured for each in loaded]
    full = [each.run for each in peak]
    return Row(
        variant=name,
        rate=bootstrap.interval(draws[RATE]),
        least=float(np.mean([each.run.cores for each in peak])) > CORES,
        percentiles={share: bootstrap.interval(draws[share]) for share in SHARES},
        p999_s=figures.percentile_s(runs, 0.999),
        goodput=None if limit_s is None else figures.goodput(runs, limit_s),
        answers=sum(len(run.right) for run in runs),
        failed=_failed(runs),
        failures=figures.failures(runs),
        peak_failed=_failed(full),
        peak_failures=figures.failures(full),
        load=_load(runs),
        server=_server(loaded, draws),
        histogram=figures.encoded(each.latency_s for run in runs for each in run.right),
        bytes=fact.bytes if fact else None,
        quality=quality,
        rounds={
            RATE: [rate([each]) for each in peak],
            "p99": [figures.percentile_s([run], 0.99) for run in runs],
        },
    )


def _failed(runs: Sequence[Run]) -> float:
    """The share of the arrivals."""
    arrivals = figures.arrivals(runs)
    return sum(figures.failures(runs).values()) / arrivals if arrivals else 1.0


def _server(blocks: Sequence[Block], draws: Mapping[str, Drawn]) -> Server:
    windows = [each.window for each in blocks if each.window]
    if not windows:
        return Server()
    name = blocks[0].variant
    memory = [each.memory for each in windows if each.memory is not None]
    energy = [each.energy_j for each in windows if each.energy_j is not None]
    answers = sum(len(each.run.right) for each in blocks)

    def mean(histogram: str) -> float | None:
        count = sum(each.total(f"{histogram}_count", variant=name) for each in windows)
        whole = sum(each.total(f"{histogram}_sum", variant=name) for each in windows)
        return whole / count if count else None

    return Server(
        cpu_s=bootstrap.interval(draws[COST]) if COST in draws else None,
        memory=max(memory, default=None),
        energy_j=sum(energy) / answers if len(energy) == len(blocks) and answers else None,
        queue_s=mean("kadogo_queue_seconds"),
        batch=mean("kadogo_batch_texts"),
        padding=mean("kadogo_padding_ratio"),
    )


@dataclass(frozen=True, slots=True)
class _Scored:
    """Quality of the very answers; `few`: of which texts there are too few for an interval."""

    of: Mapping[str, Quality]
    few: str


def _scored(found: Comparison) -> _Scored | None:
    """None where the texts are not labelled. Who answered none of them has no quality."""
    if all(call.gold is None for call in found.calls):
        return None
    whole = {
        name: _whole([each.measured for each in found.of(name, "open")]) for name in found.variants
    }
    scores = {
        name: each["f1"]
        for name, run in whole.items()
        if (each := labelled.scores(found.calls, run))
    }
    best = max(scores, key=lambda name: scores[name].macro.mean, default="")
    apart = {
        name: each["f1"]
        for name in scores
        if (each := labelled.differences(found.calls, whole[name], whole[best]))
    }
    return _Scored(
        {name: _quality(each.macro, apart.get(name)) for name, each in scores.items()},
        labelled.few(*scores.values(), *apart.values()),
    )


def _quality(score: labelled.Interval, apart: labelled.Scores | None) -> Quality:
    """`apart`: from the best; None where they answered no text both."""
    drop = max(0.0, -apart.macro.low) if apart and apart.macro.known else None
    return Quality(score.mean, score.low, score.high, drop, score.n)


def _evident(found: Comparison, facts: Mapping[str, Fact]) -> dict[str, Quality]:
    """Quality as the variants' evidence has it."""
    known = {name: facts[name].quality for name in found.variants if name in facts}
    return {name: each for name, each in known.items() if each}


def _whole(runs: Sequence[Run]) -> Run:
    """All rounds as one run: of quality, time is no part."""
    return replace(runs[0], requests=tuple(each for run in runs for each in run.requests))


# --- what is doubtful ----------------------------------------------------------------------------


def _mismatches(found: Comparison) -> list[Complaint]:
    said = [
        each
        for block in found.blocks
        if block.window
        for each in mismatches(found.calls, block.run, block.window)
    ]
    return list(dict.fromkeys(said))


def _doubts(found: Comparison, rows: Sequence[Row]) -> list[Complaint | str]:
    full = f"at its peak the load took more than {CORES:g} of a core: it may do more"
    said: list[Complaint | str] = [Complaint(row.variant, full) for row in rows if row.least]
    for row in rows:
        for share, failures, where in (
            (row.failed, row.failures, ""),
            (row.peak_failed, row.peak_failures, " at its peak"),
        ):
            if share > BELIEVED_FAILURES:
                why = (
                    f"{share:.1%} of its requests failed{where}, mostly {next(iter(failures), '')}"
                )
                said.append(Complaint(row.variant, why))
    if repeated := sum(bool(block.before) for block in found.blocks):
        turns = f"{repeated} of {len(found.blocks)} turns"
        said.append(f"{turns} were taken again: their requests went out late")
    if any(row.short for row in rows):
        least = min(row.requests for row in rows)
        said.append(
            f"Short: the p99 rests on {slowest(least)} of {least:,} requests; from "
            f"{LEAST_REQUESTS:,} on it may be believed (more rounds, longer turns)"
        )
    if found.settings.rounds < 4:
        said.append(f"{found.settings.rounds} rounds are few: intervals are wide for that")
    if found.settings.rounds % 2:
        said.append(
            f"{found.settings.rounds} rounds are odd: a machine that slows down is harder on those "
            "whose turns come late"
        )
    return said


def _lacking(found: Comparison, facts: Mapping[str, Fact]) -> list[Complaint]:
    lacks = {
        name: labelled.strangers(found.calls, facts[name].labels)
        for name in found.variants
        if name in facts and facts[name].labels
    }
    return [Complaint(n, f"it cannot find {', '.join(each)}") for n, each in lacks.items() if each]


def _unknown(checked: Mapping[str, Checked]) -> list[Complaint]:
    return [
        Complaint(
            name,
            f"{each.unknown} of its {each.compared + each.unknown} answers were compared with "
            "nothing: their texts were not answered alone",
        )
        for name, each in checked.items()
        if each.unknown
    ]


def _few(scored: _Scored | None) -> list[str]:
    if not (scored and scored.few):
        return []
    return [f"F1 has no interval, so no limit on it is surely kept: {scored.few}: send more calls"]


def _spoilt(found: Comparison) -> list[Complaint]:
    """Of all rounds together: one late moment does not spoil the others."""
    senders = found.settings.senders
    return [
        Complaint(name, each)
        for name in found.variants
        for each in invalid(
            _load([unhindered(each.run, senders) for each in found.of(name, "open")])
        )
    ]


def _blind(checked: Mapping[str, Checked]) -> list[Complaint]:
    return [Complaint(name, why) for name, each in checked.items() for why in checker.blind(each)]


def _load(runs: Sequence[Run]) -> Generator:
    whole = replace(
        _whole(runs),
        seconds=sum(run.seconds for run in runs),
        dropped=sum(run.dropped for run in runs),
        cores=float(np.mean([run.cores for run in runs])),
    )
    return generator(whole)

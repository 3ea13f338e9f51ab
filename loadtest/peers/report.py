"""
What came of the contests: ratios with their intervals, a verdict in a sentence, Markdown and JSON.

Pure but for writing two files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from loadtest import bootstrap
from loadtest.bootstrap import Drawn, Interval, Plan, Statistic
from loadtest.files import write as write_file
from loadtest.peers.contests import Contest, Runner
from loadtest.peers.measure import Found, Stretch
from loadtest.peers.peers import PEERS
from loadtest.peers.tune import tuned
from loadtest.report.book import to_json
from loadtest.report.numbers import number

LATE_S = 0.01  # of the generator: then its latencies are its own

HEAD = (
    "server", "settings", "texts/s", "Kadogo's rate / its", "CPU ms a text",
    "p99 ms", "Kadogo's p99 / its", "memory MB", "Kadogo's / its", "start s", "Kadogo's / its",
    "same answers",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """
    One server in a contest. Ratios are Kadogo's by its; of Kadogo itself there are none.

    settings  workers x threads x threads in a call
    requests  that its p99 rests on
    same      None where no answers were compared
    """

    runner: Runner
    settings: str
    rate: Interval
    cpu_ms: float
    p99_ms: Interval
    requests: int
    memory_mb: float
    start_s: float
    failed: int
    lag_ms: float
    same: str | None
    rate_ratio: Interval | None = None
    p99_ratio: Interval | None = None
    memory_ratio: Interval | None = None
    start_ratio: Interval | None = None

    @property
    def late(self) -> bool:
        return self.lag_ms > LATE_S * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """
    rows  Kadogo's, then the others' from the fastest on
    best  Kadogo's rate by that of the fastest other in each resample, whichever that is
    void  why nothing is proved
    """

    contest: Contest
    offered: float
    rows: Sequence[Row]
    best: Interval
    void: str = ""

    @property
    def fastest(self) -> Row:
        return self.rows[1]

    @property
    def quicker(self) -> bool:
        """Whether Kadogo's p99 is surely below that of each other."""
        return all(row.p99_ratio is not None and row.p99_ratio.high < 1 for row in self.rows[1:])

    @property
    def failed(self) -> bool:
        return any(row.failed for row in self.rows)

    @property
    def late(self) -> bool:
        """Whether a p99 may be the generator's own."""
        return any(row.late for row in self.rows)

    @property
    def kept(self) -> bool:
        """
        Surely the rate it is to be, and with the same model the lowest p99 too; no request failed
        and none went out late.
        """
        believed = not (self.void or self.failed or self.late)
        waits = self.quicker or not self.contest.is_equal
        return believed and waits and self.best.low >= self.contest.target


def outcome(contest: Contest, found: Found) -> Outcome:
    runners = contest.runners
    offered = found.offered[contest.name]
    of = [found.stretches[runner] for runner in runners]
    rates = _Measure([_mean([s.rates for s in each]) for each in of], _plan(of, of_a_second=True))
    waits = _Measure([_p99([s.latencies[offered] for s in each]) for each in of], _plan(of))
    memory = _Measure([_mean([(s.memory_bytes,) for s in each]) for each in of], _plan(of))
    start = _Measure([_mean([(s.start_s,) for s in each]) for each in of], _plan(of))
    rows = []
    for place, runner in enumerate(runners):
        compared = place > 0
        same = found.agreements.get(runner)
        rows.append(
            Row(
                runner=runner,
                settings="" if not compared else str(tuned(runner.peer, runner.model)),
                rate=rates.interval(place),
                cpu_ms=fmean(s.cpu_s for s in of[place]) * 1000,
                p99_ms=_scaled(waits.interval(place), 1000),
                requests=sum(len(s.latencies[offered]) for s in of[place]),
                memory_mb=memory.interval(place).mean / 1e6,
                start_s=start.interval(place).mean,
                failed=sum(s.failed for s in of[place]),
                lag_ms=max(s.lag_s for s in of[place]) * 1000,
                same=str(same) if same and contest.is_equal else None,
                rate_ratio=rates.ratio(place) if compared else None,
                p99_ratio=waits.ratio(place) if compared else None,
                memory_ratio=memory.ratio(place) if compared else None,
                start_ratio=start.ratio(place) if compared else None,
            )
        )
    kadogo, *others = rows
    others.sort(key=lambda row: -row.rate.mean)
    return Outcome(
        contest=contest,
        offered=offered,
        rows=[kadogo, *others],
        best=rates.best(),
        void=found.void,
    )


class _Measure:
    """One figure of all runners of a contest, the first Kadogo's."""

    def __init__(self, statistics: Sequence[Statistic], plan: Plan) -> None:
        self._drawn = [bootstrap.drawn(each, plan)[0] for each in statistics]

    def interval(self, place: int) -> Interval:
        return bootstrap.interval(self._drawn[place])

    def ratio(self, place: int) -> Interval:
        return bootstrap.ratio(self._drawn[0], self._drawn[place])

    def best(self) -> Interval:
        """Kadogo's by the largest other in each resample, whichever that is."""
        ours, *others = self._drawn
        largest = Drawn(
            max(each.point for each in others),
            np.max([each.rounds for each in others], axis=0),
            np.max([each.slices for each in others], axis=0),
            ours.count,
        )
        return bootstrap.ratio(ours, largest)


def _plan(of: Sequence[Sequence[Stretch]], *, of_a_second: bool = False) -> Plan:
    """Rounds, and for what is known of every second the seconds within them."""
    return Plan(rounds=len(of[0]), slices=len(of[0][0].rates) if of_a_second else 1)


def _mean(rounds: Sequence[Sequence[float]]) -> Statistic:
    values = [value for each in rounds for value in each]
    return bootstrap.quotient(values, [1.0] * len(values))


def _p99(rounds: Sequence[Sequence[float]]) -> Statistic:
    return bootstrap.percentiles([np.asarray(each, dtype=np.float64) for each in rounds], [0.99])


def _scaled(interval: Interval, by: float) -> Interval:
    return Interval(interval.mean * by, interval.low * by, interval.high * by)


def _told(interval: Interval | None) -> str:
    if interval is None:
        return ""
    low, high = number(interval.low), number(interval.high)
    return f"{number(interval.mean)} [{low}, {high}]"


def verdict(found: Outcome) -> str:
    """
    One sentence: faster than the best of them or not, by how much, and what of the target; and
    another where it is not to be believed.
    """
    if found.void:
        return f"Nothing is proved: {found.void}."
    name = PEERS[found.fastest.runner.peer].shown
    target, best = found.contest.target, found.best
    if best.low >= target:
        reached = f"surely the {target:g} x it is to be"
    elif best.mean >= target:
        reached = f"the {target:g} x it is to be, but not surely"
    else:
        reached = f"short of the {target:g} x it is to be"
    whom = f"the fastest other, {name}" if len(found.rows) > 2 else name
    waits = "below every other's" if found.quicker else "not surely below every other's"
    if len(found.rows) == 2:
        waits = "below its" if found.quicker else "not surely below its"
    p99 = "" if found.late else f"; at {found.offered:g} requests/s its p99 is {waits}"
    why = ["requests failed"] * found.failed + ["requests went out late"] * found.late
    doubt = f" Not to be believed: {' and '.join(why)}." if why else ""
    return (
        f"Kadogo answers {_told(best)} times the texts a second of {whom}: {reached}{p99}.{doubt}"
    )


def markdown(outcomes: Sequence[Outcome], facts: Mapping[str, str]) -> str:
    lines = [f"- {name}: {value}" for name, value in facts.items()]
    return "\n".join([*lines, "", *(line for each in outcomes for line in _section(each))])


def _section(found: Outcome) -> Iterator[str]:
    contest = found.contest
    yield f"### {contest.title}"
    yield ""
    yield verdict(found)
    yield ""
    yield _line(HEAD)
    yield _line(["---"] * len(HEAD))
    for row in found.rows:
        yield _line(_cells(row))
    yield ""
    requests = min(row.requests for row in found.rows)
    yield (
        f"p99 at {found.offered:g} requests/s, 70 % of the slowest's capacity, of {requests:,} "
        f"requests to each or more. Kadogo serves `{contest.ours}`, the others `{contest.theirs}`."
    )
    for trouble in _troubles(found):
        yield f"**{trouble}**"
    yield ""


def _cells(row: Row) -> Iterator[str]:
    yield PEERS[row.runner.peer].shown
    yield row.settings
    yield _told(row.rate)
    yield _told(row.rate_ratio)
    yield number(row.cpu_ms)
    yield _told(row.p99_ms)
    yield _told(row.p99_ratio)
    yield number(row.memory_mb)
    yield _told(row.memory_ratio)
    yield number(row.start_s)
    yield _told(row.start_ratio)
    yield row.same or ""


def _troubles(found: Outcome) -> Iterator[str]:
    for row in found.rows:
        name = PEERS[row.runner.peer].shown
        if row.failed:
            yield f"{name}: {row.failed} requests failed."
        if row.late:
            yield f"{name}: requests went out up to {row.lag_ms:.0f} ms late: p99 is not its own."


def _line(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def files(out: Path) -> tuple[Path, Path]:
    return out / "peers.md", out / "peers.json"


def write(outcomes: Sequence[Outcome], found: Found, facts: Mapping[str, str], out: Path) -> None:
    """Peers.md, to be read or pasted whole, and peers.json with all there is. Raises Unusable."""
    told, kept = files(out)
    write_file(told, markdown(outcomes, facts))
    book = {
        "facts": facts,
        "contests": [
            {
                "name": each.contest.name,
                "title": each.contest.title,
                "target": each.contest.target,
                "verdict": verdict(each),
                "void": each.void,
                "kept": each.kept,
                "offered": each.offered,
                "best": asdict(each.best),
                "rows": [_record(row) for row in each.rows],
            }
            for each in outcomes
        ],
        "rounds": [
            {"peer": runner.peer, "model": runner.model, "rounds": [_raw(s) for s in stretches]}
            for runner, stretches in found.stretches.items()
        ],
    }
    write_file(kept, to_json(book))


def _record(row: Row) -> dict[str, Any]:
    told = asdict(row)
    del told["runner"]
    return {"peer": row.runner.peer, "model": row.runner.model, **told}


def _raw(stretch: Stretch) -> dict[str, Any]:
    waits = {str(rate): [round(each, 5) for each in s] for rate, s in stretch.latencies.items()}
    return {**asdict(stretch), "latencies": waits}

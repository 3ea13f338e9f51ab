"""
Variants of one task, measured in turns on the same calls and arrivals.

Two passes. At the peak as many callers ask as keep the server busy: the rate each variant can do,
and so the rate that all can serve. At that rate requests then arrive as they do in the world, open
loop, the same for all: what they wait, and what an answer costs. Last each is followed while its
load climbs over its peak: writing metrics so often would disturb what is measured.

In every round each variant has a turn, the first one two; every other round runs backwards, so that
a machine that slows down is as hard on all. A turn whose requests went out late while a sender was
free says nothing of the server, and is taken once more. Knows nothing of Locust or HTTP: both are
handed in.

A run begins with an idle server. A closed loop then ends with more under way than it began with,
which is a twentieth of a slow one's answers in two seconds; in an open loop the queue of a slow one
is still to grow, and its first second is quicker than all later ones. So the warm-up is the
beginning of the run itself, its lead. At the peak answers are counted from there on: what was under
way then makes up for what is under way at the end. At the common rate it is what was due from there
on. What the server says is of whole runs, and so is what is held against it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import numpy as np

from loadtest import figures
from loadtest.record import Call, Run, Unusable
from loadtest.validity import stalled
from loadtest.watch import Followed, Look, Window, between, followed

LOAD = 0.7  # of the slowest one's peak: all can serve it, and it waits as under load
CALLERS = 16
SENDERS = 256
CLIMB_FROM, CLIMB_TO = 0.2, 1.2  # of a variant's own peak
EVERY_S = 0.25
TRIES = 3  # of a turn whose requests went out late

Kind = Literal["peak", "open"]


class Engine(Protocol):
    """One run on the comparison's calls, without a warm-up."""

    def __call__(self, variant: str, arrivals: str, seconds: float, seed: int) -> Run: ...


class Watch(Protocol):
    """As `watch.Server` looks."""

    def look(self) -> Look: ...

    def following(self, every_s: float) -> AbstractContextManager[list[Look]]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """
    rounds             of each pass
    peak_s, open_s     measured in each turn
    warmup_s           before, the beginning of the same run, not measured
    follow_s           of the climb; 0: none
    load               of the slowest one's peak, for all; `rate`: requests a second instead
    callers            at the peak
    senders            who may be under way at once in the open loop
    """

    rounds: int = 8
    peak_s: float = 2.0
    open_s: float = 5.0
    warmup_s: float = 1.0
    follow_s: float = 10.0
    load: float = LOAD
    rate: float | None = None
    callers: int = CALLERS
    senders: int = SENDERS
    seed: int = 1

    def seconds(self, variants: int) -> float:
        """How long it takes, about."""
        turn = self.peak_s + self.open_s + 2 * self.warmup_s
        return self.rounds * (variants + 1) * turn + variants * self.follow_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """
    One turn.

    again   of the variant that has two turns a round: the second one
    lead_s  at the beginning of its run, which is not measured
    before  what was measured and not kept: its generator stalled
    window  what the server did in its run; None where nobody looked
    """

    variant: str
    again: bool
    round: int
    kind: Kind
    run: Run
    lead_s: float = 0.0
    before: tuple[Run, ...] = ()
    window: Window | None = None

    @property
    def seconds(self) -> float:
        """Without its lead."""
        return self.run.seconds - self.lead_s

    @property
    def measured(self) -> Run:
        """Of an open loop what was due after its lead, by a clock that begins there."""
        lead = self.lead_s
        after = (
            replace(r, due_s=r.due_s - lead, sent_s=r.sent_s - lead, done_s=r.done_s - lead)
            for r in self.run.requests
            if r.due_s >= lead
        )
        # Nobody wrote down when they were due that were dropped: all count.
        return replace(self.run, seconds=self.seconds, requests=tuple(after))

    def answered(self, parts: int = 1) -> list[int]:
        """Right answers that came in each of so many equal parts of those seconds."""
        edges = np.linspace(self.lead_s, self.run.seconds, parts + 1)
        counts, _ = np.histogram([each.done_s for each in self.run.right], edges)
        return [int(each) for each in counts]


@dataclass(frozen=True, slots=True, kw_only=True)
class Climb:
    """A variant from a fifth of its peak to above it: what its client and its server saw."""

    run: Run
    peak: float
    server: Followed


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """
    All that was measured.

    variants  in the order they were named: the first one is what others are compared with
    rate      requests a second of the open loop
    """

    task: str
    variants: tuple[str, ...]
    calls: Sequence[Call]
    settings: Settings
    rate: float
    blocks: tuple[Block, ...]
    climbs: Mapping[str, Climb] = field(default_factory=dict)

    def of(self, variant: str, kind: Kind, *, again: bool = False) -> list[Block]:
        """Its blocks, a round after another."""
        found = [b for b in self.blocks if (b.variant, b.kind, b.again) == (variant, kind, again)]
        return sorted(found, key=lambda block: block.round)


def rate(blocks: Sequence[Block]) -> float:
    """Right answers a second."""
    seconds = sum(each.seconds for each in blocks)
    return sum(sum(each.answered()) for each in blocks) / seconds if seconds else 0.0


Turn = tuple[str, bool]
"""Variant, and whether it is the first one's second turn of the round."""


def turns(variants: Sequence[str], rounds: int) -> Iterator[tuple[int, Turn]]:
    """
    Round and turn, in the order they run: on average all are as early as all others.

    a b, 2 rounds   -> a b a'  a' b a
    """
    once = [*((name, False) for name in variants), (variants[0], True)]
    for number in range(rounds):
        yield from ((number, turn) for turn in (once if number % 2 == 0 else once[::-1]))


def compare(
    task: str,
    variants: Sequence[str],
    calls: Sequence[Call],
    engine: Engine,
    *,
    settings: Settings,
    watch: Watch | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Comparison:
    """One variant at least. Raises Unusable where one answers nothing."""
    measure = _Measure(engine, watch, settings, say)
    blocks = list(measure.blocks(variants, "peak", f"closed:{settings.callers}"))
    # Without the first one's second turns: they are there to be held against the first.
    peaks = {
        name: rate([each for each in blocks if each.variant == name and not each.again])
        for name in variants
    }
    if silent := [name for name, peak in peaks.items() if not peak]:
        why = next(iter(figures.failures(b.run for b in blocks if b.variant == silent[0])), "")
        raise Unusable(f"{silent[0]} gave no right answer: {why or 'none came'}")
    common = settings.rate or settings.load * min(peaks.values())
    say(f"{task}: " + ", ".join(f"{name} {peak:.0f}/s" for name, peak in peaks.items()))
    blocks += measure.blocks(variants, "open", f"poisson:{common:.6f}")
    climbs = {}
    if watch and settings.follow_s:
        climbs = {name: measure.climb(name, peaks[name], watch) for name in variants}
    return Comparison(
        task=task,
        variants=tuple(variants),
        calls=calls,
        settings=settings,
        rate=common,
        blocks=tuple(blocks),
        climbs=climbs,
    )


@dataclass(frozen=True, slots=True)
class _Measure:
    engine: Engine
    watch: Watch | None
    settings: Settings
    say: Callable[[str], None]

    def blocks(self, variants: Sequence[str], kind: Kind, arrivals: str) -> Iterator[Block]:
        """Arrivals are those of the round: the same for all who have a turn in it."""
        settings = self.settings
        planned = list(turns(variants, settings.rounds))
        for place, (number, (name, again)) in enumerate(planned, 1):
            self.say(f"{kind} {place} of {len(planned)}: {name}{' again' if again else ''}")
            before: list[Run] = []
            run, window = self._turn(name, kind, arrivals, settings.seed + number)
            while stalled(run, settings.senders) and len(before) < TRIES - 1:
                self.say(f"{kind} {place}: requests went out late, once more")
                before.append(run)
                run, window = self._turn(name, kind, arrivals, settings.seed + number)
            yield Block(
                variant=name,
                again=again,
                round=number,
                kind=kind,
                run=run,
                lead_s=settings.warmup_s,
                before=tuple(before),
                window=window,
            )

    def _turn(self, name: str, kind: Kind, arrivals: str, seed: int) -> tuple[Run, Window | None]:
        settings = self.settings
        measured_s = settings.peak_s if kind == "peak" else settings.open_s
        before = self.watch.look() if self.watch else None
        run = self.engine(name, arrivals, settings.warmup_s + measured_s, seed)
        return run, between(before, self.watch.look()) if self.watch and before else None

    def climb(self, name: str, peak: float, watch: Watch) -> Climb:
        self.say(f"climb: {name}")
        arrivals = f"ramp:{CLIMB_FROM * peak:.6f}-{CLIMB_TO * peak:.6f}"
        with watch.following(EVERY_S) as looks:
            run = self.engine(name, arrivals, self.settings.follow_s, self.settings.seed)
            time.sleep(EVERY_S)
        return Climb(
            run=run,
            peak=peak,
            server=followed(looks, name, [each.done_s for each in run.requests]),
        )

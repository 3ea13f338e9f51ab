"""
From single requests to a row a variant: the order of blocks, percentiles, rates.

Pure; knows nothing of HTTP, Locust or files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Request:
    """One call, answered or failed: how far into its block it ended, and how long it took."""

    ended_s: float
    ms: float
    error: str | None = None


@dataclass(frozen=True)
class Block:
    """
    A stretch of steady load on one variant.

    requests     those that ended after the warm-up and before the end
    seconds      from the end of the warm-up to the end
    generator    cores the load generator itself used
    """

    variant: str
    task: str
    seconds: float
    requests: tuple[Request, ...]
    generator: float


@dataclass(frozen=True)
class Row:
    """
    One variant over all its blocks. Rate and percentiles count right answers only.

    rate         answers a second; `slowest` and `fastest`: of single blocks
    p50_ms ...   exact, from every response time; 0 where nothing was answered
    errors       what went wrong -> how often
    """

    variant: str
    task: str
    answers: int
    failures: int
    rate: float
    slowest: float
    fastest: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    generator: float
    errors: dict[str, int]

    @property
    def failed(self) -> float:
        """Share of the calls that failed, 0 to 1."""
        return self.failures / max(1, self.answers + self.failures)


def order(names: Sequence[str], rounds: int) -> list[str]:
    """
    Each name once a round, every other round backwards: drift of the machine hits all alike.

    A B, 2 rounds   -> A B B A
    """
    return [name for i in range(rounds) for name in (names if i % 2 == 0 else names[::-1])]


def steady(requests: Iterable[Request], *, after_s: float, until_s: float) -> tuple[Request, ...]:
    """Those that ended in the window: as many are cut off at its start as at its end."""
    return tuple(r for r in requests if after_s < r.ended_s <= until_s)


def percentile(values: Sequence[float], share: float) -> float:
    """
    Of sorted values, a straight line between neighbours (as numpy's default does); 0 of none.

    1 2 3 4   share 0.5 -> 2.5   share 1 -> 4
    """
    if not values:
        return 0.0
    place = share * (len(values) - 1)
    below = int(place)
    above = min(below + 1, len(values) - 1)
    return values[below] + (values[above] - values[below]) * (place - below)


def times_ms(blocks: Iterable[Block]) -> list[float]:
    """Response times of right answers, sorted."""
    return sorted(r.ms for block in blocks for r in block.requests if r.error is None)


def rows(blocks: Sequence[Block]) -> list[Row]:
    """One for each variant, in the order they first ran."""
    names = dict.fromkeys(block.variant for block in blocks)
    return [_row([block for block in blocks if block.variant == name]) for name in names]


def _row(blocks: Sequence[Block]) -> Row:
    times = times_ms(blocks)
    rates = [len(times_ms([block])) / block.seconds for block in blocks]
    errors = Counter(r.error for block in blocks for r in block.requests if r.error is not None)
    return Row(
        variant=blocks[0].variant,
        task=blocks[0].task,
        answers=len(times),
        failures=errors.total(),
        rate=len(times) / sum(block.seconds for block in blocks),
        slowest=min(rates),
        fastest=max(rates),
        p50_ms=percentile(times, 0.50),
        p95_ms=percentile(times, 0.95),
        p99_ms=percentile(times, 0.99),
        generator=sum(block.generator for block in blocks) / len(blocks),
        errors=dict(errors.most_common()),
    )

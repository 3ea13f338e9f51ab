"""
Load on one server: saturated by wrk, which takes next to nothing of its cores, or at a rate.

Knows nothing of models or of what the answers say beyond a mark.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass

from loadtest import wrk
from loadtest.faults.client import Pool, offered


@dataclass(frozen=True, slots=True)
class Saturated:
    """
    rates    right answers in each second (or part of the time, where it is shorter) after warm-up
    answers  right ones in all, warm-up's too
    failed   other answers and broken connections
    """

    rates: tuple[float, ...]
    answers: int
    failed: int


@dataclass(frozen=True, slots=True)
class Offered:
    """
    latencies_s  of all, from when each was to be sent: infinite of those that failed
    failed       other answers, none, and what was never sent
    lag_s        how late the latest of 99 % went out
    """

    latencies_s: tuple[float, ...]
    failed: int
    lag_s: float


def saturate(
    url: str,
    bodies: Sequence[bytes],
    mark: str,
    *,
    connections: int,
    warmup_s: float,
    seconds: float,
) -> Saturated:
    """POST the bodies in turn, over and over. Raises Unusable."""
    found = wrk.saturate(url, bodies, mark, connections=connections, seconds=warmup_s + seconds)
    each = rates(found.ended_s, after_s=warmup_s, seconds=seconds)
    return Saturated(each, len(found.ended_s), found.failed)


def rates(ended: Sequence[float], *, after_s: float, seconds: float) -> tuple[float, ...]:
    """
    Answers a second in equal parts of about a second.

    ended 0.5 1.1 1.9 2.5   after_s 1   seconds 2   ->   2 1
    """
    parts = max(1, int(seconds))
    length = seconds / parts
    counts = [0] * parts
    for moment in ended:
        place = math.floor((moment - after_s) / length)
        if 0 <= place < parts:
            counts[place] += 1
    return tuple(count / length for count in counts)


def offer(
    url: str,
    path: str,
    bodies: Sequence[bytes],
    mark: str,
    *,
    rate: float,
    seconds: float,
    seed: int,
) -> Offered:
    """Open loop: Poisson arrivals, each sent when it is due whatever became of those before."""

    async def run() -> Offered:
        pool = Pool(url)
        try:
            found = await offered(pool, path, bodies, rate=rate, seconds=seconds, seed=seed)
        finally:
            pool.close()
        right = [
            each for each in found.answers if each.status == 200 and mark.encode() in each.body
        ]
        failed = len(found.answers) - len(right) + found.dropped
        latencies_s = (*(each.latency_s for each in right), *[math.inf] * failed)
        return Offered(latencies_s, failed, found.lag_s)

    return asyncio.run(run())

"""Servers that are only reckoned: queues whose latencies are known, and runs of them."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from loadtest.record import Call, Request, Run

Floats = NDArray[np.float64]

CALLS = [Call(task="ner", texts=(f"Kano {i}",), languages=("hau",)) for i in range(64)]


def latencies(due: Floats, service: Floats) -> Floats:
    """Of one server, first come first served."""
    heap = np.cumsum(service)
    free = np.maximum.accumulate(due - np.concatenate(([0.0], heap[:-1])))
    return free + heap - due


def request(number: int, due_s: float, took_s: float, error: str | None = None) -> Request:
    return Request(
        call=number % len(CALLS),
        due_s=due_s,
        sent_s=due_s,
        done_s=due_s + took_s,
        status=503 if error else 200,
        error=error,
    )


def kept(found: Run, senders: int, answer_s: float) -> Run:
    """So many senders send what is due; the server keeps each of them for so long."""
    free = [0.0] * senders
    requests = []
    for each in found.requests:
        sent_s = max(each.due_s, heapq.heappop(free))
        heapq.heappush(free, sent_s + answer_s)
        requests.append(replace(each, sent_s=sent_s, done_s=sent_s + answer_s))
    return replace(found, requests=tuple(requests))


def run(
    variant: str,
    requests: Sequence[Request],
    *,
    arrivals: str = "poisson:100",
    seconds: float = 1.0,
    dropped: int = 0,
    cores: float = 0.1,
) -> Run:
    return Run(
        variant=variant,
        task="ner",
        arrivals=arrivals,
        seconds=seconds,
        requests=tuple(requests),
        dropped=dropped,
        cores=cores,
    )


class Queues:
    """
    An engine over variants that take so long for a request, on a machine that is noisy.

    drift  of each turn, a standard deviation of its logarithm
    """

    def __init__(
        self, service_s: Mapping[str, float], *, drift: float = 0.0, seed: int = 1
    ) -> None:
        self.service_s = service_s
        self.asked: list[tuple[str, str, float, int]] = []
        self._drift = drift
        self._rng = np.random.default_rng(seed)

    def __call__(self, variant: str, arrivals: str, seconds: float, seed: int) -> Run:
        self.asked.append((variant, arrivals, seconds, seed))
        mean = self.service_s[variant] * math.exp(self._rng.normal(0, self._drift))
        kind, _, rate = arrivals.partition(":")
        if kind == "closed":
            callers = int(rate)
            count = int(seconds / mean * 1.5) + callers
            done = np.cumsum(mean * self._rng.lognormal(-0.08, 0.4, count))
            due = np.concatenate((np.zeros(callers), done[:-callers]))
            found = [(d, e - d) for d, e in zip(due, done, strict=True) if d < seconds]
        else:
            draw = np.random.default_rng(seed)
            highest = float(rate.rpartition("-")[2])
            due = np.sort(draw.uniform(0, seconds, draw.poisson(highest * seconds)))
            if kind == "ramp":
                low = float(rate.partition("-")[0])
                kept = draw.uniform(size=len(due)) * highest
                due = due[kept < low + (highest - low) * due / seconds]
            service = mean * self._rng.lognormal(-0.08, 0.4, len(due))
            found = list(zip(due, latencies(due, service), strict=True))
        requests = [request(i, float(due), float(took)) for i, (due, took) in enumerate(found)]
        return run(variant, requests, arrivals=arrivals, seconds=seconds)

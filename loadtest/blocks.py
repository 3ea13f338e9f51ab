"""A closed loop as a block of the old comparison; goes with it."""

from __future__ import annotations

from loadtest import engine, traffic
from loadtest.measure import Block, Request

TEXTS = 512


def run(
    host: str,
    variant: str,
    task: str,
    *,
    texts: str,
    seed: int,
    callers: int,
    warmup_s: float,
    seconds: float,
) -> Block:
    settings = traffic.Traffic(texts=texts, seed=seed)
    found = engine.run(
        host,
        variant,
        task,
        calls=traffic.calls(settings, task=task, count=TEXTS),
        arrivals=f"closed:{callers}",
        seconds=seconds,
        warmup_s=warmup_s,
        seed=seed,
    )
    requests = (Request(r.done_s, r.latency_s * 1000, r.error) for r in found.requests)
    return Block(variant, task, found.seconds, tuple(requests), found.cores)

"""
Saturated texts/s over HTTP against the same texts in this process, on the same cores.

In process they come in length-sorted batches: sorted within those a server could have waiting,
and over the whole set. Knows nothing of how a server is started or loaded.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from build.bench.load import Load
from build.bench.plan import Plan
from build.bench.report import say
from build.bench.server import kadogo
from build.bench.traffic import bodies_of, send, texts_of
from build.figures import Figure, Target, interleave, ratios
from loadtest.process import Server
from models import catalog
from models.pipeline import Pipeline

LEAST_TEXTS = 32

# Texts waiting at a server with 16 connections: what it could sort at best.
WAITING = 16

# The AfriBERTa-base shape has 111 million parameters, the embedded ones a tenth.
LARGE_PARAMETERS = 50_000_000
OF_IN_PROCESS_LARGE, OF_IN_PROCESS_SMALL = 0.85, 0.7

HTTP = "HTTP"
SORTED_WITHIN = f"in process, sorted within {WAITING} waiting"
SORTED_OVER_ALL = "in process, sorted over all"
ONE_AT_A_TIME = "in process, one at a time"


def measure(plan: Plan) -> list[Figure]:
    figures: list[Figure] = []
    with kadogo(plan.catalog, threads=plan.cores) as server:
        for variant in plan.variants:
            say(f"  {variant.name}")
            figures += _compare(server, catalog.open_variant(plan.catalog / variant.name), plan)
    return figures


def _compare(server: Server, pipeline: Pipeline, plan: Plan) -> list[Figure]:
    variant = pipeline.variant
    texts = texts_of(variant.task, plan.seed)
    bodies = bodies_of(texts, variant.name)
    loads: list[Load] = []

    def http() -> float:
        loads.append(send(server.url, variant.task, bodies, plan))
        return loads[-1].rate(after_s=plan.warmup_s, until_s=plan.warmup_s + plan.seconds)

    size = texts_for(http(), plan.seconds, len(texts))
    texts, bodies = texts[:size], bodies[:size]
    lengths = [len(pipeline.encode(text).ids) for text in texts]
    orders = {
        SORTED_WITHIN: sorted_within(lengths, WAITING, plan.cores),
        SORTED_OVER_ALL: sorted_over_all(lengths, WAITING),
        ONE_AT_A_TIME: [[index] for index in range(size)],
    }
    inside = {
        name: _in_process(pipeline, [[texts[i] for i in group] for group in groups], plan)
        for name, groups in orders.items()
    }
    found = interleave({HTTP: http, **inside}, plan.rounds)
    large = variant.parameters >= LARGE_PARAMETERS
    target = Target(OF_IN_PROCESS_LARGE if large else OF_IN_PROCESS_SMALL)

    def figure(what: str, unit: str, rounds: Sequence[float], of: Target | None = None) -> Figure:
        return Figure("throughput", variant.name, what, unit, tuple(rounds), of)

    return [
        *(figure(name, "texts/s", values) for name, values in found.items()),
        *(
            figure(f"{HTTP} / {name}", "ratio", ratios(found[HTTP], found[name]), target)
            for name in (SORTED_WITHIN, SORTED_OVER_ALL)
        ),
        figure("load generator", "cores", [load.generator for load in loads[1:]]),
        figure("failed calls", "calls", [load.failures for load in loads]),
    ]


def _in_process(
    pipeline: Pipeline, groups: Sequence[Sequence[str]], plan: Plan
) -> Callable[[], float]:
    """Texts a second of whole passes over the groups, a thread a core, each its own runs."""

    def turns(until: float) -> Iterator[Sequence[str]]:
        while True:
            yield from groups
            if time.perf_counter() >= until:
                return

    def rate() -> float:
        began = time.perf_counter()
        waiting, lock, done = turns(began + plan.seconds), threading.Lock(), itertools.count()

        def work() -> None:
            while True:
                with lock:
                    group = next(waiting, None)
                if group is None:
                    return
                for _ in pipeline.answer(group):
                    next(done)

        threads = [threading.Thread(target=work) for _ in range(plan.cores)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return next(done) / (time.perf_counter() - began)

    return rate


def texts_for(rate: float, seconds: float, available: int) -> int:
    """How many texts fill the time once, in whole groups of those waiting; 32 at least."""
    wanted = max(LEAST_TEXTS, round(rate * seconds / WAITING) * WAITING)
    return min(wanted, available)


def sorted_within(lengths: Sequence[int], waiting: int, cores: int) -> list[list[int]]:
    """
    Of each `waiting` texts in their order: sorted by length, as many groups as cores.

    lengths 9 2 3 8 | 5 1   waiting 4   cores 2   -> [1, 2] [3, 0] [5] [4]
    """
    groups = []
    for start in range(0, len(lengths), waiting):
        order = sorted(range(start, min(start + waiting, len(lengths))), key=lengths.__getitem__)
        groups += _groups(order, -(-len(order) // cores))
    return groups


def sorted_over_all(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Sorted by length, groups of `size`."""
    return _groups(sorted(range(len(lengths)), key=lengths.__getitem__), size)


def _groups(order: Sequence[int], size: int) -> list[list[int]]:
    return [list(order[i : i + size]) for i in range(0, len(order), size)]

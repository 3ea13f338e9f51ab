"""
What more workers cost and bring: memory after load, texts a second, and how many threads want a
core, with all variants loaded and one of them asked.

Each setting's server is started anew every round. Knows nothing of what a worker is.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from build.bench.plan import Plan
from build.bench.server import kadogo
from build.bench.traffic import bodies_of, send, texts_of
from build.figures import Figure, interleave, ratios
from loadtest.meanwhile import meanwhile
from loadtest.process import Server

LOOK_EVERY_S = 0.01
USUAL = "1 worker"


def measure(plan: Plan) -> list[Figure]:
    """Of the first of the plan's variants."""
    variant = plan.variants[0]
    bodies = bodies_of(texts_of(variant.task, plan.seed), variant.name)
    counts = {_named(count): count for count in (1, 2, 4)}
    memory: dict[str, list[float]] = defaultdict(list)
    busy: dict[str, list[float]] = defaultdict(list)

    def mode(name: str) -> Callable[[], float]:
        def rate() -> float:
            own = {"KADOGO_THREADS": "0", "KADOGO_WORKERS": str(counts[name])}
            with kadogo(plan.catalog, threads=plan.cores, settings=own) as server:
                with runnable(server) as threads:
                    load = send(server.url, variant.task, bodies, plan)
                memory[name].append(server.memory_bytes() / 2**20)
                busy[name].append(statistics.fmean(threads or [0]))
            return load.rate(after_s=plan.warmup_s, until_s=plan.warmup_s + plan.seconds)

        return rate

    rates = interleave({name: mode(name) for name in counts}, plan.rounds)
    return [
        figure
        for name in counts
        for figure in (
            Figure("workers", "all", f"{name}: memory", "MiB", tuple(memory[name])),
            Figure("workers", variant.name, f"{name}: rate", "texts/s", rates[name]),
            Figure("workers", variant.name, f"{name}: want a core", "threads", tuple(busy[name])),
            Figure(
                "workers",
                variant.name,
                f"{name}: rate / {USUAL}'s",
                "ratio",
                ratios(rates[name], rates[USUAL]),
            ),
        )
    ]


def _named(workers: int) -> str:
    return f"{workers} worker{'s' if workers > 1 else ''}"


def runnable(server: Server) -> AbstractContextManager[list[int]]:
    """
    Looks how many threads of the server's processes run or wait for a core: on Linux, else 0.

    More of them than cores means that they take turns.
    """
    pids = [each.pid for each in server.family()]
    return meanwhile(
        lambda: sum(state == "R" for pid in pids for state in _states(pid)), LOOK_EVERY_S
    )


def _states(pid: int) -> Iterator[str]:
    """One letter for each thread."""
    for each in Path(f"/proc/{pid}/task").glob("*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            yield each.read_text().rpartition(")")[2].split()[0]

"""
From starting the process to ready, files in the page cache; and the memory it then holds.
"""

from __future__ import annotations

from build.bench.plan import Plan
from build.bench.server import kadogo
from build.figures import Figure, Target

READY_S = 6.0


def measure(plan: Plan) -> list[Figure]:
    ready, memory = [], []
    for _ in range(plan.starts):
        with kadogo(plan.catalog, threads=plan.cores) as server:
            ready.append(server.ready_s)
            memory.append(server.memory_bytes() / 2**20)
    return [
        Figure("start", "all", "to ready", "s", tuple(ready), Target(READY_S, at_least=False)),
        Figure("start", "all", "resident memory when ready", "MiB", tuple(memory)),
    ]

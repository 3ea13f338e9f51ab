"""
CPU time of a request whose model costs next to nothing, against plain Starlette's.

The target is against the server that does as much with least: the same text through the same
pipeline at once, on the event loop. Knows nothing of what Kadogo does with the time.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from build.bench import echo
from build.bench.plain import Mode
from build.bench.plan import Plan
from build.bench.server import kadogo, serving
from build.bench.traffic import bodies_of, send, texts_of
from build.figures import Figure, Target, interleave, ratios
from loadtest.process import Server
from models.spec import Task

KADOGO = "Kadogo"
STARLETTE = {
    "Starlette (JSON in, pipeline inline, JSON out)": Mode.INLINE,
    "Starlette (JSON in, pipeline in its thread pool, JSON out)": Mode.THREADS,
    "Starlette (JSON in, no pipeline, one answer as JSON out)": Mode.SERIALISED,
    "Starlette (JSON unread, no pipeline, fixed bytes out)": Mode.BYTES,
}
OF_INLINE = 2.0


def measure(plan: Plan) -> list[Figure]:
    texts = texts_of(Task.NER, plan.seed)
    bodies = bodies_of(texts, echo.NAME)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        variant = echo.write(Path(folder), texts)
        plain = [sys.executable, "-m", "build.bench.plain", str(variant), "--sample", _usual(texts)]
        servers = {KADOGO: running.enter_context(kadogo(Path(folder), threads=plan.cores))}
        for name, mode in STARLETTE.items():
            servers[name] = running.enter_context(serving([*plain, "--mode", mode]))
        modes = {name: cpu_ms(server, bodies, plan) for name, server in servers.items()}
        found = interleave(modes, plan.rounds)

    def figure(what: str, unit: str, rounds: tuple[float, ...], of: Target | None = None) -> Figure:
        return Figure("overhead", echo.NAME, what, unit, rounds, of)

    def compare(name: str, mode: Mode) -> Figure:
        target = Target(OF_INLINE, at_least=False) if mode is Mode.INLINE else None
        what = f"CPU, {KADOGO} / {name}"
        return figure(what, "ratio", ratios(found[KADOGO], found[name]), target)

    return [
        *(figure(f"CPU a text, {name}", "ms", values) for name, values in found.items()),
        *(compare(name, mode) for name, mode in STARLETTE.items()),
    ]


def _usual(texts: Sequence[str]) -> str:
    """One of median length."""
    return sorted(texts, key=len)[len(texts) // 2]


def cpu_ms(server: Server, bodies: Sequence[bytes], plan: Plan) -> Callable[[], float]:
    """To be called in each round: CPU time of a text, of all the server's processes."""

    def cost() -> float:
        before = server.cpu_s()
        load = send(server.url, Task.NER, bodies, plan)
        return (server.cpu_s() - before) / len(load.ended_s) * 1000

    return cost

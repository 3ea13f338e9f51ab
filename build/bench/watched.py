"""
What watching costs a request: CPU time with an access log, and with traces, against without.

The collector answers at once and keeps nothing. Knows nothing of logs or traces.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from build.bench import echo
from build.bench.overhead import cpu_ms
from build.bench.plan import Plan
from build.bench.server import kadogo
from build.bench.traffic import bodies_of, texts_of
from build.figures import Figure, interleave, ratios
from models.spec import Task

PLAIN = "unwatched"


def measure(plan: Plan) -> list[Figure]:
    texts = texts_of(Task.NER, plan.seed)
    bodies = bodies_of(texts, echo.NAME)
    with tempfile.TemporaryDirectory() as folder, collector() as url, ExitStack() as running:
        echo.write(Path(folder), texts)
        ways = {
            PLAIN: {},
            "access log": {"KADOGO_ACCESS_LOG": "on"},
            "traces of 1 in 100": {"KADOGO_TRACES": url, "KADOGO_TRACES_SHARE": "0.01"},
            "traces of all": {"KADOGO_TRACES": url},
        }
        modes = {
            name: cpu_ms(
                running.enter_context(kadogo(Path(folder), threads=plan.cores, settings=settings)),
                bodies,
                plan,
            )
            for name, settings in ways.items()
        }
        found = interleave(modes, plan.rounds)
    return [
        *(_figure(f"CPU a text, {name}", "ms", rounds) for name, rounds in found.items()),
        *(
            _figure(f"CPU, {name} / {PLAIN}", "ratio", ratios(rounds, found[PLAIN]))
            for name, rounds in found.items()
            if name != PLAIN
        ),
    ]


def _figure(what: str, unit: str, rounds: tuple[float, ...]) -> Figure:
    return Figure("watched", echo.NAME, what, unit, rounds, None)


class _Accepts(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def collector() -> Iterator[str]:
    """The address of one that takes all it is told, for as long as the block lasts."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Accepts)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()

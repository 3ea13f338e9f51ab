"""
Servers as processes of their own: started on a free port of this machine, measured, stopped.

Knows how Kadogo's own is started; nothing of what any of them answers.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import IO

import psutil

from build.errors import BuildError

READY_WITHIN_S = 180
STOPPED_WITHIN_S = 45
LOOK_EVERY_S = 0.02
LOG_LINES = 8


@dataclass(frozen=True)
class Server:
    """
    One that is ready.

    url      http://127.0.0.1:port
    ready_s  seconds from starting the process to the first 200 at /readyz
    """

    url: str
    ready_s: float
    process: psutil.Process

    def cpu_s(self) -> float:
        """User and system seconds of all its processes so far."""
        times = [process.cpu_times() for process in self._processes()]
        return float(sum(each.user + each.system for each in times))

    def memory_bytes(self) -> int:
        """Resident memory of all its processes; pages they share count once where Linux tells."""
        return sum(_memory(process) for process in self._processes())

    def pids(self) -> list[int]:
        """Of all its processes."""
        return [process.pid for process in self._processes()]

    def _processes(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]


def kadogo(
    catalog: Path, *, threads: int, settings: Mapping[str, str] | None = None
) -> AbstractContextManager[Server]:
    """Kadogo's server on the variants in `catalog`, with so many threads for models."""
    bentoml = [sys.executable, "-m", "bentoml", "serve", "service.app:Kadogo"]
    environment = {
        "KADOGO_CATALOG": str(catalog.resolve()),
        "KADOGO_THREADS": str(threads),
        "BENTOML_DO_NOT_TRACK": "True",
        "TOKENIZERS_PARALLELISM": "false",
        **(settings or {}),
    }
    return serving([*bentoml, "--host", "127.0.0.1"], environment)


@contextmanager
def serving(
    command: Sequence[str], environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """
    Run `command --port N` for as long as the block lasts; /readyz says when it is ready.

    Raises BuildError with the end of its log where it ends or is not ready in time.
    """
    port = _free_port()
    with tempfile.TemporaryFile() as log:
        began = time.perf_counter()
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            start_new_session=True,  # Ctrl-C reaches us alone; we stop it
        )
        try:
            while not _is_ready(port):
                if process.poll() is not None or time.perf_counter() - began > READY_WITHIN_S:
                    raise BuildError(f"the server did not become ready:\n{_end(log)}")
                time.sleep(LOOK_EVERY_S)
            ready_s = time.perf_counter() - began
            yield Server(f"http://127.0.0.1:{port}", ready_s, psutil.Process(process.pid))
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end and wait; then, or when we are told to end ourselves, end what is left."""
    family: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid).children(recursive=True)
    try:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOPPED_WITHIN_S)
    finally:
        process.kill()
        process.wait()
        for child in family:
            with suppress(psutil.NoSuchProcess):
                child.kill()


def _is_ready(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _memory(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except (AttributeError, psutil.Error):
        return int(process.memory_info().rss)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _end(log: IO[bytes]) -> str:
    log.seek(0)
    return "\n".join(log.read().decode(errors="replace").splitlines()[-LOG_LINES:])

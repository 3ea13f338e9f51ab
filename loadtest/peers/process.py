"""
A server in its own environment and processes: started, waited for, weighed, stopped.

Knows the peers' commands; nothing of load.
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from loadtest.peers import settings
from loadtest.peers.peers import ENVIRONMENTS, KADOGO, ROOT, Peer
from loadtest.peers.settings import Settings

READY_WITHIN_S = 120
STOPPED_WITHIN_S = 20
LOOK_EVERY_S = 0.02
LOG_LINES = 12


class NotServing(Exception):
    """A server did not start, or answers wrongly."""


@dataclass(frozen=True, slots=True)
class Server:
    """
    One that has answered rightly.

    start_s  from starting the process to its first right answer
    """

    url: str
    start_s: float
    process: psutil.Process

    def family(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]

    def cpu_s(self) -> float:
        """User and system seconds of all its processes so far."""
        times = [each.cpu_times() for each in self.family()]
        return float(sum(each.user + each.system for each in times))

    def memory_bytes(self) -> int:
        """Of all its processes; what they share counts once (PSS)."""
        return sum(_memory(each) for each in self.family())


def command_of(peer: Peer, port: int, told: Settings, environments: Path) -> list[str]:
    """What to run. Raises NotServing where the peer's environment is not there."""
    binaries = ROOT / ".venv" / "bin" if peer.name == KADOGO else environments / peer.name / "bin"
    program, *rest = peer.command
    if not (binaries / program).exists():
        how = "make .venv/.serve" if peer.name == KADOGO else f"make peer NAME={peer.name}"
        raise NotServing(f"{peer.name} is not installed: {how}")
    known = {"port": port, "workers": told.workers}
    return [str(binaries / program), *(word.format(**known) for word in rest)]


def environment_of(peer: Peer, model: Path, port: int, told: Settings) -> Mapping[str, str]:
    """`model`: of Kadogo a catalog, of the others a folder of files."""
    common = {**os.environ, "PYTHONPATH": str(ROOT), "BENTOML_DO_NOT_TRACK": "True"}
    if peer.name == KADOGO:
        return {**common, "KADOGO_CATALOG": str(model.resolve()), "TOKENIZERS_PARALLELISM": "false"}
    return {**common, **settings.environment(model, port, told)}


@contextmanager
def serving(
    peer: Peer,
    model: Path,
    told: Settings,
    *,
    ask: tuple[str, str],
    environments: Path = ENVIRONMENTS,
) -> Iterator[Server]:
    """
    Run a peer for as long as the block lasts; `ask` is (a text, the model's name).

    Raises NotServing with the end of its log where it does not answer in time.
    """
    port = _free_port()
    command = command_of(peer, port, told, environments)
    text, name = ask
    with tempfile.TemporaryFile() as log:
        began = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment_of(peer, model, port, told),
            start_new_session=True,  # Ctrl-C reaches us alone; we stop it
        )
        try:
            while not _answers(peer, port, peer.path_of(name), peer.body_of(text, name)):
                if process.poll() is not None or time.perf_counter() - began > READY_WITHIN_S:
                    raise NotServing(f"{peer.name} did not answer:\n{_end(log)}")
                time.sleep(LOOK_EVERY_S)
            start_s = time.perf_counter() - began
            yield Server(f"http://127.0.0.1:{port}", start_s, psutil.Process(process.pid))
        finally:
            _stop(process)


def post(url: str, path: str, body: bytes) -> tuple[int, bytes]:
    host, _, port = url.removeprefix("http://").partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _answers(peer: Peer, port: int, path: str, body: bytes) -> bool:
    try:
        status, answer = post(f"http://127.0.0.1:{port}", path, body)
        if status != 200:
            return False
        peer.entities(answer)
    except Exception:  # not listening yet, or what a framework says while it starts
        return False
    return True


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end and wait; then end what is left of it."""
    family: Sequence[psutil.Process] = []
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


def _memory(process: psutil.Process) -> int:
    with suppress(psutil.NoSuchProcess):
        try:
            return int(process.memory_full_info().pss)
        except (AttributeError, psutil.AccessDenied):
            return int(process.memory_info().rss)
    return 0


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _end(log: IO[bytes]) -> str:
    log.seek(0)
    return "\n".join(log.read().decode(errors="replace").splitlines()[-LOG_LINES:])

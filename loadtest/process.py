"""
Servers as processes of their own: started on a free port, waited for, weighed, stopped.

Knows nothing of what they serve, nor of load.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from loadtest.record import Unusable

ROOT = Path(__file__).resolve().parent.parent
READY_WITHIN_S = 180.0
STOPPED_WITHIN_S = 45.0
LOOK_EVERY_S = 0.02
LOG_LINES = 12

Ready = Callable[[], bool]
"""Whether a server answers as it should by now; asked again and again."""


class NotServing(Unusable):
    """A server did not start, or does not answer as it should."""


class Started:
    """
    A process of ours, apart from us: Ctrl-C reaches us alone, and we stop it.

    name         for what is told of it
    environment  all of it; None: ours

    Raises NotServing where it cannot be started.
    """

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self._ended = False
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - until it is stopped
        self._began = time.perf_counter()
        try:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            self._log.close()
            why = f"{error.strerror}: {command[0]}"
            raise NotServing(f"{name} cannot be started: {why}") from None

    def until(self, ready: Ready, within_s: float = READY_WITHIN_S) -> float:
        """
        Seconds from its start until it is ready.

        Raises NotServing with the end of its log where it ends or is not ready in time.
        """
        # Ready though it ended: then somebody else answers at its port.
        while not ready() or self.process.poll() is not None:
            late = time.perf_counter() - self._began > within_s
            if ended := self.process.poll() is not None:
                self.end()
            if late or ended:
                raise NotServing(f"{self.name} did not become ready:\n{self._end()}")
            time.sleep(LOOK_EVERY_S)
        return time.perf_counter() - self._began

    def end(self) -> None:
        """
        End it and what it started, at once.

        To be called as soon as it is seen to have ended by itself: what it leaves behind is found
        by its number, which may be another's later.
        """
        if self._ended:
            return
        self._ended = True
        # All that it starts are of its group, as its number says, but for those who leave it.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        """Nobody asks for its log any more."""
        self._log.close()

    def _end(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-LOG_LINES:])


@dataclass(frozen=True, slots=True)
class Server:
    """
    One that is ready.

    url      http://127.0.0.1:port
    ready_s  from starting the process until it answered as it should
    """

    url: str
    ready_s: float
    process: psutil.Process

    def family(self) -> list[psutil.Process]:
        """All its processes."""
        return [self.process, *self.process.children(recursive=True)]

    def cpu_s(self) -> float:
        """User and system seconds of all its processes so far. Raises NotServing if it ended."""
        return self._of_all(cpu_s)

    def memory_bytes(self) -> int:
        """
        Of all its processes; what they share counts once, where the system tells (PSS).

        Raises NotServing if it ended.
        """
        return int(self._of_all(memory_bytes))

    def _of_all(self, weigh: Callable[[psutil.Process], float]) -> float:
        try:
            if self.process.status() == psutil.STATUS_ZOMBIE:  # it weighs nothing
                raise psutil.NoSuchProcess(self.process.pid)
            itself, *others = self.family()
            found = weigh(itself)
        except psutil.NoSuchProcess:
            raise NotServing(f"the server at {self.url} has ended") from None
        for each in others:
            with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
                found += weigh(each)
        return found


@contextmanager
def serving(
    name: str,
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    *,
    port: int,
    ready: Ready,
    within_s: float = READY_WITHIN_S,
    stopped_within_s: float = STOPPED_WITHIN_S,
) -> Iterator[Server]:
    """
    Run `command`, which serves on `port` of this machine, for as long as the block lasts.

    Raises NotServing with the end of its log where it ends or is not ready in time.
    """
    running: list[Started] = []
    try:
        with unbroken():
            running.append(started := Started(name, command, environment))
        ready_s = started.until(ready, within_s)
        yield Server(f"http://127.0.0.1:{port}", ready_s, psutil.Process(started.process.pid))
    finally:
        stop(running, stopped_within_s)


@contextmanager
def unbroken() -> Iterator[None]:
    """
    Ctrl-C and SIGTERM wait until it is over: what is started meanwhile would run on, for nobody
    who stops it would know it yet.
    """
    if threading.current_thread() is not threading.main_thread():  # no other is interrupted
        yield
        return
    came: list[int] = []
    before = {
        each: signal.signal(each, lambda number, _: came.append(number))
        for each in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler or signal.SIG_DFL)
    for number in came:
        signal.raise_signal(number)


def stop(started: Sequence[Started], within_s: float = STOPPED_WITHIN_S) -> None:
    """
    Ask all of them to end and wait; then, or when we are told to end ourselves, end what is left
    of them and of what they started.
    """
    # Those of other groups than its own.
    families = [child for each in started for child in _children(each.process)]
    try:
        for each in started:
            each.process.terminate()
        for each in started:
            with suppress(subprocess.TimeoutExpired):
                each.process.wait(within_s)
            each.end()
    finally:
        for each in started:
            each.end()
        for child in families:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        for each in started:
            each.close()


def says_ready(url: str) -> Ready:
    """Whether it answers /readyz with 200."""
    # Late, because Locust must patch the standard library before ssl is imported.
    from http.client import HTTPConnection, HTTPException

    place = urlsplit(url)

    def ready() -> bool:
        connection = HTTPConnection(str(place.hostname), place.port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    return ready


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def cpu_s(process: psutil.Process) -> float:
    """
    User and system seconds, and those of the children that ended. Raises psutil.Error.

    Without them what a worker took is gone once another takes its place.
    """
    times = process.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


def memory_bytes(process: psutil.Process) -> int:
    """Its share of what it has in memory (PSS), or all where that is not told. As `cpu_s`."""
    try:
        full = process.memory_full_info()
        return int(getattr(full, "pss", 0) or full.rss)
    except psutil.AccessDenied:
        return int(process.memory_info().rss)


def _children(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    if process.poll() is not None:  # its number may be another's by now
        return []
    with suppress(psutil.NoSuchProcess):
        return list(psutil.Process(process.pid).children(recursive=True))
    return []

"""Servers as processes of their own: waited for, weighed, and stopped with all they started."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from loadtest.process import (
    NotServing,
    Server,
    Started,
    free_port,
    memory_bytes,
    says_ready,
    serving,
    stop,
)

# Serves /readyz, and has a child that does nothing but be there.
SERVES = """
import http.server, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/readyz" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Ready).serve_forever()
"""
STAYS = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(600)
"""


def python(program: str, *words: str) -> list[str]:
    return [sys.executable, "-c", program, *words]


# Writes the number of a child of its own; then ends, or stays.
LEAVES = """
import os, pathlib, signal, subprocess, sys, time
def leave(*_):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    new = pathlib.Path(sys.argv[1] + ".new")
    new.write_text(str(child.pid))
    new.rename(sys.argv[1])
"""
DIES = "leave(); sys.exit('boom')"
STANDS = "leave(); time.sleep(600)"
LAST = """
def last(*_):
    leave()
    sys.exit(0)
signal.signal(signal.SIGTERM, last)
pathlib.Path(sys.argv[1] + ".up").touch()
time.sleep(600)
"""


# The child works, and ends once a file is there; then its parent says so and stays.
WORKS = """
import pathlib, subprocess, sys, time
subprocess.run([sys.executable, "-c", *sys.argv[1:]])
pathlib.Path(sys.argv[2] + ".over").touch()
time.sleep(600)
"""
CHILD = """
import pathlib, sys, time
while time.process_time() < 0.5: pass
pathlib.Path(sys.argv[1] + ".done").touch()
while not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.01)
"""


def never() -> bool:
    return False


def test_a_server_is_weighed_and_ends_with_all_it_started() -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    assert not says_ready(url)()
    command = python(SERVES, str(port))
    with serving("a server", command, port=port, ready=says_ready(url)) as server:
        assert server.url == url and server.ready_s > 0
        family = server.family()
        assert len(family) == 2
        assert server.cpu_s() > 0
        assert server.memory_bytes() > 2 * 1_000_000
    until(lambda: not any(map(runs, family)))


def test_one_that_ends_at_once_shows_the_end_of_its_log() -> None:
    command = python("raise SystemExit('no model here')")
    said = re.escape("toy did not become ready:\nno model here")
    with pytest.raises(NotServing, match=said), serving("toy", command, port=1, ready=never):
        raise AssertionError("it is not ready")


def test_one_that_ended_is_not_ready_though_somebody_else_answers() -> None:
    started = Started("toy", python("raise SystemExit('address in use')"))
    started.process.wait()
    with pytest.raises(NotServing, match="toy did not become ready:\naddress in use"):
        started.until(lambda: True)
    stop([started])


def test_one_that_cannot_be_started_is_one_line(tmp_path: Path) -> None:
    stale = tmp_path / "serve"
    stale.write_text("#!/nowhere/python\n")
    stale.chmod(0o755)
    with pytest.raises(NotServing, match=r"^toy cannot be started: No such file .*: .*serve$"):
        Started("toy", [str(stale)])


def test_one_that_is_never_ready_is_ended() -> None:
    started = Started("toy", python("import time; time.sleep(600)"))
    with pytest.raises(NotServing, match="toy did not become ready"):
        started.until(never, within_s=0.1)
    stop([started])
    assert started.process.poll() is not None


def test_whoever_does_not_heed_is_ended_all_the_same(tmp_path: Path) -> None:
    log = tmp_path / "deaf"
    shell = f"import os; os.dup2(os.open({str(log)!r}, os.O_CREAT | os.O_WRONLY), 1)\n"
    several = [Started("deaf", python(shell + STAYS)) for _ in range(2)]
    until(lambda: log.is_file() and log.read_text().startswith("deaf"))
    stop(several, within_s=0.2)
    assert {each.process.poll() for each in several} <= {-9, -15}


def test_what_a_server_started_ends_though_it_died_before_it_was_ready(tmp_path: Path) -> None:
    file = tmp_path / "child"
    started = Started("toy", python(LEAVES + DIES, str(file)))
    with pytest.raises(NotServing, match="boom"):
        started.until(never)
    until(lambda: not runs(left(file)))
    stop([started])


def test_what_a_server_started_ends_though_it_died_while_it_served(tmp_path: Path) -> None:
    file = tmp_path / "child"
    started = Started("toy", python(LEAVES + STANDS, str(file)))
    until(file.is_file)
    started.process.kill()
    stop([started])
    until(lambda: not runs(left(file)))


def test_what_a_server_starts_last_ends_too(tmp_path: Path) -> None:
    file = tmp_path / "child"
    started = Started("toy", python(LEAVES + LAST, str(file)))
    until((tmp_path / "child.up").is_file)
    stop([started])
    until(lambda: not runs(left(file)))


def left(file: Path) -> int:
    """Whom a server that has ended had started."""
    return int(file.read_text())


def runs(process: psutil.Process | int) -> bool:
    """Where nobody reaps orphans, one that was killed stays as a zombie."""
    try:
        found = psutil.Process(process) if isinstance(process, int) else process
        return found.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def until(true: Callable[[], bool]) -> None:
    for _ in range(1000):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("it never came true")


def test_what_has_ended_cannot_be_weighed() -> None:
    started = Started("toy", python(""))
    process = psutil.Process(started.process.pid)
    server = Server("http://127.0.0.1:1", 0.0, process)
    until(lambda: process.status() == psutil.STATUS_ZOMBIE)
    for reaped in (False, True):
        if reaped:
            started.process.wait()
        for weighed in (server.cpu_s, server.memory_bytes):
            with pytest.raises(NotServing, match=r"^the server at .* has ended$"):
                weighed()
    with pytest.raises(psutil.NoSuchProcess):
        memory_bytes(process)


def test_what_a_child_took_is_not_forgotten_when_it_ends(tmp_path: Path) -> None:
    file = tmp_path / "end"
    started = Started("toy", python(WORKS, CHILD, str(file)))
    server = Server("http://127.0.0.1:1", 0.0, psutil.Process(started.process.pid))
    until((tmp_path / "end.done").is_file)
    before = server.cpu_s()
    file.touch()
    until((tmp_path / "end.over").is_file)
    # Told in hundredths of a second, of the child and of all: each may be rounded.
    assert server.cpu_s() > before - 0.1 > 0.3
    stop([started])


def test_a_child_that_ends_as_it_is_weighed_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = subprocess.Popen(python(""))
    child = psutil.Process(gone.pid)
    gone.wait()
    itself = psutil.Process()
    monkeypatch.setattr(Server, "family", lambda _: [itself, child])
    server = Server("http://127.0.0.1:1", 0.0, itself)
    assert server.cpu_s() > 0 and server.memory_bytes() > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_is_told_to_end_while_he_starts_one_leaves_none_behind(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    made, popen = [], subprocess.Popen

    def interrupted(*args: Any, **more: Any) -> Any:
        made.append(popen(*args, **more))
        signal.raise_signal(number)
        return made[0]

    def ends(*_: object) -> None:
        raise SystemExit(143)

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    before = signal.signal(signal.SIGTERM, ends)
    try:
        command = python("import time; time.sleep(600)")
        with (
            pytest.raises((KeyboardInterrupt, SystemExit)),
            serving("toy", command, port=1, ready=never),
        ):
            raise AssertionError("it is not ready")
        assert signal.getsignal(signal.SIGTERM) is ends
    finally:
        signal.signal(signal.SIGTERM, before)
    assert made[0].poll() is not None

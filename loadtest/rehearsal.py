"""
A scale-out and a rollout, rehearsed on one machine: real servers behind the shipped proxy under
load, while some are added, replaced and taken away. A request that fails ends it with status 1.

Not Kubernetes: what its controllers and its endpoints do there, `play` does here, as they would: a
replica is asked only once it is ready, and one that goes is told SIGTERM and nothing else.
Servers and proxy are processes; knows nothing of what they answer.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from loadtest import checker, traffic
from loadtest.arrivals import BadArrivals, parse, plain
from loadtest.checker import Checked
from loadtest.complaint import Complaint
from loadtest.figures import all_percentiles_s
from loadtest.flags import above_0, count
from loadtest.process import ROOT, Started, free_port, says_ready, stop, unbroken
from loadtest.record import Run, Unusable
from loadtest.texts import BadTraffic
from loadtest.validity import generator

CONFIGURATION = ROOT / "deploy" / "haproxy.cfg"
BACKEND = "kadogo"
# As the shipped configuration checks its own.
CHECK = "check inter 500ms fastinter 200ms fall 2 rise 1 pool-purge-delay 2s"

EXIT_BROKEN, EXIT_UNUSABLE = 1, 2
CALLS = 256
CALLERS = 64
MOST = 10_000  # requests a second: several times what Locust sends
LONGEST_S = 24 * 3600.0
GONE_WITHIN_S = 60.0

Clock = Callable[[], float]
"""Seconds since the load began."""


@dataclass(slots=True, kw_only=True)
class Replica:
    """
    One server.

    ready_s   from its start to the first 200 at /readyz
    gone_s    from SIGTERM to its end, or until nobody waited any more; None: it was not told to go
    answered  requests that the proxy had an answer of 200 for
    status    it ended with; None: it did not
    """

    name: str
    address: str
    started: Started
    ready_s: float
    gone_s: float | None = None
    answered: int = 0
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Phase:
    """Part of the play, in seconds since the load began."""

    name: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """
    What was seen.

    retried  requests that the proxy sent to another replica; None: it does not say any more
    checked  the answers against those of their texts alone
    ended    how the play was broken off, which proves nothing; empty where it was not
    """

    run: Run
    phases: tuple[Phase, ...]
    replicas: tuple[Replica, ...]
    retried: int | None
    checked: Checked
    ended: str = ""

    @property
    def swapped(self) -> list[Complaint]:
        return checker.complaints(self.checked, self.run.variant)


# --- the play --------------------------------------------------------------------------------


class Stage:
    """The proxy and its replicas; what the proxy needs is in `folder`."""

    def __init__(self, folder: Path, settings: Mapping[str, str], configuration: Path) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self.replicas: list[Replica] = []
        self._folder = folder
        self._settings = settings
        self._configuration = configuration
        self._socket = folder / "haproxy.socket"
        self._proxy: Started | None = None
        self._closed = False

    def open(self) -> None:
        """The proxy before one replica. Raises Unusable with the end of a log."""
        first = self._start()
        control = self._folder / "control.cfg"
        control.write_text(f"global\n  stats socket {self._socket} mode 600 level admin\n")
        bind = {"KADOGO_BIND": self.url.removeprefix("http://"), "KADOGO_SERVER": first.address}
        command = [_haproxy(), "-f", str(self._configuration), "-f", str(control)]
        with unbroken():
            self._proxy = Started("haproxy", command, {**os.environ, **bind})
        self._proxy.until(says_ready(self.url))

    @property
    def serving(self) -> list[Replica]:
        return [each for each in self.replicas if each.gone_s is None]

    def add(self) -> None:
        """One more, asked once it is ready."""
        new = self._start()
        for command in (
            f"add server {BACKEND}/{new.name} {new.address} {CHECK}",
            f"enable health {BACKEND}/{new.name}",
            f"enable server {BACKEND}/{new.name}",
        ):
            self._tell(command)

    def take(self, replica: Replica) -> None:
        """It is told to go, drains and ends; the proxy sees for itself that it is not ready."""
        began = time.perf_counter()
        replica.started.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            replica.status = replica.started.process.wait(GONE_WITHIN_S)
            replica.started.end()
        replica.gone_s = time.perf_counter() - began
        self.count()
        self._tell(f"set server {BACKEND}/{replica.name} state maint")

    def forget(self) -> None:
        """What was counted so far is none of the play."""
        self._tell("clear counters all")

    def count(self) -> int:
        """How many requests each has answered so far; returns how many the proxy sent again."""
        rows = csv.DictReader(io.StringIO(self._tell("show stat").removeprefix("# ")))
        told = {row["svname"]: row for row in rows if row["pxname"] == BACKEND}
        for each in self.replicas:
            if each.name in told:
                each.answered = int(told[each.name]["hrsp_2xx"] or 0)
        whole = told["BACKEND"]
        return int(whole["wretr"] or 0) + int(whole["wredis"] or 0)

    def close(self) -> None:
        """All end, with what they started, whatever they do."""
        self._closed = True
        stop([*(each.started for each in self.replicas), *filter(None, [self._proxy])])

    def _start(self) -> Replica:
        if self._closed:
            raise Unusable("the rehearsal was broken off")
        name = f"kadogo{len(self.replicas) + 1}"
        port = str(free_port())
        serve = [sys.executable, "-m", "bentoml", "serve", "service.app:Kadogo"]
        command = [*serve, "--host", "127.0.0.1", "--port", port]
        with unbroken():
            started = Started(name, command, self._environment())
            new = Replica(name=name, address=f"127.0.0.1:{port}", started=started, ready_s=0.0)
            self.replicas.append(new)
        new.ready_s = started.until(says_ready(f"http://{new.address}"))
        return new

    def _environment(self) -> dict[str, str]:
        """Ours without the settings of servers and load tests that may be in it."""
        rest = {n: v for n, v in os.environ.items() if not n.startswith(("KADOGO_", "BENTO"))}
        return {**rest, **self._settings}

    def _tell(self, command: str) -> str:
        """What haproxy says to it. Raises Unusable where it refuses or is no more."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(self._socket))
                connection.sendall(f"{command}\n".encode())
                said = b"".join(iter(lambda: connection.recv(65536), b"")).decode().strip()
        except OSError as error:
            raise Unusable(f"haproxy does not answer: {error}") from error
        if not command.startswith("show") and said and "registered" not in said:
            raise Unusable(f"haproxy does not {command!r}: {said}")
        return said


def play(
    stage: Stage,
    *,
    replicas: int,
    settle_s: float,
    clock: Clock,
    say: Callable[[str], None],
    over: Callable[[Phase], None],
) -> None:
    """
    One replica, scaled out, each replaced by a new one, scaled in. Raises Unusable.

    say, over  told the name of each phase when it begins, and the phase when it is over
    """
    time.sleep(max(0.0, -clock()))  # the load warms up

    @contextmanager
    def phase(name: str) -> Iterator[None]:
        say(name)
        start = clock()
        yield
        time.sleep(settle_s)
        over(Phase(name, start, clock()))

    with phase("1 replica"):
        pass
    with phase(f"scaled out to {replicas}"):
        for _ in range(replicas - 1):
            stage.add()
    for number, old in enumerate(stage.serving, 1):
        with phase(f"replaced {number} of {replicas}"):
            stage.add()
            stage.take(old)
    with phase("scaled in to 1"):
        for old in stage.serving[1:]:
            stage.take(old)


# --- what is told of it ----------------------------------------------------------------------


def broken(found: Rehearsal) -> list[str]:
    """What was not kept, a sentence each."""
    said = []
    whole = len(found.run.requests) + found.run.dropped
    if failed := whole - len(found.run.right):
        reasons = Counter(each.error for each in found.run.requests if each.error)
        worst = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common(3))
        said.append(f"{failed} of {whole} requests failed: {worst or 'never sent'}")
    for each in found.replicas:
        if each.status:
            said.append(f"{each.name} ended with {each.status}")
        if each.gone_s is not None and each.status is None:
            said.append(f"{each.name} is still there {each.gone_s:.0f} s after SIGTERM")
        if not each.answered:
            said.append(f"{each.name} answered nothing")
    return [*said, *map(str, found.swapped)]


def status(found: Rehearsal) -> int:
    """A swapped answer is one, however the play ended."""
    if found.swapped:
        return EXIT_BROKEN
    void = found.ended or checker.blind(found.checked)
    return EXIT_UNUSABLE if void else EXIT_BROKEN if broken(found) else 0


def told(found: Rehearsal) -> str:
    """The verdict, what was broken, a line a phase and a line a replica."""
    run, wrong = found.run, broken(found)
    failed = len(run.requests) + run.dropped - len(run.right)
    lines = [
        *([f"broken off, which proves nothing: {found.ended}"] if found.ended else []),
        f"{failed or 'none'} of {len(run.requests) + run.dropped} requests failed in "
        f"{run.seconds:.0f} s at {run.arrivals}, while {len(found.replicas)} replicas came and "
        f"{sum(each.gone_s is not None for each in found.replicas)} went",
        *wrong,
        *checker.blind(found.checked),
        "",
        f"{'':<18} {'seconds':>12} {'requests':>9} {'failed':>7} {'p50 ms':>8} {'p99 ms':>8}",
    ]
    for phase in found.phases:
        inside = [each for each in run.requests if phase.start_s <= each.due_s < phase.end_s]
        part = replace(run, requests=tuple(inside), dropped=0)
        half, most = map(_ms, all_percentiles_s([part], [0.5, 0.99]))
        lines.append(
            f"{phase.name:<18} {phase.start_s:>5.1f} - {phase.end_s:>4.1f} {len(inside):>9} "
            f"{len(inside) - len(part.right):>7} {half:>8} {most:>8}"
        )
    lines += ["", f"{'':<18} {'ready after s':>14} {'answered':>9} {'gone after s':>13}"]
    for each in found.replicas:
        gone = "-" if each.gone_s is None else f"{each.gone_s:.1f}"
        lines.append(f"{each.name:<18} {each.ready_s:>14.1f} {each.answered:>9} {gone:>13}")
    late_ms = 1000 * generator(run).late_p99_s
    again = "" if found.retried is None else f"haproxy asked again {found.retried} times; "
    load = f"the load took {run.cores:.2f} cores, p99 late {late_ms:.1f} ms"
    return "\n".join([*lines, "", f"{again}{load}", f"compared: {checker.told(found.checked)}"])


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f}" if math.isfinite(seconds) else "never"


# --- the command line ------------------------------------------------------------------------


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "rehearse", help="servers behind haproxy are added, replaced and taken away under load"
    )
    add = parser.add_argument
    add("--variant", default="ner-int8", help="default: %(default)s")
    add("--rate", type=_rate, default=40.0, help="requests a second (default: %(default)g)")
    add("--replicas", type=count, default=3, help="most, but for one in a rollout (default: 3)")
    add("--threads", type=count, default=1, help="of each replica (default: %(default)s)")
    add("--settle", type=above_0, default=5.0, help="seconds after each change (default: 5)")
    add("--catalog", type=Path, help="of variants (default: the embedded one)")
    add(
        "--configuration",
        type=Path,
        default=CONFIGURATION,
        help="of haproxy (default: deploy/haproxy.cfg)",
    )
    traffic.add_arguments(parser)
    parser.set_defaults(run=run)


def _rate(text: str) -> float:
    if (rate := above_0(text)) > MOST:
        raise argparse.ArgumentTypeError(f"{text} is more than one process sends: {MOST} at most")
    return rate


def run(args: argparse.Namespace) -> int:
    """0: nothing failed; 1: something did; 2: nothing was rehearsed."""
    # Late and first: Locust patches the standard library before ssl is imported.
    from loadtest import engine  # noqa: F401

    # Servers and proxy end with us, however we are told to.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    settings = {"KADOGO_THREADS": str(args.threads), "BENTOML_DO_NOT_TRACK": "True"}
    if args.catalog:
        settings["KADOGO_CATALOG"] = str(args.catalog.resolve())
    with tempfile.TemporaryDirectory(prefix="kadogo-rehearsal-") as folder:
        stage = Stage(Path(folder), settings, args.configuration)
        try:
            # Before servers are started for nothing.
            parse(_arrivals(args))
            traffic.from_arguments(args)
            stage.open()
            found = _rehearsed(args, stage)
        except (BadArrivals, BadTraffic, Unusable) as error:
            print(error, file=sys.stderr)
            return EXIT_UNUSABLE
        finally:
            stage.close()
    print(told(found))
    return status(found)


def _arrivals(args: argparse.Namespace) -> str:
    return f"poisson:{plain(args.rate)}"


def _rehearsed(args: argparse.Namespace, stage: Stage) -> Rehearsal:
    """Raises BadTraffic, Unusable."""
    from loadtest import engine
    from loadtest.server import described

    task = described(stage.url, args.variant)["task"]
    calls = traffic.calls(traffic.from_arguments(args), task=task, count=CALLS)
    with checker.connection(stage.url) as post:
        alone = checker.alone(calls, args.variant, post)
    stage.forget()
    phases: list[Phase] = []
    ended = ""

    def beside(clock: Clock) -> None:
        nonlocal ended
        try:
            play(
                stage,
                replicas=args.replicas,
                settle_s=args.settle,
                clock=clock,
                say=_say,
                over=phases.append,
            )
        except Unusable as error:  # what was measured so far is told all the same
            ended = str(error)

    found = engine.run(
        stage.url,
        args.variant,
        task,
        calls=calls,
        arrivals=_arrivals(args),
        seconds=LONGEST_S,
        warmup_s=1.0,
        seed=args.seed,
        callers=CALLERS,
        beside=beside,
    )
    retried = None
    try:
        retried = stage.count()
    except Unusable as error:  # the proxy is gone
        ended = ended or str(error)
    return Rehearsal(
        run=found,
        phases=tuple(phases),
        replicas=tuple(stage.replicas),
        retried=retried,
        checked=checker.checked(calls, found, alone),
        ended=ended,
    )


def _haproxy() -> str:
    found = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        raise Unusable("haproxy is not installed: apt-get install haproxy")
    return found


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

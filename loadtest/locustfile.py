"""
The same load under Locust's own command: with its page, and spread over workers.

    locust -f loadtest/locustfile.py --host http://127.0.0.1:3000 --arrivals poisson:200
    ... --master --expect-workers 2    and, twice or on other machines,    ... --worker

Arrivals say how many users there are and when the test ends, so Locust's --users, --spawn-rate and
--run-time have no part in it. Each worker sends its share of one schedule. At the end the exact
figures of all workers are printed and, with --figures, written.
"""

from __future__ import annotations

import json
import os
import sys
import time
from argparse import ArgumentParser, ArgumentTypeError
from functools import cache
from pathlib import Path
from typing import Any

import gevent
from locust import LoadTestShape, events
from locust.env import Environment
from locust.runners import STATE_MISSING, LocalRunner, MasterRunner, Runner, WorkerRunner

from loadtest import traffic
from loadtest.arrivals import BadArrivals, Replay, length_s, parse
from loadtest.engine import CALLERS, LAST_ANSWERS_S, Caller, Load, Work, headers_of, prepare
from loadtest.files import tried, write
from loadtest.flags import above_0, address, count, from_0
from loadtest.record import Call, Unusable
from loadtest.shares import Share, figures, from_wire, measured, merged, to_wire
from loadtest.texts import BadTraffic

__all__ = ["Arriving", "Caller"]  # what Locust looks for

CALLS = 4096
SECONDS = 60.0
EXIT_UNUSABLE = 2
SHARE, END, DONE = "kadogo_share", "kadogo_end", "kadogo_done"
PATIENCE_S = 15.0  # for workers to read their answers and report, beyond the last answers


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def flags(parser: ArgumentParser) -> None:
    """The flags of `locust -f` beside Locust's own; workers get them from the master."""
    parser.add_argument("--arrivals", default="closed:16", help="as in docs/loadtesting.md")
    parser.add_argument("--variant", default="", help="empty: the task's default variant")
    parser.add_argument("--task", choices=sorted(traffic.PATHS), default="ner")
    # Not None: of its page Locust takes values by the type of the default.
    parser.add_argument(
        "--seconds",
        type=above_0,
        default=0.0,
        help=f"measured (default: to the end of a replayed trace, else {SECONDS:g})",
    )
    parser.add_argument("--warmup", type=from_0, default=5.0, help="seconds before, not measured")
    parser.add_argument("--callers", type=count, default=CALLERS, help="under way at once, at most")
    parser.add_argument("--figures", default="", help="a JSON file to write at the end")
    traffic.add_arguments(parser, mixes=True)


class _State:
    """Of this process: its load, its share, and what was reported to it."""

    def __init__(self) -> None:
        self.runner: Runner | None = None
        self.load: Load | None = None
        self.index, self.of = 0, 1
        self.expected = 1
        self.reported: dict[str, Share] = {}
        self.begun = False
        self.reporting: gevent.Greenlet | None = None


_state = _State()


class Arriving(LoadTestShape):
    """As many users as the arrivals want, until all shares are reported."""

    def tick(self) -> tuple[int, float] | None:
        asked = self.runner.environment.parsed_options if self.runner else None
        if asked is None:
            return None
        work = _work(asked, "")
        longest = work.warmup_s + work.seconds + LAST_ANSWERS_S + PATIENCE_S
        elapsed = time.perf_counter() - self.start_time
        if len(_state.reported) >= _state.expected or elapsed > longest:
            return None
        return work.users, work.users


@events.init.add_listener  # type: ignore[untyped-decorator]
def begin(environment: Environment, **_: Any) -> None:
    """Wrong settings end it here, in one line."""
    runner, asked = environment.runner, environment.parsed_options
    _state.runner = runner
    environment.stop_timeout = LAST_ANSWERS_S
    if isinstance(runner, WorkerRunner):
        runner.register_message(SHARE, _take_share)
        runner.register_message(END, close_load)
        return
    if isinstance(runner, MasterRunner):
        runner.register_message(DONE, _reported)
    if asked is not None:
        try:
            arrivals = parse(asked.arrivals)
            if asked.tasks and asked.variant:
                raise BadTraffic("a variant has one task: leave out --variant or --tasks")
            _calls(asked, 1)
            if asked.headless and not environment.host:
                raise BadTraffic("nothing says whom to ask: give --host")
            environment.host = address(environment.host) if environment.host else None
            if isinstance(arrivals, Replay) and asked.seconds:
                print(_replayed(asked, arrivals), file=sys.stderr)
            if asked.figures and (over := tried([Path(asked.figures)])):
                print(over, file=sys.stderr)
        except (ArgumentTypeError, BadArrivals, BadTraffic, Unusable) as error:
            print(error, file=sys.stderr)
            sys.exit(EXIT_UNUSABLE)


@events.test_start.add_listener  # type: ignore[untyped-decorator]
def prepare_load(environment: Environment, **_: Any) -> None:
    runner = environment.runner
    _state.begun, _state.reported, _state.reporting = True, {}, None
    if isinstance(runner, MasterRunner):
        workers = [each.id for each in runner.clients.all]
        _state.expected = len(workers)
        # Before the users are spawned, on the same connection.
        for index, client in enumerate(workers):
            runner.send_message(SHARE, {"index": index, "of": len(workers)}, client)
        return
    _state.load = Load(_work(environment.parsed_options, environment.host or ""))
    prepare(_state.load)


@events.spawning_complete.add_listener  # type: ignore[untyped-decorator]
def start_load(**_: Any) -> None:
    if _state.load:
        _state.load.start()
        _state.reporting = gevent.spawn(_report, _state.runner, _state.load)


@events.test_stopping.add_listener  # type: ignore[untyped-decorator]
def close_load(**_: Any) -> None:
    if _state.load:
        _state.load.close()


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def stop(environment: Environment, **_: Any) -> None:
    """Told to end while it runs, Locust chooses its status before it stops what runs."""
    if _state.begun and environment.runner:
        environment.runner.stop()


@events.test_stop.add_listener  # type: ignore[untyped-decorator]
def tell(environment: Environment, **_: Any) -> None:
    """The figures of all shares, where they come together; status 2 where they prove nothing."""
    runner, asked = environment.runner, environment.parsed_options
    if _state.reporting:
        _state.reporting.join()  # where it was told to end, the share is still to be measured
    if not _state.begun or not isinstance(runner, LocalRunner | MasterRunner):
        return
    _state.begun = False
    _wait_for_shares(runner)
    found = _figures()
    for name, value in found.items():
        print(f"{name:<16} {'never' if value is None else value}", flush=True)
    if found["invalid"]:
        environment.process_exit_code = EXIT_UNUSABLE
    if asked and asked.figures:
        try:
            write(Path(asked.figures), json.dumps(found, indent=1, ensure_ascii=False) + "\n")
        except Unusable as error:
            print(error, file=sys.stderr)
            environment.process_exit_code = EXIT_UNUSABLE


def _figures() -> dict[str, Any]:
    shares = list(_state.reported.values())
    nothing: dict[str, Any] = {"workers": 0, "invalid": []}
    found = figures(merged(shares)) if shares else nothing
    if len(shares) < _state.expected:
        found["invalid"].append(f"{len(shares)} of {_state.expected} workers reported")
    return found


def _wait_for_shares(runner: Runner) -> None:
    """Of workers that are still there: Locust's master does not wait where it is told to end."""
    if not isinstance(runner, MasterRunner):
        return
    there = {each.id for each in runner.clients.all if each.state != STATE_MISSING}
    for worker in there - _state.reported.keys():
        runner.send_message(END, None, worker)
    until = time.perf_counter() + PATIENCE_S
    while not there <= _state.reported.keys() and time.perf_counter() < until:
        gevent.sleep(0.1)


def _replayed(asked: Any, trace: Replay) -> str:
    within = sum(each < asked.seconds for each in trace.times)
    return (
        f"{asked.arrivals}: {within} of {len(trace.times)} lines are due within "
        f"--seconds {asked.seconds:g}, the last of all at {trace.times[-1]:g} s"
    )


@cache  # the shape asks every second, and a trace may be long
def _length_s(arrivals: str) -> float:
    return length_s(parse(arrivals)) or SECONDS


def _calls(asked: Any, count: int) -> list[Call]:
    """Of one task, or of a mix of them. Raises BadTraffic."""
    task = None if asked.tasks else asked.task
    return traffic.calls(traffic.from_arguments(asked), task=task, count=count)


def _work(asked: Any, host: str) -> Work:
    return Work(
        host=host,
        variant=asked.variant,
        task=asked.task,
        calls=_calls(asked, CALLS) if host else (),
        arrivals=asked.arrivals,
        seconds=asked.seconds or _length_s(asked.arrivals),
        warmup_s=asked.warmup,
        seed=asked.seed,
        callers=asked.callers,
        headers=headers_of(os.environ.get("KADOGO_KEY")),
        index=_state.index,
        of=_state.of,
    )


def _report(runner: Runner, load: Load) -> None:
    """Once all users have left, or were waited for long enough."""
    until = time.perf_counter() + load.work.warmup_s + load.work.seconds + LAST_ANSWERS_S
    runner.user_greenlets.join(timeout=max(0.0, until - time.perf_counter()))
    runner.user_greenlets.kill()
    share = measured(load.run())
    if isinstance(runner, WorkerRunner):
        runner.send_message(DONE, to_wire(share))
    else:
        _state.reported["local"] = share


def _take_share(msg: Any, **_: Any) -> None:
    _state.index, _state.of = msg.data["index"], msg.data["of"]


def _reported(msg: Any, **_: Any) -> None:
    _state.reported[msg.node_id] = from_wire(msg.data)

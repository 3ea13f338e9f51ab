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
from pathlib import Path
from typing import Any

import gevent
from locust import LoadTestShape, events
from locust.env import Environment
from locust.runners import LocalRunner, MasterRunner, Runner, WorkerRunner

from loadtest import traffic
from loadtest.arrivals import BadArrivals, parse
from loadtest.engine import CALLERS, LAST_ANSWERS_S, Caller, Load, Work, headers_of, prepare
from loadtest.flags import above_0, address, count, from_0
from loadtest.record import Call
from loadtest.shares import Share, figures, from_wire, measured, merged, to_wire
from loadtest.texts import BadTraffic

__all__ = ["Arriving", "Caller"]  # what Locust looks for

CALLS = 4096
EXIT_UNUSABLE = 2
SHARE, DONE = "kadogo_share", "kadogo_done"
PATIENCE_S = 15.0  # for workers to read their answers and report, beyond the last answers


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def flags(parser: ArgumentParser) -> None:
    """The flags of `locust -f` beside Locust's own; workers get them from the master."""
    parser.add_argument("--arrivals", default="closed:16", help="as in docs/loadtesting.md")
    parser.add_argument("--variant", default="", help="empty: the task's default variant")
    parser.add_argument("--task", choices=sorted(traffic.PATHS), default="ner")
    parser.add_argument("--seconds", type=above_0, default=60.0, help="measured")
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


_state = _State()


class Arriving(LoadTestShape):
    """As many users as the arrivals want, until all shares are reported."""

    def tick(self) -> tuple[int, float] | None:
        asked = self.runner.environment.parsed_options if self.runner else None
        if asked is None:
            return None
        longest = asked.warmup + asked.seconds + LAST_ANSWERS_S + PATIENCE_S
        elapsed = time.perf_counter() - self.start_time
        if len(_state.reported) >= _state.expected or elapsed > longest:
            return None
        users = _work(asked, "").users
        return users, users


@events.init.add_listener  # type: ignore[untyped-decorator]
def begin(environment: Environment, **_: Any) -> None:
    """Wrong settings end it here, in one line."""
    runner, asked = environment.runner, environment.parsed_options
    _state.runner = runner
    environment.stop_timeout = LAST_ANSWERS_S
    if isinstance(runner, WorkerRunner):
        runner.register_message(SHARE, _take_share)
        return
    if isinstance(runner, MasterRunner):
        runner.register_message(DONE, _reported)
    if asked is not None:
        try:
            parse(asked.arrivals)
            if asked.tasks and asked.variant:
                raise BadTraffic("a variant has one task: leave out --variant or --tasks")
            _calls(asked, 1)
            environment.host = address(environment.host) if environment.host else None
        except (ArgumentTypeError, BadArrivals, BadTraffic) as error:
            print(error, file=sys.stderr)
            sys.exit(EXIT_UNUSABLE)


@events.test_start.add_listener  # type: ignore[untyped-decorator]
def prepare_load(environment: Environment, **_: Any) -> None:
    runner = environment.runner
    _state.reported = {}
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
        gevent.spawn(_report, _state.runner, _state.load)


@events.test_stopping.add_listener  # type: ignore[untyped-decorator]
def close_load(**_: Any) -> None:
    if _state.load:
        _state.load.close()


@events.test_stop.add_listener  # type: ignore[untyped-decorator]
def tell(environment: Environment, **_: Any) -> None:
    """The figures of all shares, where they come together; status 2 where they prove nothing."""
    if not isinstance(environment.runner, LocalRunner | MasterRunner) or not _state.reported:
        return
    found = figures(merged(list(_state.reported.values())))
    if missing := _state.expected - len(_state.reported):
        found["invalid"].append(f"{missing} of {_state.expected} workers did not report")
    for name, value in found.items():
        print(f"{name:<16} {value}", flush=True)
    if found["invalid"]:
        environment.process_exit_code = EXIT_UNUSABLE
    if environment.parsed_options and environment.parsed_options.figures:
        written = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
        Path(environment.parsed_options.figures).write_text(written, encoding="utf-8")


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
        seconds=asked.seconds,
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

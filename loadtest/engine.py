"""
One run of load, with Locust as a library: a schedule, users who keep it, what became of each call.

In a closed loop what was asked in the warm-up and answered in the run is part of it: as much is
under way when it ends, and of whoever counts answers a second the two make up for each other.

In an open loop a dispatcher hands each arrival to a free caller once it is due. Where none is free
it waits, and its latency still counts from when it was due; only where too many wait is it dropped.
Refusals are recorded, never sent again. Answers are kept as bytes and read after the run: the
generator shares two cores with what it measures.

Import this before anything that imports ssl: Locust patches the standard library.
"""

from __future__ import annotations

import gc
import itertools
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from tempfile import TemporaryFile
from typing import ClassVar, NamedTuple
from urllib.parse import urlsplit

import gevent
import gevent.event
import gevent.queue
from geventhttpclient.client import HTTPClient, HTTPClientPool
from locust import FastHttpUser, constant, task
from locust.env import Environment
from locust.exception import StopUser
from locust.runners import LocalRunner

from loadtest import traffic
from loadtest.arrivals import Closed, Poisson, due, opening, parse, plan, share
from loadtest.record import Call, Request, Run

CALLERS = 256
WAITING = 1024
LAST_ANSWERS_S = 30.0
ANSWER_S = 60.0
REST_S = 0.1  # of a caller in a closed loop after a failure: a refusal costs the server little


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """
    What is to be sent in one run; a worker takes share `index` of so many.

    callers   who may be under way at once, in an open loop; a closed loop says itself how many
    warmup_s  before the run, at the rate of its start, with the last of the calls first
    """

    host: str
    variant: str
    task: str
    calls: Sequence[Call]
    arrivals: str
    seconds: float
    warmup_s: float
    seed: int
    callers: int = CALLERS
    headers: Mapping[str, str] = field(default_factory=dict)
    index: int = 0
    of: int = 1

    @property
    def users(self) -> int:
        """Of all workers together."""
        # Asked every second by Locust's shape: a trace, which may be long, is not read for it.
        process = None if self.arrivals.startswith("replay:") else parse(self.arrivals)
        return process.callers if isinstance(process, Closed) else self.callers


class _Kept(NamedTuple):
    """A request as it was recorded; its answer is `length` bytes of a file, from `start`."""

    call: int
    due: float
    sent: float
    done: float
    status: int
    failure: str | None
    retry_after: str | None
    start: int
    length: int


class Load:
    """The work of one process while it is done. Its users call `serve`, each once."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self._process = parse(work.arrivals)
        prefix = urlsplit(work.host).path.rstrip("/")
        self._requests = [
            (prefix + traffic.path(call), traffic.body(call, work.variant)) for call in work.calls
        ]
        self._headers = {"Content-Type": "application/json", **work.headers}
        self._schedule = iter(()) if isinstance(self._process, Closed) else self._scheduled()
        self._numbers = share(itertools.count(), work.index, work.of)
        self._turns: gevent.queue.Queue[tuple[float, int] | None] = gevent.queue.Queue()
        self._begun = gevent.event.Event()
        self._over = gevent.event.Event()
        self._zero = 0.0
        self._kept: list[_Kept] = []
        self._answers = TemporaryFile()  # noqa: SIM115 - it lives as long as this does
        self._dropped = 0
        self._cores = 0.0
        self._seconds = work.seconds

    def start(self) -> None:
        """Once all users are there. Until `close` no garbage is collected: nothing is sent then."""
        gc.collect()
        gc.disable()
        self._zero = time.perf_counter() + self.work.warmup_s
        gevent.spawn(self._measure)
        gevent.spawn(self._dispatch)
        self._begun.set()

    def close(self) -> None:
        """Nothing more is due, be it before its time. Users leave when they have no turn left."""
        so_far = self.clock() if self._begun.is_set() else 0.0
        self._seconds = min(self._seconds, max(so_far, 1e-3))
        self._schedule = iter(())
        self._turns.put(None)
        self._over.set()
        gc.enable()

    def clock(self) -> float:
        """Seconds since the warm-up was over."""
        return time.perf_counter() - self._zero

    def serve(self, user: Caller) -> None:
        """All that one user sends."""
        self._begun.wait()
        http = user.connections()
        for turn in self._closed() if isinstance(self._process, Closed) else self._open():
            self._ask(user, http, *turn)

    def run(self) -> Run:
        """Once all users have left."""
        work = self.work
        unsent = [turn for turn in self._turns.queue if turn and turn[0] >= 0]
        requests = sorted(map(self._read, self._kept), key=lambda each: each.due_s)
        return Run(
            variant=work.variant,
            task=work.task,
            arrivals=work.arrivals,
            seconds=self._seconds,
            requests=tuple(requests),
            dropped=self._dropped + len(unsent),
            cores=self._cores,
        )

    def _scheduled(self) -> Iterator[tuple[float, int]]:
        work, process = self.work, self._process
        assert not isinstance(process, Closed)
        main = plan(process, seconds=work.seconds, seed=work.seed, calls=len(work.calls))
        before = due(Poisson(opening(process)), seconds=work.warmup_s, seed=work.seed)
        warm = ((at - work.warmup_s, _last(i, len(work.calls))) for i, at in enumerate(before))
        return itertools.chain(share(warm, work.index, work.of), share(main, work.index, work.of))

    def _dispatch(self) -> None:
        # Not `for`: `close` may put an end to the schedule.
        while turn := next(self._schedule, None):
            # Zero lets the users run, where the schedule is behind.
            gevent.sleep(max(0.0, self._zero + turn[0] - time.perf_counter()))
            if self._over.is_set():
                return  # closed meanwhile: users are leaving, and nobody would take it
            if self._turns.qsize() < WAITING:
                self._turns.put(turn)
            elif turn[0] >= 0:
                self._dropped += 1
        gevent.sleep(max(0.0, self._zero + self.work.seconds - time.perf_counter()))
        self.close()

    def _measure(self) -> None:
        gevent.sleep(max(0.0, self._zero - time.perf_counter()))
        cpu, wall = time.process_time(), time.perf_counter()
        self._over.wait()
        self._cores = (time.process_time() - cpu) / (time.perf_counter() - wall)

    def _open(self) -> Iterator[tuple[float, int]]:
        while turn := self._turns.get():
            yield turn
        self._turns.put(None)  # for the next user

    def _closed(self) -> Iterator[tuple[float, int]]:
        calls = len(self.work.calls)
        while self._turns.empty():
            now = time.perf_counter() - self._zero
            number = next(self._numbers)
            yield now, number % calls if now >= 0 else _last(number, calls)

    def _ask(self, user: Caller, http: HTTPClient, due_s: float, number: int) -> None:
        path, body = self._requests[number]
        clock, zero = time.perf_counter, self._zero
        status, answer, retry_after, failure = 0, b"", None, None
        sent = clock() - zero
        try:
            response = http.request("POST", path, body, self._headers)
            answer = response.read()
            status = response.status_code
            retry_after = response.get("retry-after") if status in (429, 503) else None
        except gevent.GreenletExit:
            failure = f"no answer within {LAST_ANSWERS_S:g} s of the end"
            raise
        except Exception as error:
            failure = f"no answer: {type(error).__name__}"
        finally:
            done = clock() - zero
            if due_s >= 0 or (done >= 0 and isinstance(self._process, Closed)):
                start = self._answers.tell()
                self._answers.write(answer)
                told = str(retry_after) if retry_after else None
                self._kept.append(
                    _Kept(number, due_s, sent, done, status, failure, told, start, len(answer))
                )
        wrong = failure or (None if status == 200 else f"HTTP {status}")
        user.report(path, done - due_s, len(answer), wrong)
        if wrong and isinstance(self._process, Closed):
            gevent.sleep(REST_S)

    def _read(self, kept: _Kept) -> Request:
        self._answers.seek(kept.start)
        body = self._answers.read(kept.length)
        answer, error = traffic.read_answer(self.work.calls[kept.call], kept.status, body)
        return Request(
            call=kept.call,
            due_s=kept.due,
            sent_s=kept.sent,
            done_s=kept.done,
            status=kept.status,
            error=kept.failure or error,
            answer=answer,
            retry_after_s=traffic.retry_after_s(kept.status, body, kept.retry_after),
        )


class Caller(FastHttpUser):
    """Takes turns of the load there is. Users share connections: the one used last goes first."""

    wait_time = constant(0)
    load: ClassVar[Load]

    @task
    def all_turns(self) -> None:
        # One task for all turns: Locust's own work between two costs as much as sending one.
        self.load.serve(self)
        raise StopUser

    def connections(self) -> HTTPClient:
        # Without FastHttpUser's session, which takes as long again, for cookies and redirects.
        return self.client.client.clientpool.get_client(self.load.work.host)

    def report(self, path: str, seconds: float, length: int, wrong: str | None) -> None:
        """To Locust: for its page, its statistics and its workers' reports."""
        self.environment.events.request.fire(
            request_type="POST",
            name=self.load.work.variant or path,
            response_time=seconds * 1000,
            response_length=length,
            exception=_Failure(wrong) if wrong else None,
            context={},
        )


class _Failure(Exception):
    """What Locust counts as a failure."""


def headers_of(key: str | None) -> dict[str, str]:
    """What a server with keys wants to see."""
    return {"Authorization": f"Bearer {key}"} if key else {}


def prepare(load: Load) -> None:
    """The next users are this load's."""
    Caller.load = load
    Caller.client_pool = HTTPClientPool(
        concurrency=load.work.users,
        connection_timeout=ANSWER_S,
        network_timeout=ANSWER_S,
    )


def run(
    host: str,
    variant: str,
    task: str,
    *,
    calls: Sequence[Call],
    arrivals: str,
    seconds: float,
    warmup_s: float,
    seed: int,
    callers: int = CALLERS,
    key: str | None = None,
    headers: Mapping[str, str] | None = None,
    beside: Callable[[Callable[[], float]], None] | None = None,
) -> Run:
    """
    Raises BadArrivals, and what `beside` does. Requests under way at the end are waited for up to
    LAST_ANSWERS_S.

    beside  done meanwhile, with a clock of the run's seconds: the load ends with it
    """
    load = Load(
        Work(
            host=host,
            variant=variant,
            task=task,
            calls=calls,
            arrivals=arrivals,
            seconds=seconds,
            warmup_s=warmup_s,
            seed=seed,
            callers=callers,
            headers={**(headers or {}), **headers_of(key)},
        )
    )
    runner = _runner(load)
    load.start()
    other = gevent.spawn(_beside, load, beside) if beside else None
    try:
        runner.user_greenlets.join(timeout=warmup_s + seconds + LAST_ANSWERS_S)
        runner.quit()
        # A greenlet that has finished is false.
        if other is not None and (error := other.get()):
            raise error
    finally:
        if other is not None:
            other.kill()
    return load.run()


def _runner(load: Load) -> LocalRunner:
    """Locust's, with all the load's users there, who wait until it starts."""
    prepare(load)
    # It warns of users who start all at once; ours wait for their turn.
    logging.getLogger("locust.runners").setLevel(logging.ERROR)
    environment = Environment(user_classes=[Caller], host=load.work.host)
    runner = environment.create_local_runner()
    runner.start(load.work.users, spawn_rate=load.work.users)
    if runner.spawning_greenlet:
        runner.spawning_greenlet.join()
    return runner


def _beside(load: Load, work: Callable[[Callable[[], float]], None]) -> Exception | None:
    """What it raised: gevent would print that of a greenlet beside raising it."""
    try:
        work(load.clock)
    except Exception as error:
        return error
    finally:
        load.close()
    return None


def _last(number: int, calls: int) -> int:
    """
    Calls from the last on backwards: what warms up is not what is measured right after.

    3 calls   number 0 1 2 3 -> 2 1 0 2
    """
    return calls - 1 - number % calls

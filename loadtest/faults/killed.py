"""
A worker is killed under load: nobody hangs, the others answer, and soon another takes its place.

    python -m loadtest killed --host http://127.0.0.1:3000 --variant ner-int8

The server must run on this machine, with two workers or more.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from loadtest import traffic
from loadtest.faults.client import Answer, Pool
from loadtest.record import Call, Unusable
from loadtest.server import described, get, workers_of
from loadtest.texts import BadTraffic

CALLERS = 8
BEFORE_S = 3.0
EVERY_S = 0.1
STRENGTH_S = 15.0
SILENCE_S = 1.0
HUNG_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """
    What was seen.

    workers     there were; `callers` asked one after another
    answered    requests; `cut`: whose connection broke; `failed`: with another status than 200
    longest_s   that any of them took, the cut ones too
    silence_s   the longest time in which nobody was answered
    strength_s  from the kill to the first answer of the new worker; None: there was none
    """

    workers: int
    callers: int
    answered: int
    cut: int
    failed: int
    longest_s: float
    silence_s: float
    strength_s: float | None


def broken(found: Found) -> list[str]:
    """The promises that were not kept, and by how much."""
    wrong = []
    if found.longest_s > HUNG_S:
        wrong.append(f"a request took {found.longest_s:.1f} s, above {HUNG_S:g}")
    if found.cut > found.callers:
        wrong.append(f"{found.cut} requests were cut off, above one of each of {found.callers}")
    if found.failed:
        wrong.append(f"{found.failed} requests failed")
    if found.silence_s > SILENCE_S:
        wrong.append(f"nobody was answered for {found.silence_s:.1f} s, above {SILENCE_S:g}")
    if found.strength_s is None:
        wrong.append("no new worker answered")
    elif found.strength_s > STRENGTH_S:
        wrong.append(
            f"the new worker answered after {found.strength_s:.1f} s, above {STRENGTH_S:g}"
        )
    return wrong


def told(found: Found) -> str:
    strength = "never" if found.strength_s is None else f"after {found.strength_s:.1f} s"
    return "\n".join(
        [
            f"full strength  {strength}, of {found.workers} workers",
            f"answered       {found.answered}, {found.cut} cut off, {found.failed} failed",
            f"longest        {found.longest_s * 1000:.0f} ms",
            f"silence        {found.silence_s * 1000:.0f} ms",
        ]
    )


async def killed(host: str, variant: str, calls: Sequence[Call], *, seconds: float) -> Found:
    """Raises Unusable where the server is not here or has one worker."""
    workers = workers_of(host)
    if len(workers) < 2:
        few = "one worker" if workers else "no worker"
        raise Unusable(f"{host} has {few} on this machine: start it here with KADOGO_WORKERS=2")
    path, bodies = traffic.path(calls[0]), [traffic.body(call, variant) for call in calls]
    pool = Pool(host, key=os.environ.get("KADOGO_KEY"), timeout_s=4 * HUNG_S, again=False)
    answers: list[Answer] = []
    over = asyncio.Event()

    async def ask(number: int) -> None:
        for body in itertools.cycle(bodies[number:] + bodies[:number]):
            if over.is_set():
                return
            if answer := await pool.post(path, body):
                answers.append(answer)

    asking = asyncio.gather(*(ask(number) for number in range(CALLERS)))
    await asyncio.sleep(BEFORE_S)
    known = {each.pid for each in workers}
    workers[0].kill()
    # However short the test: before that nobody is late.
    within_s = max(seconds, STRENGTH_S)
    strength_s = await asyncio.to_thread(_replaced, host, known, time.perf_counter(), within_s)
    over.set()
    await asking
    pool.close()
    return judged(answers, strength_s, len(workers))


def judged(answers: Sequence[Answer], strength_s: float | None, workers: int) -> Found:
    right = sorted(each.done for each in answers if each.status == 200)
    return Found(
        workers=workers,
        callers=CALLERS,
        answered=len(right),
        cut=sum(each.status == 0 for each in answers),
        failed=sum(each.status not in (0, 200) for each in answers),
        longest_s=max((each.latency_s for each in answers), default=0.0),
        silence_s=max((later - earlier for earlier, later in pairwise(right)), default=0.0),
        strength_s=strength_s,
    )


def _replaced(host: str, known: set[int], at: float, within_s: float) -> float | None:
    """Seconds from `at` until a worker that was not known answers."""
    while time.perf_counter() - at < within_s:
        try:
            if get(host, "/v1/status")["process"] not in known:
                return time.perf_counter() - at
        except (Unusable, TypeError, KeyError):  # asked the one that is no more
            pass
        time.sleep(EVERY_S)
    return None


def run(args: argparse.Namespace) -> int:
    """0: kept; 1: broken; 2: nothing was proved."""
    try:
        asked = traffic.from_arguments(args)
        calls = traffic.calls(asked, task=described(args.host, args.variant)["task"], count=256)
        found = asyncio.run(killed(args.host, args.variant, calls, seconds=args.seconds))
    except (BadTraffic, Unusable) as error:
        print(error, file=sys.stderr)
        return 2
    print(told(found))
    wrong = broken(found)
    print(*wrong, sep="\n", file=sys.stderr, end="\n" if wrong else "")
    return 1 if wrong else 0

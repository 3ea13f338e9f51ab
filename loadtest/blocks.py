"""
One block of load: Locust as a library, every response time kept.

Locust's own percentiles are rounded to two digits; ours come from the times themselves.
Import this before anything that imports ssl: Locust patches the standard library, so that
`time.sleep` lets the callers run.
"""

from __future__ import annotations

import itertools
import time
from argparse import Namespace
from typing import Any

from locust.env import Environment

from loadtest.locustfile import Caller
from loadtest.measure import Block, Request, steady

LAST_ANSWERS_S = 60


def run(
    host: str,
    variant: str,
    task: str,
    *,
    texts: str,
    seed: int,
    callers: int,
    warmup_s: float,
    seconds: float,
) -> Block:
    """`callers` callers for `warmup_s + seconds`; answers under way at the end are waited for."""
    asked = Namespace(variant=variant, task=task, texts=texts, seed=seed)
    environment = Environment(user_classes=[Caller], host=host, parsed_options=asked)
    environment.stop_timeout = LAST_ANSWERS_S
    requests: list[Request] = []
    Caller.numbers = itertools.count()
    began = time.perf_counter()

    def keep(response_time: float, exception: BaseException | None, **_: Any) -> None:
        error = str(exception) if exception else None
        requests.append(Request(time.perf_counter() - began, response_time, error))

    environment.events.request.add_listener(keep)  # type: ignore[no-untyped-call]
    runner = environment.create_local_runner()
    runner.start(callers, spawn_rate=callers)
    time.sleep(warmup_s)
    cpu, opened = time.process_time(), time.perf_counter()
    time.sleep(seconds)
    cpu, closed = time.process_time() - cpu, time.perf_counter()
    runner.quit()
    return Block(
        variant=variant,
        task=task,
        seconds=closed - opened,
        requests=steady(requests, after_s=opened - began, until_s=closed - began),
        generator=cpu / (closed - opened),
    )

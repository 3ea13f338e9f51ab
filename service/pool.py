"""
The threads that every lane of a process shares, and whose turn it is on them.

Knows nothing of what runs.
"""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Any, Protocol

from models.errors import NotReady
from service.fair import Turns


class Batch(Protocol):
    """Some work that a thread does at a stretch, and how long that was predicted to take."""

    @property
    def predicted_s(self) -> float: ...


class Queue(Protocol):
    """
    Where work waits for a thread. Called on the event loop, but for `execute`.

    next  rank and start of what goes next, where something waits
    """

    @property
    def next(self) -> tuple[int, float]: ...
    @property
    def is_idle(self) -> bool: ...
    def take(self, free: int) -> Batch | None: ...
    def execute(self, batch: Any) -> Any: ...
    def settle(self, batch: Any, outcome: Any) -> None: ...
    def learn(self, batch: Any, outcome: Any) -> None: ...
    def abandon(self) -> None: ...


class Pool:
    """
    `threads` threads that every queue of the process shares, each flow of work in its turn.

    A batch is cut when a thread is free to run it, not before: an idle server adds no wait, and
    a busy one chooses from everything that came meanwhile.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.turns = Turns()
        self.executor = ThreadPoolExecutor(threads, thread_name_prefix="run")
        self._free = threads
        self._queues: list[Queue] = []
        self._ends: dict[int, float] = {}  # of what runs, as predicted
        self._called = False
        self._closed = False

    @property
    def is_free(self) -> bool:
        """Whether what comes now is begun at once."""
        return self._free > 0 and not self.turns.waits

    @property
    def running_s(self) -> float:
        """Predicted seconds of one core that are left of what runs now."""
        now = perf_counter()
        return sum(max(0.0, end - now) for end in self._ends.values())

    @property
    def drain_s(self) -> float:
        """Seconds until all that waits and runs now is done, as predicted."""
        return (self.turns.waiting_s + self.running_s) / self.threads

    def join(self, queue: Queue) -> None:
        self._queues.append(queue)

    def part(self, queue: Queue) -> None:
        """It has nothing to run and will have nothing more."""
        self._queues.remove(queue)

    def call(self) -> None:
        """There is work. Batches are cut at the end of this turn of the loop."""
        if self._closed:
            raise NotReady("the server is shutting down")
        if self._free and not self._called:
            self._called = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    async def close(self) -> None:
        """Refuse what comes, fail what waits, and let what runs end."""
        self._closed = True
        for queue in self._queues:
            queue.abandon()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self.executor.shutdown)

    def _dispatch(self) -> None:
        self._called = False
        loop = asyncio.get_running_loop()
        while self._free:
            waiting = [each for each in self._queues if not each.is_idle]
            if not waiting:
                return
            queue = min(waiting, key=_next) if len(waiting) > 1 else waiting[0]
            if queue.next[0] and self._free < self.threads:
                return  # what nobody waits for runs alone, so that who comes finds a thread
            batch = queue.take(self._free)
            if batch:
                self._free -= 1
                self._ends[id(batch)] = perf_counter() + batch.predicted_s
                self.executor.submit(self._work, loop, queue, batch)

    def _work(self, loop: asyncio.AbstractEventLoop, queue: Queue, batch: Batch) -> None:
        outcome = queue.execute(batch)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
            loop.call_soon_threadsafe(self._finished, queue, batch, outcome)

    def _finished(self, queue: Queue, batch: Batch, outcome: Any) -> None:
        queue.settle(batch, outcome)
        del self._ends[id(batch)]
        self._free += 1
        self._dispatch()
        queue.learn(batch, outcome)  # last: the thread should not idle meanwhile


def _next(queue: Queue) -> tuple[int, float]:
    return queue.next

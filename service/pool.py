"""
The threads that every lane of a process shares, and whose turn it is on them.

Knows nothing of what runs.
"""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import TYPE_CHECKING, Any

from models.errors import NotReady
from service.fair import Turns

if TYPE_CHECKING:
    from service.batch import Batch, Batcher, Outcome


class Pool:
    """
    `threads` threads that every batcher of the process shares, each flow of work in its turn.

    A batch is cut when a thread is free to run it, not before: an idle server adds no wait, and
    a busy one chooses from everything that came meanwhile.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.turns = Turns()
        self.executor = ThreadPoolExecutor(threads, thread_name_prefix="run")
        self._free = threads
        self._batchers: list[Batcher[Any, Any]] = []
        self._ends: dict[int, float] = {}  # of what runs, as predicted
        self._called = False
        self._closed = False

    @property
    def is_free(self) -> bool:
        """Whether what comes now is begun at once."""
        return self._free > 0 and all(each.is_idle for each in self._batchers)

    @property
    def running_s(self) -> float:
        """Predicted seconds of one core that are left of what runs now."""
        now = perf_counter()
        return sum(max(0.0, end - now) for end in self._ends.values())

    @property
    def drain_s(self) -> float:
        """Seconds until all that waits and runs now is done, as predicted."""
        return (self.turns.waiting_s + self.running_s) / self.threads

    def join(self, batcher: Batcher[Any, Any]) -> None:
        self._batchers.append(batcher)

    def part(self, batcher: Batcher[Any, Any]) -> None:
        """It has nothing to run and will have nothing more."""
        self._batchers.remove(batcher)

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
        for batcher in self._batchers:
            batcher.abandon()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self.executor.shutdown)

    def _dispatch(self) -> None:
        self._called = False
        loop = asyncio.get_running_loop()
        while self._free:
            waiting = [each for each in self._batchers if not each.is_idle]
            if not waiting:
                return
            batcher = min(waiting, key=lambda each: each.next)
            if batcher.next[0] and self._free < self.threads:
                return  # what nobody waits for runs alone, so that who comes finds a thread
            batch = batcher.take(self._free)
            if batch:
                self._free -= 1
                self._ends[id(batch)] = perf_counter() + batch.predicted_s
                self.executor.submit(self._work, loop, batcher, batch)

    def _work(
        self, loop: asyncio.AbstractEventLoop, batcher: Batcher[Any, Any], batch: Batch
    ) -> None:
        outcome = batcher.execute(batch)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
            loop.call_soon_threadsafe(self._finished, batcher, batch, outcome)

    def _finished(self, batcher: Batcher[Any, Any], batch: Batch, outcome: Outcome) -> None:
        batcher.settle(batch, outcome)
        del self._ends[id(batch)]
        self._free += 1
        self._dispatch()
        batcher.learn(batch, outcome)  # last: the thread should not idle meanwhile

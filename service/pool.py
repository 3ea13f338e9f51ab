"""
The threads that every lane of a process shares, and whose turn it is on them.

Knows nothing of what runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter, process_time, thread_time
from typing import Any, Protocol, TypeVar

from models.errors import NotReady
from models.session import Halt
from service.cost import Mean
from service.fair import Turns

T = TypeVar("T")

# Between two looks at what the event loop takes, in seconds: some kernels count by hundredths.
LOOK_S = 0.5
# The event loop is busy when it takes so much of a core, and would need one for itself if, were all
# threads busy, it took so much.
BUSY, FULL = 0.5, 0.8


class Batch(Protocol):
    """
    Some work that a thread does at a stretch, and how long that was predicted to take.

    halt  ends it before it is done; None of what somebody waits for
    """

    @property
    def predicted_s(self) -> float: ...
    @property
    def halt(self) -> Halt | None: ...


class Queue(Protocol):
    """
    Where work waits for a thread.

    next    rank and start of what goes next, where something waits
    take    the next batch; called in any thread, under the pool's lock
    bury    what was found dead while batches were taken; called on the event loop, as are `settle`
            and `learn` for each batch that was executed
    """

    @property
    def next(self) -> tuple[int, float]: ...
    @property
    def is_idle(self) -> bool: ...
    def take(self) -> Batch | None: ...
    def execute(self, batch: Any) -> Any: ...
    def settle(self, batch: Any, outcome: Any) -> None: ...
    def learn(self, batch: Any, outcome: Any) -> None: ...
    def bury(self) -> None: ...
    def abandon(self) -> None: ...


class Pool:
    """
    `threads` threads that every queue of the process shares, each flow of work in its turn.

    A batch is cut when a thread is free to run it, not before: an idle server adds no wait, and
    a busy one chooses from everything that came meanwhile. A thread that has run one cuts the next
    itself, so that it need not wait until the event loop, busy with callers, has time for it. What
    is done `aside` goes between two batches: it would wait for ever where batches never end.

    Of models so fast that the event loop, were all threads busy, would need a core for itself, one
    batch fewer runs at a time: it would take that core from the loop, which callers wait for.

    lock     of everything that threads and the event loop share: the queues and their turns
    at_once  batches that may run now: `threads`, or one fewer
    """

    def __init__(self, threads: int) -> None:
        self.threads = self.at_once = threads
        self.turns = Turns()
        self.lock = threading.Lock()
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="run")
        self._asides = 0
        self._queues: list[Queue] = []
        self._ends: dict[int, float] = {}  # of what runs, as predicted
        self._halts: dict[int, Halt] = {}  # of what runs and nobody waits for
        self._lag_s = Mean()
        # When, and what the event loop and the whole process had taken of the cores by then.
        self._looked = perf_counter(), thread_time(), process_time()
        self._called = False
        self._closed = False

    @property
    def is_free(self) -> bool:
        """Whether what comes now is begun at once."""
        return self._has_room and not self.turns.waits

    @property
    def _has_room(self) -> bool:
        return len(self._ends) < self.at_once

    @property
    def running_s(self) -> float:
        """Predicted seconds of one core that are left of what runs now. Under the lock."""
        now = perf_counter()
        return sum(max(0.0, end - now) for end in self._ends.values())

    @property
    def lag_s(self) -> float:
        """How long after a batch has run the event loop, busy with callers, comes to it."""
        return self._lag_s()

    @property
    def drain_s(self) -> float:
        """Seconds until all that waits and runs now is done, as predicted."""
        with self.lock:
            return (self.turns.waiting_s + self.running_s) / self.at_once

    def join(self, queue: Queue) -> None:
        with self.lock:
            self._queues.append(queue)

    def part(self, queue: Queue) -> None:
        """It has nothing to run and will have nothing more."""
        with self.lock:
            self._queues.remove(queue)

    def check_open(self) -> None:
        """Raises `NotReady` while closing."""
        if self._closed:
            raise NotReady("the server is shutting down")

    def call(self) -> None:
        """Work has come. Batches are cut at the end of this turn of the loop."""
        if (self._has_room or self._halts) and not self._called:
            self._called = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def look(self) -> None:
        """Now and then: whether the event loop, which calls this, needs a core for itself."""
        now = perf_counter()
        then, loop_then, all_then = self._looked
        if now - then < LOOK_S:
            return
        self._looked = (_, loop_now, all_now) = now, thread_time(), process_time()
        of_the_loop, of_all = loop_now - loop_then, all_now - all_then
        busy = of_the_loop >= BUSY * (now - then)
        needed = busy and of_the_loop * self.threads >= FULL * of_all
        self.at_once = max(1, self.threads - needed)

    async def close(self) -> None:
        """Refuse what comes, fail what waits, and let what runs end."""
        self._closed = True
        for queue in self._queues:
            queue.abandon()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._executor.shutdown)

    async def aside(self, work: Callable[..., T], *args: object) -> T:
        """What `work` gives, done in one of the threads: cores stay within their budget."""
        self._asides += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work, *args)
        finally:
            self._asides -= 1

    def _dispatch(self) -> None:
        self._called = False
        loop = asyncio.get_running_loop()
        while cut := self._cut():
            self._executor.submit(self._work, loop, *cut)
        self._make_room()
        for queue in self._queues:
            queue.bury()

    def _make_room(self) -> None:
        """Whoever waits for an answer does not wait for what nobody waits for."""
        if not self._halts:
            return
        with self.lock:
            if any(not each.is_idle and not each.next[0] for each in self._queues):
                for halt in self._halts.values():
                    halt.now()

    def _cut(self, ended: Batch | None = None) -> tuple[Queue, Batch] | None:
        """The next batch, and whose, for a thread that is free, or is so since one has ended."""
        with self.lock:
            if ended is not None:
                del self._ends[id(ended)]
                self._halts.pop(id(ended), None)
            while self._has_room:
                waiting = [each for each in self._queues if not each.is_idle]
                if not waiting:
                    return None
                queue = min(waiting, key=_next) if len(waiting) > 1 else waiting[0]
                if queue.next[0] and self._ends:
                    return None  # what nobody waits for runs alone: who comes finds a thread
                batch = queue.take()
                if batch:
                    self._ends[id(batch)] = perf_counter() + batch.predicted_s
                    if batch.halt:
                        self._halts[id(batch)] = batch.halt
                    return queue, batch
            return None

    def _work(self, loop: asyncio.AbstractEventLoop, queue: Queue, batch: Batch) -> None:
        """Run that batch, and then the next one as long as there is one."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
            following: tuple[Queue, Batch] | None = (queue, batch)
            while following:
                queue, batch = following
                outcome = queue.execute(batch)
                ended = perf_counter()
                following = self._cut(batch)
                loop.call_soon_threadsafe(self._finished, queue, batch, outcome, ended)
                if following and self._asides and self._behind(loop, *following):
                    return

    def _behind(self, loop: asyncio.AbstractEventLoop, queue: Queue, batch: Batch) -> bool:
        """Run that batch after what waits aside; False: there is no after."""
        try:
            self._executor.submit(self._work, loop, queue, batch)
        except RuntimeError:  # it takes no more since the server closes
            return False
        return True

    def _finished(self, queue: Queue, batch: Batch, outcome: Any, ended: float) -> None:
        self._lag_s.learn(perf_counter() - ended, 1)
        self.look()
        queue.settle(batch, outcome)
        for each in self._queues:
            each.bury()
        queue.learn(batch, outcome)


def _next(queue: Queue) -> tuple[int, float]:
    return queue.next

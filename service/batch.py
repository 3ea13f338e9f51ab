"""
Batches cut from what waits: length-sorted, within a padded-token budget, never waiting for more.

Items are anything that has a length in tokens. Knows nothing of models, texts or HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from math import inf
from time import perf_counter
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from models.errors import DeadlineExceeded, NotReady, Overloaded, TooLarge

Item = TypeVar("Item")
Result = TypeVar("Result")

# How many batches' worth of the oldest waiting items is sorted before one batch is cut.
LOOK = 4
# Weight of the newest batch in the measured seconds a token.
NEWEST = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """
    items, tokens              of one batch; tokens are counted with padding
    padding                    largest share of a batch that may be padding, 0 to 1
    waiting_items, _tokens     that may wait; a request beyond is refused
    """

    items: int = 32
    tokens: int = 1024
    padding: float = 0.25
    waiting_items: int = 2048
    waiting_tokens: int = 262_144


def cut(tokens: Sequence[int], *, items: int, budget: int, padding: float) -> list[int]:
    """
    Indices of the next batch out of `tokens`, the lengths of waiting items, oldest first.

    The oldest always goes. Neighbours in length join it, the one that pads least first, while
    the batch keeps within `items`, `budget` tokens with padding, and its share of `padding`.

    [9, 2, 8, 30] items=4 budget=64 padding=.25  ->  [2, 0]: 8 and 9 together, padded to 18
    """
    order = sorted(range(len(tokens)), key=tokens.__getitem__)
    low = high = order.index(0)
    real = tokens[0]
    while high - low + 1 < items:
        size = high - low + 2
        grown = []
        if low > 0:
            shorter = tokens[order[low - 1]]
            grown.append((size * tokens[order[high]], real + shorter, low - 1, high))
        if high + 1 < len(order):
            longer = tokens[order[high + 1]]
            grown.append((size * longer, real + longer, low, high + 1))
        fits = [g for g in grown if g[0] <= budget and g[0] - g[1] <= padding * g[0]]
        if not fits:
            break
        _, real, low, high = min(fits, key=lambda g: g[0] - g[1])
    return order[low : high + 1]


class Observer(Protocol):
    """Told what happens to the items of one batcher; called on the event loop."""

    def ran(self, *, items: int, tokens: int, padded: int, seconds: float) -> None: ...
    def dropped(self, reason: str) -> None: ...
    def waiting(self, items: int, tokens: int) -> None: ...


class CallerLeft(Exception):
    """Nobody waits for this answer any more."""


class Job(Generic[Item, Result]):
    """
    The items of one request: all of them are admitted, or none.

    answer    the results, in the order of the items; fails as soon as one item does
    begun     when the first item's run began, by `perf_counter`; `done` when the last one's ended
    """

    __slots__ = (
        "_left",
        "_results",
        "answer",
        "begun",
        "deadline",
        "done",
        "submitted",
    )

    def __init__(self, size: int, deadline: float) -> None:
        self.answer: asyncio.Future[list[Result]] = asyncio.get_running_loop().create_future()
        self.deadline = deadline
        self.submitted = self.done = perf_counter()
        self.begun = inf if size else self.submitted
        self._results: list[Any] = [None] * size
        self._left = size
        if not size:
            self.answer.set_result([])

    def leave(self) -> None:
        """The caller is gone: what waits is not run."""
        self.fail(CallerLeft())

    def fail(self, error: BaseException) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)

    def settle(self, index: int, result: Result | BaseException, begun: float, done: float) -> None:
        if self.answer.done():
            return
        self.begun, self.done = min(self.begun, begun), max(self.done, done)
        if isinstance(result, BaseException):
            self.answer.set_exception(result)
            return
        self._results[index] = result
        self._left -= 1
        if not self._left:
            self.answer.set_result(self._results)

    def lost(self, now: float) -> str | None:
        """Why this job's items need not be run any more; None if somebody still waits."""
        if self.deadline <= now:
            self.fail(DeadlineExceeded("the answer did not come within the deadline"))
            return "deadline"
        if not self.answer.done():
            return None
        gone = self.answer.cancelled() or isinstance(self.answer.exception(), CallerLeft)
        return "caller_left" if gone else "failed_with_its_request"


class _Waiting(NamedTuple):
    job: Job[Any, Any]
    place: int
    item: Any
    tokens: int


class _Outcome(NamedTuple):
    results: Sequence[Any]
    begun: float
    done: float


class Pool:
    """
    `threads` threads that every batcher of the process shares, each batcher in its turn.

    A batch is cut when a thread is free to run it, not before: an idle server adds no wait, and
    a busy one chooses from everything that came meanwhile.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.executor = ThreadPoolExecutor(threads, thread_name_prefix="run")
        self._free = threads
        self._turns: deque[Batcher[Any, Any]] = deque()
        self._batchers: list[Batcher[Any, Any]] = []
        self._called = False
        self._closed = False

    @property
    def drain_s(self) -> float:
        """Seconds until all that waits now is done, at the measured rates."""
        return sum(b.waiting_tokens * b.token_s for b in self._batchers) / self.threads

    def join(self, batcher: Batcher[Any, Any]) -> None:
        self._batchers.append(batcher)

    def call(self, batcher: Batcher[Any, Any]) -> None:
        """`batcher` has work. Batches are cut at the end of this turn of the loop."""
        if self._closed:
            raise NotReady("the server is shutting down")
        if not batcher.in_turn:
            batcher.in_turn = True
            self._turns.append(batcher)
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
        while self._free and self._turns:
            batcher = self._turns.popleft()
            batcher.in_turn = False
            batch = batcher.take(self._free)
            if batcher.waiting_items:
                batcher.in_turn = True
                self._turns.append(batcher)
            if batch:
                self._free -= 1
                loop = asyncio.get_running_loop()
                self.executor.submit(self._work, loop, batcher, batch)

    def _work(
        self,
        loop: asyncio.AbstractEventLoop,
        batcher: Batcher[Any, Any],
        batch: list[_Waiting],
    ) -> None:
        outcome = batcher.execute(batch)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
            loop.call_soon_threadsafe(self._finished, batcher, batch, outcome)

    def _finished(
        self, batcher: Batcher[Any, Any], batch: list[_Waiting], outcome: _Outcome
    ) -> None:
        batcher.settle(batch, outcome)
        self._free += 1
        self._dispatch()
        batcher.learn(batch, outcome)  # last: the thread should not idle meanwhile


class Batcher(Generic[Item, Result]):
    """
    One queue and how its batches are run.

    run       called in a thread with the items of one batch; one result each, in order
    observer  is told of every batch, every dropped item and the depth of the queue
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Sequence[Result]],
        limits: Limits,
        pool: Pool,
        observer: Observer,
    ) -> None:
        self.limits = limits
        self.token_s = 0.0
        self.waiting_tokens = 0
        self.in_turn = False
        self._run = run
        self._pool = pool
        self._observer = observer
        self._queue: deque[_Waiting] = deque()
        pool.join(self)

    @property
    def waiting_items(self) -> int:
        return len(self._queue)

    def submit(
        self, items: Sequence[Item], tokens: Sequence[int], *, deadline: float
    ) -> Job[Item, Result]:
        """
        Queue all `items`, `tokens[i]` long each, to be run before `deadline` (`perf_counter`).

        Raises what `admit` raises, and `NotReady` while closing.
        """
        total = sum(tokens)
        self.admit(len(items), total)
        job: Job[Item, Result] = Job(len(items), deadline)
        if items:
            self._pool.call(self)
            self._queue.extend(
                _Waiting(job, i, item, n)
                for i, (item, n) in enumerate(zip(items, tokens, strict=True))
            )
            self.waiting_tokens += total
            self._tell()
        return job

    def admit(self, items: int, tokens: int) -> None:
        """Raise `Overloaded` if so much does not fit now, `TooLarge` if it never would."""
        most = self.limits
        if items > most.waiting_items or tokens > most.waiting_tokens:
            raise TooLarge(
                f"the request is at least {items} windows of {tokens} tokens in all; "
                f"at most {most.waiting_items} windows and {most.waiting_tokens} tokens go in one"
            )
        if (
            len(self._queue) + items > most.waiting_items
            or self.waiting_tokens + tokens > most.waiting_tokens
        ):
            raise Overloaded(
                f"{len(self._queue)} windows of {self.waiting_tokens} tokens in all are waiting",
                retry_after_s=self._pool.drain_s,
            )

    def take(self, free: int) -> list[_Waiting]:
        """The next batch; what waits is shared out among the `free` threads. Drops the dead."""
        total = self.waiting_tokens
        looked = self._living(LOOK * self.limits.items)
        if not looked:
            self._tell()
            return []
        chosen = cut(
            [waiting.tokens for waiting in looked],
            items=self.limits.items,
            budget=min(self.limits.tokens, -(-total // free)),
            padding=self.limits.padding,
        )
        going = set(chosen)
        self._queue.extendleft(w for i, w in reversed([*enumerate(looked)]) if i not in going)
        batch = [looked[i] for i in chosen]
        self.waiting_tokens -= sum(waiting.tokens for waiting in batch)
        self._tell()
        return batch

    def _living(self, most: int) -> list[_Waiting]:
        """Take up to `most` of the oldest off the queue, dropping those nobody waits for."""
        now = perf_counter()
        living: list[_Waiting] = []
        while self._queue and len(living) < most:
            waiting = self._queue.popleft()
            reason = waiting.job.lost(now)
            if reason is None:
                living.append(waiting)
            else:
                self.waiting_tokens -= waiting.tokens
                self._observer.dropped(reason)
        return living

    def execute(self, batch: list[_Waiting]) -> _Outcome:
        """Run a batch, in a thread. One that fails is run again item by item."""
        items = [waiting.item for waiting in batch]
        begun = perf_counter()
        results = self._attempt(items)
        if len(items) > 1 and isinstance(results[0], BaseException):
            results = list(chain.from_iterable(self._attempt([item]) for item in items))
        return _Outcome(results, begun, perf_counter())

    def _attempt(self, items: list[Item]) -> Sequence[Result | BaseException]:
        """The results, or the error once for each item."""
        try:
            results = self._run(items)
            if len(results) != len(items):
                raise RuntimeError(f"{len(items)} items went in, {len(results)} results came out")
            return results
        except Exception as error:
            return [error] * len(items)

    def settle(self, batch: list[_Waiting], outcome: _Outcome) -> None:
        """Give every job its results."""
        for waiting, result in zip(batch, outcome.results, strict=True):
            waiting.job.settle(waiting.place, result, outcome.begun, outcome.done)

    def learn(self, batch: list[_Waiting], outcome: _Outcome) -> None:
        """Keep count, and how long a token takes."""
        seconds = outcome.done - outcome.begun
        tokens = sum(waiting.tokens for waiting in batch)
        newest = seconds / max(1, tokens)
        self.token_s += (newest - self.token_s) * (NEWEST if self.token_s else 1.0)
        longest = max(waiting.tokens for waiting in batch)
        self._observer.ran(
            items=len(batch),
            tokens=tokens,
            padded=longest * len(batch),
            seconds=seconds,
        )

    def abandon(self) -> None:
        """Fail everything that waits."""
        for waiting in self._queue:
            waiting.job.fail(NotReady("the server is shutting down"))
        self._queue.clear()
        self.waiting_tokens = 0
        self._tell()

    def _tell(self) -> None:
        self._observer.waiting(len(self._queue), self.waiting_tokens)

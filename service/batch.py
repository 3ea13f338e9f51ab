"""
Batches cut from what waits: length-sorted, within a padded-token budget, never waiting for more.

Items are anything that has a length in tokens. Knows nothing of models, texts or HTTP.
"""

from __future__ import annotations

import asyncio
from bisect import insort
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import chain, count
from math import ceil, inf
from time import perf_counter
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from models.errors import DeadlineExceeded, NotReady, Overloaded, TooLarge
from models.session import Halt, Halted
from service.cost import Line
from service.fair import Flow, Priority
from service.pool import Pool

Item = TypeVar("Item")
Result = TypeVar("Result")

# How many batches' worth of the next waiting items is sorted before one batch is cut.
LOOK = 4
# What a run of its own costs beside its tokens, in tokens: more padding than that costs more than
# joining saves. Of 0, 4, 8, 16 and 32 this served most texts on two cores or hardly fewer, of
# ner-base, ner-int8 and ner-distilled-int8 alike. What is learned while serving would be 30 to 90:
# of a busy machine, where every run waits for its core.
SPARE = 8
# Seconds a token where nothing has run yet.
GUESS_S = 1e-4
# How much longer than predicted work may take and still be in time. Batches are not cut in the
# order of arrival, and a machine at three times its capacity stumbles: of what it accepted 85 % was
# in time with 1.25, 98.5 % with 2, 99.7 % with 2.5. Goodput is the same.
MARGIN = 2.5
# The part of a queue that is for keys with less of it than an equal share would be.
RESERVE = 1 / 8
# Dead items that may lie among the living before the queue is swept.
SWEPT = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """
    items, tokens              of one batch; tokens are counted with padding
    spare                      tokens of padding that whoever joins a batch may bring
    waiting_items, _tokens     that may wait; a request beyond is refused
    """

    items: int = 32
    tokens: int = 1024
    spare: int = SPARE
    waiting_items: int = 2048
    waiting_tokens: int = 262_144


def cut(tokens: Sequence[int], *, items: int, budget: int, spare: int) -> list[int]:
    """
    Indices of the next batch out of `tokens`, the lengths of waiting items, the next first.

    The next always goes. Neighbours in length join it, the one that pads least first, while the
    batch keeps within `items` and `budget` tokens with padding, and as long as it pays: whoever
    joins saves a run of his own, which costs `spare` tokens, and brings no more padding than that.

    [9, 2, 8, 30] items=4 budget=64 spare=5  ->  [2, 0]: 8 and 9 together, padded to 18
    """
    order = sorted(range(len(tokens)), key=tokens.__getitem__)
    low = high = order.index(0)
    padded = tokens[0]
    while high - low + 1 < items:
        size = high - low + 2
        grown = []  # tokens with padding, tokens of padding that join, and the batch
        if low > 0:
            more = size * tokens[order[high]]
            grown.append((more, more - padded - tokens[order[low - 1]], low - 1, high))
        if high + 1 < len(order):
            more = size * tokens[order[high + 1]]
            grown.append((more, more - padded - tokens[order[high + 1]], low, high + 1))
        fits = [each for each in grown if each[0] <= budget and each[1] <= spare]
        if not fits:
            break
        padded, _, low, high = min(fits, key=lambda each: each[1])
    return order[low : high + 1]


class Observer(Protocol):
    """Told what happens to the items of one batcher; called on the event loop."""

    def ran(self, *, items: int, tokens: int, padded: int, seconds: float) -> None: ...
    def dropped(self, reason: str) -> None: ...
    def halted(self) -> None: ...
    def waiting(self, items: int, tokens: int) -> None: ...


class CallerLeft(Exception):
    """Nobody waits for this answer any more."""


class Job(Generic[Item, Result]):
    """
    The items of one request: all of them are admitted, or none.

    answer    the results, in the order of the items; fails as soon as one item does
    begun     when the first item's run began, by `perf_counter`; `done` when the last one's ended
    core_s    seconds of one core that its items took: of each batch their part of its tokens
    waiting   its items that are not begun; none once nobody waits for the answer
    spoilt    an item has failed, whether or not that has been told
    """

    __slots__ = (
        "_forget",
        "_left",
        "_results",
        "answer",
        "begun",
        "core_s",
        "deadline",
        "done",
        "spoilt",
        "submitted",
        "waiting",
    )

    def __init__(
        self, size: int, deadline: float, forget: Callable[[Job[Item, Result]], None]
    ) -> None:
        self.answer: asyncio.Future[list[Result]] = asyncio.get_running_loop().create_future()
        self.deadline = deadline
        self.submitted = self.done = perf_counter()
        self.begun = inf if size else self.submitted
        self.core_s = 0.0
        self.waiting: set[_Waiting] = set()
        self.spoilt = False
        self._forget = forget
        self._results: list[Any] = [None] * size
        self._left = size
        if not size:
            self.answer.set_result([])

    def leave(self) -> None:
        """The caller is gone, if he has no answer yet: what waits is not run."""
        self.fail(CallerLeft())

    def fail(self, error: BaseException) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)
        if self.waiting:
            self._forget(self)

    def settle(
        self, index: int, result: Result | BaseException, begun: float, done: float, share: float
    ) -> None:
        """`share`: of what ran from `begun` to `done`, the part that was this item's."""
        if self.answer.done():
            return
        self.begun, self.done = min(self.begun, begun), max(self.done, done)
        self.core_s += share * (done - begun)
        if isinstance(result, BaseException):
            self.fail(result)
            return
        self._results[index] = result
        self._left -= 1
        if not self._left:
            self.answer.set_result(self._results)

    def expire(self) -> None:
        """Its deadline has passed."""
        self.fail(DeadlineExceeded("the answer did not come within the deadline"))

    def lost(self, now: float) -> str | None:
        """Why this job's items need not be run any more; None if somebody still waits."""
        if not self.answer.done():
            if self.spoilt:
                return "failed_with_its_request"
            return None if self.deadline > now else "deadline"
        if self.answer.cancelled() or isinstance(self.answer.exception(), CallerLeft):
            return "caller_left"
        late = isinstance(self.answer.exception(), DeadlineExceeded)
        return "deadline" if late else "failed_with_its_request"


class _Waiting:
    """One item; the order of two is that of their turns."""

    __slots__ = ("cost_s", "flow", "item", "job", "key", "place", "tokens", "turn")

    def __init__(
        self,
        job: Job[Any, Any],
        place: int,
        item: Any,
        tokens: int,
        flow: Flow,
        key: Hashable,
        cost_s: float,
        turn: _Turn,
    ) -> None:
        self.job = job
        self.place = place
        self.item = item
        self.tokens = tokens
        self.flow = flow
        self.key = key
        self.cost_s = cost_s
        self.turn = turn

    def __lt__(self, other: _Waiting) -> bool:
        return self.turn < other.turn


class _Turn(NamedTuple):
    """Who ranks first goes first, then who starts first in virtual time, then who came first."""

    rank: int
    start: float
    number: int


class _Held(NamedTuple):
    """What waits of one key."""

    items: int
    tokens: int


class Batch(NamedTuple):
    """
    Some items that run together, and what was predicted of it.

    halt  ends its run where nobody waits for it; it begins again when there is time
    """

    items: list[_Waiting]
    predicted_s: float
    halt: Halt | None

    @property
    def tokens(self) -> int:
        return sum(waiting.tokens for waiting in self.items)

    @property
    def padded(self) -> int:
        return len(self.items) * max(waiting.tokens for waiting in self.items)


class Outcome(NamedTuple):
    """`results`: None where the run was ended before it was done."""

    results: Sequence[Any] | None
    begun: float
    done: float


class Batcher(Generic[Item, Result]):
    """
    One queue and how its batches are run.

    run       called in a thread with the items of one batch, and what may end it: one result each,
              in order, or it raises `Halted`
    observer  is told of every batch, every dropped item and the depth of the queue
    line      padded tokens of a batch -> seconds, as measured

    `waiting_items` and `waiting_tokens` are of those whom somebody waits for: shadows take nobody's
    room.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item], Halt | None], Sequence[Result]],
        limits: Limits,
        pool: Pool,
        observer: Observer,
    ) -> None:
        self.limits = limits
        self.line = Line(each=GUESS_S)
        self.waiting_items = self.waiting_tokens = 0
        self._standing = 0  # items of shadows too
        self._held: dict[Hashable, _Held] = {}  # of each key of which something waits
        self._run = run
        self._pool = pool
        self._observer = observer
        self._queue: list[_Waiting] = []
        self._dead: list[tuple[_Waiting, str]] = []  # that were dropped, and why
        self._numbers = count()
        pool.join(self)

    @property
    def next(self) -> tuple[int, float]:
        """Rank and start of what goes next; there must be some."""
        return self._queue[0].turn[:2]

    @property
    def is_idle(self) -> bool:
        return not self._queue

    def cost_s(self, tokens: int) -> float:
        """Seconds of one core that so many tokens take, where enough waits to fill batches."""
        full = self.limits.tokens
        return self.line(tokens) if tokens >= full else tokens * self.line(full) / full

    def submit(
        self,
        items: Sequence[Item],
        tokens: Sequence[int],
        *,
        deadline: float,
        key: Hashable = None,
        priority: Priority = Priority.INTERACTIVE,
    ) -> Job[Item, Result]:
        """
        Queue all `items`, `tokens[i]` long each, to be run before `deadline` (`perf_counter`).

        key  whose work it is: each has a fair share of the pool

        Raises what `admit` raises, and `NotReady` while closing.
        """
        self.admit(len(items), sum(tokens), key=key)
        self._pool.check_open()
        job: Job[Item, Result] = Job(len(items), deadline, self._forget)
        if not items:
            return job
        with self._pool.lock:
            self._queue_up(job, items, tokens, key, priority)
        self._pool.call()
        self._tell()
        return job

    def _queue_up(
        self,
        job: Job[Item, Result],
        items: Sequence[Item],
        tokens: Sequence[int],
        key: Hashable,
        priority: Priority,
    ) -> None:
        turns = self._pool.turns
        flow = turns.flow((self, key), priority)
        for place, (item, size) in enumerate(zip(items, tokens, strict=True)):
            cost_s = self.cost_s(size)
            turn = _Turn(flow.rank, turns.queue(flow, cost_s), next(self._numbers))
            self._stand(_Waiting(job, place, item, size, flow, key, cost_s, turn))
        self._count(flow, key, len(items), sum(tokens))

    def _stand(self, waiting: _Waiting) -> None:
        waiting.job.waiting.add(waiting)
        if not self._queue or self._queue[-1] < waiting:
            self._queue.append(waiting)  # as nearly always
        else:
            insort(self._queue, waiting)

    def admit(self, items: int, tokens: int, *, key: Hashable = None) -> None:
        """
        Raise `Overloaded` if so much does not fit now, `TooLarge` if it never would.

        key  whose work it is; None: of nobody who must leave room for others
        """
        most = self.limits
        if items > most.waiting_items or tokens > most.waiting_tokens:
            raise TooLarge(
                f"the request is at least {items} windows of {tokens} tokens in all; "
                f"at most {most.waiting_items} windows and {most.waiting_tokens} tokens go in one"
            )
        if (
            self.waiting_items + items > most.waiting_items
            or self.waiting_tokens + tokens > most.waiting_tokens
        ):
            raise Overloaded(
                f"{self.waiting_items} windows of {self.waiting_tokens} tokens in all are waiting",
                retry_after_s=self._pool.drain_s,
            )
        if key is not None and self._crowds(items, tokens, key):
            raise Overloaded(
                f"{self.waiting_items} windows are waiting, too many of them of this key: "
                "the rest of the queue is for others",
                retry_after_s=self._pool.drain_s,
            )

    def _crowds(self, items: int, tokens: int, key: Hashable) -> bool:
        """Whether it would take of the reserve what is more than an equal share of the queue."""
        mine = self._held.get(key)
        if mine is None:
            return False
        all_of_it = self._share(self.waiting_items + items, self.waiting_tokens + tokens)
        own = self._share(mine.items + items, mine.tokens + tokens)
        # Whoever comes next is to find as much as each of those that are here.
        return all_of_it > 1 - RESERVE and own > 1 / (len(self._held) + 1)

    def _share(self, items: int, tokens: int) -> float:
        """Of the queue; of its items or its tokens, whichever are scarcer."""
        most = self.limits
        return max(items / most.waiting_items, tokens / most.waiting_tokens)

    def check_deadline(
        self,
        tokens: int,
        deadline: float,
        *,
        key: Hashable = None,
        priority: Priority = Priority.INTERACTIVE,
    ) -> float:
        """Seconds predicted until so much is run. Raises `Overloaded` if beyond its deadline."""
        wait_s = self.wait_s(tokens, key=key, priority=priority)
        run_s = self.run_s(tokens)
        # The loop comes to the batch, and then to whoever waits for it.
        lag_s = 2 * self._pool.lag_s
        needed_s = MARGIN * (wait_s + run_s + lag_s)
        if wait_s and perf_counter() + needed_s > deadline:
            raise Overloaded(
                f"what waits takes {wait_s + lag_s:.1f} s, beyond the request's deadline",
                retry_after_s=wait_s + lag_s,
            )
        return wait_s + run_s

    def wait_s(
        self, tokens: int, *, key: Hashable = None, priority: Priority = Priority.INTERACTIVE
    ) -> float:
        """Predicted until so many tokens of that flow begin to run."""
        pool = self._pool
        if pool.is_free:
            return 0.0
        with pool.lock:
            ahead_s = pool.turns.ahead_s((self, key), priority, self.cost_s(tokens))
            return (ahead_s + pool.running_s) / pool.at_once

    def run_s(self, tokens: int) -> float:
        """Predicted from the first token begun to the last done, on all threads that can help."""
        batches = max(1, min(self._pool.at_once, -(-tokens // self.limits.tokens)))
        return self.cost_s(tokens) / batches if batches > 1 else self.line(tokens)

    def take(self) -> Batch | None:
        """
        The next batch, or None. Drops the dead.

        What waits is shared out among all threads, those that are busy yet too, so that they are
        done together: callers need not wait for strangers that another thread is soon free for.
        """
        share = self._share_of_one()
        looked = self._living(LOOK * self.limits.items)
        if not looked:
            return None
        alone = looked[0].turn.rank > 0  # somebody may come while it runs
        chosen = cut(
            [waiting.tokens for waiting in looked],
            items=1 if alone else self.limits.items,
            budget=min(self.limits.tokens, share),
            spare=self.limits.spare,
        )
        going = set(chosen)
        self._queue[:0] = [waiting for i, waiting in enumerate(looked) if i not in going]
        items = [looked[i] for i in chosen]
        self._pool.turns.serve(looked[0].turn.start)
        for waiting in items:
            waiting.job.waiting.discard(waiting)
            self._gone(waiting)
        batch = Batch(items, 0.0, Halt() if alone else None)
        return batch._replace(predicted_s=self.line(batch.padded))

    def _share_of_one(self) -> int:
        """Of the tokens that wait, what a thread that begins now should take. Under the lock."""
        total, pool = self.waiting_tokens, self._pool
        all_s = self.cost_s(total)
        own_s = (all_s + pool.running_s) / pool.at_once
        return total if own_s >= all_s else ceil(total * own_s / all_s)

    def _living(self, most: int) -> list[_Waiting]:
        """
        Take up to `most` of the next of one rank off the queue, dropping the dead.

        A job is asked once: lost between two looks, it is lost as a whole the next time.
        """
        now = perf_counter()
        found: dict[Job[Any, Any], str | None] = {}
        living: list[_Waiting] = []
        looked = 0
        for waiting in self._queue:
            if len(living) == most or (living and living[0].turn.rank != waiting.turn.rank):
                break
            looked += 1
            if waiting.job not in found:
                found[waiting.job] = waiting.job.lost(now)
            reason = found[waiting.job]
            if reason is None:
                living.append(waiting)
            else:
                self._uncount(waiting.job)
                self._dead.append((waiting, reason))
        del self._queue[:looked]
        return living

    def bury(self) -> None:
        """Tell of what was found dead, and whose deadline has passed, that it has."""
        self._tell()
        while self._dead:
            waiting, reason = self._dead.pop()
            self._observer.dropped(reason)
            if reason == "deadline":
                waiting.job.expire()

    def _forget(self, job: Job[Any, Any]) -> None:
        """What still waits of a job that is over is counted no more; it is dropped in its turn."""
        with self._pool.lock:
            self._uncount(job)
            if len(self._queue) > 2 * self._standing + SWEPT:
                self._sweep()
        self.bury()

    def _sweep(self) -> None:
        now = perf_counter()
        reasons = [(waiting, waiting.job.lost(now)) for waiting in self._queue]
        self._queue = [waiting for waiting, reason in reasons if reason is None]
        self._dead += [(waiting, reason) for waiting, reason in reasons if reason is not None]

    def _uncount(self, job: Job[Any, Any]) -> None:
        for waiting in job.waiting:
            self._gone(waiting)
        job.waiting.clear()

    def _gone(self, waiting: _Waiting) -> None:
        self._count(waiting.flow, waiting.key, -1, -waiting.tokens)
        self._pool.turns.leave(waiting.flow, waiting.cost_s)

    def _count(self, flow: Flow, key: Hashable, items: int, tokens: int) -> None:
        self._standing += items
        if flow.rank:
            return
        self.waiting_items += items
        self.waiting_tokens += tokens
        held = self._held.get(key, _Held(0, 0))
        self._held[key] = _Held(held.items + items, held.tokens + tokens)
        if not self._held[key].items:
            del self._held[key]

    def execute(self, batch: Batch) -> Outcome:
        """Run a batch, in a thread. One that fails is run again item by item."""
        items = [waiting.item for waiting in batch.items]
        begun = perf_counter()
        try:
            results = self._attempt(items, batch.halt)
        except Halted:
            return Outcome(None, begun, perf_counter())
        if len(items) > 1 and isinstance(results[0], BaseException):
            results = list(chain.from_iterable(self._attempt([item], None) for item in items))
        for waiting, result in zip(batch.items, results, strict=True):
            waiting.job.spoilt |= isinstance(result, BaseException)
        return Outcome(results, begun, perf_counter())

    def _attempt(self, items: list[Item], halt: Halt | None) -> Sequence[Result | BaseException]:
        """The results, or the error once for each item. Raises `Halted`."""
        try:
            results = self._run(items, halt)
            if len(results) != len(items):
                raise RuntimeError(f"{len(items)} items went in, {len(results)} results came out")
            return results
        except Halted:
            raise
        except BaseException as error:  # a panic in Rust is no Exception, and would end the thread
            return [error] * len(items)

    def settle(self, batch: Batch, outcome: Outcome) -> None:
        """Give every job its results; what was halted waits again, where it was."""
        if outcome.results is None:
            self._again(batch)
            return
        tokens = batch.tokens
        for waiting, result in zip(batch.items, outcome.results, strict=True):
            share = waiting.tokens / tokens if tokens else 0.0
            waiting.job.settle(waiting.place, result, outcome.begun, outcome.done, share)

    def _again(self, batch: Batch) -> None:
        self._observer.halted()
        try:
            self._pool.check_open()
        except NotReady as error:
            for waiting in batch.items:
                waiting.job.fail(error)
            return
        turns = self._pool.turns
        with self._pool.lock:
            for waiting in batch.items:
                waiting.flow = turns.back(waiting.flow, waiting.cost_s)
                self._stand(waiting)
                self._count(waiting.flow, waiting.key, 1, waiting.tokens)
        self._pool.call()

    def learn(self, batch: Batch, outcome: Outcome) -> None:
        """Keep count, and how long it took, if it ran to its end."""
        if outcome.results is None:
            return
        seconds = outcome.done - outcome.begun
        self.line.learn(batch.padded, seconds)
        self._observer.ran(
            items=len(batch.items), tokens=batch.tokens, padded=batch.padded, seconds=seconds
        )

    def abandon(self) -> None:
        """Fail everything that waits."""
        with self._pool.lock:
            waiting, self._queue = self._queue, []
        for each in waiting:
            each.job.fail(NotReady("the server is shutting down"))
        self._tell()

    def _tell(self) -> None:
        self._observer.waiting(self.waiting_items, self.waiting_tokens)

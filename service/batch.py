"""
Batches cut from what waits: length-sorted, within a padded-token budget, never waiting for more.

Items are anything that has a length in tokens. Knows nothing of models, texts or HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from math import ceil
from time import perf_counter
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from models.errors import NotReady, Overloaded
from models.session import Halt, Halted
from service.cost import Line
from service.fair import Priority
from service.job import Job, Waiting
from service.pool import Pool
from service.waitlist import Room, Waitlist

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """
    items, tokens  of one batch; tokens are counted with padding
    spare          tokens of padding that whoever joins a batch may bring
    room           what may wait
    """

    items: int = 32
    tokens: int = 1024
    spare: int = SPARE
    room: Room = field(default_factory=Room)


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


class Batch(NamedTuple):
    """
    Some items that run together, and what was predicted of it.

    halt  ends its run where nobody waits for it; it begins again when there is time
    """

    items: list[Waiting]
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
    waitlist  what is not begun
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
        self.waitlist = Waitlist(limits.room, pool)
        self._run = run
        self._pool = pool
        self._observer = observer
        pool.join(self)

    @property
    def next(self) -> tuple[int, float]:
        """Rank and start of what goes next; there must be some."""
        return self.waitlist.first.turn[:2]

    @property
    def is_idle(self) -> bool:
        return self.waitlist.is_empty

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

        Raises what `Waitlist.admit` raises, and `NotReady` while closing.
        """
        self.waitlist.admit(len(items), sum(tokens), key)
        self._pool.check_open()
        job: Job[Item, Result] = Job(len(items), deadline, self._forget)
        if not items:
            return job
        with self._pool.lock:
            self.waitlist.add(job, items, tokens, map(self.cost_s, tokens), key, priority)
        self._pool.call()
        self._tell()
        return job

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
            ahead_s = self.waitlist.ahead_s(key, priority, self.cost_s(tokens))
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
        looked = self.waitlist.look(LOOK * self.limits.items)
        if not looked:
            return None
        alone = looked[0].turn.rank > 0  # somebody may come while it runs
        chosen = cut(
            [waiting.tokens for waiting in looked],
            items=1 if alone else self.limits.items,
            budget=min(self.limits.tokens, share),
            spare=self.limits.spare,
        )
        items = self.waitlist.begin(looked, chosen)
        batch = Batch(items, 0.0, Halt() if alone else None)
        return batch._replace(predicted_s=self.line(batch.padded))

    def _share_of_one(self) -> int:
        """Of the tokens that wait, what a thread that begins now should take. Under the lock."""
        total, pool = self.waitlist.tokens, self._pool
        all_s = self.cost_s(total)
        own_s = (all_s + pool.running_s) / pool.at_once
        return total if own_s >= all_s else ceil(total * own_s / all_s)

    def bury(self) -> None:
        """Tell of what was found dead, and whose deadline has passed, that it has."""
        self._tell()
        while self.waitlist.dead:
            waiting, reason = self.waitlist.dead.pop()
            self._observer.dropped(reason)
            if reason == "deadline":
                waiting.job.expire()

    def _forget(self, job: Job[Any, Any]) -> None:
        """A job is over, and something of it waits yet."""
        with self._pool.lock:
            self.waitlist.forget(job)
        self.bury()

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
        with self._pool.lock:
            self.waitlist.add_again(batch.items)
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
            waiting = self.waitlist.clear()
        for each in waiting:
            each.job.fail(NotReady("the server is shutting down"))
        self._tell()

    def _tell(self) -> None:
        self._observer.waiting(self.waitlist.items, self.waitlist.tokens)

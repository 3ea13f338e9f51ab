"""
What waits for one model: admitted while there is room, kept in the order of turns, dropped if dead.

Threads take from it while the event loop adds to it: all but `admit` is called under the pool's
lock. Knows nothing of batches, nor of who runs them.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from time import perf_counter
from typing import Any, NamedTuple

from models.errors import Overloaded, TooLarge
from service.fair import Flow, Priority, Turn
from service.job import Job, Waiting
from service.pool import Pool

# The part of a queue that is for keys with less of it than an equal share would be.
RESERVE = 1 / 8
# Dead items that may lie among the living before the queue is swept.
SWEPT = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Items, and their tokens, that may wait; a request beyond is refused."""

    items: int = 2048
    tokens: int = 262_144


class _Held(NamedTuple):
    """What waits of one key."""

    items: int
    tokens: int


class Waitlist:
    """
    The items of all jobs of one queue that are not begun.

    items, tokens  of those whom somebody waits for: shadows take nobody's room
    dead           those that were dropped, and why, until somebody tells of them
    """

    def __init__(self, room: Room, pool: Pool) -> None:
        self.room = room
        self.items = self.tokens = 0
        self.dead: list[tuple[Waiting, str]] = []
        self._standing = 0  # items of shadows too
        self._held: dict[Hashable, _Held] = {}  # of each key of which something waits
        self._queue: list[Waiting] = []
        self._numbers = count()
        self._pool = pool

    @property
    def is_empty(self) -> bool:
        return not self._queue

    @property
    def first(self) -> Waiting:
        """What goes next; there must be some."""
        return self._queue[0]

    def admit(self, items: int, tokens: int, key: Hashable = None) -> None:
        """
        Raise `Overloaded` if so much does not fit now, `TooLarge` if it never would.

        key  whose work it is; None: of nobody who must leave room for others
        """
        room = self.room
        if items > room.items or tokens > room.tokens:
            raise TooLarge(
                f"the request is at least {items} windows of {tokens} tokens in all; "
                f"at most {room.items} windows and {room.tokens} tokens go in one"
            )
        if self.items + items > room.items or self.tokens + tokens > room.tokens:
            raise Overloaded(
                f"{self.items} windows of {self.tokens} tokens in all are waiting",
                retry_after_s=self._pool.drain_s,
            )
        if key is not None and self._crowds(items, tokens, key):
            raise Overloaded(
                f"{self.items} windows are waiting, too many of them of this key: "
                "the rest of the queue is for others",
                retry_after_s=self._pool.drain_s,
            )

    def _crowds(self, items: int, tokens: int, key: Hashable) -> bool:
        """Whether it would take of the reserve what is more than an equal share of the queue."""
        mine = self._held.get(key)
        if mine is None:
            return False
        all_of_it = self._share(self.items + items, self.tokens + tokens)
        own = self._share(mine.items + items, mine.tokens + tokens)
        # Whoever comes next is to find as much as each of those that are here.
        return all_of_it > 1 - RESERVE and own > 1 / (len(self._held) + 1)

    def _share(self, items: int, tokens: int) -> float:
        """Of the room; of its items or its tokens, whichever are scarcer."""
        return max(items / self.room.items, tokens / self.room.tokens)

    def add(
        self,
        job: Job[Any, Any],
        items: Sequence[Any],
        tokens: Sequence[int],
        costs_s: Iterable[float],
        key: Hashable,
        priority: Priority,
    ) -> None:
        """All items of a job, each of so many tokens and predicted seconds of a core."""
        turns = self._pool.turns
        flow = turns.flow((self, key), priority)
        each = zip(items, tokens, costs_s, strict=True)
        for place, (item, size, cost_s) in enumerate(each):
            turn = Turn(flow.rank, turns.queue(flow, cost_s), next(self._numbers))
            self._stand(Waiting(job, place, item, size, flow, key, cost_s, turn))
        self._count(flow, key, len(items), sum(tokens))

    def add_again(self, begun: Iterable[Waiting]) -> None:
        """What was begun and not done, in its old turn."""
        for waiting in begun:
            waiting.flow = self._pool.turns.back(waiting.flow, waiting.cost_s)
            self._stand(waiting)
            self._count(waiting.flow, waiting.key, 1, waiting.tokens)

    def _stand(self, waiting: Waiting) -> None:
        waiting.job.waiting.add(waiting)
        if not self._queue or self._queue[-1] < waiting:
            self._queue.append(waiting)  # as nearly always
        else:
            insort(self._queue, waiting)

    def ahead_s(self, key: Hashable, priority: Priority, seconds: float) -> float:
        """Seconds of one core that go before the last of so many that come now."""
        return self._pool.turns.ahead_s((self, key), priority, seconds)

    def look(self, most: int) -> list[Waiting]:
        """
        Up to `most` of the next of one rank that somebody waits for; the dead before are dropped.

        A job is asked once: lost between two looks, it is lost as a whole the next time.
        """
        now = perf_counter()
        found: dict[Job[Any, Any], str | None] = {}
        living: list[Waiting] = []
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
                self.dead.append((waiting, reason))
        self._queue[:looked] = living
        return living

    def begin(self, looked: Sequence[Waiting], chosen: Sequence[int]) -> list[Waiting]:
        """Take those of what was just looked at that now run."""
        going = set(chosen)
        self._queue[: len(looked)] = [each for i, each in enumerate(looked) if i not in going]
        self._pool.turns.serve(looked[0].turn.start)
        begun = [looked[i] for i in chosen]
        for waiting in begun:
            waiting.job.waiting.discard(waiting)
            self._gone(waiting)
        return begun

    def forget(self, job: Job[Any, Any]) -> None:
        """What still waits of a job that is over is counted no more; it is dropped in its turn."""
        self._uncount(job)
        if len(self._queue) > 2 * self._standing + SWEPT:
            self._sweep()

    def clear(self) -> list[Waiting]:
        """Everything, for whoever fails it."""
        waiting, self._queue = self._queue, []
        return waiting

    def _sweep(self) -> None:
        now = perf_counter()
        reasons = [(waiting, waiting.job.lost(now)) for waiting in self._queue]
        self._queue = [waiting for waiting, reason in reasons if reason is None]
        self.dead += [(waiting, reason) for waiting, reason in reasons if reason is not None]

    def _uncount(self, job: Job[Any, Any]) -> None:
        for waiting in job.waiting:
            self._gone(waiting)
        job.waiting.clear()

    def _gone(self, waiting: Waiting) -> None:
        self._count(waiting.flow, waiting.key, -1, -waiting.tokens)
        self._pool.turns.leave(waiting.flow, waiting.cost_s)

    def _count(self, flow: Flow, key: Hashable, items: int, tokens: int) -> None:
        self._standing += items
        if flow.rank:
            return
        self.items += items
        self.tokens += tokens
        held = self._held.get(key, _Held(0, 0))
        self._held[key] = _Held(held.items + items, held.tokens + tokens)
        if not self._held[key].items:
            del self._held[key]

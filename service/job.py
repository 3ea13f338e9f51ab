"""
The items of one request on their way to an answer: each settles alone, all are answered at once.

Knows nothing of queues or of what runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from math import inf
from time import perf_counter
from typing import Any, Generic, TypeVar

from models.errors import DeadlineExceeded
from service.fair import Flow, Turn

Item = TypeVar("Item")
Result = TypeVar("Result")


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
        self.waiting: set[Waiting] = set()
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


class Waiting:
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
        turn: Turn,
    ) -> None:
        self.job = job
        self.place = place
        self.item = item
        self.tokens = tokens
        self.flow = flow
        self.key = key
        self.cost_s = cost_s
        self.turn = turn

    def __lt__(self, other: Waiting) -> bool:
        return self.turn < other.turn

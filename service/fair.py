"""
Who goes next: a fair share of the cores for every flow of work, in predicted seconds.

Start-time fair queueing (Goyal, Vin and Cheng 1996): a piece of work starts, in virtual time, where
its flow's last one finished, and the earliest start goes first. So whoever sends much waits behind
himself, not before others. Knows nothing of batches, models or clocks.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from enum import StrEnum
from typing import NamedTuple


class Priority(StrEnum):
    """
    Who waits for the answer: a person; a job, which gets an eighth of a person's share; nobody, and
    then the work is done when nothing else is to do.
    """

    INTERACTIVE = "interactive"
    BATCH = "batch"
    SHADOW = "shadow"


WEIGHTS = {Priority.INTERACTIVE: 1.0, Priority.BATCH: 0.125, Priority.SHADOW: 1.0}


class Flow:
    """
    Work of one kind of one caller, while some of it waits.

    finish   in virtual time, of the last piece that came
    waiting  pieces, and their seconds
    """

    __slots__ = ("finish", "key", "priority", "waiting", "waiting_s", "weight")

    def __init__(self, key: Hashable, priority: Priority) -> None:
        self.key = key
        self.priority = priority
        self.weight = WEIGHTS[priority]
        self.finish = 0.0
        self.waiting = 0
        self.waiting_s = 0.0

    @property
    def rank(self) -> int:
        """0 goes before 1, whatever their starts."""
        return int(self.priority is Priority.SHADOW)


class Turn(NamedTuple):
    """Who ranks first goes first, then who starts first in virtual time, then who came first."""

    rank: int
    start: float
    number: int


class Turns:
    """All flows of a pool of cores, and its virtual time."""

    def __init__(self) -> None:
        self.now = 0.0
        self._flows: dict[Hashable, Flow] = {}

    def flow(self, of: Hashable, priority: Priority) -> Flow:
        """The flow of that work: a new one where nothing of it waits. Queue something in it."""
        key = (of, priority)
        found = self._flows.get(key)
        if found is None:
            found = self._flows[key] = Flow(key, priority)
        return found

    def queue(self, flow: Flow, seconds: float) -> float:
        """A piece of that flow comes. Gives its start in virtual time."""
        start = max(self.now, flow.finish)
        flow.finish = start + seconds / flow.weight
        flow.waiting += 1
        flow.waiting_s += seconds
        return start

    def back(self, flow: Flow, seconds: float) -> Flow:
        """A piece of that flow waits again, in its old turn. Gives the flow as it is now."""
        flow = self._flows.setdefault(flow.key, flow)
        flow.waiting += 1
        flow.waiting_s += seconds
        return flow

    def leave(self, flow: Flow, seconds: float) -> None:
        """A piece no longer waits."""
        flow.waiting -= 1
        flow.waiting_s -= seconds
        if not flow.waiting:
            self._flows.pop(flow.key, None)

    def serve(self, start: float) -> None:
        """A piece that starts then is begun."""
        self.now = max(self.now, start)

    @property
    def waits(self) -> bool:
        """Whether anything waits at all."""
        return bool(self._flows)

    @property
    def waiting_s(self) -> float:
        """Seconds of one core in all that somebody waits for."""
        return sum(each.waiting_s for each in self._answered())

    def ahead_s(self, of: Hashable, priority: Priority, seconds: float) -> float:
        """
        Seconds of one core that go before the last of a new piece of work of so many.

        While a flow's own work is done, each other flow gets no more than its share.
        """
        mine = self._flows.get((of, priority))
        own_s = mine.waiting_s if mine else 0.0
        if priority is Priority.SHADOW:
            return sum(each.waiting_s for each in self._flows.values())
        share = (own_s + seconds) / WEIGHTS[priority]
        others = sum(
            min(each.waiting_s, each.weight * share)
            for each in self._answered()
            if each is not mine
        )
        return own_s + others

    def _answered(self) -> Iterator[Flow]:
        return (each for each in self._flows.values() if each.priority is not Priority.SHADOW)

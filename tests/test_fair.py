"""Fair shares: a simulation of one core, in which every piece takes what was predicted."""

from __future__ import annotations

import heapq
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.fair import Flow, Priority, Turns

Piece = tuple[int, float, int, Flow, float]


class Core:
    """Serves what is queued, the first rank first and then the earliest start."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.served: dict[str, float] = {}
        self._pieces: list[Piece] = []
        self._count = count()

    def queue(self, of: str, seconds: float, priority: Priority = Priority.INTERACTIVE) -> None:
        flow = self.turns.flow(of, priority)
        start = self.turns.queue(flow, seconds)
        heapq.heappush(self._pieces, (flow.rank, start, next(self._count), flow, seconds))

    def serve(self) -> str:
        _, start, _, flow, seconds = heapq.heappop(self._pieces)
        self.turns.serve(start)
        self.turns.leave(flow, seconds)
        (of, _) = flow.key  # type: ignore[misc]
        self.served[of] = self.served.get(of, 0.0) + seconds
        return str(of)


def test_who_floods_waits_behind_himself() -> None:
    core = Core()
    for _ in range(100):
        core.queue("flood", 1.0)
    core.serve()
    core.queue("calm", 1.0)
    assert "calm" in (core.serve(), core.serve())


@given(st.lists(st.floats(0.1, 5), min_size=5, max_size=40), st.floats(0.1, 5))
def test_two_that_always_want_more_get_the_same(sizes: list[float], size: float) -> None:
    core = Core()
    for seconds in sizes * 20:
        core.queue("one", seconds)
    for _ in range(2000):
        core.queue("other", size)
    for _ in range(60):
        core.serve()
    got = [core.served.get(name, 0.0) for name in ("one", "other")]
    assert abs(got[0] - got[1]) <= max(sizes) + size + 1e-6


def test_a_job_gets_an_eighth_of_a_persons_share_and_is_not_starved() -> None:
    core = Core()
    for _ in range(900):
        core.queue("person", 1.0)
        core.queue("job", 1.0, Priority.BATCH)
    for _ in range(900):
        core.serve()
    assert core.served["person"] == pytest.approx(800, abs=2)


def test_a_shadow_is_served_when_nothing_else_waits() -> None:
    core = Core()
    core.queue("shadow", 1.0, Priority.SHADOW)
    core.queue("job", 1.0, Priority.BATCH)
    core.queue("person", 1.0)
    assert [core.serve() for _ in range(3)][-1] == "shadow"


def test_one_flow_goes_in_its_order() -> None:
    turns = Turns()
    starts = []
    for seconds in (3.0, 1.0, 2.0):
        starts.append(turns.queue(turns.flow("one", Priority.INTERACTIVE), seconds))
    assert starts == sorted(starts) == [0.0, 3.0, 4.0]


def test_what_goes_before_is_no_more_than_a_fair_share_of_the_others() -> None:
    turns = Turns()
    for _ in range(100):
        turns.queue(turns.flow("flood", Priority.INTERACTIVE), 1.0)
    assert turns.ahead_s("calm", Priority.INTERACTIVE, 2.0) == 2.0
    assert turns.ahead_s("flood", Priority.INTERACTIVE, 2.0) == 100.0
    assert turns.ahead_s("job", Priority.BATCH, 2.0) == 16.0
    assert turns.ahead_s("shadow", Priority.SHADOW, 2.0) == 100.0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(Priority), st.floats(0, 9))))
def test_nothing_is_left_of_flows_where_nothing_waits(
    queued: list[tuple[str, Priority, float]],
) -> None:
    core = Core()
    for of, priority, seconds in queued:
        core.queue(of, seconds, priority)
    for _ in queued:
        core.serve()
    assert core.turns.waiting_s == 0
    assert core.turns.ahead_s("new", Priority.INTERACTIVE, 9.0) == 0

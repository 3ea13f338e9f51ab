"""The batcher on words it shouts: who goes together, who is dropped, who is refused."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import DeadlineExceeded, NotReady, Overloaded, TooLarge
from models.session import Halt, Halted
from service.batch import Batcher, Limits, cut
from service.cost import Line
from service.fair import Priority
from service.job import CallerLeft, Job
from service.pool import Pool
from service.waitlist import SWEPT, Room

LATER = perf_counter() + 3600


class Seen:
    """What the batcher told its observer."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, int, int]] = []
        self.drops: list[str] = []
        self.halts = 0
        self.depth = (0, 0)

    def ran(self, *, items: int, tokens: int, padded: int, seconds: float) -> None:
        self.batches.append((items, tokens, padded))

    def dropped(self, reason: str) -> None:
        self.drops.append(reason)

    def halted(self) -> None:
        self.halts += 1

    def waiting(self, items: int, tokens: int) -> None:
        self.depth = (items, tokens)


class Shouting:
    """
    A model of words. Holds every batch at the gate until it is opened, or the batch is halted;
    "boo" spoils a batch.
    """

    def __init__(self, *, open_gate: bool = True) -> None:
        self.gate = threading.Event()
        self.batches: list[list[str]] = []
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()
        if open_gate:
            self.gate.set()

    def __call__(self, words: Sequence[str], halt: Halt | None = None) -> list[str]:
        with self._lock:
            self.batches.append(list(words))
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        until = perf_counter() + 20
        while not self.gate.wait(0.002) and not (halt and halt.asked):
            assert perf_counter() < until
        with self._lock:
            self.at_once -= 1
        if halt and halt.asked:
            raise Halted
        if "boo" in words:
            raise ValueError("boo")
        return [word.upper() for word in words]


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(scenario(), 20)

    asyncio.run(bounded())


def batcher(
    model: Callable[[Sequence[str], Halt | None], Sequence[str]],
    *,
    pool: Pool | None = None,
    **limits: Any,
) -> tuple[Batcher[str, str], Seen]:
    seen = Seen()
    return Batcher(model, Limits(**limits), pool or Pool(1), seen), seen


def submit(
    queue: Batcher[str, str],
    *words: str,
    deadline: float = LATER,
    key: str | None = None,
    priority: Priority = Priority.INTERACTIVE,
) -> Job[str, str]:
    lengths = [len(word) for word in words]
    return queue.submit(words, lengths, deadline=deadline, key=key, priority=priority)


async def begun(model: Shouting, batches: int) -> None:
    """Until so many batches are in the model."""
    while len(model.batches) < batches:
        await asyncio.sleep(0.001)


# --- cut -------------------------------------------------------------------------------------

lengths = st.lists(st.integers(1, 300), min_size=1, max_size=40)


@given(lengths, st.integers(1, 16), st.integers(1, 1000), st.integers(0, 200))
def test_a_batch_holds_the_oldest_and_keeps_every_limit(
    tokens: list[int], items: int, budget: int, spare: int
) -> None:
    batch = cut(tokens, items=items, budget=budget, spare=spare)
    chosen = [tokens[i] for i in batch]
    padded = max(chosen) * len(chosen)
    assert 0 in batch
    assert len(set(batch)) == len(batch) <= items
    assert len(batch) == 1 or padded <= budget
    assert padded - sum(chosen) <= spare * (len(batch) - 1)  # of the runs that it saves


@given(lengths)
def test_a_batch_skips_no_length_between_its_own(tokens: list[int]) -> None:
    batch = cut(tokens, items=8, budget=512, spare=12)
    chosen = [tokens[i] for i in batch]
    left = [n for i, n in enumerate(tokens) if i not in batch]
    assert not any(min(chosen) < n < max(chosen) for n in left)


def test_the_example_in_the_docstring() -> None:
    assert sorted(cut([9, 2, 8, 30], items=4, budget=64, spare=5)) == [0, 2]


def test_items_of_one_length_go_in_the_order_they_came() -> None:
    assert cut([5, 5, 5, 5], items=3, budget=100, spare=0) == [0, 1, 2]


# --- answers ---------------------------------------------------------------------------------


def test_answers_come_in_the_order_of_the_items() -> None:
    async def scenario() -> None:
        queue, _ = batcher(Shouting())
        assert await submit(queue, "ccc", "a", "bb").answer == ["CCC", "A", "BB"]

    run(scenario)


def test_an_idle_server_runs_a_lone_item_at_once() -> None:
    async def scenario() -> None:
        model = Shouting()
        queue, _ = batcher(model)
        assert await submit(queue, "solo").answer == ["SOLO"]
        assert model.batches == [["solo"]]

    run(scenario)


def test_a_request_without_items_is_answered_without_a_run() -> None:
    async def scenario() -> None:
        model = Shouting()
        queue, _ = batcher(model)
        assert await submit(queue).answer == []
        assert model.batches == []

    run(scenario)


def test_a_request_of_many_batches_is_in_the_model_from_its_first_to_its_last() -> None:
    async def scenario() -> None:
        model = Shouting(open_gate=False)
        queue, _ = batcher(model, items=1)
        job = submit(queue, "first", "last")
        await begun(model, 1)
        between = perf_counter()
        model.gate.set()
        await job.answer
        assert job.submitted <= job.begun < between < job.done

    run(scenario)


def test_those_who_come_while_one_runs_go_together_each_with_its_own_answer() -> None:
    async def scenario() -> None:
        model = Shouting(open_gate=False)
        queue, seen = batcher(model)
        first = submit(queue, "first")
        await begun(model, 1)
        others = [submit(queue, word) for word in ("aaaa", "bbbb", "cccc")]
        model.gate.set()
        assert await first.answer == ["FIRST"]
        assert [await job.answer for job in others] == [["AAAA"], ["BBBB"], ["CCCC"]]
        assert model.batches == [["first"], ["aaaa", "bbbb", "cccc"]]
        assert seen.batches == [(1, 5, 5), (3, 12, 12)]

    run(scenario)


@pytest.mark.parametrize(
    ("spare", "then"),
    [(1, [[49, 50], [3, 3]]), (0, [[50], [3, 3], [49]])],
    ids=["it pays", "a run costs less"],
)
def test_like_lengths_go_together_where_it_pays_but_the_oldest_goes_first(
    spare: int, then: list[list[int]]
) -> None:
    async def scenario() -> None:
        model = Shouting(open_gate=False)
        queue, _ = batcher(model, items=2, spare=spare)
        submit(queue, "first")
        await begun(model, 1)
        waiting = [submit(queue, "x" * n) for n in (50, 3, 49, 3)]
        model.gate.set()
        for job in waiting:
            await job.answer
        assert [[len(word) for word in batch] for batch in model.batches[1:]] == then

    run(scenario)


def test_a_long_item_is_not_passed_over_for_ever_by_short_ones() -> None:
    async def scenario() -> None:
        model = Shouting(open_gate=False)
        queue, _ = batcher(model, items=4)
        submit(queue, "first")
        await begun(model, 1)
        short = [submit(queue, "s") for _ in range(4)]
        long = submit(queue, "l" * 90)
        more = [submit(queue, "s") for _ in range(40)]
        model.gate.set()
        await long.answer
        for job in short + more:
            await job.answer
        assert model.batches[2] == ["l" * 90]

    run(scenario)


def test_a_request_alone_is_shared_out_among_the_threads() -> None:
    async def scenario() -> None:
        model = Shouting(open_gate=False)
        queue, _ = batcher(model, pool=Pool(2))
        queue.line = Line(each=1.0)  # what runs runs for long yet
        job = submit(queue, "aa", "bb", "cc", "dd")
        await begun(model, 2)
        model.gate.set()
        assert await job.answer == ["AA", "BB", "CC", "DD"]
        assert sorted(map(len, model.batches)) == [2, 2]

    run(scenario)


def test_what_waits_is_shared_out_with_threads_that_are_busy_yet() -> None:
    async def scenario() -> None:
        model = Shouting(open_gate=False)
        queue, _ = batcher(model, pool=Pool(2))
        first, second = submit(queue, "a"), submit(queue, "b")
        await begun(model, 2)
        waiting = [submit(queue, "cc") for _ in range(6)]
        model.gate.set()
        for job in (first, second, *waiting):
            await job.answer
        assert len(model.batches[2]) == 3

    run(scenario)


def test_as_many_batches_run_at_once_as_there_are_threads_and_no_more() -> None:
    async def scenario() -> None:
        model = Shouting(open_gate=False)
        pool = Pool(3)
        one, _ = batcher(model, pool=pool, items=1)
        two, _ = batcher(model, pool=pool, items=1)
        jobs = [submit(queue, "word") for queue in (one, two) for _ in range(5)]
        await begun(model, 3)
        model.gate.set()
        for job in jobs:
            await job.answer
        assert model.most_at_once == 3

    run(scenario)


@pytest.mark.parametrize(
    ("threads", "of_the_loop", "of_all", "at_once"),
    [
        pytest.param(2, 0.7, 1.4, 1, id="as much as the models"),
        pytest.param(2, 0.35, 1.9, 2, id="a fifth of all"),
        pytest.param(2, 0.2, 0.4, 2, id="half of next to nothing"),
        pytest.param(4, 0.9, 4.0, 3, id="a core of four"),
        pytest.param(4, 0.5, 4.0, 4, id="half a core of four"),
        pytest.param(1, 0.9, 1.2, 1, id="there is one thread"),
    ],
)
def test_an_event_loop_that_needs_a_core_gets_one(
    monkeypatch: pytest.MonkeyPatch, threads: int, of_the_loop: float, of_all: float, at_once: int
) -> None:
    for name, times in {
        "perf_counter": [0.0, 1.0, 2.0],
        "thread_time": [5.0, 5.0 + of_the_loop, 5.0 + of_the_loop],
        "process_time": [9.0, 9.0 + of_all, 9.0 + of_all],
    }.items():
        monkeypatch.setattr(f"service.pool.{name}", iter(times).__next__)
    pool = Pool(threads)
    pool.look()
    assert pool.at_once == at_once
    pool.look()  # nothing was done since
    assert pool.at_once == threads


def test_with_a_core_left_to_the_event_loop_one_batch_fewer_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Pool, "look", lambda pool: None)

    async def scenario() -> None:
        model, pool = Shouting(open_gate=False), Pool(2)
        pool.at_once = 1
        queue, _ = batcher(model, pool=pool)
        first = submit(queue, "a")
        await begun(model, 1)
        waiting = [submit(queue, "cc") for _ in range(4)]
        await asyncio.sleep(0.05)
        assert model.batches == [["a"]]
        model.gate.set()
        for job in (first, *waiting):
            await job.answer
        assert model.batches == [["a"], ["cc"] * 4]
        assert await submit(queue, "next").answer == ["NEXT"]

    run(scenario)


def test_a_flooded_queue_leaves_the_other_its_turn() -> None:
    async def scenario() -> None:
        model = Shouting(open_gate=False)
        pool = Pool(1)
        flooded, _ = batcher(model, pool=pool, items=1)
        calm, _ = batcher(model, pool=pool, items=1)
        jobs = [submit(flooded, "flood") for _ in range(20)]
        await begun(model, 1)
        jobs.append(submit(calm, "calm"))
        model.gate.set()
        for job in jobs:
            await job.answer
        assert ["calm"] in model.batches[:3]

    run(scenario)


# --- errors ----------------------------------------------------------------------------------


def test_a_bad_item_spoils_only_its_own_request() -> None:
    async def scenario() -> None:
        model = Shouting(open_gate=False)
        queue, _ = batcher(model)
        submit(queue, "one")
        await begun(model, 1)
        good, bad, fine = submit(queue, "yes"), submit(queue, "boo"), submit(queue, "too")
        model.gate.set()
        assert await good.answer == ["YES"]
        assert await fine.answer == ["TOO"]
        with pytest.raises(ValueError, match="boo"):
            await bad.answer
        assert model.batches[1:] == [["yes", "boo", "too"], ["yes"], ["boo"], ["too"]]

    run(scenario)


def test_a_panic_ends_no_thread() -> None:
    class Panic(BaseException):
        """As Rust's reach Python."""

    async def scenario() -> None:
        def panics(words: Sequence[str], halt: Halt | None = None) -> list[str]:
            if "boo" in words:
                raise Panic
            return [word.upper() for word in words]

        queue, _ = batcher(panics)
        with pytest.raises(Panic):
            await submit(queue, "boo").answer
        assert await submit(queue, "next").answer == ["NEXT"]

    run(scenario)


def test_a_model_that_loses_a_result_is_an_error_not_a_mix_up() -> None:
    def forgetful(words: Sequence[str], halt: Halt | None) -> list[str]:
        return [word.upper() for word in words][1:]

    async def scenario() -> None:
        queue, _ = batcher(forgetful)
        with pytest.raises(RuntimeError, match="1 items went in, 0 results came out"):
            await submit(queue, "a", "b").answer

    run(scenario)


# --- the dead --------------------------------------------------------------------------------


def test_work_of_a_caller_who_left_is_not_run() -> None:
    async def scenario() -> None:
        model = Shouting(open_gate=False)
        queue, seen = batcher(model)
        submit(queue, "first")
        await begun(model, 1)
        left, cancelled, stays = (
            submit(queue, "left", "also"),
            submit(queue, "x"),
            submit(queue, "y"),
        )
        left.leave()
        cancelled.answer.cancel()
        model.gate.set()
        assert await stays.answer == ["Y"]
        with pytest.raises(CallerLeft):
            await left.answer
        assert model.batches == [["first"], ["y"]]
        assert seen.drops == ["caller_left"] * 3
        assert queue.waitlist.tokens == queue.waitlist.items == 0

    run(scenario)


def test_the_depth_told_is_the_depth_now() -> None:
    async def scenario() -> None:
        model = Shouting(open_gate=False)
        pool = Pool(1)
        queue, seen = batcher(model, pool=pool)
        first = submit(queue, "first")
        await begun(model, 1)
        left = submit(queue, "left", "also")
        assert seen.depth == (2, 8)
        left.leave()
        model.gate.set()
        await first.answer
        assert seen.depth == (0, 0)
        model.gate.clear()
        submit(queue, "runs")
        await begun(model, 2)
        submit(queue, "waits")
        assert seen.depth == (1, 5)
        closing = asyncio.ensure_future(pool.close())
        await asyncio.sleep(0)
        assert seen.depth == (0, 0)
        model.gate.set()
        await closing

    run(scenario)


def test_work_past_its_deadline_is_not_run() -> None:
    async def scenario() -> None:
        model = Shouting(open_gate=False)
        queue, seen = batcher(model)
        submit(queue, "first")
        await begun(model, 1)
        late, stays = submit(queue, "late", deadline=perf_counter()), submit(queue, "stays")
        model.gate.set()
        assert await stays.answer == ["STAYS"]
        with pytest.raises(DeadlineExceeded):
            await late.answer
        assert seen.drops == ["deadline"]

    run(scenario)


def test_what_is_left_of_a_failed_request_is_not_run() -> None:
    async def scenario() -> None:
        model = Shouting()
        queue, seen = batcher(model, items=1)
        with pytest.raises(ValueError, match="boo"):
            await submit(queue, "boo", "rest", "more").answer
        assert await submit(queue, "next").answer == ["NEXT"]
        assert model.batches == [["boo"], ["next"]]
        assert seen.drops == ["failed_with_its_request"] * 2

    run(scenario)


# --- limits ----------------------------------------------------------------------------------


def test_a_request_that_does_not_fit_is_refused_whole() -> None:
    async def scenario() -> None:
        model = Shouting(open_gate=False)
        queue, _ = batcher(model, room=Room(items=3))
        submit(queue, "first")
        await begun(model, 1)
        waiting = submit(queue, "aa", "bb")
        with pytest.raises(Overloaded):
            submit(queue, "cc", "dd")
        assert queue.waitlist.items == 2
        fits = submit(queue, "ee")
        model.gate.set()
        assert await waiting.answer == ["AA", "BB"]
        assert await fits.answer == ["EE"]

    run(scenario)


def test_tokens_are_bounded_too() -> None:
    async def scenario() -> None:
        model = Shouting(open_gate=False)
        queue, _ = batcher(model, room=Room(tokens=10))
        submit(queue, "first")
        await begun(model, 1)
        submit(queue, "sixsix")
        with pytest.raises(Overloaded):
            submit(queue, "sixsix")
        model.gate.set()

    run(scenario)


@pytest.mark.parametrize("floods", [1, 2, 5, 8, 20])
def test_whoever_floods_the_queue_leaves_room_for_who_has_little_of_it(floods: int) -> None:
    async def scenario() -> None:
        model = Shouting(open_gate=False)
        queue, _ = batcher(model, room=Room(items=64, tokens=10_000))
        submit(queue, "first")
        await begun(model, 1)
        room = {f"flood {n}" for n in range(floods)}
        while room:
            for key in sorted(room):
                try:
                    queue.submit(["a"], [1], deadline=LATER, key=key)
                except Overloaded as refusal:
                    assert "the rest of the queue is for others" in str(refusal)
                    room.remove(key)
        assert queue.waitlist.items >= 56  # and what is left is little
        calm = queue.submit(["calm"], [1], deadline=LATER, key="calm")
        with pytest.raises(Overloaded, match="windows of"):  # that of all is a limit still
            queue.submit(["a"] * 9, [1] * 9, deadline=LATER, key="another")
        model.gate.set()
        assert await calm.answer == ["CALM"]

    run(scenario)


def test_who_has_nothing_in_the_queue_may_fill_it_and_so_may_all_who_have_no_key() -> None:
    async def scenario() -> None:
        for key in ("one", None):
            model = Shouting(open_gate=False)
            queue, _ = batcher(model, room=Room(items=4))
            submit(queue, "first")
            await begun(model, 1)
            if key is None:
                submit(queue, "a")
                submit(queue, "b", "c", "d")
            else:
                queue.submit([*"abcd"], [1] * 4, deadline=LATER, key=key)
            assert queue.waitlist.items == 4
            model.gate.set()

    run(scenario)


def test_a_request_larger_than_the_whole_queue_is_too_large_not_too_early() -> None:
    async def scenario() -> None:
        queue, _ = batcher(Shouting(), room=Room(items=3))
        with pytest.raises(TooLarge, match="at most 3 windows"):
            submit(queue, "a", "b", "c", "d")

    run(scenario)


def test_a_refusal_says_how_long_the_waiting_work_takes_at_the_measured_rate() -> None:
    async def scenario() -> None:
        model = Shouting(open_gate=False)
        pool = Pool(1)
        queue, _ = batcher(model, pool=pool, room=Room(items=1))
        submit(queue, "first")
        await begun(model, 1)
        queue.line = Line(each=0.5)
        submit(queue, "four")
        with pytest.raises(Overloaded) as refusal:
            submit(queue, "more")
        assert refusal.value.retry_after_s == pool.drain_s == 2.0
        model.gate.set()

    run(scenario)


def test_the_rate_is_learnt_from_what_ran() -> None:
    async def scenario() -> None:
        queue, _ = batcher(Shouting())
        queue.line = Line(each=99.0)
        await submit(queue, "word").answer
        await asyncio.sleep(0)
        assert 0 < queue.line(4) < 1

    run(scenario)


# --- the end ---------------------------------------------------------------------------------


def test_closing_ends_what_runs_fails_what_waits_and_refuses_what_comes() -> None:
    async def scenario() -> None:
        model = Shouting(open_gate=False)
        pool = Pool(1)
        queue, _ = batcher(model, pool=pool)
        running = submit(queue, "runs")
        await begun(model, 1)
        waiting = submit(queue, "waits")
        closing = asyncio.ensure_future(pool.close())
        await asyncio.sleep(0)
        model.gate.set()
        await closing
        assert await running.answer == ["RUNS"]
        with pytest.raises(NotReady):
            await waiting.answer
        with pytest.raises(NotReady):
            submit(queue, "late")

    run(scenario)


# --- shares ----------------------------------------------------------------------------------


def test_a_key_that_floods_leaves_another_its_turn() -> None:
    async def scenario() -> None:
        model = Shouting(open_gate=False)
        queue, _ = batcher(model, items=1)
        submit(queue, "first")
        await begun(model, 1)
        flood = [submit(queue, "flood", key="one") for _ in range(50)]
        calm = submit(queue, "calm", key="two")
        model.gate.set()
        await calm.answer
        await asyncio.gather(*(job.answer for job in flood))
        assert ["calm"] in model.batches[1:4]

    run(scenario)


def test_a_job_waits_for_people_and_a_shadow_for_both() -> None:
    async def scenario() -> None:
        model = Shouting(open_gate=False)
        queue, _ = batcher(model, items=1)
        submit(queue, "first")
        await begun(model, 1)
        shadow = submit(queue, "shadow", priority=Priority.SHADOW)
        jobs = [submit(queue, "job", priority=Priority.BATCH) for _ in range(2)]
        people = [submit(queue, "person") for _ in range(4)]
        model.gate.set()
        await asyncio.gather(shadow.answer, *(each.answer for each in jobs + people))
        order = [word for [word] in model.batches]
        assert order[-1] == "shadow"
        assert order.index("job") <= 2 and order[-2] == "job"

    run(scenario)


def test_a_shadow_runs_one_by_one_and_only_where_nothing_else_does() -> None:
    async def scenario() -> None:
        model = Shouting(open_gate=False)
        pool = Pool(2)
        queue, _ = batcher(model, pool=pool)
        submit(queue, "person")
        await begun(model, 1)
        shadows = [submit(queue, "shadow", priority=Priority.SHADOW) for _ in range(3)]
        await asyncio.sleep(0.05)
        assert model.batches == [["person"]]  # a thread is left for who comes
        model.gate.set()
        await asyncio.gather(*(each.answer for each in shadows))
        assert model.batches == [["person"], *[["shadow"]] * 3]
        assert model.most_at_once == 1

    run(scenario)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_shadow_that_runs_is_halted_for_whoever_finds_no_thread(threads: int) -> None:
    async def scenario() -> None:
        model = Shouting(open_gate=False)
        pool = Pool(threads)
        queue, seen = batcher(model, pool=pool, items=1)
        shadow = submit(queue, "shadow", priority=Priority.SHADOW)
        await begun(model, 1)
        people = [submit(queue, "person") for _ in range(threads)]
        await begun(model, 1 + threads)  # with the gate closed: the shadow made room
        assert model.batches == [["shadow"], *[["person"]] * threads]
        assert not shadow.answer.done()
        model.gate.set()
        await asyncio.gather(*(each.answer for each in people))
        assert await shadow.answer == ["SHADOW"]
        assert model.batches[-1] == ["shadow"]
        assert seen.halts == 1
        assert queue.waitlist.items == queue.waitlist.tokens == pool.turns.waiting_s == 0
        assert not pool.turns.waits and not pool.running_s

    run(scenario)


def test_a_shadow_with_a_thread_to_spare_for_who_comes_runs_on() -> None:
    async def scenario() -> None:
        model = Shouting(open_gate=False)
        queue, seen = batcher(model, pool=Pool(2))
        shadow = submit(queue, "shadow", priority=Priority.SHADOW)
        await begun(model, 1)
        person = submit(queue, "person")
        await begun(model, 2)
        model.gate.set()
        assert (await shadow.answer, await person.answer) == (["SHADOW"], ["PERSON"])
        assert not seen.halts

    run(scenario)


def test_a_shadow_halted_while_the_server_stops_is_told_so() -> None:
    async def scenario() -> None:
        model = Shouting(open_gate=False)
        pool = Pool(1)
        queue, _ = batcher(model, pool=pool)
        shadow = submit(queue, "shadow", priority=Priority.SHADOW)
        await begun(model, 1)
        person = submit(queue, "person")
        await asyncio.sleep(0)  # and the shadow is halted
        closing = asyncio.ensure_future(pool.close())
        await asyncio.sleep(0)
        model.gate.set()
        await closing
        with pytest.raises(NotReady):
            await shadow.answer
        await asyncio.wait([person.answer])  # answered or told the same, as it happened

    run(scenario)


def test_what_nobody_waits_for_is_not_in_anybodys_way() -> None:
    async def scenario() -> None:
        model = Shouting(open_gate=False)
        pool = Pool(1)
        queue, seen = batcher(model, pool=pool, room=Room(items=2))
        submit(queue, "first")
        await begun(model, 1)
        leaves = submit(queue, "leaves", "too")
        leaves.leave()
        await asyncio.sleep(0)
        assert queue.waitlist.items == queue.waitlist.tokens == pool.turns.waiting_s == 0
        stays = submit(queue, "stays", "also")  # would not have fitted
        model.gate.set()
        assert await stays.answer == ["STAYS", "ALSO"]
        assert seen.drops == ["caller_left"] * 2

    run(scenario)


def test_shadows_take_nobodys_room() -> None:
    async def scenario() -> None:
        model = Shouting(open_gate=False)
        queue, seen = batcher(model, room=Room(items=2))
        submit(queue, "first")
        await begun(model, 1)
        shadows = [submit(queue, "a", "b", priority=Priority.SHADOW) for _ in range(5)]
        assert seen.depth == (0, 0)
        person = submit(queue, "person", "too")
        assert seen.depth == (2, 9)
        with pytest.raises(Overloaded):
            submit(queue, "late")
        model.gate.set()
        assert await person.answer == ["PERSON", "TOO"]
        await asyncio.gather(*(each.answer for each in shadows))
        assert queue.waitlist.items == queue.waitlist.tokens == 0

    run(scenario)


def test_a_caller_who_leaves_while_a_batch_is_cut_is_counted_out_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        model = Shouting(open_gate=False)
        queue, _ = batcher(model, items=4)
        submit(queue, "first")
        await begun(model, 1)
        job = submit(queue, "a", "b", "c", "d")
        asked, lost = [], Job.lost

        def leaving(self: Job[str, str], now: float) -> str | None:
            """Lost from the second look on, as if he had left between two."""
            if self is job:
                asked.append(now)
                if len(asked) > 1:
                    return "caller_left"
            return lost(self, now)

        monkeypatch.setattr(Job, "lost", leaving)
        model.gate.set()
        assert await job.answer == ["A", "B", "C", "D"] and len(asked) == 1
        assert queue.waitlist.items == queue.waitlist.tokens == 0

    run(scenario)


def test_what_is_done_aside_goes_between_two_batches() -> None:
    async def scenario() -> None:
        model = Shouting(open_gate=False)
        pool = Pool(1)
        queue, _ = batcher(model, pool=pool, items=1)
        people = [submit(queue, "person") for _ in range(30)]
        await begun(model, 1)
        aside = asyncio.ensure_future(pool.aside(lambda: len(model.batches)))
        await asyncio.sleep(0)
        model.gate.set()
        assert await aside == 1
        await asyncio.gather(*(each.answer for each in people))
        assert len(model.batches) == 30

    run(scenario)


def test_what_is_done_aside_does_not_keep_a_server_from_closing() -> None:
    async def scenario() -> None:
        model = Shouting(open_gate=False)
        pool = Pool(1)
        queue, _ = batcher(model, pool=pool, items=1)
        people = [submit(queue, "person") for _ in range(3)]
        await begun(model, 1)
        aside = asyncio.ensure_future(pool.aside(lambda: "done"))
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(pool.close())
        await asyncio.sleep(0.05)
        model.gate.set()
        await closing
        assert await aside == "done"
        done, _ = await asyncio.wait([each.answer for each in people], timeout=5)
        assert len(done) == 3

    run(scenario)


def test_the_dead_do_not_pile_up_while_nothing_is_cut() -> None:
    async def scenario() -> None:
        model = Shouting(open_gate=False)
        queue, seen = batcher(model)
        submit(queue, "first")
        await begun(model, 1)
        stays = submit(queue, "stays")
        for _ in range(3 * SWEPT):
            submit(queue, "leaves").leave()
            await asyncio.sleep(0)
        assert len(seen.drops) > SWEPT
        model.gate.set()
        assert await stays.answer == ["STAYS"]
        assert len(model.batches) == 2

    run(scenario)


def test_who_would_wait_beyond_his_deadline_is_refused_and_told_when_to_come() -> None:
    async def scenario() -> None:
        model = Shouting(open_gate=False)
        pool = Pool(1)
        queue, _ = batcher(model, pool=pool)
        submit(queue, "first")
        await begun(model, 1)
        queue.line = Line(each=0.5)
        submit(queue, "four")
        soon = perf_counter() + 3.0
        queue.check_deadline(1, soon, key="another")  # whose share comes first
        with pytest.raises(Overloaded) as refusal:
            queue.check_deadline(4, soon)
        assert 0.5 < refusal.value.retry_after_s <= 2.5
        model.gate.set()

    run(scenario)


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(Priority), st.integers(1, 5)),
        max_size=30,
    ),
    st.sets(st.integers(0, 29)),
)
@settings(deadline=None)
def test_whoever_stays_gets_his_own_answer_once_and_nothing_is_left(
    asked: list[tuple[str, Priority, int]], leaving: set[int]
) -> None:
    async def scenario() -> None:
        model = Shouting(open_gate=False)
        pool = Pool(2)
        queues = [batcher(model, pool=pool, items=4)[0] for _ in range(2)]
        jobs = []
        for number, (key, priority, size) in enumerate(asked):
            words = [f"{number}-{place}" * (1 + place) for place in range(size)]
            queue = queues[number % 2]
            jobs.append((words, submit(queue, *words, key=key, priority=priority)))
        for number in leaving & set(range(len(jobs))):
            jobs[number][1].leave()
        model.gate.set()
        for number, (words, job) in enumerate(jobs):
            if number in leaving:
                with pytest.raises(CallerLeft):
                    await job.answer
            else:
                assert await job.answer == [word.upper() for word in words]
        await asyncio.sleep(0.001)
        assert all(q.waitlist.items == q.waitlist.tokens == 0 for q in queues)
        assert pool.turns.waiting_s == 0
        ran = [word for batch in model.batches for word in batch]
        assert len(ran) == len(set(ran))

    run(scenario)

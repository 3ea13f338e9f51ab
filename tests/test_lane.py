"""Lanes on tiny real variants: the same answers as the pipeline, whatever the company."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import NotReady, TooLarge
from models.spec import Aggregation, Options, Task, Windows
from service.lane import INLINE, STRETCH, stretches
from service.lanes import Lanes
from service.route import Asked
from service.schemas import State
from service.settings import Settings
from service.waitlist import Room
from tests.tiny import write_variant

TEXTS = ["Kano", "Sani Bello ya je Abuja.", "NNPC " * 40, "ya je Lagos " * 30, "."]


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zoo")
    write_variant(folder, "ner-int8", Task.NER, windows=Windows(tokens=16, overlap=4))
    write_variant(folder, "news-int8", Task.CLASSIFICATION)
    return folder


def within(lanes: Lanes, scenario: Callable[[Lanes], Awaitable[None]]) -> None:
    async def opened() -> None:
        async with lanes.open():
            await scenario(lanes)

    asyncio.run(asyncio.wait_for(opened(), 60))


def later() -> float:
    return perf_counter() + 60


@pytest.mark.parametrize("task", list(Task))
def test_a_lane_answers_as_the_pipeline_does(catalog: Path, task: Task) -> None:
    async def scenario(lanes: Lanes) -> None:
        lane, _ = lanes.choose(Asked(task=task), 0)
        answered = await lane.answer(TEXTS, Options(), deadline=later())
        assert answered.answers == lane.pipeline.answer(TEXTS)
        assert answered.encode_s > 0 and answered.model_s > 0 and answered.queue_s >= 0

    within(Lanes(Settings(catalog=catalog)), scenario)


def test_strangers_at_the_same_time_change_no_answer(catalog: Path) -> None:
    async def scenario(lanes: Lanes) -> None:
        lane, _ = lanes.choose(Asked(task=Task.NER), 0)
        alone = {text: lane.pipeline.answer([text]) for text in TEXTS}
        together = await asyncio.gather(
            *(lane.answer([text], Options(), deadline=later()) for text in TEXTS * 20)
        )
        for text, answered in zip(TEXTS * 20, together, strict=True):
            assert answered.answers == alone[text]

    within(Lanes(Settings(catalog=catalog, threads=2)), scenario)


def test_long_texts_are_worked_on_aside_with_the_same_answer(catalog: Path) -> None:
    async def scenario(lanes: Lanes) -> None:
        lane, _ = lanes.choose(Asked(task=Task.NER), 0)
        long = "Sani ya je Kano . " * (INLINE // 10)
        assert len(long) > INLINE
        options = Options(aggregation=Aggregation.SIMPLE)
        answered = await lane.answer([long], options, deadline=later())
        assert answered.answers == lane.pipeline.answer([long], options)

    within(Lanes(Settings(catalog=catalog)), scenario)


def test_a_text_of_more_windows_than_the_queue_holds_is_too_large(catalog: Path) -> None:
    async def scenario(lanes: Lanes) -> None:
        with pytest.raises(TooLarge):
            await lanes.choose(Asked(task=Task.NER), 0)[0].answer(
                TEXTS, Options(), deadline=later()
            )

    within(Lanes(Settings(catalog=catalog, queue_texts=5)), scenario)


def test_a_request_is_encoded_no_further_than_the_queue_could_take(catalog: Path) -> None:
    async def scenario(lanes: Lanes) -> None:
        lane, _ = lanes.choose(Asked(task=Task.NER), 0)
        long = "Sani ya je Kano . " * (STRETCH // 10)
        alone = len(lane.pipeline.encode(long).windows)
        lane.batcher.waitlist.room = Room(items=alone, tokens=10**9)
        with pytest.raises(TooLarge, match=f"is at least {alone * 2} windows of"):
            await lane.answer([long] * 50, Options(), deadline=later())

    within(Lanes(Settings(catalog=catalog)), scenario)


def test_what_cannot_fit_by_far_is_refused_before_it_is_encoded(
    catalog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(lanes: Lanes) -> None:
        lane, _ = lanes.choose(Asked(task=Task.NER), 0)
        lane.batcher.waitlist.room = Room(tokens=1000)
        monkeypatch.setattr(lane, "_encode_aside", lambda texts: pytest.fail("it is encoded"))
        with pytest.raises(TooLarge, match="at most 2048 windows and 1000 tokens go in one"):
            await lane.answer(["Sani ya je Kano . " * 2000], Options(), deadline=later())

    within(Lanes(Settings(catalog=catalog)), scenario)


@given(st.lists(st.text(max_size=9)), st.integers(1, 20))
def test_stretches_keep_every_text_in_its_order(texts: list[str], characters: int) -> None:
    cut = list(stretches(texts, characters))
    assert [text for stretch in cut for text in stretch] == texts
    for stretch in cut:
        assert sum(map(len, stretch[:-1])) < characters
        assert stretch is cut[-1] or sum(map(len, stretch)) >= characters


def test_strangers_get_their_turn_while_a_long_request_is_encoded(catalog: Path) -> None:
    async def scenario(lanes: Lanes) -> None:
        lane, _ = lanes.choose(Asked(task=Task.NER), 0)
        texts = ["Sani ya je Kano . " * (STRETCH // 10)] * 3
        long = asyncio.ensure_future(lane.answer(texts, Options(), deadline=later()))
        await asyncio.sleep(0)
        await lane.answer(["Kano"], Options(), deadline=later())
        assert lane.batcher.waitlist.items == 0  # no window of the long one has come yet
        assert len((await long).answers) == 3

    many = Settings(catalog=catalog, threads=1, queue_texts=10**6, queue_tokens=10**8)
    within(Lanes(many), scenario)


def test_nothing_is_chosen_before_the_catalog_is_open(catalog: Path) -> None:
    lanes = Lanes(Settings(catalog=catalog))
    with pytest.raises(NotReady):
        lanes.choose(Asked(task=Task.NER), 0)


def test_lanes_go_from_loading_to_ready_to_draining(catalog: Path) -> None:
    lanes = Lanes(Settings(catalog=catalog))
    states = [lanes.state]

    async def scenario(lanes: Lanes) -> None:
        states.append(lanes.state)
        lanes.drain()
        states.append(lanes.state)
        answered = await lanes.choose(Asked(task=Task.NER), 0)[0].answer(
            ["Kano"], Options(), deadline=later()
        )
        assert len(answered.answers) == 1

    within(lanes, scenario)
    assert states == [State.LOADING, State.READY, State.DRAINING]


def test_a_server_told_to_stop_while_loading_never_gets_ready(catalog: Path) -> None:
    lanes = Lanes(Settings(catalog=catalog))
    lanes.drain()
    with pytest.raises(NotReady):
        lanes.choose(Asked(task=Task.NER), 0)
    with pytest.raises(NotReady):
        lanes.summaries()

    async def scenario(lanes: Lanes) -> None:
        assert lanes.state is State.DRAINING
        assert lanes.choose(Asked(task=Task.NER), 0)[0].variant.name == "ner-int8"

    within(lanes, scenario)


def test_after_closing_nothing_is_answered(catalog: Path) -> None:
    async def scenario() -> None:
        lanes = Lanes(Settings(catalog=catalog))
        async with lanes.open():
            lane, _ = lanes.choose(Asked(task=Task.NER), 0)
        with pytest.raises(NotReady):
            await lane.answer(["Kano"], Options(), deadline=later())

    asyncio.run(scenario())


def test_closing_while_loading_does_not_hang(catalog: Path) -> None:
    async def scenario() -> None:
        lanes = Lanes(Settings(catalog=catalog))
        lanes.start()
        await asyncio.sleep(0)
        await lanes.close()

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_a_provider_this_host_lacks_is_said(catalog: Path) -> None:
    async def scenario(lanes: Lanes) -> None:
        assert lanes.state is State.FAILED
        assert lanes.reason is not None and "NoSuchExecutionProvider" in lanes.reason

    within(Lanes(Settings(catalog=catalog, provider="NoSuchExecutionProvider")), scenario)

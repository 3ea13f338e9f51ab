"""Shadows: they read along for nobody, are compared, and a canary's trial ends by them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from prometheus_client import REGISTRY

from models.spec import Task
from service.api import Answers
from service.edge import Caller
from service.lanes import Lanes
from service.schemas import Ask, NerReply
from service.settings import Settings
from service.shadow import MOST
from tests.tiny import NER_WORDS, judged, write_variant

SENTENCE = "Sani Bello ya je Kano ranar Litinin."
SHADOW = """
[[route]]
name = "all"
task = "ner"
variant = "ner-base"
shadow = { variant = "ner-tiny", share = 1 }
"""
CANARY = """
[[route]]
name = "trial"
task = "ner"
split = { ner-base = 1, ner-tiny = 99 }
canary = { variant = "ner-tiny", max_disagreement = 0.1, max_slowdown = 1000 }
"""
ROLLED_BACK = {"route": "trial", "variant": "ner-tiny", "verdict": "rolled_back"}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    catalog, state, routes = tmp_path / "zoo", tmp_path / "state", tmp_path / "routes.toml"
    state.mkdir()
    routes.write_text(SHADOW)
    write_variant(catalog, "ner-base", Task.NER)
    # It knows all but the day.
    differs = judged(0.7)
    differs = msgspec.structs.replace(differs, disagreement=differs.quality["f1"])
    write_variant(
        catalog,
        "ner-tiny",
        Task.NER,
        words={**NER_WORDS, "Litinin": "O"},
        parent="ner-base",
        evidence=differs,
    )
    return Settings(catalog=catalog, state=state, routes=routes, threads=1)


def within(settings: Settings, scenario: Callable[[Answers], Awaitable[None]]) -> None:
    async def opened() -> None:
        async with Lanes(settings).open() as lanes:
            await scenario(Answers(lanes, settings))

    asyncio.run(asyncio.wait_for(opened(), 60))


async def asked(answers: Answers, number: int = 0, text: str = SENTENCE) -> NerReply:
    caller = Caller(f"r{number}".encode(), timeout_s=30)
    reply = await answers.reply(Task.NER, Ask(inputs=text), caller)
    assert isinstance(reply, NerReply)
    return reply


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def said(by: str) -> float:
    pair = {"variant": "ner-base", "shadow": "ner-tiny"}
    return counted("kadogo_shadow_said_total", **pair, by=by)


def test_a_shadow_is_compared_with_what_was_answered(settings: Settings) -> None:
    before = {by: said(by) for by in ("both", "variant", "shadow")}

    async def scenario(answers: Answers) -> None:
        for _ in range(3):
            reply = await asked(answers)
            assert reply.variant == "ner-base" and len(reply.results[0].entities) == 3
            await answers.shadows.settle()

    within(settings, scenario)
    assert {by: said(by) - count for by, count in before.items()} == {
        "both": 6,
        "variant": 3,
        "shadow": 0,
    }
    pair = {"variant": "ner-base", "shadow": "ner-tiny"}
    assert counted("kadogo_shadow_difference_seconds_count", **pair) >= 3


def test_what_the_evidence_promises_is_told_beside_it(settings: Settings) -> None:
    async def scenario(answers: Answers) -> None:
        pair = {"variant": "ner-tiny", "baseline": "ner-base"}
        assert counted("kadogo_promised_disagreement_ratio", **pair) == 0.705

    within(settings, scenario)


def test_of_too_many_at_once_some_are_let_go_of_and_counted(settings: Settings) -> None:
    pair = {"variant": "ner-base", "shadow": "ner-tiny", "reason": "busy"}
    before = counted("kadogo_shadow_lost_total", **pair)

    async def scenario(answers: Answers) -> None:
        replies = await asyncio.gather(*(asked(answers, n) for n in range(MOST + 40)))
        assert len(replies) == MOST + 40
        await answers.shadows.settle()

    within(settings, scenario)
    assert counted("kadogo_shadow_lost_total", **pair) > before


def test_one_that_finds_no_moment_is_let_go_of(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.shadow.LATE_S", 0.05)
    pair = {"variant": "ner-base", "shadow": "ner-tiny", "reason": "deadlineexceeded"}
    before = counted("kadogo_shadow_lost_total", **pair)

    async def scenario(answers: Answers) -> None:
        answers.lanes.pool.threads += 1  # one that is never free
        await asked(answers, 1)
        await answers.shadows.settle()
        assert answers.lanes.pool.turns.waits is False

    within(settings, scenario)
    assert counted("kadogo_shadow_lost_total", **pair) == before + 1


def test_a_canary_that_differs_ends_its_own_trial(settings: Settings) -> None:
    async def scenario(answers: Answers) -> None:
        await answers.changes.route(CANARY, who="amina")
        going = answers.lanes.status().trials["trial"]
        assert (going.canary, going.incumbent) == ("ner-tiny", "ner-base")
        assert (going.state, going.comparisons, going.why) == ("going", 0, None)
        seen = set()
        for number in range(3000):
            seen.add((await asked(answers, number)).variant)
            await answers.shadows.settle()
            if answers.changes.current().content.verdicts:
                break
        assert seen == {"ner-base", "ner-tiny"}
        newest = answers.changes.current()
        verdict = newest.content.verdicts["trial"]
        assert not verdict.promoted and newest.who == "canary"
        assert newest.what.startswith("roll back ner-tiny on route trial: answers differ by 0.")
        for number in range(50):
            reply = await asked(answers, number)
            assert reply.variant == "ner-base"
            assert reply.reason == f"route trial; {verdict.why}"
        assert answers.lanes.trial("trial") is None
        ended = answers.lanes.status().trials["trial"]
        assert (ended.state, ended.comparisons, ended.why) == ("rolled_back", None, verdict.why)
        assert counted("kadogo_trial_info", **ROLLED_BACK) == 1
        await answers.changes.route(CANARY, who="amina")  # once more, from the beginning
        assert counted("kadogo_trial_info", **ROLLED_BACK) == 0
        trial = answers.lanes.trial("trial")
        assert trial is not None and trial.standing().comparisons == 0

    within(settings, scenario)


def test_a_canary_that_agrees_is_promoted_to_everybody(settings: Settings) -> None:
    async def scenario(answers: Answers) -> None:
        await answers.changes.route(CANARY, who="amina")
        for number in range(3000):
            await asked(answers, number, "Sani Bello ya je Kano")  # no day in it
            await answers.shadows.settle()
            if answers.changes.current().content.verdicts:
                break
        verdict = answers.changes.current().content.verdicts["trial"]
        assert verdict.promoted
        assert {(await asked(answers, n)).variant for n in range(200)} == {"ner-tiny"}

    within(settings, scenario)

"""Shadows: they read along for nobody, are compared, and a canary's trial ends by them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client import REGISTRY

from models.spec import Task
from service.api import Answers
from service.edge import Caller
from service.generation import Verdict
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


def test_one_that_fails_is_told_and_counted(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    pair = {"variant": "ner-base", "shadow": "ner-tiny", "reason": "unforeseen"}
    before = counted("kadogo_shadow_lost_total", **pair)

    async def scenario(answers: Answers) -> None:
        def fails(windows: Any, halt: Any) -> Any:
            raise ValueError("no such operator")

        answers.lanes.named("ner-tiny").batcher._run = fails
        assert (await asked(answers, 1)).variant == "ner-base"
        await answers.shadows.settle()

    within(settings, scenario)
    assert counted("kadogo_shadow_lost_total", **pair) == before + 1
    assert "ner-tiny could not read along what ner-base answered" in caplog.text


def test_one_that_finds_no_moment_is_let_go_of(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.shadow.LATE_S", 0.05)
    pair = {"variant": "ner-base", "shadow": "ner-tiny", "reason": "deadlineexceeded"}
    before = counted("kadogo_shadow_lost_total", **pair)

    async def scenario(answers: Answers) -> None:
        pool = answers.lanes.pool
        pool.threads = pool.at_once = 2
        pool._ends[0] = 0.0  # on one of them something never ends
        await asked(answers, 1)
        await answers.shadows.settle()
        assert pool.turns.waits is False

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
        assert trial is not None and trial.progress().comparisons == 0

    within(settings, scenario)


async def ended(answers: Answers) -> Verdict:
    """The verdict on a canary that differs in all it says, as a shadow would tell it."""
    trial = answers.lanes.trial("trial")
    assert trial is not None
    verdict = None
    while verdict is None:
        verdict = trial.compare(disagreement=1.0, slowdown=1.0)
    await answers.changes.judge("trial", trial.name, verdict)
    return verdict


def compared(answers: Answers) -> int:
    trial = answers.lanes.trial("trial")
    return trial.progress().comparisons if trial else -1


def test_going_back_begins_a_trial_anew(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where the workers of a server count together.
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))

    async def scenario(answers: Answers) -> None:
        await answers.changes.route(CANARY, who="amina")
        await ended(answers)
        assert compared(answers) == -1 and (await asked(answers, 1)).variant == "ner-base"
        await answers.changes.restore(1, who="amina")
        assert compared(answers) == 0
        await ended(answers)
        await answers.changes.restore(0, who="amina")
        await answers.changes.route(CANARY.replace("0.1", "0.2"), who="amina")
        assert compared(answers) == 0
        judged = await ended(answers)
        await answers.changes.route(CANARY, who="amina")
        assert compared(answers) == 0
        # What ended once is over still where one goes back to after that.
        newest = answers.changes.current().number
        await answers.changes.restore(newest - 1, who="amina")
        assert compared(answers) == -1
        assert answers.lanes.status().trials["trial"].why == judged.why

    within(settings, scenario)


def test_a_late_comparison_says_nothing_of_the_routes_that_came_since(settings: Settings) -> None:
    async def scenario(answers: Answers) -> None:
        await answers.changes.route(CANARY, who="amina")
        before = answers.lanes.trial("trial")
        assert before is not None
        await answers.changes.route(CANARY, who="amina")
        late = Verdict(variant="ner-tiny", promoted=True, why="of the trial before")
        await answers.changes.judge("trial", before.name, late)
        assert answers.changes.current().number == 2 and compared(answers) == 0

    within(settings, scenario)


def test_a_verdict_is_not_of_a_file_that_was_edited_since(settings: Settings) -> None:
    assert settings.routes

    async def judged(answers: Answers) -> None:
        await ended(answers)
        assert compared(answers) == -1

    async def restarted(answers: Answers) -> None:
        assert compared(answers) == -1

    async def edited(answers: Answers) -> None:
        assert compared(answers) == 0

    settings.routes.write_text(CANARY)
    within(settings, judged)
    within(settings, restarted)
    settings.routes.write_text(CANARY.replace("0.1", "0.2"))
    within(settings, edited)


def test_a_canary_that_shares_its_batches_is_no_slower_for_it(settings: Settings) -> None:
    """It takes half of what the incumbent does, whose windows run alone: shadows' do."""

    async def scenario(answers: Answers) -> None:
        await answers.changes.route(CANARY.replace("1000", "1"), who="amina")
        for name, token_s in {"ner-base": 4e-4, "ner-tiny": 2e-4}.items():
            batcher = answers.lanes.named(name).batcher
            run = batcher._run

            def slow(windows: Any, halt: Any, run: Any = run, token_s: float = token_s) -> Any:
                time.sleep(token_s * sum(len(each.ids) for each in windows))
                return run(windows, halt)

            batcher._run = slow
        text = "Sani Bello ya je Kano"  # of which both say the same
        for number in range(40):
            await asyncio.gather(*(asked(answers, 12 * number + n, text) for n in range(12)))
            await answers.shadows.settle()
            if answers.changes.current().content.verdicts:
                break
        [verdict] = answers.changes.current().content.verdicts.values()
        assert verdict.promoted, verdict.why

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

"""Changes while it serves: nothing fails meanwhile, and what cannot be is taken back."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from shutil import copytree, rmtree
from time import perf_counter
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from models.errors import BrokenVariant, NotReady, Quarantined, UnknownVariant
from models.session import Halt
from models.spec import Options, Task
from service.changes import ChangeRefused, Changes, UnknownGeneration, UnknownKey
from service.generation import LOADING, Generation, Taken
from service.keys import Key, Keys, Scope
from service.lanes import LOOK_S, Lanes
from service.rate import Rate
from service.route import Asked
from service.routes import BadRoutes
from service.schemas import State
from service.settings import Settings
from tests.tiny import NER_WORDS, judged, write_variant

ROUTES = """
[[route]]
name = "all"
task = "ner"
variant = "ner-tiny"
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    catalog, state = tmp_path / "zoo", tmp_path / "state"
    state.mkdir()
    write_variant(catalog, "ner-base", Task.NER, words={**NER_WORDS, "Dodoma": "B-LOC"})
    write_variant(catalog, "ner-tiny", Task.NER, parent="ner-base", evidence=judged(0.7, -0.2))
    return Settings(catalog=catalog, state=state, threads=1)


def within(settings: Settings, scenario: Callable[[Lanes, Changes], Awaitable[None]]) -> None:
    async def opened() -> None:
        async with Lanes(settings).open() as lanes:
            await scenario(lanes, Changes(lanes))

    asyncio.run(asyncio.wait_for(opened(), 60))


def answers(lanes: Lanes, variant: str | None = None) -> str:
    """The name of who would answer."""
    lane, _ = lanes.choose(Asked(task=Task.NER, variant=variant), 0)
    return lane.variant.name


def replace_with(catalog: Path, name: str, words: dict[str, str], scratch: Path) -> None:
    """Another variant's files under that name."""
    made = write_variant(scratch, name, Task.NER, words=words)
    rmtree(catalog / name)
    copytree(made, catalog / name)


def test_routes_are_changed_and_gone_back_to(settings: Settings) -> None:
    async def scenario(lanes: Lanes, changes: Changes) -> None:
        assert answers(lanes) == "ner-base"
        first = await changes.route(ROUTES, who="amina")
        assert (first.number, first.who, first.what) == (1, "amina", "routes")
        assert answers(lanes) == "ner-tiny" and lanes.status().generation == 1
        back = await changes.restore(0, who="amina")
        assert back.number == 2 and answers(lanes) == "ner-base"
        assert [each.what for each in changes.history()] == ["restore 0", "routes"]

    within(settings, scenario)


def test_the_routes_in_force_are_shown_whoever_gave_them(
    settings: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "routes.toml"
    file.write_text(ROUTES)
    put = ROUTES.replace("ner-tiny", "ner-base")

    async def without(lanes: Lanes, changes: Changes) -> None:
        assert changes.current().content.routes is None

    async def started_with_a_file(lanes: Lanes, changes: Changes) -> None:
        assert changes.current().content.routes == ROUTES
        file.write_text("# not read yet")
        assert changes.current().content.routes == ROUTES and answers(lanes) == "ner-tiny"
        file.write_text(ROUTES)
        await changes.route(put, who="amina")
        assert changes.current().content.routes == put
        await changes.restore(0, who="amina")
        assert changes.current().content.routes == ROUTES and changes.current().number == 2

    within(settings, without)
    within(replace(settings, routes=file), started_with_a_file)


def test_the_file_of_routes_is_read_once(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "routes.toml"
    file.write_text(ROUTES)

    async def scenario(lanes: Lanes, changes: Changes) -> None:
        file.write_text("[[route")  # half-way through an edit
        await changes.unload("ner-base", who="amina")
        file.unlink()
        await changes.load("ner-base", who="amina")
        assert answers(lanes) == "ner-tiny" and changes.current().content.routes == ROUTES

    within(replace(settings, routes=file), scenario)


def test_a_worker_that_comes_later_reads_the_routes_of_the_start(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shared := tmp_path / "shared").mkdir()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(shared))
    file = tmp_path / "routes.toml"
    file.write_text(ROUTES)

    async def scenario(lanes: Lanes, changes: Changes) -> None:
        assert answers(lanes) == "ner-tiny" and changes.current().content.routes == ROUTES

    within(replace(settings, routes=file), scenario)
    file.write_text(ROUTES.replace("ner-tiny", "ner-base"))
    within(replace(settings, routes=file), scenario)


def test_going_back_to_the_start_opens_what_was_put_back(
    settings: Settings, tmp_path: Path
) -> None:
    async def scenario(lanes: Lanes, changes: Changes) -> None:
        before = lanes.detail("ner-tiny").digest
        copytree(settings.catalog / "ner-tiny", tmp_path / "kept")
        replace_with(settings.catalog, "ner-tiny", {"Kano": "B-ORG"}, tmp_path / "scratch")
        await changes.load("ner-tiny", who="amina")
        assert lanes.detail("ner-tiny").digest != before
        rmtree(settings.catalog / "ner-tiny")
        copytree(tmp_path / "kept", settings.catalog / "ner-tiny")
        await changes.restore(0, who="amina")
        assert lanes.named("ner-tiny").digest == before

    within(settings, scenario)


def test_changes_are_made_one_after_the_other(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one that is taken back nothing of another is taken back too."""

    async def scenario(lanes: Lanes, changes: Changes) -> None:
        change, failed = lanes._change, []

        async def fails_once(generation: Generation) -> None:
            if not failed:
                failed.append(generation)
                await asyncio.sleep(0.3)
                raise BrokenVariant("no memory here")
            await change(generation)

        monkeypatch.setattr(lanes, "_change", fails_once)
        both = await asyncio.gather(
            changes.check(who="amina"),
            changes.unload("ner-tiny", who="bello"),
            return_exceptions=True,
        )
        assert isinstance(both[0], ChangeRefused) and not isinstance(both[1], BaseException)
        assert changes.current().content.unloaded == ("ner-tiny",)
        assert lanes.lane("ner-tiny") is None

    within(settings, scenario)


def test_many_changes_at_once_all_come_to_an_end(settings: Settings) -> None:
    async def scenario(lanes: Lanes, changes: Changes) -> None:
        done = await asyncio.gather(*(changes.check(who="amina") for _ in range(40)))
        assert sorted(each.number for each in done) == list(range(1, 41))

    within(settings, scenario)


def test_a_change_is_made_to_its_end_though_nobody_waits(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(lanes: Lanes, changes: Changes) -> None:
        async def fails(generation: Generation) -> None:
            await asyncio.sleep(0.2)
            raise BrokenVariant("no memory here")

        monkeypatch.setattr(lanes, "_change", fails)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await changes.unload("ner-tiny", who="amina")
        while changes.current().number < 2:
            await asyncio.sleep(0.01)
        assert changes.current().what.startswith("take 1 back: no memory here")
        assert changes.current().content.unloaded == ()

    within(settings, scenario)


def test_what_cannot_be_read_is_said_and_followed_once_it_can(
    settings: Settings, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.lanes.AWAY_S", 0.05)

    async def scenario(lanes: Lanes, changes: Changes) -> None:
        assert lanes.generations
        newer = lanes.generations.folder / "generations" / "00000001.json"
        newer.write_text('{"number": 1, "content": {"of_a_newer_version": 1}}')
        with pytest.raises(NotReady, match="is no generation of this version"):
            await changes.unload("ner-tiny", who="amina")
        while "is no generation of this version" not in caplog.text:
            await asyncio.sleep(0.01)
        assert answers(lanes) == "ner-base"
        newer.unlink()
        await changes.unload("ner-tiny", who="amina")
        assert lanes.lane("ner-tiny") is None

    within(settings, scenario)


def test_a_server_that_cannot_read_what_was_changed_answers_nobody(settings: Settings) -> None:
    assert settings.state
    newer = settings.state / "generations" / "00000001.json"
    newer.parent.mkdir()
    newer.write_text("{}}")

    async def scenario(lanes: Lanes, changes: Changes) -> None:
        assert lanes.state is State.FAILED
        assert lanes.reason and "start the version that wrote it, or move the file" in lanes.reason
        with pytest.raises(NotReady):
            answers(lanes)
        newer.unlink()
        while lanes.state is not State.READY:
            await asyncio.sleep(0.01)
        assert answers(lanes) == "ner-base"

    within(settings, scenario)


def test_a_disk_that_was_full_for_a_moment_is_told_what_was_taken_over(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.lanes.AWAY_S", 0.05)

    async def scenario(lanes: Lanes, changes: Changes) -> None:
        assert lanes.generations
        take, full = lanes.generations.take, []

        def once_full(*args: Any, **more: Any) -> None:
            if not full:
                full.append(args)
                raise OSError(28, "No space left on device")
            take(*args, **more)

        monkeypatch.setattr(lanes.generations, "take", once_full)
        done = await changes.unload("ner-tiny", who="amina")
        assert done.number == 1 and full

    within(settings, scenario)


def test_a_server_is_not_ready_while_another_worker_serves_nothing(settings: Settings) -> None:
    async def scenario(lanes: Lanes, changes: Changes) -> None:
        assert lanes.generations and lanes.unready is None
        other = lanes.generations._workers / f"{os.getppid()}.json"
        other.write_bytes(
            msgspec.json.encode(Taken(number=0, error="no variant serves", serves=False))
        )
        assert lanes.unready == "another worker does not serve: no variant serves"
        other.unlink()
        assert lanes.unready is None

    within(settings, scenario)


def test_where_all_are_unloaded_it_is_said_how_to_load(settings: Settings) -> None:
    async def scenario(lanes: Lanes, changes: Changes) -> None:
        for name in ("ner-base", "ner-tiny"):
            await changes.unload(name, who="amina")
        with pytest.raises(
            NotReady, match="all variants are unloaded: POST /v1/variants/NAME/load"
        ):
            lanes.named("ner-base")

    within(settings, scenario)


def test_a_change_survives_a_restart(settings: Settings) -> None:
    async def changed(lanes: Lanes, changes: Changes) -> None:
        await changes.route(ROUTES, who="amina")
        await changes.unload("ner-base", who="amina")

    async def restarted(lanes: Lanes, changes: Changes) -> None:
        assert answers(lanes) == "ner-tiny" and lanes.status().generation == 2
        assert lanes.status().variants["ner-base"].state is State.UNLOADED

    within(settings, changed)
    within(settings, restarted)


def test_wrong_routes_change_nothing(settings: Settings) -> None:
    async def scenario(lanes: Lanes, changes: Changes) -> None:
        with pytest.raises(BadRoutes, match=r"^line 5: route all: there is no variant ner-huge"):
            await changes.route(ROUTES.replace("ner-tiny", "ner-huge"), who="amina")
        assert changes.current().number == 0

    within(settings, scenario)


def test_a_route_does_without_what_the_catalog_has_lost(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    async def routed(lanes: Lanes, changes: Changes) -> None:
        await changes.route(ROUTES, who="amina")
        await changes.load("ner-base", who="amina")

    async def spoilt(lanes: Lanes, changes: Changes) -> None:
        assert lanes.state is State.READY and answers(lanes) == "ner-base"
        await changes.route(ROUTES, who="amina")  # a quarantined one may still be named

    async def gone(lanes: Lanes, changes: Changes) -> None:
        assert lanes.state is State.READY and answers(lanes) == "ner-base"
        await changes.unload("ner-base", who="amina")  # a change of anything else is no trouble
        with pytest.raises(BadRoutes, match="there is no variant ner-tiny"):
            await changes.route(ROUTES, who="amina")

    within(settings, routed)
    (settings.catalog / "ner-tiny" / "variant.json").write_bytes(b"")
    within(settings, spoilt)
    rmtree(settings.catalog / "ner-tiny")
    within(settings, gone)
    assert "a route names what is not there, and does without it: line 5" in caplog.text


def test_a_worker_that_finds_another_folder_than_was_loaded_says_so(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def loaded(lanes: Lanes, changes: Changes) -> None:
        await changes.load("ner-tiny", who="amina")

    async def later(lanes: Lanes, changes: Changes) -> None:
        assert answers(lanes, "ner-tiny") == "ner-tiny"

    within(settings, loaded)
    within(settings, later)
    assert "older still serve that" not in caplog.text
    replace_with(settings.catalog, "ner-tiny", {"Sani": "B-LOC"}, tmp_path / "scratch")
    within(settings, later)
    assert "POST /v1/variants/ner-tiny/load makes all serve one" in caplog.text


def test_what_changes_nothing_says_so(settings: Settings) -> None:
    async def scenario(lanes: Lanes, changes: Changes) -> None:
        await changes.unload("ner-tiny", who="amina")
        await changes.check(who="amina")
        again = await changes.unload("ner-tiny", who="bola")
        assert (again.number, again.who) == (2, "bola")
        assert again.what == "unload ner-tiny: it is so already"

    within(settings, scenario)


def test_routes_that_end_the_start_can_be_replaced(settings: Settings) -> None:
    """As after an update whose routes are read otherwise."""

    async def routed(lanes: Lanes, changes: Changes) -> None:
        await changes.route(ROUTES, who="amina")

    async def unreadable(lanes: Lanes, changes: Changes) -> None:
        assert lanes.state is State.FAILED and "line 6" in (lanes.reason or "")
        await changes.route(ROUTES, who="amina")
        assert lanes.state is State.READY and answers(lanes) == "ner-tiny"

    within(settings, routed)
    [written] = (settings.state or Path()).glob("generations/*.json")
    written.write_text(written.read_text().replace('ner-tiny\\"', 'ner-tiny\\"\\nwas = 1'))
    within(settings, unreadable)


@pytest.mark.parametrize("name", ["..", ".", "a" * 300, "ner-tiny/../ner-base", "NER"])
def test_no_name_becomes_a_path(settings: Settings, name: str) -> None:
    async def scenario(lanes: Lanes, changes: Changes) -> None:
        with pytest.raises(UnknownVariant, match=r"^there is no variant of that name"):
            await changes.load(name, who="amina")

    within(settings, scenario)


def test_who_asked_before_an_unload_is_answered(settings: Settings) -> None:
    async def scenario(lanes: Lanes, changes: Changes) -> None:
        lane, _ = lanes.choose(Asked(task=Task.NER, variant="ner-base"), 0)
        asked = [
            asyncio.ensure_future(
                lane.answer(["Sani ya je Dodoma"], Options(), deadline=perf_counter() + 30)
            )
            for _ in range(50)
        ]
        await asyncio.sleep(0)
        await changes.unload("ner-base", who="amina")
        with pytest.raises(UnknownVariant, match=r"^ner-base is unloaded; known are ner-tiny"):
            answers(lanes, "ner-base")
        assert answers(lanes) == "ner-tiny"  # and nothing else is left to answer
        assert len(await asyncio.gather(*asked)) == 50
        await changes.load("ner-base", who="amina")
        assert answers(lanes) == "ner-base"

    within(settings, scenario)


def test_a_variant_is_replaced_without_a_request_that_fails(
    settings: Settings, tmp_path: Path
) -> None:
    async def scenario(lanes: Lanes, changes: Changes) -> None:
        replaced = asyncio.Event()
        found: list[int] = []

        async def ask() -> None:
            while not replaced.is_set():
                lane, _ = lanes.choose(Asked(task=Task.NER, variant="ner-base"), 0)
                text = ["Sani ya je Dodoma"]
                answered = await lane.answer(text, Options(), deadline=perf_counter() + 30)
                found.append(len(answered.answers[0].entities))  # type: ignore[union-attr]

        askers = [asyncio.ensure_future(ask()) for _ in range(4)]
        before = lanes.status().variants["ner-base"].digest
        more = {**NER_WORDS, "Dodoma": "O", "Sani": "O"}
        replace_with(settings.catalog, "ner-base", more, tmp_path / "new")
        await changes.load("ner-base", who="amina")
        replaced.set()
        await asyncio.gather(*askers)
        assert lanes.status().variants["ner-base"].digest != before
        assert found[0] == 2 and set(found) <= {0, 2}
        lane, _ = lanes.choose(Asked(task=Task.NER, variant="ner-base"), 0)
        text = ["Sani ya je Dodoma"]
        answered = await lane.answer(text, Options(), deadline=perf_counter() + 30)
        assert answered.answers[0].entities == ()  # type: ignore[union-attr]

    within(settings, scenario)


def test_a_spoilt_folder_is_refused_and_what_serves_serves_on(settings: Settings) -> None:
    async def scenario(lanes: Lanes, changes: Changes) -> None:
        model = settings.catalog / "ner-base" / "model.onnx"
        model.write_bytes(model.read_bytes()[:-9])
        with pytest.raises(ChangeRefused, match=r"^ner-base is not loaded: model\.onnx is not"):
            await changes.load("ner-base", who="amina")
        assert answers(lanes, "ner-base") == "ner-base" and changes.current().number == 0
        await changes.route(ROUTES, who="amina")  # which has nothing to do with it
        assert answers(lanes) == "ner-tiny"

    within(settings, scenario)


def test_what_was_quarantined_at_the_start_is_loaded_once_it_is_mended(settings: Settings) -> None:
    model = settings.catalog / "ner-base" / "model.onnx"
    good = model.read_bytes()

    async def mended(lanes: Lanes, changes: Changes) -> None:
        assert lanes.status().variants["ner-base"].state is State.QUARANTINED
        model.write_bytes(good)
        await changes.load("ner-base", who="amina")
        assert answers(lanes, "ner-base") == "ner-base"

    for _ in range(2):  # and again, though nothing but the files has changed since
        model.write_bytes(good[:-9])
        within(settings, mended)


def test_a_server_that_could_serve_nothing_is_ready_once_it_can(settings: Settings) -> None:
    async def scenario(lanes: Lanes, changes: Changes) -> None:
        assert lanes.state is State.FAILED
        for name, content in good.items():
            (settings.catalog / name / "model.onnx").write_bytes(content)
        await changes.load("ner-tiny", who="amina")
        assert lanes.state is State.READY and lanes.reason is None
        assert answers(lanes) == "ner-tiny"

    names = ("ner-base", "ner-tiny")
    good = {name: (settings.catalog / name / "model.onnx").read_bytes() for name in names}
    for name, content in good.items():
        (settings.catalog / name / "model.onnx").write_bytes(content[:-9])
    within(settings, scenario)


def test_a_new_folder_is_loaded_by_its_name(settings: Settings) -> None:
    async def scenario(lanes: Lanes, changes: Changes) -> None:
        with pytest.raises(UnknownVariant, match="there is no variant ner-new in the catalog"):
            await changes.load("ner-new", who="amina")
        write_variant(settings.catalog, "ner-new", Task.NER)
        await changes.load("ner-new", who="amina")
        assert answers(lanes, "ner-new") == "ner-new"
        assert "ner-new" in [each.name for each in lanes.summaries()]

    within(settings, scenario)


def test_what_a_worker_cannot_take_over_is_taken_back(settings: Settings) -> None:
    async def scenario(lanes: Lanes, changes: Changes) -> None:
        # As if the folder were spoilt between this worker's look at it and another's.
        await changes.unload("ner-base", who="amina")
        model = settings.catalog / "ner-base" / "model.onnx"
        good = model.read_bytes()
        model.write_bytes(good[:-9])
        with pytest.raises(ChangeRefused, match="generation 3 is as 1 was"):
            await changes.restore(0, who="amina")
        assert answers(lanes) == "ner-tiny" and lanes.status().generation == 3
        model.write_bytes(good)
        await changes.restore(0, who="amina")
        assert answers(lanes) == "ner-base"

    within(settings, scenario)


class Miscounting:
    """As if the processor had come to count otherwise."""

    multiple = 1

    def run(
        self, ids: NDArray[np.int64], mask: NDArray[np.int64], halt: Halt | None = None
    ) -> NDArray[np.float32]:
        return np.zeros((len(ids), 1, 1), np.float32)


def test_a_variant_that_no_longer_proves_itself_is_quarantined(settings: Settings) -> None:
    async def scenario(lanes: Lanes, changes: Changes) -> None:
        await changes.check(who="amina")
        assert {each.state for each in lanes.status().variants.values()} == {State.READY}
        lane = lanes.lane("ner-tiny")
        assert lane is not None
        lane.pipeline = replace(lane.pipeline, session=Miscounting())
        await changes.check(who="amina")
        status = lanes.status().variants["ner-tiny"]
        assert status.state is State.QUARANTINED and status.reason
        with pytest.raises(Quarantined, match=r"^variant ner-tiny is quarantined: "):
            answers(lanes, "ner-tiny")
        assert answers(lanes) == "ner-base"
        await changes.load("ner-tiny", who="amina")
        assert answers(lanes, "ner-tiny") == "ner-tiny"

    within(settings, scenario)


def test_a_generation_that_never_was_cannot_be_restored(settings: Settings) -> None:
    async def scenario(lanes: Lanes, changes: Changes) -> None:
        with pytest.raises(UnknownGeneration, match="there is no generation 7"):
            await changes.restore(7, who="amina")

    within(settings, scenario)


KEYS = Keys(
    tuple(
        Key(name=name, sha256=digit * 64, scopes=(scope,))
        for name, digit, scope in (
            ("newsroom", "1", Scope.INFER),
            ("amina", "2", Scope.ADMIN),
            ("bello", "3", Scope.ADMIN),
        )
    )
)


def revoked(keyed: Changes) -> set[str]:
    return {key.name for key, gone in keyed.every_key() if gone}


def test_a_key_once_revoked_stays_so_wherever_one_goes_back_to(settings: Settings) -> None:
    async def scenario(lanes: Lanes, _: Changes) -> None:
        changes = Changes(lanes, KEYS)
        rate = Rate(requests=5)
        made = await changes.limit("newsroom", rate, who="amina")
        assert made.what == "limit newsroom to 5 requests in 60 s, 5 at once"
        assert [key.rate for key, _ in changes.every_key()] == [rate, None, None]
        made = await changes.revoke("newsroom", sure=False, who="amina")
        assert made.what == "revoke newsroom" and revoked(changes) == {"newsroom"}
        assert lanes.key_changes == made.content.keys
        await changes.restore(0, who="amina")
        assert [key.rate for key, _ in changes.every_key()] == [None] * 3
        assert revoked(changes) == {"newsroom"} and lanes.key_changes.revoked
        for name in ("newsroom", "SECRET"):
            with pytest.raises(UnknownKey, match=r"of that name; known are amina, bello$"):
                await changes.limit(name, None, who="amina")
            with pytest.raises(UnknownKey):
                await changes.revoke(name, sure=True, who="amina")

    async def restarted(lanes: Lanes, _: Changes) -> None:
        assert revoked(Changes(lanes, KEYS)) == {"newsroom"}

    async def from_the_first_request_on(lanes: Lanes) -> None:
        lanes.start()  # and nothing is loaded yet
        assert lanes.key_changes.revoked
        await lanes.close()

    within(settings, scenario)
    within(settings, restarted)
    asyncio.run(from_the_first_request_on(Lanes(settings)))


def test_who_would_shut_himself_out_must_say_so(settings: Settings) -> None:
    async def scenario(lanes: Lanes, _: Changes) -> None:
        changes = Changes(lanes, KEYS)
        with pytest.raises(ChangeRefused, match=r"^amina is the key that asks; with \?sure=true"):
            await changes.revoke("amina", sure=False, who="amina")
        await changes.revoke("amina", sure=True, who="amina")
        with pytest.raises(ChangeRefused, match=r"^bello is the last key that may change"):
            await changes.revoke("bello", sure=False, who="amina")  # who was let in just before
        assert revoked(changes) == {"amina"}
        await changes.revoke("bello", sure=True, who="bello")
        assert revoked(changes) == {"amina", "bello"}

    within(settings, scenario)


def test_what_is_revoked_is_so_though_a_worker_can_take_nothing_else_over(
    settings: Settings,
) -> None:
    async def scenario(lanes: Lanes, _: Changes) -> None:
        changes = Changes(lanes, KEYS)
        await changes.unload("ner-base", who="amina")
        await changes.revoke("newsroom", sure=False, who="amina")
        model = settings.catalog / "ner-base" / "model.onnx"
        model.write_bytes(model.read_bytes()[:-9])
        with pytest.raises(ChangeRefused, match="generation 4 is as 2 was"):
            await changes.restore(0, who="amina")
        assert revoked(changes) == {"newsroom"} and lanes.key_changes.revoked

    within(settings, scenario)


def test_without_a_place_to_keep_them_nothing_is_changed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)

    async def scenario(lanes: Lanes, changes: Changes) -> None:
        with pytest.raises(NotReady, match="KADOGO_STATE"):
            await changes.route(ROUTES, who="amina")

    within(Settings(catalog=settings.catalog), scenario)


def test_a_server_is_ready_when_all_of_its_workers_are(settings: Settings) -> None:
    program = (
        "import pathlib, sys; from service.generation import LOADING, Generations;"
        "Generations(pathlib.Path(sys.argv[1])).take(int(sys.argv[2]));"
        "print(flush=True); sys.stdin.read()"
    )

    def other(number: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", program, str(settings.state), str(number)]
        worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert worker.stdout and worker.stdout.readline()
        return worker

    async def scenario(lanes: Lanes, changes: Changes) -> None:
        assert lanes.unready is None and not lanes.others_serve
        with other(LOADING) as loading:
            assert lanes.unready == "another worker is still loading" and not lanes.others_serve
            loading.kill()
            loading.wait()
        assert lanes.unready is None
        with other(0) as serving:
            assert lanes.unready is None and lanes.others_serve
            serving.kill()

    within(settings, scenario)


def test_changes_are_followed_again_once_their_folder_is_back(settings: Settings) -> None:
    assert settings.state is not None
    away = settings.state.with_name("away")

    async def scenario(lanes: Lanes, changes: Changes) -> None:
        assert settings.state is not None
        await changes.route(ROUTES, who="amina")
        settings.state.rename(away)
        with pytest.raises(NotReady, match="changes cannot be kept"):
            await changes.route(ROUTES, who="amina")
        await asyncio.sleep(3 * LOOK_S)  # it has looked, and found nothing
        assert answers(lanes) == "ner-tiny" and lanes.status().generation == 1
        away.rename(settings.state)
        await changes.restore(0, who="amina")
        assert answers(lanes) == "ner-base"

    within(settings, scenario)

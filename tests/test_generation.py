"""Generations: numbered, whole, never two of one number, whoever writes at once."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from service.generation import KEPT, Content, Generation, Generations, Taken


def unload(name: str) -> object:
    return lambda content: msgspec.structs.replace(
        content, unloaded=tuple(sorted({*content.unloaded, name}))
    )


def test_at_first_nothing_is_changed(tmp_path: Path) -> None:
    generations = Generations(tmp_path / "state")
    assert generations.current() == Generation() and generations.history() == []


def test_a_change_is_the_next_number_and_says_who_and_what(tmp_path: Path) -> None:
    generations = Generations(tmp_path)
    before, after = generations.change(unload("ner-tiny"), who="amina", what="unload ner-tiny")
    assert before == Generation()
    assert (after.number, after.who, after.what) == (1, "amina", "unload ner-tiny")
    assert after.content == Content(unloaded=("ner-tiny",)) and after.when.endswith("+00:00")
    # Whoever comes later, in whatever process, reads the same.
    assert Generations(tmp_path).current() == after
    assert [each.number for each in generations.history()] == [1]


def test_what_changes_nothing_is_no_generation(tmp_path: Path) -> None:
    generations = Generations(tmp_path)
    generations.change(unload("a"), who="", what="")
    before, after = generations.change(unload("a"), who="", what="")
    assert before is after and generations.newest == 1


def test_old_ones_are_let_go_of(tmp_path: Path) -> None:
    generations = Generations(tmp_path)
    for number in range(KEPT + 5):
        generations.change(lambda content, n=number: Content(routes=f"# {n}"), who="", what="")
    assert generations.newest == KEPT + 5 and len(generations.history()) == KEPT
    with pytest.raises(KeyError):
        generations.read(5)
    assert generations.read(6).content.routes == "# 5"


def _unload_many(folder: Path, first: int) -> None:
    generations = Generations(folder)
    for number in range(first, first + 20):
        generations.change(unload(f"v{number:03}"), who=str(os.getpid()), what="")


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_unload_many, args=(tmp_path, 20 * n)) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    history = Generations(tmp_path).history()
    assert [each.number for each in history] == list(range(80, 0, -1))
    assert history[0].content.unloaded == tuple(f"v{number:03}" for number in range(80))


def test_what_a_worker_took_over_is_told_without_waiting_for_a_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(_: int) -> None:
        raise AssertionError

    generations = Generations(tmp_path)
    monkeypatch.setattr(os, "fsync", busy)
    generations.take(3)
    assert generations.taken() == {os.getpid(): Taken(number=3)}
    with pytest.raises(AssertionError):  # what is changed is on the disk before it is told
        generations.change(unload("a"), who="", what="")


def test_who_took_which_is_told_of_the_living_alone(tmp_path: Path) -> None:
    generations = Generations(tmp_path)
    generations.take(3)
    program = (
        "import pathlib, sys; from service.generation import Generations;"
        "Generations(pathlib.Path(sys.argv[1])).take(2, 'broken')"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
    assert generations.taken() == {os.getpid(): Taken(number=3)}
    generations.take(4, "no room")
    assert generations.taken() == {os.getpid(): Taken(number=4, error="no room")}
    generations.leave()
    assert generations.taken() == {}

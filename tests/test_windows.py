"""Laws of narrower windows: weights stay, short texts are read as before, students start wide."""

from __future__ import annotations

from pathlib import Path

import pytest

from build import data
from build.checkpoint import Checkpoint, read_purpose
from build.data import Sentence, Span
from build.errors import BuildError
from build.publish import publish
from build.recipes import RECIPES, SENTENCES
from build.restore import fetch
from build.steps import NarrowWindows
from build.windows import as_trained, narrow_windows
from models.catalog import open_variant
from models.spec import Task, Windows
from tests.test_restore import TITLE
from tests.tiny_checkpoint import exported, finetuned

WIDE = read_purpose(finetuned(Task.NER)).windows
NARROW = NarrowWindows(tokens=WIDE.tokens // 2, overlap=WIDE.tokens // 8)
TAUGHT = f"Finetune(task=ner, window={WIDE.tokens}, overlap={WIDE.overlap}, seed=1, version=1)"


def narrowed(tmp_path: Path) -> Path:
    target = tmp_path / "narrowed"
    target.mkdir()
    narrow_windows(NARROW, exported(Task.NER), target)
    return target


def test_only_the_windows_change(tmp_path: Path) -> None:
    target = narrowed(tmp_path)
    for file in exported(Task.NER).iterdir():
        if file.name != "task.json":
            assert (target / file.name).read_bytes() == file.read_bytes()
    assert read_purpose(target).windows == Windows(tokens=NARROW.tokens, overlap=NARROW.overlap)
    source = read_purpose(exported(Task.NER))
    assert read_purpose(target).labels == source.labels


def test_a_short_text_is_answered_as_before_and_a_long_one_in_more_windows(tmp_path: Path) -> None:
    wide = Checkpoint(exported(Task.NER), (TAUGHT,))
    narrow = Checkpoint(narrowed(tmp_path), (TAUGHT, str(NARROW)))
    publish(wide, tmp_path / "wide", TITLE, golden=False)
    publish(narrow, tmp_path / "narrow", TITLE, golden=False)
    one, other = (open_variant(tmp_path / each / TITLE.name) for each in ("wide", "narrow"))
    assert one.answer(["Sani"]) == other.answer(["Sani"])
    long = ["Sani Bello ya je Kano . " * 8]
    [many], [more] = one.answer(long), other.answer(long)
    assert more.tokens == many.tokens and more.windows > many.windows
    assert one.variant.digest != other.variant.digest


@pytest.mark.parametrize("step", [
    NarrowWindows(tokens=WIDE.tokens, overlap=0),
    NarrowWindows(tokens=WIDE.tokens // 2, overlap=WIDE.tokens // 4),
])  # fmt: skip
def test_what_does_not_narrow_is_refused(step: NarrowWindows, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="does not narrow windows of"):
        narrow_windows(step, exported(Task.NER), tmp_path)


def test_a_student_begins_with_the_windows_that_its_teacher_was_trained_with(
    tmp_path: Path,
) -> None:
    published = Checkpoint(narrowed(tmp_path), (TAUGHT, str(NARROW)))
    publish(published, tmp_path / "catalog", TITLE, golden=False)
    wanted = Checkpoint(tmp_path / "cache" / "export-1", (TAUGHT,))
    assert fetch(wanted, tmp_path / "catalog")
    assert read_purpose(wanted.folder) == read_purpose(exported(Task.NER))


def test_what_was_narrowed_twice_was_narrow_before_the_second_time(tmp_path: Path) -> None:
    once, twice = Checkpoint(narrowed(tmp_path), (TAUGHT, str(NARROW))), tmp_path / "twice"
    twice.mkdir()
    narrower = NarrowWindows(tokens=NARROW.tokens // 2, overlap=2)
    narrow_windows(narrower, once.folder, twice)
    lineage = (*once.lineage, "Restore(version=1)", "Export(version=1)")
    published = Checkpoint(twice, (*lineage, str(narrower)))
    publish(published, tmp_path / "catalog", TITLE, golden=False)
    wanted = Checkpoint(tmp_path / "cache" / "export-1", lineage)
    assert fetch(wanted, tmp_path / "catalog")
    assert read_purpose(wanted.folder) == read_purpose(once.folder)


def test_who_does_not_say_how_wide_it_read_is_passed_over(tmp_path: Path) -> None:
    imported = ("Import ner(mine, sha256=1)", "Export(weights=float32, version=1)")
    published = Checkpoint(narrowed(tmp_path), (*imported, str(NARROW)))
    publish(published, tmp_path / "catalog", TITLE, golden=False)
    for lineage in (imported, (TAUGHT,)):
        assert not fetch(Checkpoint(tmp_path / "cache" / "export-1", lineage), tmp_path / "catalog")


def test_the_recipes_of_entities_end_in_narrower_windows() -> None:
    for name, steps in RECIPES.items():
        assert (steps[-1] == SENTENCES) == name.startswith("ner-")
        before, windows = as_trained(tuple(map(str, steps)))
        if windows:
            assert windows == Windows(tokens=256, overlap=64) and len(before) == len(steps) - 1


def test_sentences_in_a_row_keep_their_entities() -> None:
    some = [
        Sentence("Sani ya je Kano.", (Span("PER", 0, 4), Span("LOC", 11, 15)), "hau"),
        Sentence("Kudi.", (), "hau"),
        Sentence("Abuja", (Span("LOC", 0, 5),), "hau"),
    ]
    one, rest = data.joined(some, 2)
    assert one.text == "Sani ya je Kano. Kudi." and one.spans == some[0].spans
    [whole] = data.joined(some, 3)
    assert [whole.text[s.start : s.end] for s in whole.spans] == ["Sani", "Kano", "Abuja"]
    assert rest == some[2] and data.joined([], 3) == []

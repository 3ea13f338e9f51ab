"""Studies as toys: every one is made, scored and written up; what is done is not done again."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
import torch

from build.__main__ import main
from build.chain import check
from build.frontier import float_bytes
from build.prepare import prepared
from build.publish import read
from build.recipes import NER_LANGUAGES
from build.studies import run as studies
from build.studies.plan import BASE, STUDIES, toy
from models import catalog
from tests.tiny_corpus import write_corpus

ROWS = [row for study in STUDIES.values() for row in study.rows]


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus in every language of the recipes, and room for a cache."""
    root = tmp_path_factory.mktemp("studies")
    write_corpus(root / "corpus", sentences=12)
    for language in NER_LANGUAGES:
        for kind in ("ner", "news"):
            if not (root / "corpus" / kind / language).is_dir():
                shutil.copytree(root / "corpus" / kind / "hau", root / "corpus" / kind / language)
    return root


def words(room: Path, name: str) -> list[str]:
    folders = ["--cache", str(room / "cache"), "--out", str(room / "out")]
    return ["study", name, "--quick", "--data", str(room / "corpus"), *folders, "--device", "cpu"]


def test_rows_have_names_of_their_own_and_can_be_made() -> None:
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names) and BASE not in names
    for row in ROWS:
        check(row.steps)
        check(prepared(row.steps, base=False, quick=True))


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_rows_stand_where_they_are_drawn(study: studies.Study) -> None:
    for row in study.rows:
        assert row.at.keys() == study.rows[0].at.keys() >= {study.along, study.apart}


@pytest.mark.parametrize("name", STUDIES)
def test_a_quick_study_is_made_and_written_up(
    name: str, room: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)
    assert main(words(room, name)) == 0
    rows = toy(STUDIES[name]).rows
    root = room / "cache" / "quick-studies"
    baseline = read(root, BASE)
    page = (room / "out" / f"{name}.md").read_text()
    assert STUDIES[name].title in page and f"({name}.svg)" in page
    with (room / "out" / f"{name}.csv").open() as opened:
        table = list(csv.DictReader(opened))
    assert {line["variant"] for line in table} == {row.name for row in rows}
    assert {line["language"] for line in table} == {"macro", *NER_LANGUAGES}
    for row in rows:
        variant = catalog.open_variant(root / row.name).variant
        assert variant.parent == BASE and variant.evidence and variant.evidence.difference
        smaller = float_bytes(baseline) / variant.bytes
        assert f"{smaller:.1f} x" in page


def test_what_is_done_is_not_done_again(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(words(room, "attention")) == 0

    def never(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(studies, "_make", never)
    assert main(words(room, "attention")) == 0


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (["study", "atention"], "there is no study atention: did you mean attention?"),
        (["study", "attention", "--quick"], "a quick study is not for the docs"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    changes: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*changes, "--data", str(tmp_path)]) == 2
    assert line in capsys.readouterr().err

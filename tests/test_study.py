"""Studies as toys: every one is made, scored and written up; what is done is not done again."""

from __future__ import annotations

import csv
import importlib.util
import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import torch

from build.__main__ import main
from build.chain import check
from build.errors import BuildError
from build.evaluate import evaluate
from build.frontier import float_bytes
from build.prepare import prepared
from build.publish import read, write
from build.recipes import NER_LANGUAGES, NEWS_LANGUAGES, RECIPES
from build.report import render
from build.run import Kitchen
from build.steps import NarrowWindows, Pack, Restore, Step
from build.studies import confidence, storage
from build.studies import run as studies
from build.studies.plan import BASE, STUDIES, Shown, toy
from build.studies.write import Found, table
from models import catalog
from models.spec import Input, Task
from tests.test_runtime_openvino import processor_has_bfloat16
from tests.tiny import write_variant
from tests.tiny_corpus import write_corpus

ROOT = Path(__file__).parent.parent
BITSANDBYTES = importlib.util.find_spec("bitsandbytes") is not None
OPENVINO = importlib.util.find_spec("openvino") is not None
NEEDS = {
    "openvino": pytest.mark.skipif(not OPENVINO, reason="needs requirements/openvino.txt"),
}
# Written up in ways of their own.
OTHERWISE = {Shown.TRANSFER, Shown.LLM_INT8}
ROWS = [row for study in STUDIES.values() for row in study.rows]


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus in every language of the recipes, and room for a cache."""
    root = tmp_path_factory.mktemp("studies")
    write_corpus(root / "corpus", sentences=12)
    for kind, languages in (("ner", NER_LANGUAGES), ("news", NEWS_LANGUAGES)):
        for language in languages:
            if not (root / "corpus" / kind / language).is_dir():
                shutil.copytree(root / "corpus" / kind / "hau", root / "corpus" / kind / language)
    return root


def words(room: Path, name: str) -> list[str]:
    folders = ["--cache", str(room / "cache"), "--out", str(room / "out")]
    return ["study", name, "--quick", "--data", str(room / "corpus"), *folders, "--device", "cpu"]


def test_rows_have_names_of_their_own_and_can_be_made() -> None:
    steps: dict[str, tuple[Step, ...]] = {}
    for row in ROWS:
        assert steps.setdefault(row.name, row.steps) == row.steps
    assert BASE not in steps
    for row in ROWS:
        check(row.steps)
        check(prepared(row.steps, base=None, quick=True))


def test_rows_learn_in_the_windows_of_the_baseline_and_are_read_in_its_narrower_ones() -> None:
    for row in (each for each in ROWS if each.parent == BASE):
        narrowings = [step for step in row.steps if isinstance(step, NarrowWindows)]
        assert narrowings == [row.steps[-1]] == [RECIPES[BASE][-1]]


@pytest.mark.parametrize(
    "study", [study for study in STUDIES.values() if study.rows], ids=lambda study: study.title
)
def test_rows_stand_where_they_are_drawn(study: studies.Study) -> None:
    for row in study.rows:
        assert row.at.keys() == study.rows[0].at.keys() >= {study.along, study.apart}


def test_columns_have_names_of_their_own(tmp_path: Path) -> None:
    """Else whoever reads a table by its names loses one of two."""
    ours = catalog.read(ROOT / "models" / "zoo" / "ner-int8")
    for study in (each for each in STUDIES.values() if each.shown is Shown.F1):
        table([Found(variant=ours, at=study.rows[0].at, smaller=2)], tmp_path / "table.csv")
        first = list(csv.reader((tmp_path / "table.csv").read_text().splitlines()))[1]
        (line, *_) = csv.DictReader((tmp_path / "table.csv").read_text().splitlines())
        assert [*line.values()] == first and line["zeros"] == f"{ours.sparsity:.4f}"
    for file in (ROOT / "docs" / "studies").glob("*.csv"):
        head = next(csv.reader(file.read_text().splitlines()))
        assert len(set(head)) == len(head), file.name


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=NEEDS.get(name, ()))
        for name, study in STUDIES.items()
        if study.shown not in OTHERWISE
    ],
)
def test_a_quick_study_is_made_and_written_up(
    name: str, room: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if name == "openvino" and not processor_has_bfloat16():
        pytest.skip("this processor has no bfloat16")
    torch.set_num_threads(1)
    assert main(words(room, name)) == 0
    rows, shown = toy(STUDIES[name]).rows, STUDIES[name].shown
    root = room / "cache" / "quick-studies"
    baseline = read(root, BASE)
    page = (room / "out" / f"{name}.md").read_text()
    assert STUDIES[name].title in page and f"({name}.svg)" in page
    assert "Nothing: these are toys" in page and f"study {name} --quick --data" in page
    with (room / "out" / f"{name}.csv").open() as opened:
        table = list(csv.DictReader(opened))
    named = {row.name for row in rows} | (set() if shown is Shown.F1 else {BASE})
    assert {line["variant"] for line in table} == named
    if shown is Shown.F1:
        assert {line["language"] for line in table} == {"macro", *NER_LANGUAGES}
    for row in rows:
        variant = catalog.open_variant(root / row.name).variant
        assert variant.parent == BASE and variant.evidence and variant.evidence.difference
        smaller = float_bytes(root / BASE, baseline) / variant.bytes
        assert (f"{smaller:.1f} x" if shown is Shown.F1 else f"`{row.name}`") in page


@pytest.mark.skipif(not BITSANDBYTES, reason="needs requirements/bitsandbytes.txt")
def test_llm_int8_is_scored_beside_the_floats_it_is_made_of(room: Path) -> None:
    assert main(words(room, "llm-int8")) == 0
    with (room / "out" / "llm-int8.csv").open() as opened:
        lines = list(csv.DictReader(opened))
    assert {line["variant"] for line in lines} >= {"float32, CPU", "LLM.int8(), CPU"}
    assert {line["language"] for line in lines} == {"all", *NER_LANGUAGES}
    assert "LLM.int8(), CPU" in (room / "out" / "llm-int8.md").read_text()


@pytest.mark.skipif(BITSANDBYTES, reason="bitsandbytes is there")
def test_llm_int8_says_what_it_needs(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(room, "llm-int8")) == 2
    assert "pip install -r requirements/bitsandbytes.txt" in capsys.readouterr().err


def test_what_was_judged_on_a_split_of_another_name_is_judged_again(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    words = {"Kano": "B-LOC", "Amina": "B-PER"}
    for name in ("catalog", "root"):
        folder = write_variant(tmp_path / name, BASE, Task.NER, words=words)
        write(
            folder,
            msgspec.structs.replace(catalog.read(folder), lineage=tuple(map(str, RECIPES[BASE]))),
        )
    evaluate(tmp_path / "catalog", [BASE], corpus, called="one split")
    kitchen = Kitchen(corpus, "cpu", tmp_path / "cache", tmp_path / "catalog")
    study = replace(STUDIES["attention"], rows=())
    for called in ("one split", "another split"):
        (found,) = studies.run(study, kitchen, tmp_path / "root", called=called)
        assert found.evidence is not None and found.evidence.split == called
        assert not (tmp_path / "cache").exists()  # nothing was made


def test_transfer_is_told_from_languages_that_were_trained_on(room: Path) -> None:
    torch.set_num_threads(1)
    assert main(words(room, "transfer")) == 0
    root = room / "cache" / "quick-studies"
    hau, topics = read(root, "transfer-hau"), read(root, "transfer-articles")
    assert hau.languages == ("hau",) and hau.parent == "transfer-all-nine"
    assert hau.evidence and topics.evidence
    for found in (hau.evidence.quality, hau.evidence.difference):
        assert found["f1"][Input.RAW].languages.keys() == set(NER_LANGUAGES)
    assert topics.evidence.quality["f1"].keys() == {Input.RAW, Input.HEADLINE}
    with (room / "out" / "transfer.csv").open() as opened:
        table = list(csv.DictReader(opened))
    mine = [line for line in table if line["variant"] == "transfer-hau"]
    assert {line["language"]: line["trained on it"] for line in mine} == (
        {"macro": "", **dict.fromkeys(NER_LANGUAGES, "no"), "hau": "yes"}
    )
    controls = [line["minus_control_mean"] == "" for line in table if line not in mine]
    assert all(line["minus_control_mean"] for line in mine) and all(controls)
    page = (room / "out" / "transfer.md").read_text()
    assert "| all nine | hau |" in page and "| articles → headlines |" in page
    swa = next(line for line in mine if line["language"] == "swa")
    assert f"*{float(swa['f1_mean']):.3f}*" in page
    assert "never trained on this language" in (room / "out" / "transfer.svg").read_text()


def test_rows_of_transfer_come_after_what_they_are_compared_with() -> None:
    rows = STUDIES["transfer"].rows
    for place, row in enumerate(rows):
        before = {each.name: each for each in rows[:place]}
        assert row.parent is None or row.parent in before
        if row.parent:
            control = before[row.parent]
            assert (row.languages, row.inputs) == (control.languages, control.inputs)


@pytest.mark.parametrize("name", ["attention", "transfer"])
def test_what_is_done_is_not_done_again(
    name: str, room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(words(room, name)) == 0

    def never(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(studies, "_make", never)
    assert main(words(room, name)) == 0


@pytest.mark.parametrize("name", ["calibration", "entropy"])
def test_what_is_measured_is_not_measured_again(
    name: str, room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(words(room, name)) == 0
    before = (room / "out" / f"{name}.csv").read_text()

    def never(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(storage, "_of", never)
    monkeypatch.setattr(confidence, "probabilities", never)
    assert main(words(room, name)) == 0
    assert (room / "out" / f"{name}.csv").read_text() == before


def test_another_vocabulary_makes_other_decisions(room: Path) -> None:
    """Its pieces are no other network's: they cannot be compared one by one."""
    assert main(words(room, "calibration")) == 0
    root = room / "cache" / "quick-studies"
    here = read(root, BASE)
    files = {**here.files, "tokenizer.json": here.files["model.onnx"]}
    (root / "other").mkdir()
    write(root / "other", msgspec.structs.replace(here, name="other", files=files))
    with pytest.raises(BuildError, match="other cuts texts into other pieces than ner-base"):
        confidence.measure(root, ["other"], room / "corpus")


@pytest.mark.parametrize("name", STUDIES)
def test_what_was_seen_is_said_of_the_real_ones_alone(name: str) -> None:
    said = {"name": name, "study": STUDIES[name], "data": "none", "split": "none"}
    full, toys = (render("study.md", **said, quick=quick) for quick in (False, True))
    seen = (ROOT / "build" / "pages" / "studies" / f"{name}.md").read_text()
    page = (ROOT / "docs" / "studies" / f"{name}.md").read_text()
    seen = f"## What was seen\n{seen}\n## How\n`python -m build study {name} --data DIR"
    assert seen in full and seen in page
    assert "## What was seen\nNothing: these are toys, to see that it works.\n\n## How\n" in toys


def test_rows_and_their_texts_are_looked_at_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["study", "transfer", "--cache", str(tmp_path / "cache"), "--device", "cpu"]
    assert main([*words, "--data", "/no/such"]) == 2
    assert "there is no folder /no/such" in capsys.readouterr().err
    corpus = write_corpus(tmp_path / "corpus", sentences=2)
    assert main([*words, "--data", str(corpus)]) == 2
    assert "no train.txt or train.txt.xz in" in capsys.readouterr().err
    last = replace(ROWS[0], steps=(*ROWS[0].steps, Restore(), Pack()))
    study = replace(STUDIES["attention"], rows=(*STUDIES["attention"].rows, last))
    monkeypatch.setitem(STUDIES, "attention", study)
    words[1] = "attention"
    assert main([*words, "--data", str(corpus)]) == 2
    assert "Pack cannot follow Restore" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()


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

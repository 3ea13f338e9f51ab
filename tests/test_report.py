from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from build.__main__ import main
from build.report import by_task, card, card_name, errors, overview, picture, report
from models import catalog
from models.spec import Evidence, Input, Interval, Scores, Task, Variant

ROOT = Path(__file__).parent.parent
ZOO = ROOT / "models" / "zoo"
DOCS = ROOT / "docs"
SHOWN = "## Typical errors"


@pytest.fixture(scope="module")
def zoo() -> list[Variant]:
    return [catalog.read(file.parent) for file in ZOO.glob("*/variant.json")]


def test_the_page_in_docs_is_what_the_manifests_say(zoo: list[Variant]) -> None:
    assert (DOCS / "models.md").read_text() == overview(by_task(zoo))


@pytest.mark.parametrize("task", list(Task))
def test_the_cards_in_docs_are_what_the_manifests_say(zoo: list[Variant], task: Task) -> None:
    """But for the errors shown: those hang on the processor that answers."""
    variants = by_task(zoo)[task]
    written = (DOCS / card_name(task)).read_text()
    now = card(variants, errors([], []))
    assert written.split(SHOWN)[0] == now.split(SHOWN)[0]
    assert written.split("## Bias and safety")[1] == now.split("## Bias and safety")[1]


def test_a_report_names_every_variant_language_and_figure(
    tmp_path: Path, zoo: list[Variant]
) -> None:
    files = report(ZOO, tmp_path)
    assert {file.name for file in files} == {
        "models.md",
        *(name(task) for task in Task for name in (picture, card_name)),
    }
    page = (tmp_path / "models.md").read_text()
    for task, variants in by_task(zoo).items():
        drawn = (tmp_path / picture(task)).read_text()
        told = (tmp_path / card_name(task)).read_text()
        assert variants[0].parent is None
        assert picture(task) in page and card_name(task) in page
        for variant in variants:
            assert variant.evidence
            macro = variant.evidence.quality["f1"][Input.RAW].macro
            for text in (page, told):
                assert f"`{variant.name}`" in text
                assert f"{macro.mean:.3f} [{macro.low:.3f}, {macro.high:.3f}]" in text
            assert variant.name in drawn
            assert all(language in drawn for language in variant.languages)


def test_a_card_tells_every_step_of_a_variant(zoo: list[Variant]) -> None:
    for task, variants in by_task(zoo).items():
        told = card(variants, errors([], [])).split("by `python -m build NAME --data DIR`:")[1]
        baseline = list(variants[0].lineage)
        for variant, lines in zip(variants, told.split("\n- ")[1:], strict=False):
            head, *steps = (line for line in lines.split("\n\n")[0].splitlines())
            listed = [line.strip(" -`") for line in steps]
            if variant.parent:
                last = head.split(" up to `")[1].split("`")[0]
                listed = baseline[: baseline.index(last) + 1] + listed
            assert listed == list(variant.lineage), (task, variant.name)


def test_the_worst_languages_are_named_first(zoo: list[Variant]) -> None:
    variants = by_task(zoo)[Task.NER]
    assert variants[0].evidence
    found = variants[0].evidence.quality["f1"][Input.RAW].languages
    worst = min(found, key=lambda name: found[name].mean)
    assert f"**Worst: {worst} (" in card(variants, errors([], []))


def test_the_same_report_is_the_same_files(tmp_path: Path) -> None:
    one, two = (report(ZOO, tmp_path / name) for name in ("one", "two"))
    assert [file.read_bytes() for file in one] == [file.read_bytes() for file in two]


def test_a_variant_that_was_not_judged_is_left_out(zoo: list[Variant]) -> None:
    bare = [msgspec.structs.replace(each, evidence=None) for each in zoo]
    assert by_task(bare) == {}


def test_evidence_that_lacks_the_newer_figures_is_written_up(zoo: list[Variant]) -> None:
    some = Interval(n=3, mean=0.5, low=0.4, high=0.6)
    scores = Scores(macro=some, languages={"hau": some, "yor": some})
    evidence = Evidence(
        data="ner/",
        split="dev",
        command="python -m build evaluate x",
        commit="1234",
        date="2026-01-01",
        host="one core",
        quality={"f1": {Input.RAW: scores}},
    )
    bare = msgspec.structs.replace(zoo[0], parent=None, evidence=evidence)
    page = overview({bare.task: [bare]})
    assert "0.500 [0.400, 0.600]" in page and "Not measured yet." in page


def test_an_unjudged_catalog_is_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "--catalog", str(tmp_path), "--out", str(tmp_path / "docs")]) == 2
    assert "has scores" in capsys.readouterr().err
    assert not (tmp_path / "docs").exists()

"""Who is on the front, who meets a target, and that the page in docs/ is what the manifests say."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from build.__main__ import main
from build.errors import BuildError
from build.frontier import (
    TARGETS,
    Point,
    Target,
    dominated,
    float_bytes,
    frontier,
    nearest,
    points,
)
from build.publish import write
from build.report import by_task
from models import catalog, stored
from models.spec import File, Input, Interval, Task, Variant

ROOT = Path(__file__).parent.parent
ZOO = ROOT / "models" / "zoo"
NER = catalog.read(ZOO / "ner-int8")


def exactly(value: float) -> Interval:
    return Interval(n=1, mean=value, low=value, high=value)


def point(name: str, f1: float, size: int, rate: float) -> Point:
    return Point(
        variant=msgspec.structs.replace(
            NER, name=name, files={"model.onnx": File(sha256="0" * 64, bytes=size)}
        ),
        f1=exactly(f1),
        minus=exactly(f1 - 0.75),
        smaller=60 / size,
        faster=exactly(rate / 10),
        tokens_per_second=exactly(rate),
    )


FEW = st.lists(
    st.tuples(
        st.sampled_from([0.6, 0.7, 0.75]), st.integers(1, 4), st.sampled_from([10.0, 20, 80])
    ),
    min_size=1,
    max_size=8,
).map(lambda rows: [point(f"v-{number}", *row) for number, row in enumerate(rows)])


@given(FEW)
def test_who_is_dominated_is_so_by_somebody_on_the_front(some: list[Point]) -> None:
    found = dominated(some)
    named = {each.name: each for each in some}
    assert found.keys() < named.keys()
    for loser, winner in found.items():
        pairs = list(zip(named[winner].good, named[loser].good, strict=True))
        assert winner not in found
        assert all(theirs >= mine for theirs, mine in pairs)
        assert any(theirs > mine for theirs, mine in pairs)


@given(FEW)
def test_nobody_on_the_front_is_beaten_in_all_things(some: list[Point]) -> None:
    front = [each for each in some if each.name not in dominated(some)]
    for one in front:
        for other in front:
            better = [a > b for a, b in zip(one.good, other.good, strict=True)]
            assert one.good == other.good or (any(better) and not all(better))


def test_a_target_wants_all_three() -> None:
    some = [point("base", 0.75, 60, 10), point("half", 0.748, 6, 40), point("tiny", 0.71, 2, 200)]
    assert nearest(Target(0.0, 4, 3), some) == some[0]
    found = nearest(Target(0.01, 10, 8), some)
    assert found == some[1] and Target(0.01, 10, 8).share(found) == pytest.approx(0.5)
    found = nearest(Target(0.05, 30, 20), some)
    assert found == some[2] and Target(0.05, 30, 20).share(found) == pytest.approx(1)
    assert nearest(Target(-1, 1, 1), some) is None


def test_sizes_are_against_the_baseline_in_floats() -> None:
    zoo = by_task([catalog.read(file.parent) for file in ZOO.glob("*/variant.json")])
    base, *others = points(ZOO, zoo[Task.NER])
    whole = 4 * base.variant.parameters + base.variant.files["tokenizer.json"].bytes
    assert base.smaller == whole / base.variant.bytes and base.minus.mean == 0
    for each in others:
        assert each.smaller == whole / each.variant.bytes > base.smaller
        assert each.variant.evidence
        assert each.minus == each.variant.evidence.difference["f1"][Input.RAW].macro


def test_who_was_not_measured_has_no_place() -> None:
    base = catalog.read(ZOO / "ner-base")
    evidence = msgspec.structs.replace(NER.evidence, speed=None)
    blind = msgspec.structs.replace(NER, evidence=evidence)
    assert [each.name for each in points(ZOO, [base, blind])] == ["ner-base"]


def family(root: Path, name: str, parameters: int) -> None:
    """A baseline of another size and what was compressed from it, in a catalog of their own."""
    for mine, ours, parent in ((name, "ner-base", None), (f"{name}-int8", "ner-int8", name)):
        shutil.copytree(ZOO / ours, root / mine)
        variant = catalog.read(ZOO / ours)
        write(
            root / mine,
            msgspec.structs.replace(variant, name=mine, parent=parent, parameters=parameters),
        )


def test_every_variant_stands_beside_its_own_baseline(tmp_path: Path) -> None:
    family(tmp_path, "large", 20_000_000)
    family(tmp_path, "small", 10_000_000)
    found = by_task([catalog.read(file.parent) for file in tmp_path.glob("*/variant.json")])
    tokenizer = NER.files["tokenizer.json"].bytes
    placed = {each.name: each for each in points(tmp_path, found[Task.NER])}
    assert placed.keys() == {"large", "large-int8", "small", "small-int8"}
    for name, point in placed.items():
        whole = 4 * (20_000_000 if name.startswith("large") else 10_000_000) + tokenizer
        assert point.smaller == pytest.approx(whole / point.variant.bytes)
    page, _ = frontier(tmp_path, tmp_path / "out")
    rows = [line.split(" | ") for line in page.read_text().splitlines() if "MB" in line]
    assert [row[0] for row in rows if not row[2].strip()] == ["| `large`", "| `small`"]


def test_a_baseline_that_is_not_there_is_named(tmp_path: Path) -> None:
    family(tmp_path, "large", 20_000_000)
    shutil.rmtree(tmp_path / "large")
    with pytest.raises(BuildError, match="holds no variant large; it holds large-int8"):
        frontier(tmp_path, tmp_path / "out")


def test_a_packed_baseline_counts_unpacked(tmp_path: Path) -> None:
    family(tmp_path, "large", 20_000_000)
    plain = tmp_path / "large" / "tokenizer.json"
    before = float_bytes(tmp_path / "large", NER)
    plain.with_name("tokenizer.json.zst").write_bytes(stored.pack(plain.read_bytes(), 3))
    plain.unlink()
    assert float_bytes(tmp_path / "large", NER) == before
    assert plain.with_name("tokenizer.json.zst").stat().st_size < before - 4 * NER.parameters


def test_words_about_the_embedded_are_not_said_of_others(tmp_path: Path) -> None:
    family(tmp_path, "large", 20_000_000)
    page, _ = frontier(tmp_path, tmp_path / "out")
    said = page.read_text()
    assert "`large-int8`" in said and "ner-tiny" not in said and "news" not in said
    assert said.endswith("Split: half test split.\n") and "How the small" not in said


def test_the_page_in_docs_is_what_the_manifests_say(tmp_path: Path) -> None:
    page, *pictures = frontier(ZOO, tmp_path)
    assert page.read_text() == (ROOT / "docs" / page.name).read_text()
    variants: list[Variant] = [catalog.read(file.parent) for file in ZOO.glob("*/variant.json")]
    for each in variants:
        assert any(each.name in drawn.read_text() for drawn in pictures)
    assert page.read_text().count("| yes |") + page.read_text().count("| no |") == 2 * len(TARGETS)


def test_a_catalog_without_figures_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["frontier", "--catalog", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert "no baseline in" in capsys.readouterr().err

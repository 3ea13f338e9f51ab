from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from build.checkpoint import Checkpoint
from build.errors import BuildError
from build.golden import FEWEST_GOLDEN, GoldenText, golden_texts, margin, steady, unseen
from build.graph import MODEL
from build.publish import Title, publish, trained_here, write
from models import catalog
from models.errors import BrokenVariant
from models.spec import Licence, Runtime, Task, Variant
from tests.tiny_checkpoint import exported, finetuned, network, quantized

TITLE = Title(
    name="toy",
    description="A toy.",
    licence=Licence(name="none", sources=()),
    command="python -m build toy",
)


def checkpoint(folder: Path) -> Checkpoint:
    return Checkpoint(folder, ("Toy()", "Export()"))


@pytest.fixture
def toy(tmp_path: Path) -> Variant:
    variant, _ = publish(checkpoint(exported(Task.NER)), tmp_path, TITLE)
    return variant


def test_a_published_variant_opens_and_answers(tmp_path: Path, toy: Variant) -> None:
    pipeline = catalog.open_variant(tmp_path / "toy")
    assert pipeline.variant == toy
    assert pipeline.answer(["Sani Bello ya je Kano."])[0].tokens > 0
    assert sorted(each.name for each in tmp_path.iterdir()) == ["toy"]
    assert sorted(each.name for each in (tmp_path / "toy").iterdir()) == [
        MODEL,
        "tokenizer.json",
        "variant.json",
    ]


def test_golden_answers_are_at_least_fifty_and_of_every_language(toy: Variant) -> None:
    assert len(toy.golden) >= FEWEST_GOLDEN
    assert {each.language for each in toy.golden} >= {"hau", "swa"}


def test_every_language_of_the_recipes_has_golden_texts(toy: Variant) -> None:
    from build.recipes import NER_LANGUAGES, NEWS_LANGUAGES

    for task, languages in ((Task.NER, NER_LANGUAGES), (Task.CLASSIFICATION, NEWS_LANGUAGES)):
        variant = msgspec.structs.replace(toy, task=task, languages=languages)
        texts = golden_texts(variant)
        assert len(texts) >= FEWEST_GOLDEN
        assert {each.language for each in texts} == set(languages)


def test_texts_decided_by_a_hair_are_left_out(tmp_path: Path, toy: Variant) -> None:
    pipeline = catalog.open_variant(tmp_path / "toy")
    # Twice fifty texts, so that the least steady may go.
    words = ("Sani", "Bello", "Kano", "Abuja", "ya", "je", "a", "ranar")
    pairs = [f"{one} {other}" for one in words for other in words] + list(words)
    texts = [GoldenText(text=text, language="hau", task=Task.NER) for text in pairs]
    kept = [text for text, _ in steady(pipeline, texts)]
    left_out = set(pairs) - set(kept)
    assert len(kept) >= FEWEST_GOLDEN and kept == [text for text in pairs if text in kept]
    assert all(margin(pipeline, text) < 0.02 for text in left_out)


def test_counts_are_those_of_the_network(tmp_path: Path, toy: Variant) -> None:
    parameters = sum(weight.numel() for weight in network(Task.NER).parameters())
    assert toy.parameters == parameters
    assert toy.weights.keys() == {"float32"}
    assert toy.sparsity < 0.01
    int8, _ = publish(checkpoint(quantized(Task.NER)), tmp_path, TITLE)
    assert int8.parameters == parameters
    assert 0 < int8.sparsity < 0.1  # small weights are rounded to zero


def test_the_manifest_says_how_it_was_made(toy: Variant) -> None:
    assert toy.lineage == ("Toy()", "Export()")
    assert toy.evidence is not None and toy.evidence.parity is not None
    assert toy.evidence.parity < 1e-4


def test_a_torch_variant_is_published_from_a_checkpoint_that_was_not_exported(
    tmp_path: Path,
) -> None:
    variant, _ = publish(checkpoint(finetuned(Task.NER)), tmp_path, TITLE)
    assert variant.runtime is Runtime.TORCH
    assert variant.parameters == sum(each.numel() for each in network(Task.NER).parameters())


def test_publishing_again_replaces_the_folder(tmp_path: Path, toy: Variant) -> None:
    again, _ = publish(checkpoint(quantized(Task.NER)), tmp_path, TITLE)
    assert catalog.open_variant(tmp_path / "toy").variant == again != toy
    assert [each.name for each in tmp_path.iterdir()] == ["toy"]


def test_publishing_the_same_again_keeps_what_was_measured(tmp_path: Path, toy: Variant) -> None:
    assert toy.evidence is not None
    measured = msgspec.structs.replace(toy.evidence, seeds={1: 0.5}, split="a split")
    write(tmp_path / "toy", msgspec.structs.replace(toy, evidence=measured))
    again, _ = publish(checkpoint(exported(Task.NER)), tmp_path, TITLE)
    assert again.evidence == measured
    other = msgspec.structs.replace(measured, parity=None)
    write(tmp_path / "toy", msgspec.structs.replace(toy, evidence=other, labels=toy.labels[::-1]))
    again, _ = publish(checkpoint(exported(Task.NER)), tmp_path, TITLE)
    assert again.evidence == toy.evidence
    (tmp_path / "toy" / "variant.json").write_text("{}")
    again, _ = publish(checkpoint(exported(Task.NER)), tmp_path, TITLE)
    assert again.evidence == toy.evidence


def test_a_variant_that_does_not_prove_itself_leaves_the_old_one(
    tmp_path: Path, toy: Variant
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in exported(Task.NER).iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    (broken / "tokenizer.json").write_text("{}")
    with pytest.raises(BrokenVariant):
        publish(checkpoint(broken), tmp_path / "catalog", TITLE)
    assert list((tmp_path / "catalog").iterdir()) == []
    with pytest.raises(BrokenVariant):
        publish(checkpoint(broken), tmp_path, TITLE)
    assert catalog.open_variant(tmp_path / "toy").variant == toy


def test_a_folder_that_is_no_variant_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "thesis.txt").write_text("years of work")
    with pytest.raises(BuildError, match="is not a variant: move it away first"):
        publish(checkpoint(exported(Task.NER)), tmp_path, TITLE)
    assert (tmp_path / "toy" / "thesis.txt").exists()


def test_labels_no_golden_answer_shows_are_told(toy: Variant) -> None:
    silent = msgspec.structs.replace(toy, labels=(*toy.labels, "B-MONEY"))
    (line,) = unseen(silent)
    assert line.startswith("toy: no golden answer shows") and "MONEY" in line


def test_licences_follow_the_data(toy: Variant) -> None:
    from build.checkpoint import read_purpose

    purpose = read_purpose(finetuned(Task.NER))
    title = trained_here("ner-int8", purpose, base=None, parent="ner-base")
    assert title.licence.name == "CC BY-NC 4.0"
    assert any("2021, TACL" in source for source in title.licence.sources)
    assert "not AfriBERTa's own weights" in title.description
    other = trained_here("ner-int8", purpose, base="castorini/afriberta_base", parent=None)
    assert "from scratch" not in other.description
    assert any("castorini/afriberta_base" in source for source in other.licence.sources)

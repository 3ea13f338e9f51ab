"""The embedded variants themselves: laws every one of them must obey."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from models import catalog
from models.pipeline import Pipeline
from models.spec import Input, Task

ZOO = Path(__file__).resolve().parent.parent / "models" / "zoo"
NAMES = sorted(folder.name for folder in ZOO.iterdir() if folder.is_dir())
# Macro F1 of a baseline on the half test split, and how far below it a variant may be.
FLOOR = {Task.NER: 0.60, Task.CLASSIFICATION: 0.70}
DROP = {"int8": 0.005, "distilled-int8": 0.02, "small": 0.01, "tiny": 0.08}
MOST_BYTES, LARGEST_FILE = 120_000_000, 45_000_000
SCRIPTS = {
    "composed": "Gómìnà Ọ̀ṣun dé sí Èkó lánàá.",
    "decomposed": unicodedata.normalize("NFD", "Gómìnà Ọ̀ṣun dé sí Èkó lánàá."),
    "ethiopic": "ጠቅላይ ሚኒስትሩ ሰኞ ዕለት አዲስ አበባ ገቡ።",
    "emoji": "Sani Bello 👩🏾‍🌾 ya je Kano 🇳🇬 ranar Litinin.",
    "spaces": "Sani\tBello\nya je\u2028Kano\u200b ranar  Litinin.",
}


@pytest.fixture(scope="module", params=NAMES)
def pipeline(request: pytest.FixtureRequest) -> Iterator[Pipeline]:
    """Opening is itself a test: hashes, dtypes, labels and golden answers are checked."""
    yield catalog.open_variant(ZOO / request.param)


def test_the_zoo_holds_a_baseline_and_smaller_variants_of_each_task() -> None:
    # A smaller one of topics dominates it.
    wanted = {f"{task}-{kind}" for task in ("ner", "news") for kind in ("base", *DROP)} - {
        "news-small"
    }
    assert wanted <= set(NAMES)


def test_the_zoo_fits_into_git() -> None:
    sizes = [file.stat().st_size for file in ZOO.rglob("*") if file.is_file()]
    assert sum(sizes) <= MOST_BYTES and max(sizes) <= LARGEST_FILE


def test_golden_answers_cover_every_language_and_label(pipeline: Pipeline) -> None:
    variant = pipeline.variant
    assert len(variant.golden) >= 50
    assert {golden.language for golden in variant.golden} == set(variant.languages)
    if variant.task is Task.NER:
        expected = {label[2:] for label in variant.labels if label != "O"}
        found = {entity.label for golden in variant.golden for entity in golden.entities or ()}
    else:
        expected = set(variant.labels)
        found = {golden.labels[0].label for golden in variant.golden if golden.labels}
    assert found == expected


def test_a_text_gets_the_same_answer_alone_and_in_company(pipeline: Pipeline) -> None:
    texts = [golden.text for golden in pipeline.variant.golden]
    windows = [window for text in texts for window in pipeline.encode(text).windows]
    together = pipeline.run(windows)
    alone = [pipeline.run([window])[0] for window in windows]
    worst = max(np.abs(one - other).max() for one, other in zip(together, alone, strict=True))
    assert worst < 1e-4


@pytest.mark.parametrize("name", SCRIPTS)
def test_spans_are_the_callers_own_text(pipeline: Pipeline, name: str) -> None:
    text = SCRIPTS[name]
    (answer,) = pipeline.answer([text])
    for entity in getattr(answer, "entities", ()):
        assert text[entity.start : entity.end] == entity.text
        assert entity.text.strip() == entity.text


def test_the_manifest_says_what_the_weights_may_be_used_for(pipeline: Pipeline) -> None:
    variant = pipeline.variant
    assert variant.licence.name and variant.licence.sources
    assert "not AfriBERTa's own weights" in variant.description
    assert variant.lineage


def test_the_evidence_clears_the_floor_on_raw_text(pipeline: Pipeline) -> None:
    evidence = pipeline.variant.evidence
    assert evidence is not None
    assert "half test split" in evidence.split
    scores = evidence.quality["f1"][Input.RAW]
    assert scores.languages.keys() == set(pipeline.variant.languages)
    kind = pipeline.variant.name.partition("-")[2]
    assert scores.macro.mean >= FLOOR[pipeline.variant.task] - DROP.get(kind, 0)
    if pipeline.variant.parent:
        assert evidence.difference["f1"][Input.RAW].macro.mean >= -DROP[kind]
    for interval in (scores.macro, *scores.languages.values()):
        assert 0 <= interval.low <= interval.mean <= interval.high <= 1


def test_text_as_people_write_it_scores_as_corpora_do(pipeline: Pipeline) -> None:
    evidence = pipeline.variant.evidence
    assert evidence is not None
    found = evidence.quality["f1"]
    if Input.TOKENISED in found:
        apart = found[Input.RAW].macro.mean - found[Input.TOKENISED].macro.mean
        assert abs(apart) <= 0.01


def test_all_that_is_measured_is_there(pipeline: Pipeline) -> None:
    variant, evidence = pipeline.variant, pipeline.variant.evidence
    assert evidence is not None and evidence.speed is not None
    assert not evidence.commit.endswith("-dirty")
    assert evidence.calibration and bool(evidence.disagreement) == bool(variant.parent)

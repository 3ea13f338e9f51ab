"""How sure and how right, on decisions small enough to count by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from build.data import Article, Sentence, Span
from build.studies.confidence import (
    calibration_error,
    divergence,
    entropy,
    equal_parts,
    figures,
    probabilities,
    right_labels,
)
from models import catalog
from models.spec import Task
from tests.tiny import write_variant

SURE, UNSURE = [1.0, 0.0], [0.5, 0.5]


def test_entropy_is_counted_in_bits() -> None:
    assert entropy(np.array([SURE, UNSURE])).tolist() == pytest.approx([0, 1], abs=1e-9)


def test_the_divergence_of_certain_opposites_is_one_bit() -> None:
    one, other = np.array([SURE, UNSURE]), np.array([SURE[::-1], UNSURE])
    assert divergence(one, other).tolist() == pytest.approx([1, 0], abs=1e-9)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_parts_are_of_equal_size_and_rise(sure: list[float]) -> None:
    parts = equal_parts(np.array(sure))
    sizes = np.bincount(parts, minlength=10)
    assert sizes.max() - sizes.min() <= 1
    order = np.argsort(sure, kind="stable")
    assert (np.diff(parts[order]) >= 0).all()


def test_the_calibration_error_is_the_gap_of_each_part() -> None:
    sure = np.array([0.9, 0.9, 0.6, 0.6])
    right = np.array([True, False, True, False])
    # 0.4 too sure in the one part, 0.1 in the other.
    assert calibration_error(sure, right, np.array([0, 0, 1, 1])) == pytest.approx(0.25)


def test_flips_are_told_by_how_sure_the_baseline_was() -> None:
    sure = np.linspace(0.55, 0.95, 10)
    base = np.stack([sure, 1 - sure], axis=1)
    mine = base.copy()
    mine[0] = mine[0][::-1]  # the baseline's least sure decision
    found = figures(np.zeros(10, np.int64), mine, base)
    assert found["flips"] == pytest.approx(0.1)
    assert [found[f"flips_{n}"] for n in range(1, 11)] == [1, *[0] * 9]
    assert found["accuracy"] == pytest.approx(0.9)
    assert found["true_label"] == pytest.approx((sure.sum() - 0.55 + 0.45) / 10)
    assert figures(np.zeros(10, np.int64), base, base)["divergence"] == 0


def test_decisions_are_pieces_with_their_tags(tmp_path: Path) -> None:
    pipeline = catalog.open_variant(write_variant(tmp_path, "tiny", Task.NER))
    texts = [
        Sentence("Sani Bello ya je Kano.", (Span("PER", 0, 10), Span("LOC", 17, 21)), "hau"),
        Sentence("Abuja", (Span("LOC", 0, 5),), "hau"),
    ]
    gold, rows = right_labels(pipeline, texts), probabilities(pipeline, texts)
    names = [pipeline.variant.labels[each] for each in gold]
    assert names == ["B-PER", "I-PER", "O", "O", "B-LOC", "O", "B-LOC"]
    assert rows.shape == (7, len(pipeline.variant.labels))
    assert np.allclose(rows.sum(axis=1), 1) and (rows.argmax(axis=1) == gold).all()


def test_decisions_are_texts_with_their_topics(tmp_path: Path) -> None:
    pipeline = catalog.open_variant(write_variant(tmp_path, "tiny", Task.CLASSIFICATION))
    texts = [Article("kwallo kwallo", "sports", "hau"), Article("asibiti", "health", "hau")]
    gold, rows = right_labels(pipeline, texts), probabilities(pipeline, texts)
    assert rows.shape == (2, 3) and gold.tolist() == [2, 1]
    answers = pipeline.answer([each.text for each in texts])
    assert [each.labels[0].score for each in answers] == pytest.approx(rows.max(axis=1).tolist())  # type: ignore[union-attr]

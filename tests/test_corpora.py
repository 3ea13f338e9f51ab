"""What only the corpora can show; `make test-data DATA=...` runs these, the gate does not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from build import data
from build.evaluate import check
from build.recipes import NER_LANGUAGES, NEWS_LANGUAGES
from models import catalog
from models.encode import Encoder

pytestmark = pytest.mark.data

ZOO = Path(__file__).resolve().parent.parent / "models" / "zoo"


@pytest.fixture(scope="module")
def corpus() -> Path:
    return Path(os.environ["KADOGO_TEST_DATA"])


@pytest.mark.parametrize("language", NER_LANGUAGES)
def test_gold_spans_are_pieces_of_their_sentence(corpus: Path, language: str) -> None:
    for raw in (True, False):
        for sentence in data.sentences(corpus, language, "test", raw=raw):
            for span in sentence.spans:
                entity = sentence.text[span.start : span.end]
                assert entity and entity == entity.strip()


@pytest.mark.parametrize("language", NER_LANGUAGES)
def test_raw_and_tokenised_sentences_become_the_same_pieces(corpus: Path, language: str) -> None:
    variant = catalog.read(ZOO / "ner-int8")
    encoder = Encoder(ZOO / "ner-int8" / "tokenizer.json", variant.windows)
    pairs = zip(
        data.sentences(corpus, language, "test", raw=True),
        data.sentences(corpus, language, "test", raw=False),
        strict=True,
    )
    same = [
        encoder.encode(raw.text).ids.tolist() == encoder.encode(spaced.text).ids.tolist()
        for raw, spaced in pairs
        if '""' not in spaced.text  # an escape of some corpora that no caller writes
    ]
    assert sum(same) / len(same) > 0.99


@pytest.mark.parametrize("language", NEWS_LANGUAGES)
def test_every_test_article_has_a_known_topic(corpus: Path, language: str) -> None:
    labels = set(catalog.read(ZOO / "news-int8").labels)
    assert {article.label for article in data.articles(corpus, language, "test")} <= labels


@pytest.mark.parametrize("name", ["ner-int8", "news-int8"])
def test_figures_measured_again_fall_into_their_intervals(corpus: Path, name: str) -> None:
    pipeline = catalog.open_variant(ZOO / name)
    outside, count = check(pipeline.variant, pipeline.answer, corpus, "test")
    assert count >= 20 and outside == []

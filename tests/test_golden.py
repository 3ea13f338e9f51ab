from __future__ import annotations

import msgspec

from build.data import Article, Sentence
from build.golden import TEXTS, GoldenText
from models.spec import Task

GOLDEN = msgspec.json.decode(TEXTS.read_bytes(), type=list[GoldenText])
KINDS = {"PER", "LOC", "ORG", "DATE"}
TOPICS = {
    "business",
    "entertainment",
    "health",
    "politics",
    "religion",
    "sports",
    "technology",
}


def test_gold_entities_are_the_words_annotated() -> None:
    for each in GOLDEN:
        if each.task is Task.NER:
            assert isinstance(each.gold, Sentence)
            found = [(span.label, each.text[span.start : span.end]) for span in each.gold.spans]
            assert found == list(each.entities) and len(found) >= 2
            assert {label for label, _ in found} <= KINDS
            ends = [span.end for span in each.gold.spans]
            starts = [span.start for span in each.gold.spans]
            assert all(start > end for start, end in zip(starts[1:], ends, strict=False))


def test_words_that_come_twice_are_taken_in_order() -> None:
    text = GoldenText(
        text="Kano ga Kano.",
        language="hau",
        task=Task.NER,
        entities=(("ORG", "Kano"), ("LOC", "Kano")),
    )
    assert isinstance(text.gold, Sentence)
    assert [(span.start, span.end) for span in text.gold.spans] == [(0, 4), (8, 12)]


def test_every_language_has_a_text_of_every_topic() -> None:
    articles = [each.gold for each in GOLDEN if each.task is Task.CLASSIFICATION]
    found: dict[str, set[str]] = {}
    for article in articles:
        assert isinstance(article, Article)
        found.setdefault(article.language, set()).add(article.label)
    assert len(found) == 10
    assert all(topics == TOPICS for topics in found.values())

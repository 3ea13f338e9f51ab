"""
What an answer got wrong, named as a person would: missed, made up, wrong kind, wrong extent.

Pure functions of gold and answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from build.data import Article, Sentence
from models.spec import Answer, ClassificationAnswer, Entity


class Kind(StrEnum):
    MISSED = "missed"
    INVENTED = "made up"
    LABEL = "wrong kind"
    EXTENT = "wrong extent"
    TOPIC = "wrong topic"


@dataclass(frozen=True, slots=True)
class Mistake:
    """`wanted` and `said` read "LABEL words", or a topic; empty where there is none."""

    kind: Kind
    language: str
    text: str
    wanted: str
    said: str


def mistakes(gold: Sentence | Article, answer: Answer) -> list[Mistake]:
    """Every mistake of one answer, in the order of the text."""
    if isinstance(answer, ClassificationAnswer):
        said = answer.labels[0].label
        if not isinstance(gold, Article) or said == gold.label:
            return []
        return [Mistake(Kind.TOPIC, gold.language, gold.text, gold.label, said)]
    assert isinstance(gold, Sentence)
    return [
        Mistake(kind, gold.language, gold.text, wanted, said)
        for kind, wanted, said in _of_entities(gold, answer.entities)
    ]


def _of_entities(gold: Sentence, found: Sequence[Entity]) -> Iterator[tuple[Kind, str, str]]:
    """Each gold entity with what stands in its place; then what stands in no one's."""
    right = {(span.label, span.start, span.end) for span in gold.spans}
    rest = [each for each in found if (each.label, each.start, each.end) not in right]
    said_right = {(each.label, each.start, each.end) for each in found}
    for span in gold.spans:
        if (span.label, span.start, span.end) in said_right:
            continue
        wanted = f"{span.label} {gold.text[span.start : span.end]}"
        over = [each for each in rest if each.start < span.end and span.start < each.end]
        if not over:
            yield Kind.MISSED, wanted, ""
            continue
        nearest = max(over, key=lambda each: _shared(each, span.start, span.end))
        rest = [each for each in rest if each not in over]
        same_place = (nearest.start, nearest.end) == (span.start, span.end)
        kind = Kind.LABEL if same_place or nearest.label != span.label else Kind.EXTENT
        yield kind, wanted, f"{nearest.label} {nearest.text}"
    for each in rest:
        yield Kind.INVENTED, "", f"{each.label} {each.text}"


def _shared(entity: Entity, start: int, end: int) -> int:
    return min(entity.end, end) - max(entity.start, start)

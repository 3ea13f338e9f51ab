"""
What several variants say of one text, side by side: what they agree on, and what they do not.

Answers in, values out. Knows nothing of lanes, requests or HTTP.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from models.spec import Answer, ClassificationAnswer, Entity, NerAnswer


class Agreement(NamedTuple):
    """
    How much two answers say alike: entities of one label and span, or the best label.

    both       said by both
    reference  said by the reference alone; `other`: by the other alone

    Those of several texts add up.
    """

    both: int
    reference: int
    other: int

    @property
    def share(self) -> float:
        """
        Of what either says the share that both say, 0 to 1; 1 where neither says anything.

        What is said twice counts twice, so this is F1, whichever of the two is taken for right, and
        1 minus the `disagreement` of a manifest's evidence.
        """
        said = 2 * self.both + self.reference + self.other
        return 2 * self.both / said if said else 1.0

    def plus(self, more: Agreement) -> Agreement:
        return Agreement(*map(sum, zip(self, more, strict=True)))


class AgreedEntity(msgspec.Struct, frozen=True, kw_only=True):
    """An entity that every variant found, with the score each gave it."""

    label: str
    start: int
    end: int
    text: str
    scores: dict[str, float]


class EntityDisagreement(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of the text that variants read differently: what each found there, if anything."""

    start: int
    end: int
    said: dict[str, tuple[Entity, ...]]


class NerComparison(msgspec.Struct, frozen=True, kw_only=True):
    """Every entity of every variant is in `agreed` or in one of the `disagreements`, once."""

    answers: dict[str, NerAnswer]
    agreed: tuple[AgreedEntity, ...]
    disagreements: tuple[EntityDisagreement, ...]


class ClassificationComparison(msgspec.Struct, frozen=True, kw_only=True):
    """
    top          the best label of each variant; null where none scores enough
    agreed       whether that is one and the same
    differences  score minus the reference's, of each label that both answers hold
    """

    answers: dict[str, ClassificationAnswer]
    top: dict[str, str | None]
    agreed: bool
    differences: dict[str, dict[str, float]]


Comparison = NerComparison | ClassificationComparison


def agreement(reference: Answer, other: Answer) -> Agreement:
    """Of two answers of one task to one text."""
    one, two = Counter(_said(reference)), Counter(_said(other))
    both = (one & two).total()
    return Agreement(both, one.total() - both, two.total() - both)


def compared(answers: Mapping[str, Answer], reference: str) -> Comparison:
    """The answers of variants of one task, by name, to one text; `reference` is one of them."""
    if isinstance(answers[reference], NerAnswer):
        found = {name: each for name, each in answers.items() if isinstance(each, NerAnswer)}
        return entities_compared(found)
    ranked = {
        name: each for name, each in answers.items() if isinstance(each, ClassificationAnswer)
    }
    return labels_compared(ranked, reference)


def stretches(found: Mapping[str, Sequence[Entity]]) -> Iterator[dict[str, list[Entity]]]:
    """
    Entities of all variants in stretches that none of them reaches over, in the text's order.

    A  PER(0, 4)         LOC(9, 13)
    B  PER(0, 4)         LOC(5, 13)  ORG(20, 24)
    ->  {A: PER(0, 4), B: PER(0, 4)}  {A: LOC(9, 13), B: LOC(5, 13)}  {A: -, B: ORG(20, 24)}
    """
    each = ((entity, name) for name, entities in found.items() for entity in entities)
    stretch: dict[str, list[Entity]] = {}
    reached = 0
    for entity, name in sorted(each, key=lambda one: (one[0].start, one[0].end)):
        if stretch and entity.start >= reached:
            yield stretch
            stretch = {}
        if not stretch:
            stretch = {variant: [] for variant in found}
        stretch[name].append(entity)
        reached = max(reached, entity.end)
    if stretch:
        yield stretch


def entities_compared(answers: dict[str, NerAnswer]) -> NerComparison:
    agreed: list[AgreedEntity] = []
    apart: list[EntityDisagreement] = []
    for stretch in stretches({name: answer.entities for name, answer in answers.items()}):
        spans = [sorted(map(_span, entities)) for entities in stretch.values()]
        if all(each == spans[0] for each in spans):
            agreed += _alike(stretch)
            continue
        everyone = [entity for entities in stretch.values() for entity in entities]
        apart.append(
            EntityDisagreement(
                start=min(entity.start for entity in everyone),
                end=max(entity.end for entity in everyone),
                said={name: tuple(entities) for name, entities in stretch.items()},
            )
        )
    return NerComparison(answers=answers, agreed=tuple(agreed), disagreements=tuple(apart))


def _alike(stretch: dict[str, list[Entity]]) -> Iterator[AgreedEntity]:
    """Pieces without aggregation may share a span, so that a stretch holds several."""
    ordered = [sorted(entities, key=_span) for entities in stretch.values()]
    for same in zip(*ordered, strict=True):
        scores = {name: entity.score for name, entity in zip(stretch, same, strict=True)}
        label, start, end = _span(same[0])
        yield AgreedEntity(label=label, start=start, end=end, text=same[0].text, scores=scores)


def labels_compared(
    answers: dict[str, ClassificationAnswer], reference: str
) -> ClassificationComparison:
    top = {
        name: answer.labels[0].label if answer.labels else None for name, answer in answers.items()
    }
    scores = {
        name: {each.label: each.score for each in answer.labels} for name, answer in answers.items()
    }
    against = scores.pop(reference)
    differences = {
        name: {label: score - against[label] for label, score in own.items() if label in against}
        for name, own in scores.items()
    }
    return ClassificationComparison(
        answers=answers, top=top, agreed=len(set(top.values())) == 1, differences=differences
    )


def _said(answer: Answer) -> list[tuple[str, int, int]]:
    """What an answer says, without how sure it is."""
    if isinstance(answer, NerAnswer):
        return [_span(entity) for entity in answer.entities]
    return [(best.label, 0, 0) for best in answer.labels[:1]]


def _span(entity: Entity) -> tuple[str, int, int]:
    return entity.label, entity.start, entity.end

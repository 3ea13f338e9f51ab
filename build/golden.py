"""
The project's own texts with what is in them: asked of every variant when it is published.

`golden.json` was written and annotated for Kadogo, as MasakhaNER and MasakhaNEWS annotate; no
corpus is in it. Its gold is for showing errors, too little of it for scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np

from build.data import Article, Sentence, Span
from models.decode import softmax
from models.pipeline import Pipeline
from models.spec import Golden, Task, Variant

TEXTS = Path(__file__).parent / "golden.json"
FEWEST_GOLDEN = 50
# Golden answers hang on decisions that rounding on another processor does not turn over.
STEADY = 0.02


class GoldenText(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """
    A text written for the project.

    entities  label and words of each entity, in the order of the text
    topic     the label of a text to classify
    """

    text: str
    language: str
    task: Task
    entities: tuple[tuple[str, str], ...] = ()
    topic: str = ""

    @property
    def gold(self) -> Sentence | Article:
        """As `build.data` reads a corpus."""
        if self.task is Task.CLASSIFICATION:
            return Article(self.text, self.topic, self.language)
        spans, after = [], 0
        for label, words in self.entities:
            start = self.text.index(words, after)
            after = start + len(words)
            spans.append(Span(label, start, after))
        return Sentence(self.text, tuple(spans), self.language)


def golden_texts(variant: Variant) -> list[GoldenText]:
    """
    The project's texts of the variant's task, in its languages.

    All of the task's where those are too few: any text shows whether an answer is reproduced.
    """
    texts = msgspec.json.decode(TEXTS.read_bytes(), type=list[GoldenText])
    mine = [each for each in texts if each.task == variant.task]
    known = [each for each in mine if each.language in variant.languages]
    return known if len(known) >= FEWEST_GOLDEN else mine


def steady(pipeline: Pipeline, texts: Sequence[GoldenText]) -> list[tuple[str, str]]:
    """
    (text, language) pairs without the texts whose answer hangs on less than `STEADY`.

    Never fewer than `FEWEST_GOLDEN`, nor a language without its steadiest text.
    """
    margins = [margin(pipeline, each.text) for each in texts]
    ranked = sorted(range(len(texts)), key=lambda index: -margins[index])
    firsts = {texts[index].language: index for index in reversed(ranked)}.values()
    kept = {*firsts, *ranked[:FEWEST_GOLDEN], *(i for i in ranked if margins[i] >= STEADY)}
    return [(texts[index].text, texts[index].language) for index in sorted(kept)]


def margin(pipeline: Pipeline, text: str) -> float:
    """By how much the closest decision about a text was won, in probability."""
    logits = pipeline.run(pipeline.encode(text).windows)
    if pipeline.variant.multi_label:
        return float(np.abs(np.stack(logits)).min())
    if pipeline.variant.task is Task.NER:
        scores = softmax(np.concatenate([rows[1:-1] for rows in logits]))
    else:
        scores = softmax(np.stack(logits)).mean(axis=0, keepdims=True)
    best = np.sort(scores, axis=-1)[:, -2:]
    return float((best[:, 1] - best[:, 0]).min(initial=1.0))


def unseen(variant: Variant) -> list[str]:
    """One line about the labels no golden answer shows, if there are any."""
    if not variant.golden:
        return []
    wanted = {label.partition("-")[2] or label for label in variant.labels} - {"O"}
    missing = sorted(wanted - {label for each in variant.golden for label in _shown(each)})
    if not missing:
        return []
    return [f"{variant.name}: no golden answer shows {', '.join(missing)}"]


def _shown(golden: Golden) -> Iterator[str]:
    if golden.labels:
        yield golden.labels[0].label
    for entity in golden.entities or ():
        yield entity.label

"""
Logits in, answers out: entities of a text, or scores of its labels.

Pure numpy. Knows nothing of tokenizers, runtimes or files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.encode import Encoded, trim
from models.spec import Aggregation, Entity, LabelScore, OffsetUnit, Options, Squash

Floats = NDArray[np.floating[Any]]


class _Tag(NamedTuple):
    """A label read as BIO; without a prefix it continues, as Hugging Face has it."""

    begins: bool
    kind: str
    shown: str


class _Units(NamedTuple):
    """Of each piece or word its label, that label's score, and its first and last piece."""

    labels: list[int]
    scores: list[float]
    firsts: list[int]
    lasts: list[int]


def entities(
    encoded: Encoded,
    logits: Sequence[Floats],
    labels: tuple[str, ...],
    options: Options,
    pieces: Sequence[str] = (),
) -> tuple[Entity, ...]:
    """
    The entities of a text, in its order.

    `logits`: for each of `encoded.windows`, (tokens, labels) with the specials' rows. Windows are
    merged before decoding, so no entity is doubled or lost at a seam. Labels, scores and groups
    are those of Hugging Face's TokenClassificationPipeline, except that words are the
    tokenizer's own, where theirs guesses them from spaces. `pieces`: how those of the text are
    spelt; only read where they are not aggregated.
    """
    alone = options.aggregation is Aggregation.NONE
    scores = softmax(merge(encoded, logits))
    units = _units(scores, encoded.words, options.aggregation)
    tags = _tags(labels)
    groups: Iterable[tuple[int, int]]
    groups = ((i, i + 1) for i in range(len(units.labels))) if alone else _groups(units, tags)
    found: list[Entity] = []
    for begin, beyond in groups:
        which = units.labels[begin]
        label = labels[which] if alone else tags[which].shown
        if label in options.ignore:
            continue
        score = sum(units.scores[begin:beyond]) / (beyond - begin)
        if score < options.min_score:
            continue
        first, last = units.firsts[begin], units.lasts[beyond - 1]
        start, end = int(encoded.offsets[first, 0]), int(encoded.offsets[last, 1])
        if found and not alone:
            # Two words may share a letter: a punctuation mark with an accent on it, say.
            start = max(start, found[-1].end)
        start, end = trim(encoded.text, start, end)
        if start < end:
            text = encoded.text[start:end]
            entity = Entity(label=label, start=start, end=end, text=text, score=score)
            found.append(_told_alone(entity, first, pieces) if alone else entity)
    if options.offset_unit is OffsetUnit.UTF16:
        return tuple(_in_utf16(encoded.text, found))
    return tuple(found)


def label_scores(
    logits: Sequence[Floats], labels: tuple[str, ...], *, multi_label: bool, options: Options
) -> tuple[LabelScore, ...]:
    """
    Probabilities of the labels, best first, averaged over a text's windows.

    `logits`: (labels,) for each window. The plain mean weighs pieces alike too: the windows of
    one text are all of one length.
    """
    squash = options.squash or (Squash.SIGMOID if multi_label else Squash.SOFTMAX)
    scores = _SQUASH[squash](np.stack(logits)).mean(axis=0)
    best = np.argsort(-scores, kind="stable")[: options.top_k]
    ranked = (LabelScore(label=labels[i], score=float(scores[i])) for i in best)
    least = -np.inf if squash is Squash.NONE else options.min_score
    return tuple(each for each in ranked if each.score >= least)


def merge(encoded: Encoded, logits: Sequence[Floats]) -> Floats:
    """
    (pieces, labels): each piece from the window in which it is farthest from an edge.

    Windows of one text are equally long, so that is the window whose centre is nearest: each
    window owns what lies up to halfway to the next one's centre.
    """
    windows = encoded.windows
    room = len(windows[0].ids) - 2
    owned = []
    low = 0
    for index, (window, rows) in enumerate(zip(windows, logits, strict=True)):
        if index + 1 < len(windows):
            high = (window.start + windows[index + 1].start + room - 1) // 2 + 1
        else:
            high = len(encoded.ids)
        owned.append(rows[1 + low - window.start : 1 + high - window.start])
        low = high
    return owned[0] if len(owned) == 1 else np.concatenate(owned)


def softmax(logits: Floats) -> Floats:
    """Over the last axis."""
    powers: Floats = np.exp(logits - logits.max(axis=-1, keepdims=True))
    scores: Floats = powers / powers.sum(axis=-1, keepdims=True)
    return scores


def sigmoid(logits: Floats) -> Floats:
    return (1 + np.tanh(logits / 2)) / 2  # exp would overflow


_SQUASH: dict[Squash, Callable[[Floats], Floats]] = {
    Squash.SIGMOID: sigmoid,
    Squash.SOFTMAX: softmax,
    Squash.NONE: lambda logits: logits,
}


def _units(scores: Floats, words: NDArray[np.int64], how: Aggregation) -> _Units:
    """What gets one label: each piece, or each word by its first, mean or surest piece."""
    if not len(words):
        return _Units([], [], [], [])
    if how in (Aggregation.NONE, Aggregation.SIMPLE):
        firsts = lasts = np.arange(len(words))
    else:
        begins = np.flatnonzero(words[1:] != words[:-1]) + 1
        firsts = np.concatenate(([0], begins))
        lasts = np.concatenate((begins, [len(words)])) - 1
    match how:
        case Aggregation.FIRST:
            scores = scores[firsts]
        case Aggregation.AVERAGE:
            scores = np.add.reduceat(scores, firsts) / (lasts - firsts + 1)[:, None]
        case Aggregation.MAX:
            surest = scores.max(axis=1)
            ranges = zip(firsts, lasts, strict=True)
            scores = scores[[first + surest[first : last + 1].argmax() for first, last in ranges]]
    labels, sure = scores.argmax(axis=1), scores.max(axis=1)
    return _Units(labels.tolist(), sure.tolist(), firsts.tolist(), lasts.tolist())


def _groups(units: _Units, tags: tuple[_Tag, ...]) -> Iterator[tuple[int, int]]:
    """
    Neighbours of one kind, parted where a B- begins anew; an I- after another kind begins one too.

    B-PER I-PER O I-LOC I-LOC B-LOC  ->  0..2 2..3 3..5 5..6
    """
    begin, kind = 0, None
    for at, label in enumerate(units.labels):
        tag = tags[label]
        if at and (tag.begins or tag.kind != kind):
            yield begin, at
            begin = at
        kind = tag.kind
    if units.labels:
        yield begin, len(units.labels)


@lru_cache
def _tags(labels: tuple[str, ...]) -> tuple[_Tag, ...]:
    return tuple(
        _Tag(
            begins=label.startswith("B-"),
            kind=label[2:] if label.startswith(("B-", "I-")) else label,
            shown=label.split("-", 1)[-1],
        )
        for label in labels
    )


def _told_alone(entity: Entity, index: int, pieces: Sequence[str]) -> Entity:
    """Numbers begin at 1, as Hugging Face's do: the special before the text is their 0."""
    piece = pieces[index] if pieces else None
    return msgspec.structs.replace(entity, index=index + 1, piece=piece)


def _in_utf16(text: str, found: Iterable[Entity]) -> Iterator[Entity]:
    """The same entities, counted as JavaScript and Java count: two units beyond U+FFFF."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    extra = np.concatenate(([0], np.cumsum(points > 0xFFFF)))
    for entity in found:
        start = entity.start + int(extra[entity.start])
        end = entity.end + int(extra[entity.end])
        yield msgspec.structs.replace(entity, start=start, end=end)

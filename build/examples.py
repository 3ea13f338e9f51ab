"""
What supervised training learns from: texts as pieces with gold labels, in batches of like length.

Texts are read through the encoder that serves them (models/encode.py), so what a network learns
from is what it will be given. Knows nothing of networks or losses.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from build import data, training
from build.data import Article, DataError, Sentence, Span
from build.losses import IGNORED
from models.encode import Encoder
from models.spec import Task

# How often a training text is several sentences in a row: single sentences alone would leave the
# later positions untrained, and callers send paragraphs.
JOINED = 0.3

# Piece ids without specials, and their gold labels: one a piece, or one for the text.
Example = tuple[list[int], list[int]]
# Draws an example; the same generator draws the same one.
Draw = Callable[[random.Random], Example]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """
    How texts are read and grouped: window and batch in pieces, specials included.

    headlines  of articles the headline alone
    """

    task: Task
    languages: tuple[str, ...]
    window: int
    batch_tokens: int
    epochs: int
    seed: int
    headlines: bool = False


def gold(
    reading: Reading, corpus: Path, encoder: Encoder, known: tuple[str, ...] = ()
) -> tuple[tuple[str, ...], list[Draw]]:
    """
    The labels of the training data, and one draw a text; of a network that has labels already,
    `known`, they are these.

    Raises DataError where there is no text, or a label that is not known.
    """
    read = _sentences if reading.task is Task.NER else _articles
    labels, draws = read(reading, corpus, encoder, known)
    if not draws:
        raise DataError(f"no training examples for {'+'.join(reading.languages)}")
    return labels, draws


def gold_of(
    labels: tuple[str, ...], reading: Reading, corpus: Path, encoder: Encoder
) -> list[Draw]:
    """As `gold`, for a network that has these labels. Raises DataError where the data has others"""
    return gold(reading, corpus, encoder, labels)[1]


def _among(known: tuple[str, ...], found: tuple[str, ...]) -> tuple[str, ...]:
    """
    The labels to learn: what was found, or what a network has, of which some may not be found: of
    the languages it was trained in fewer may be left.
    """
    if known and not set(found) <= set(known):
        raise DataError(f"the data has {', '.join(found)}; the checkpoint {', '.join(known)}")
    return known or found


def unlabelled(reading: Reading, corpus: Path, encoder: Encoder, count: int) -> list[Draw]:
    """
    `count` draws of text without gold: plain sentences for entities, running text for topics.

    Languages have equal shares, as far as their text reaches.
    """
    chance = random.Random(reading.seed)
    texts = data.plain_sentences if reading.task is Task.NER else data.running_text
    found = texts(corpus)
    chosen = [
        text
        for language in reading.languages
        if (pool := found.get(language))
        for text in chance.sample(pool, min(len(pool), count // len(reading.languages)))
    ]
    return [partial(_silent, _body(encoder, text), reading) for text in tqdm(chosen, "encode")]


def batches(
    reading: Reading, draws: Sequence[Draw], encoder: Encoder
) -> tuple[Callable[[int], training.Batch], int]:
    """Batch number -> tensors, and how many batches there are. Pure in the reading's seed."""

    def epoch(number: int) -> list[list[Example]]:
        chance = random.Random(reading.seed * 1_000_003 + number)
        examples = [draw(chance) for draw in draws]
        lengths = [len(ids) + 2 for ids, _ in examples]
        order = chance.sample(range(len(draws)), len(draws))
        groups = training.cut_by_length(lengths, reading.batch_tokens, order)
        chance.shuffle(groups)
        return [[examples[index] for index in group] for group in groups]

    # All epochs are laid out at once: a few million small integers, and resuming is an index.
    plan = [group for number in range(reading.epochs) for group in epoch(number)]
    opening, closing = encoder.encode("").windows[0].ids.tolist()

    def batch(number: int) -> training.Batch:
        group = plan[number]
        ids = [[opening, *row, closing] for row, _ in group]
        if reading.task is Task.NER:
            labels = training.pad([[IGNORED, *tags, IGNORED] for _, tags in group], IGNORED)
        else:
            labels = torch.tensor([tags[0] for _, tags in group])
        return {
            "input_ids": training.pad(ids, encoder.pad_id),
            "attention_mask": training.pad([[1] * len(row) for row in ids], 0),
            "labels": labels,
        }

    return batch, len(plan)


# --- entities ---------------------------------------------------------------------------------


def _sentences(
    reading: Reading, corpus: Path, encoder: Encoder, known: tuple[str, ...]
) -> tuple[tuple[str, ...], list[Draw]]:
    found = [
        sentence
        for language in reading.languages
        for sentence in data.sentences(corpus, language, "train", raw=True)
    ]
    kinds = sorted({span.label for sentence in found for span in sentence.spans})
    labels = _among(known, ("O", *(f"{prefix}-{kind}" for kind in kinds for prefix in "BI")))
    pieces = [_tagged(s, encoder, labels) for s in tqdm(found, desc="encode", mininterval=5)]
    neighbours = _same_language(found)
    body = reading.window - 2

    def draw(index: int, chance: random.Random) -> Example:
        ids, tags = pieces[index]
        while chance.random() < JOINED:
            index = neighbours[index]
            more_ids, more_tags = pieces[index]
            if len(ids) + len(more_ids) > body:
                break
            ids, tags = ids + more_ids, tags + more_tags
        return ids[:body], tags[:body]

    return labels, [partial(draw, index) for index in range(len(found))]


def _tagged(sentence: Sentence, encoder: Encoder, labels: tuple[str, ...]) -> Example:
    encoded = encoder.encode(sentence.text)
    tags = piece_tags(encoded.offsets.tolist(), sentence.spans)
    return encoded.ids.tolist(), [labels.index(tag) for tag in tags]


def piece_tags(offsets: Sequence[Sequence[int]], spans: Sequence[Span]) -> list[str]:
    """
    BIO tags of pieces: a piece belongs to the entity it begins in.

    offsets  (0, 4)  (5, 8)  (8, 10)  (11, 13)      spans  PER 0-10
    ->       B-PER   I-PER   I-PER    O
    """
    tags = []
    previous: Span | None = None
    for start, _ in offsets:
        inside = next((span for span in spans if span.start <= start < span.end), None)
        prefix = "I" if inside is previous else "B"
        tags.append(f"{prefix}-{inside.label}" if inside else "O")
        previous = inside
    return tags


def _same_language(found: Sequence[Sentence]) -> list[int]:
    """For each sentence the next one of its language; the last is followed by itself."""
    return [
        i + 1 if i + 1 < len(found) and found[i + 1].language == s.language else i
        for i, s in enumerate(found)
    ]


# --- classes ----------------------------------------------------------------------------------


def _articles(
    reading: Reading, corpus: Path, encoder: Encoder, known: tuple[str, ...]
) -> tuple[tuple[str, ...], list[Draw]]:
    found = [
        article
        for language in reading.languages
        for article in data.articles(corpus, language, "train", headlines=reading.headlines)
    ]
    labels = _among(known, tuple(sorted({article.label for article in found})))
    encoded = [_window_ids(a, encoder) for a in tqdm(found, desc="encode", mininterval=5)]

    def draw(index: int, chance: random.Random) -> Example:
        # Half the time the opening, half any window: scoring reads them all.
        windows = encoded[index]
        chosen = windows[0] if chance.random() < 0.5 else chance.choice(windows)
        return chosen, [labels.index(found[index].label)]

    return labels, [partial(draw, index) for index in range(len(found))]


def _window_ids(article: Article, encoder: Encoder) -> list[list[int]]:
    return [window.ids[1:-1].tolist() for window in encoder.encode(article.text).windows]


# --- text without gold ------------------------------------------------------------------------


def _body(encoder: Encoder, text: str) -> list[int]:
    ids: Any = encoder.encode(text).windows[0].ids
    return list(ids[1:-1].tolist())


def _silent(ids: list[int], reading: Reading, chance: random.Random) -> Example:
    return ids, [IGNORED] * (len(ids) if reading.task is Task.NER else 1)

"""
Supervised training of an encoder with a fresh head: entities or classes.

Training reads texts through the encoder that serves them (models/encode.py), so what the network
learns from is what it will be given.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from tqdm import tqdm
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from build import data, training
from build.checkpoint import TOKENIZER_FILES, Purpose, copy_files, write_purpose
from build.data import Article, DataError, Sentence, Span
from build.steps import Finetune
from models.encode import Encoder
from models.spec import Task, Windows

IGNORED = -100
# How often a training text is several sentences in a row: single sentences alone would leave the
# later positions untrained, and callers send paragraphs.
JOINED = 0.3


def finetune(step: Finetune, source: Path, target: Path, corpus: Path, device: str) -> None:
    """Train `source` on the step's languages; leave checkpoint and `task.json` in `target`."""
    windows = Windows(tokens=step.window, overlap=step.overlap)
    encoder = Encoder(source / "tokenizer.json", windows)
    if step.task is Task.NER:
        labels, batch, steps = _ner(step, corpus, encoder)
        auto = AutoModelForTokenClassification
    else:
        labels, batch, steps = _classes(step, corpus, encoder)
        auto = AutoModelForSequenceClassification
    torch.manual_seed(step.seed)
    network = auto.from_pretrained(
        source,
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
        hidden_dropout_prob=step.dropout,
        attention_probs_dropout_prob=step.dropout,
        dtype=torch.float32,
    )
    training.fit(
        network,
        batch,
        _loss,
        steps=steps,
        peak=step.peak,
        warmup=step.warmup,
        device=device,
        resume=target / "resume.pt",
        title=f"finetune {step.task}",
    )
    network.save_pretrained(target)
    copy_files(source, target, TOKENIZER_FILES)
    purpose = Purpose(task=step.task, labels=labels, languages=step.languages, windows=windows)
    write_purpose(target, purpose)


# --- entities ---------------------------------------------------------------------------------


def _ner(step: Finetune, corpus: Path, encoder: Encoder) -> tuple[tuple[str, ...], Any, int]:
    found = [s for lang in step.languages for s in data.sentences(corpus, lang, "train", raw=True)]
    kinds = sorted({span.label for sentence in found for span in sentence.spans})
    labels = ("O", *(f"{prefix}-{kind}" for kind in kinds for prefix in "BI"))
    pieces = [_tagged(s, encoder, labels) for s in tqdm(found, desc="encode", mininterval=5)]
    neighbours = _same_language(found)
    body = step.window - 2

    def example(index: int, chance: random.Random) -> tuple[list[int], list[int]]:
        ids, tags = pieces[index]
        while chance.random() < JOINED:
            index = neighbours[index]
            more_ids, more_tags = pieces[index]
            if len(ids) + len(more_ids) > body:
                break
            ids, tags = ids + more_ids, tags + more_tags
        return ids[:body], tags[:body]

    return labels, *_batches(step, len(found), example, encoder)


def _tagged(
    sentence: Sentence, encoder: Encoder, labels: tuple[str, ...]
) -> tuple[list[int], list[int]]:
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


def _classes(step: Finetune, corpus: Path, encoder: Encoder) -> tuple[tuple[str, ...], Any, int]:
    found = [a for lang in step.languages for a in data.articles(corpus, lang, "train")]
    labels = tuple(sorted({article.label for article in found}))
    encoded = [_window_ids(a, encoder) for a in tqdm(found, desc="encode", mininterval=5)]

    def example(index: int, chance: random.Random) -> tuple[list[int], list[int]]:
        # Half the time the opening, half any window: scoring reads them all.
        windows = encoded[index]
        chosen = windows[0] if chance.random() < 0.5 else chance.choice(windows)
        return chosen, [labels.index(found[index].label)]

    return labels, *_batches(step, len(found), example, encoder)


def _window_ids(article: Article, encoder: Encoder) -> list[list[int]]:
    return [window.ids[1:-1].tolist() for window in encoder.encode(article.text).windows]


# --- batches ----------------------------------------------------------------------------------


def _batches(step: Finetune, count: int, example: Any, encoder: Encoder) -> tuple[Any, int]:
    """Batch number -> tensors, and how many batches there are. Pure in the step's seed."""
    if not count:
        raise DataError(f"no training examples for {'+'.join(step.languages)}")

    def epoch(number: int) -> list[list[tuple[list[int], list[int]]]]:
        chance = random.Random(step.seed * 1_000_003 + number)
        examples = [example(index, chance) for index in range(count)]
        lengths = [len(ids) + 2 for ids, _ in examples]
        order = chance.sample(range(count), count)
        groups = training.cut_by_length(lengths, step.batch_tokens, order)
        chance.shuffle(groups)
        return [[examples[index] for index in group] for group in groups]

    # All epochs are laid out at once: a few million small integers, and resuming is an index.
    plan = [group for number in range(step.epochs) for group in epoch(number)]
    opening, closing = encoder.encode("").windows[0].ids.tolist()

    def batch(number: int) -> training.Batch:
        group = plan[number]
        ids = [[opening, *row, closing] for row, _ in group]
        if step.task is Task.NER:
            labels = training.pad([[IGNORED, *tags, IGNORED] for _, tags in group], IGNORED)
        else:
            labels = torch.tensor([tags[0] for _, tags in group])
        return {
            "input_ids": training.pad(ids, encoder.pad_id),
            "attention_mask": training.pad([[1] * len(row) for row in ids], 0),
            "labels": labels,
        }

    return batch, len(plan)


def _loss(network: torch.nn.Module, batch: training.Batch) -> torch.Tensor:
    logits = network(batch["input_ids"], attention_mask=batch["attention_mask"]).logits.float()
    return functional.cross_entropy(logits.flatten(0, -2), batch["labels"].flatten())

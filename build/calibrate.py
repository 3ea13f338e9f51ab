"""
Scores that mean what they say: one temperature for all logits (Guo et al. 2017), found on dev.

Trained long on little text, a network is surer than it is right. Dividing its logits by one number
changes no answer but its score, unless it is the mean of several windows, whose weights shift; the
number is folded into the last layer, so serving knows nothing of it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from build import data, scoring
from build.checkpoint import Purpose, read_purpose
from build.data import Article, DataError, Sentence
from build.networks import load, save
from build.steps import Calibrate
from models.batches import cut
from models.decode import entities, label_scores
from models.encode import Encoded, Encoder
from models.spec import Answer, ClassificationAnswer, NerAnswer, Options, Task

Logits = list[NDArray[np.float32]]
# A score of 0 or 1 that is wrong must not cost everything.
SUREST = 1e-4
LEAST, MOST = 0.25, 16.0
NARROW = 0.01


def calibrate(step: Calibrate, source: Path, target: Path, corpus: Path) -> None:
    """Leave the checkpoint in `target` with its temperature in the last layer. Raises DataError."""
    purpose = read_purpose(source)
    network = load(source, purpose)
    encoder = Encoder(source / "tokenizer.json", purpose.windows)
    gold = dev_texts(purpose, corpus, step.texts, seed=step.seed)
    encoded = [encoder.encode(text.text) for text in gold]
    logits = list(_logits(network, encoder, encoded, purpose))

    def claims(temperature: float) -> list[tuple[float, bool]]:
        return [
            claim
            for text, each, rows in zip(gold, encoded, logits, strict=True)
            for claim in scoring.claims(text, _answer(each, rows, temperature, purpose))
        ]

    # Who finds nothing in these texts says nothing of how sure it is.
    is_sure = bool(claims(1.0))
    temperature = least(lambda each: log_loss(claims(each)), LEAST, MOST) if is_sure else 1.0
    tqdm.write(f"logits are divided by {temperature:.2f}")
    cool(network, temperature)
    save(network, source, target)


def dev_texts(purpose: Purpose, corpus: Path, count: int, *, seed: int) -> list[Sentence | Article]:
    """`count` texts of the dev split, as many of each language, one at least, or all there are."""
    chance = random.Random(seed)
    share = max(1, count // len(purpose.languages))
    found: list[Sentence | Article] = []
    for language in purpose.languages:
        texts: Sequence[Sentence | Article]
        if purpose.task is Task.NER:
            texts = data.sentences(corpus, language, "dev", raw=True)
        else:
            texts = data.articles(corpus, language, "dev")
        found += chance.sample(texts, min(len(texts), share))
    if not found:
        raise DataError(f"no dev texts for {'+'.join(purpose.languages)}")
    return found


def log_loss(claims: Sequence[tuple[float, bool]]) -> float:
    """Mean negative log-likelihood of scores, of claims that were right or wrong."""
    scores, right = np.array(claims, np.float64).reshape(-1, 2).T
    scores = scores.clip(SUREST, 1 - SUREST)
    return float(-np.log(np.where(right > 0, scores, 1 - scores)).mean())


def least(loss: Callable[[float], float], low: float, high: float) -> float:
    """Where `loss` is least between two positive numbers, by golden sections of their logarithm."""
    section = (5**0.5 - 1) / 2
    a, b = np.log(low), np.log(high)
    c, d = b - section * (b - a), a + section * (b - a)
    at_c, at_d = loss(np.exp(c)), loss(np.exp(d))
    while b - a > NARROW:
        if at_c <= at_d:
            b, d, at_d = d, c, at_c
            c = b - section * (b - a)
            at_c = loss(np.exp(c))
        else:
            a, c, at_c = c, d, at_d
            d = a + section * (b - a)
            at_d = loss(np.exp(d))
    return float(np.exp((a + b) / 2))


def cool(network: Any, temperature: float) -> None:
    """Divide the network's logits by `temperature`, in place."""
    head = getattr(network.classifier, "out_proj", network.classifier)
    with torch.no_grad():
        head.weight.div_(temperature)
        head.bias.div_(temperature)


def _logits(
    network: Any, encoder: Encoder, encoded: Sequence[Encoded], purpose: Purpose
) -> Iterator[Logits]:
    """Of each text the logits of its windows."""
    windows = [window.ids for each in encoded for window in each.windows]
    groups = cut([len(ids) for ids in windows], max_items=len(windows), max_padded_tokens=4096)
    found: dict[int, NDArray[np.float32]] = {}
    for group in tqdm(groups, "calibrate", unit="batch", mininterval=5):
        longest = max(len(windows[index]) for index in group)
        ids = np.full((len(group), longest), encoder.pad_id, np.int64)
        mask = np.zeros_like(ids)
        for row, index in enumerate(group):
            ids[row, : len(windows[index])] = windows[index]
            mask[row, : len(windows[index])] = 1
        with torch.inference_mode():
            given = network(torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).logits
        for row, index in enumerate(group):
            rows = given[row].numpy()
            found[index] = rows[: len(windows[index])] if purpose.task is Task.NER else rows
    place = 0
    for each in encoded:
        yield [found[index] for index in range(place, place + len(each.windows))]
        place += len(each.windows)


def _answer(encoded: Encoded, logits: Logits, temperature: float, purpose: Purpose) -> Answer:
    """As the pipeline would answer at this temperature."""
    cooled = [rows / temperature for rows in logits]
    if purpose.task is Task.NER:
        found = entities(encoded, cooled, purpose.labels, Options())
        return NerAnswer(entities=found, tokens=0, windows=0, unknown=0)
    many = purpose.multi_label
    ranked = label_scores(cooled, purpose.labels, multi_label=many, options=Options())
    return ClassificationAnswer(labels=ranked, tokens=0, windows=0, unknown=0)

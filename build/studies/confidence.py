"""
How sure a compressed model is, beside how sure its baseline was (Proskurina et al. 2024).

Decisions are pieces of a text (entities) or texts (topics), with the probabilities of the pipeline
that serves. Pure functions of probabilities and gold, then what asks pipelines and draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from build.chart import COLOURS, MARKERS, picture
from build.data import Article, Sentence
from build.errors import BuildError
from build.evaluate import gold
from build.examples import piece_tags
from build.publish import read
from build.studies.measured import ALL, Figures, kept
from build.studies.plan import BASE
from models import catalog
from models.decode import merge, sigmoid, softmax
from models.pipeline import TOKENIZER, Pipeline
from models.spec import Input, Task, Variant

BINS = 10
DECILES = 10
# Windows of one text that are run together.
BATCH = 16

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def figures(right_label: Ints, mine: Floats, base: Floats) -> Figures:
    """
    right_label (n,) of each decision; mine and base (n, labels) probabilities.

    accuracy        share of decisions that are right
    true_label      mean probability of the right label
    entropy         mean, in bits
    ece, ace        calibration error in bins of equal width (Naeini et al. 2015), of equal size
                    (Nixon et al. 2019)
    divergence      mean Jensen-Shannon divergence to the baseline, in bits
    flips           share of decisions that are not the baseline's
    flips_1 to _10  the same by how sure the baseline was, from its least sure tenth to its surest
    flips_surest    of the half it was surest of
    """
    sure, right = mine.max(axis=1), mine.argmax(axis=1) == right_label
    flipped = mine.argmax(axis=1) != base.argmax(axis=1)
    tenths = np.array_split(np.argsort(base.max(axis=1), kind="stable"), DECILES)
    return {
        "accuracy": float(right.mean()),
        "true_label": float(mine[np.arange(len(mine)), right_label].mean()),
        "entropy": float(entropy(mine).mean()),
        "ece": calibration_error(sure, right, np.minimum((sure * BINS).astype(int), BINS - 1)),
        "ace": calibration_error(sure, right, equal_parts(sure)),
        "divergence": float(divergence(mine, base).mean()),
        "flips": float(flipped.mean()),
        "flips_surest": float(flipped[np.concatenate(tenths[DECILES // 2 :])].mean()),
        **{f"flips_{n}": float(flipped[each].mean()) for n, each in enumerate(tenths, 1)},
    }


def entropy(rows: Floats) -> Floats:
    """(n, labels) -> (n,) Shannon entropy in bits."""
    found: Floats = -(rows * np.log2(np.clip(rows, 1e-12, None))).sum(axis=1)
    return found


def divergence(one: Floats, other: Floats) -> Floats:
    """(n, labels) twice -> (n,) Jensen-Shannon divergence in bits, 0 to 1 (Lin 1991)."""
    return np.maximum(entropy((one + other) / 2) - (entropy(one) + entropy(other)) / 2, 0)


def equal_parts(sure: Floats) -> Ints:
    """(n,) -> (n,) which of BINS parts of equal size each belongs to, from the least sure on."""
    parts = np.empty(len(sure), np.int64)
    for number, part in enumerate(np.array_split(np.argsort(sure, kind="stable"), BINS)):
        parts[part] = number
    return parts


def calibration_error(sure: Floats, right: NDArray[np.bool_], parts: Ints) -> float:
    """The mean gap between how sure and how often right, parts weighed by their size."""
    gaps = np.bincount(parts, weights=sure - right)
    return float(np.abs(gaps).sum() / len(sure))


# --- of a study -------------------------------------------------------------------------------


def measure(root: Path, names: Sequence[str], corpus: Path) -> dict[str, dict[str, Figures]]:
    """
    Of each variant on raw test text, by language and of all decisions together; kept beside it.

    Raises BuildError where a variant cuts texts into other pieces than the baseline.
    """
    variants = [read(root, name) for name in names]
    baseline = read(root, BASE)
    texts = gold(baseline, corpus, "test", (Input.RAW,))[Input.RAW]

    @cache
    def sure(name: str) -> dict[str, Floats]:
        pipeline = catalog.open_variant(root / name)
        bar = tqdm(texts.items(), f"{name}: how sure", unit="language")
        return {language: probabilities(pipeline, some) for language, some in bar}

    @cache
    def right() -> dict[str, Ints]:
        pipeline = catalog.open_variant(root / BASE)
        return {language: right_labels(pipeline, some) for language, some in texts.items()}

    def found(variant: Variant) -> dict[str, Figures]:
        if _tokenizer(variant) != _tokenizer(baseline):
            raise BuildError(f"{variant.name} cuts texts into other pieces than {BASE}: leave it")
        labels, mine, base = right(), sure(variant.name), sure(BASE)
        return {
            ALL: figures(_joined(labels), _joined(mine), _joined(base)),
            **{name: figures(labels[name], mine[name], base[name]) for name in texts},
        }

    return {
        variant.name: kept(root, variant, "confidence", partial(found, variant))
        for variant in variants
    }


def _joined(by_language: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(list(by_language.values()))


def _tokenizer(variant: Variant) -> str:
    return next(file.sha256 for name, file in variant.files.items() if name.startswith(TOKENIZER))


def draw(found: Mapping[str, Mapping[str, Figures]], file: Path) -> None:
    """How many decisions are another's, by how sure the baseline was of them."""
    tenths = range(1, DECILES + 1)
    with picture(file, (7.5, 4.2), grid="y") as axes:
        others = {name: each for name, each in found.items() if name != BASE}
        for place, (name, each) in enumerate(others.items()):
            axes.plot(
                tenths,
                [100 * each[ALL][f"flips_{tenth}"] for tenth in tenths],
                f"{MARKERS[place % len(MARKERS)]}-",
                color=COLOURS[place % len(COLOURS)],
                markersize=4,
                linewidth=1.2,
                label=name,
            )
        axes.set_yscale("symlog", linthresh=0.01)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter("{x:g} %")
        axes.set_xticks(tenths)
        axes.set_xlabel("tenth of decisions, from the baseline's least sure to its surest")
        axes.set_ylabel("decisions that changed")


# --- asking -----------------------------------------------------------------------------------


def probabilities(pipeline: Pipeline, texts: Sequence[Sentence | Article]) -> Floats:
    """(decisions, labels) of all texts in their order: of every piece, or one a text."""
    return np.concatenate(list(_of_texts(pipeline, [each.text for each in texts])))


def right_labels(pipeline: Pipeline, texts: Sequence[Sentence | Article]) -> Ints:
    """(decisions,) as `probabilities` has them."""
    labels = pipeline.variant.labels
    found: list[int] = []
    for text in texts:
        if isinstance(text, Article):
            found.append(labels.index(text.label))
        else:
            offsets = pipeline.encode(text.text).offsets.tolist()
            found += [labels.index(tag) for tag in piece_tags(offsets, text.spans)]
    return np.array(found, np.int64)


def _of_texts(pipeline: Pipeline, texts: Sequence[str]) -> Iterator[Floats]:
    squash = sigmoid if pipeline.variant.multi_label else softmax
    for text in texts:
        encoded = pipeline.encode(text)
        logits = [
            rows
            for begin in range(0, len(encoded.windows), BATCH)
            for rows in pipeline.run(encoded.windows[begin : begin + BATCH])
        ]
        if pipeline.variant.task is Task.NER:
            yield squash(merge(encoded, logits)).astype(np.float64)
        else:
            mean = squash(np.stack(logits)).mean(axis=0, keepdims=True)
            yield mean.astype(np.float64)

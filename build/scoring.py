"""
What right and wrong come to: counts of each text, metrics of their sums, intervals by resampling.

Pure functions of gold labels and answers. A metric is a function of summed counts, so every one of
them can be resampled text by text, alone or paired with another variant's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from build.data import Article, Sentence
from models.spec import Answer, ClassificationAnswer, Interval, NerAnswer, Scores, Task

RESAMPLES = 1_000
SEED = 1
# Confidence from 0 to 1 in this many equal parts.
BINS = 10

Floats = NDArray[np.float64]
# Sums of counts, (resamples, columns) -> the metric of each resample, (resamples,).
Metric = Callable[[Floats], Floats]
# Language -> counts of each text, (texts, columns).
Counts = Mapping[str, Floats]


# --- metrics ----------------------------------------------------------------------------------


def entity_f1(sums: Floats) -> Floats:
    """Micro F1 of columns (right, found, gold), as seqeval counts: span and label are exact."""
    right, found, gold = sums.T
    return quotient(2 * right, found + gold)


def accuracy(sums: Floats) -> Floats:
    """The share of right texts; columns are (right, found, gold) of each label in turn."""
    return quotient(sums[:, 0::3].sum(axis=1), sums[:, 2::3].sum(axis=1))


def macro_f1(sums: Floats) -> Floats:
    """The mean F1 of the labels found or gold, as scikit-learn means it; columns as above."""
    right, found, gold = sums[:, 0::3], sums[:, 1::3], sums[:, 2::3]
    present = (found + gold) > 0
    return quotient(quotient(2 * right, found + gold).sum(axis=1), present.sum(axis=1))


def calibration_error(sums: Floats) -> Floats:
    """
    Expected calibration error (Naeini et al. 2015): how far confidence is from being right.

    Columns are (confidence, right, answers) of each of BINS parts in turn.
    """
    confidence, right, answers = sums[:, 0::3], sums[:, 1::3], sums[:, 2::3]
    return quotient(np.abs(confidence - right).sum(axis=1), answers.sum(axis=1))


def disagreement(sums: Floats) -> Floats:
    """The share of what either says that the other does not; columns (unlike, said)."""
    unlike, said = sums.T
    return quotient(unlike, said)


METRICS: dict[Task, dict[str, Metric]] = {
    Task.NER: {"f1": entity_f1},
    Task.CLASSIFICATION: {"f1": macro_f1, "accuracy": accuracy},
}


def quotient(over: Floats, under: Floats) -> Floats:
    return np.divide(over, under, out=np.zeros_like(over, dtype=np.float64), where=under > 0)


# --- counts -----------------------------------------------------------------------------------


def entity_counts(sentences: Sequence[Sentence], answers: Sequence[NerAnswer]) -> Floats:
    """(sentences, 3): entities right, found, gold."""
    rows = []
    for sentence, answer in zip(sentences, answers, strict=True):
        found = {(entity.label, entity.start, entity.end) for entity in answer.entities}
        gold = {(span.label, span.start, span.end) for span in sentence.spans}
        rows.append((len(found & gold), len(found), len(gold)))
    return np.array(rows, np.float64).reshape(-1, 3)


def topic_counts(
    articles: Sequence[Article], answers: Sequence[ClassificationAnswer], labels: Sequence[str]
) -> Floats:
    """
    (articles, 3 x labels): for each label in turn whether it was right, found, gold.

    What a baseline may say beside these labels is none of them.
    """
    counts = np.zeros((len(articles), len(labels), 3))
    for row, article, answer in zip(counts, articles, answers, strict=True):
        found, gold = answer.labels[0].label, article.label
        row[labels.index(gold), 2] = 1
        if found in labels:
            row[labels.index(found), :2] = found == gold, 1
    return counts.reshape(len(articles), -1)


def outcomes(
    task: Task,
    gold: Sequence[Sentence | Article],
    answers: Sequence[Answer],
    labels: Sequence[str],
) -> Floats:
    """The counts that the task's METRICS sum."""
    if task is Task.NER:
        return entity_counts(gold, answers)  # type: ignore[arg-type]
    return topic_counts(gold, answers, labels)  # type: ignore[arg-type]


def confidences(gold: Sequence[Sentence | Article], answers: Sequence[Answer]) -> Floats:
    """(texts, 3 x BINS) for `calibration_error`: of found entities, or of the best label."""
    counts = np.zeros((len(answers), BINS, 3))
    for row, text, answer in zip(counts, gold, answers, strict=True):
        for score, is_right in claims(text, answer):
            place = min(int(score * BINS), BINS - 1)
            row[place] += (score, is_right, 1)
    return counts.reshape(len(answers), -1)


def claims(text: Sentence | Article, answer: Answer) -> list[tuple[float, bool]]:
    """(score, right) of every entity found, or of the best label."""
    if isinstance(answer, NerAnswer):
        spans = text.spans if isinstance(text, Sentence) else ()
        gold = {(span.label, span.start, span.end) for span in spans}
        return [(e.score, (e.label, e.start, e.end) in gold) for e in answer.entities]
    best = answer.labels[0]
    return [(best.score, isinstance(text, Article) and best.label == text.label)]


def unlike(answers: Sequence[Answer], others: Sequence[Answer]) -> Floats:
    """(texts, 2) for `disagreement`: entities only one of both found, or best labels apart."""
    rows = []
    for one, other in zip(answers, others, strict=True):
        mine, theirs = decided(one), decided(other)
        rows.append((len(mine ^ theirs), len(mine) + len(theirs)))
    return np.array(rows, np.float64).reshape(-1, 2)


def decided(answer: Answer) -> set[tuple[str, int, int]]:
    """What an answer says, without how sure it is."""
    if isinstance(answer, NerAnswer):
        return {(entity.label, entity.start, entity.end) for entity in answer.entities}
    return {(answer.labels[0].label, 0, 0)}


# --- intervals --------------------------------------------------------------------------------


def scores(counts: Counts, metric: Metric) -> Scores:
    """Each language and their mean, with 95 % intervals over resampled texts (Efron 1979)."""
    return _scores(resampled(counts, metric), counts, least=0)


def differences(counts: Counts, baseline: Counts, metric: Metric) -> Scores:
    """This minus baseline on the same texts, resampled together."""
    one, other = resampled(counts, metric), resampled(baseline, metric)
    apart = {language: one[language] - other[language] for language in one}
    return _scores(apart, counts, least=-1)


def resampled(counts: Counts, metric: Metric) -> dict[str, Floats]:
    """
    Language -> (1 + RESAMPLES,) values of the metric: all texts once, then drawn with replacement.

    The draws hang on nothing but the number of texts and the language's place, so two variants
    scored on the same texts are resampled alike.
    """
    found = {}
    for place, language in enumerate(sorted(counts)):
        rows = counts[language]
        chance = np.random.default_rng((SEED, place))
        drawn = chance.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), RESAMPLES)
        found[language] = metric(np.vstack([np.ones(len(rows)), drawn]) @ rows)
    return found


def _scores(values: Mapping[str, Floats], counts: Counts, *, least: float) -> Scores:
    sizes = {language: len(rows) for language, rows in counts.items()}
    mean = np.mean(list(values.values()), axis=0)
    return Scores(
        macro=interval(mean, sum(sizes.values()), least=least, most=1),
        languages={
            language: interval(each, sizes[language], least=least, most=1)
            for language, each in values.items()
        },
    )


def interval(values: Floats, n: int, *, least: float = -np.inf, most: float = np.inf) -> Interval:
    """
    The first value is the mean; the others are resamples of it, shifted to lie around it.

    `least` and `most` bound what the metric can be.

    A resample repeats texts, which moves some metrics one way: calibration errors up, the F1 of a
    rare label down. Unshifted, an interval can miss its own mean.
    """
    low, high = np.percentile(values[1:], [2.5, 97.5]) + values[0] - values[1:].mean()
    low, high = max(low, least), min(high, most)
    return Interval(n=n, mean=float(values[0]), low=float(low), high=float(high))

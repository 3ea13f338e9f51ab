"""
How good the very answers of a run are, where it is known what is right.

The figures are those of the project's evaluation: F1 of exact spans and labels, micro in a language
(topics: macro over their labels, and accuracy), the mean of the languages, and 95 % intervals over
resampled texts (Efron 1979). They are resampled within their language, where a handful knows
nothing of the texts that it lacks: of one, all resamples are alike. Then there is no interval.

Pure; knows nothing of files or HTTP.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadtest.record import Call, Result, Run

RESAMPLES = 1_000
SEED = 1
LEAST = 30  # texts in each language, for an interval

Floats = NDArray[np.float64]
Told = Mapping[str, Mapping[tuple[str, Result], Sequence[Result]]]
"""Language -> (text, what is right) -> what was said of it, each time it was sent."""


@dataclass(frozen=True, slots=True)
class Interval:
    """`n` texts; the ends are NaN where these are too few."""

    n: int
    mean: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        return math.isfinite(self.high)


@dataclass(frozen=True, slots=True)
class Scores:
    """The mean of the languages, and each of them; "" stands for texts of unknown language."""

    macro: Interval
    languages: Mapping[str, Interval]


def scores(calls: Sequence[Call], run: Run) -> dict[str, Scores]:
    """
    "f1" of a run's right answers, of topics "accuracy" too; empty where no text is labelled.

    A text counts once, however often it was sent: as the mean of its answers, were they to differ.
    """
    told = _told(calls, run)
    counts = _counts(told, _labels(told))
    return {
        name: _scores(_resampled(counts, metric), counts, least=0)
        for name, metric in METRICS[run.task].items()
        if counts
    }


def differences(calls: Sequence[Call], run: Run, baseline: Run) -> dict[str, Scores]:
    """The same of a run minus another one over the same calls, on the texts that both answered."""
    one, other = _told(calls, run), _told(calls, baseline)
    both = {
        language: [text for text in texts if text in other.get(language, {})]
        for language, texts in one.items()
    }
    labels = _labels(one) | _labels(other)
    mine, theirs = (
        _counts({name: {t: told[name][t] for t in ts} for name, ts in both.items() if ts}, labels)
        for told in (one, other)
    )
    found = {}
    for name, metric in METRICS[run.task].items():
        ours, base = _resampled(mine, metric), _resampled(theirs, metric)
        apart = {language: ours[language] - base[language] for language in ours}
        if apart:
            found[name] = _scores(apart, mine, least=-1)
    return found


def strangers(calls: Iterable[Call], labels: Iterable[str]) -> list[str]:
    """
    Labels of the gold that a variant does not have, so that it cannot be right.

    gold PER and EVENT, labels O B-PER I-PER   -> ["EVENT"]
    """
    known = {label.partition("-")[2] or label for label in labels}
    gold = [right for call in calls for right in call.gold or () if right is not None]
    return sorted({kind for right in gold for kind in _kinds(right)} - known)


def told(calls: Sequence[Call], run: Run, labels: Iterable[str]) -> list[tuple[str, str]]:
    """Name and value of each score, and the labels that the variant, which has `labels`, lacks."""
    found = [(name, _figure(each)) for name, each in scores(calls, run).items()]
    lacks = ", ".join(strangers(calls, labels))
    return [*found, ("cannot find", f"{lacks}: it has no such label")] if lacks else found


def _figure(found: Scores) -> str:
    macro = found.macro
    ends = f"{macro.low:.4f} to {macro.high:.4f}" if macro.known else f"no interval: {few(found)}"
    return f"{macro.mean:.4f} ({ends}), of {macro.n} texts"


def few(*found: Scores) -> str:
    """
    Which languages have too few texts for an interval; empty: none.

    hau 40, luo 3, swa 12   -> "fewer than 30 texts in luo, swa"
    """
    names = {
        name or "an unknown language"
        for each in found
        for name, one in each.languages.items()
        if one.n < LEAST
    }
    return f"fewer than {LEAST} texts in {', '.join(sorted(names))}" if names else ""


# --- metrics of summed counts -----------------------------------------------------------------
# Rows are (labels, 3): right, found, gold. Entities have one label in this sense, topics several.


def entity_f1(sums: Floats) -> Floats:
    """Micro F1, as seqeval counts."""
    right, found, gold = np.moveaxis(sums.sum(axis=1), 1, 0)
    return _quotient(2 * right, found + gold)


def macro_f1(sums: Floats) -> Floats:
    """The mean F1 of the labels found or gold, as scikit-learn means it."""
    right, found, gold = np.moveaxis(sums, 2, 0)
    present = (found + gold) > 0
    return _quotient(_quotient(2 * right, found + gold).sum(axis=1), present.sum(axis=1))


def accuracy(sums: Floats) -> Floats:
    right, _, gold = np.moveaxis(sums.sum(axis=1), 1, 0)
    return _quotient(right, gold)


METRICS: dict[str, dict[str, Callable[[Floats], Floats]]] = {
    "ner": {"f1": entity_f1},
    "classification": {"f1": macro_f1, "accuracy": accuracy},
}


def _quotient(over: Floats, under: Floats) -> Floats:
    return np.divide(over, under, out=np.zeros_like(over, dtype=np.float64), where=under > 0)


# --- counts ----------------------------------------------------------------------------------


def _told(calls: Sequence[Call], run: Run) -> Told:
    """In the order of the calls, so that two runs are resampled alike."""
    answers: dict[int, list[tuple[Result, ...]]] = {}
    for each in run.requests:
        if each.answer is not None:
            answers.setdefault(each.call % len(calls), []).append(each.answer)
    found: dict[str, dict[tuple[str, Result], list[Result]]] = {}
    for number in sorted(answers):
        call = calls[number]
        if call.gold is None or call.task != run.task:
            continue
        for said in answers[number]:
            rows = zip(call.texts, call.languages, call.gold, said, strict=True)
            for text, language, right, answer in rows:
                if right is None:
                    continue
                found.setdefault(language, {}).setdefault((text, right), []).append(answer)
    return found


def _labels(told: Told) -> set[str]:
    """Of topics: all that are right or were said."""
    said = (each for texts in told.values() for key, s in texts.items() for each in (key[1], *s))
    return {each for each in said if isinstance(each, str)}


def _counts(told: Told, labels: Iterable[str]) -> dict[str, Floats]:
    """Language -> (texts, labels, 3)."""
    places = {label: place for place, label in enumerate(sorted(labels))}
    found = {}
    for language, texts in told.items():
        counts = np.zeros((len(texts), max(1, len(places)), 3))
        for row, ((_, right), said) in zip(counts, texts.items(), strict=True):
            for answer in said:
                _count(row, right, answer, places)
            row /= len(said)
        found[language] = counts
    return found


def _count(row: Floats, right: Result, answer: Result, places: Mapping[str, int]) -> None:
    if isinstance(right, str):
        row[places[str(answer)], 0] += answer == right
        row[places[str(answer)], 1] += 1
        row[places[right], 2] += 1
    elif not isinstance(answer, str):
        row[0] += (len(right & answer), len(answer), len(right))


def _kinds(right: Result) -> set[str]:
    return {right} if isinstance(right, str) else {label for _, _, label in right}


# --- intervals --------------------------------------------------------------------------------


def _resampled(
    counts: Mapping[str, Floats], metric: Callable[[Floats], Floats]
) -> dict[str, Floats]:
    """Language -> (1 + RESAMPLES,): all texts once, then drawn with replacement."""
    found = {}
    for place, language in enumerate(sorted(counts)):
        rows = counts[language]
        flat = rows.reshape(len(rows), -1)
        chance = np.random.default_rng((SEED, place))
        alike = np.full(len(rows), 1 / len(rows))
        # One draw at a time: of a hundred thousand texts all at once are 800 MB.
        drawn = (chance.multinomial(len(rows), alike) @ flat for _ in range(RESAMPLES))
        sums = np.vstack([flat.sum(axis=0), *drawn])
        found[language] = metric(sums.reshape(len(sums), *rows.shape[1:]))
    return found


def _scores(values: Mapping[str, Floats], counts: Mapping[str, Floats], *, least: float) -> Scores:
    sizes = {language: len(rows) for language, rows in counts.items()}
    mean = np.mean(list(values.values()), axis=0)
    return Scores(
        macro=_interval(mean, sum(sizes.values()), least, known=min(sizes.values()) >= LEAST),
        languages={
            name: _interval(each, sizes[name], least, known=sizes[name] >= LEAST)
            for name, each in values.items()
        },
    )


def _interval(values: Floats, n: int, least: float, *, known: bool) -> Interval:
    """
    The first value is the mean; the others are resamples, shifted to lie around it.

    A resample repeats texts, which moves the F1 of a rare label down.
    """
    if not known:
        return Interval(n, float(values[0]), math.nan, math.nan)
    low, high = np.percentile(values[1:], [2.5, 97.5]) + values[0] - values[1:].mean()
    return Interval(n, float(values[0]), float(max(low, least)), float(min(high, 1)))

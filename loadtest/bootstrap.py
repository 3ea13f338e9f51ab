"""
Intervals of figures and of their ratios, and the machine's own noise. Seeded.

All that are compared met the same arrivals in the same rounds, so each resample draws the same
rounds and slices for all of them: what hit all alike cancels out.

There are two levels, for requests are not independent. Those of the same second wait in one queue;
those of one round share what the machine was doing then. So rounds are drawn, as a whole; and apart
from that slices of time within every round. Each level gives an interval, and the wider one counts.
Drawing both at once, with replacement, would count what differs within a round twice (Davison and
Hinkley 1997, section 3.8), and slices alone know nothing of what differs from round to round.
Rounds are few: their interval is widened as Student's t and n / (n - 1) ask for (Hesterberg 2015).

Pure; knows nothing of variants or of what is measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

Statistic = Callable[[Floats], Floats]
"""Weights (resamples, rounds x slices) -> a figure each (resamples, figures); figures above 0."""

RESAMPLES = 1000
NORMAL = 1.960
# Student's t, 0.975, of 1, 2, ... degrees of freedom.
STUDENT = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its 95 % interval; from 0 to infinity where nothing is known of it."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`rounds` of `slices` each, drawn the same for all that take part."""

    rounds: int
    slices: int = 1
    resamples: int = RESAMPLES
    seed: int = 1

    def of_rounds(self) -> Floats:
        drawn = self._rng(1).multinomial(self.rounds, self._alike(self.rounds), self.resamples)
        return np.repeat(drawn, self.slices, axis=1).astype(np.float64)

    def of_slices(self) -> Floats:
        size = (self.resamples, self.rounds)
        drawn = self._rng(2).multinomial(self.slices, self._alike(self.slices), size)
        return drawn.reshape(self.resamples, -1).astype(np.float64)

    def _rng(self, level: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, level))

    @staticmethod
    def _alike(count: int) -> list[float]:
        return [1 / count] * count


@dataclass(frozen=True, slots=True)
class Drawn:
    """A figure as it is, and as each resample has it, by level. Logarithms."""

    point: float
    rounds: Floats
    slices: Floats
    count: int


@dataclass(frozen=True, slots=True)
class Difference:
    """
    How many times one figure is another; `noise`: how many times a figure may be its own.

    noise  1.04: what runs twice may differ by 4 % here; infinite: unknown
    """

    ratio: Interval
    noise: float

    @property
    def exists(self) -> bool:
        """Whether both figures are finite: more rounds do not help who fails."""
        return 0 < self.ratio.mean < math.inf

    @property
    def undecided(self) -> str:
        """Why nobody can tell the two apart; empty: one can."""
        if not self.exists:
            return "one of them has no such figure: too many failed"
        if not self.ratio.low > 0 or not math.isfinite(self.ratio.high):
            return "the interval has no end: too few rounds, or too near 1 % failed"
        if self.ratio.low <= 1 <= self.ratio.high:
            return "the interval holds 1"
        if apart(self.ratio.mean) <= apart(self.noise):
            return "the difference is smaller than this machine's noise"
        return ""


# --- statistics ------------------------------------------------------------------------------


def percentiles(values: Sequence[Floats], shares: Sequence[float]) -> Statistic:
    """Of the values of all slices, `values` one array a slice: exact, infinite ones included."""
    slices = np.repeat(np.arange(len(values)), [len(each) for each in values])
    joined = np.concatenate(values) if values else np.empty(0)
    order = np.argsort(joined, kind="stable")
    joined, slices = joined[order], slices[order]
    # How many of the first so many values each slice has.
    heaps = np.cumsum(slices[:, None] == np.arange(len(values)), axis=0, dtype=np.int32)

    def places(weights: Floats, share: float) -> NDArray[np.int64]:
        """Of the first value that with those before it weighs as much as the share; by halving."""
        wanted = np.maximum(1, np.ceil(share * (weights @ heaps[-1]) - 1e-9))
        low = np.zeros(len(weights), dtype=np.int64)
        high = np.full(len(weights), len(joined) - 1)
        while (low < high).any():
            middle = (low + high) // 2
            enough = np.einsum("rs,rs->r", weights, heaps[middle]) >= wanted
            high, low = np.where(enough, middle, high), np.where(enough, low, middle + 1)
        return low

    def figure(weights: Floats) -> Floats:
        if not len(joined):
            return np.full((len(weights), len(shares)), np.nan)
        return np.stack([joined[places(weights, share)] for share in shares], axis=1)

    return figure


def quotient(over: Sequence[float], under: Sequence[float]) -> Statistic:
    """Of sums: answers over seconds, CPU-seconds over answers."""
    above, below = np.asarray(over, dtype=np.float64), np.asarray(under, dtype=np.float64)

    def figure(weights: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray((weights @ above / (weights @ below))[:, None])

    return figure


# --- intervals -------------------------------------------------------------------------------


def drawn(statistic: Statistic, plan: Plan) -> list[Drawn]:
    """One a figure. What belongs together is drawn with one plan."""
    points = _logs(statistic(np.ones((1, plan.rounds * plan.slices))))
    rounds = _logs(statistic(plan.of_rounds()))
    slices = _logs(statistic(plan.of_slices()))
    return [
        Drawn(float(points[0, i]), rounds[:, i], slices[:, i], plan.rounds)
        for i in range(points.shape[1])
    ]


def interval(figure: Drawn) -> Interval:
    return _interval(figure.point, figure.rounds, figure.slices, figure.count)


def ratio(figure: Drawn, other: Drawn) -> Interval:
    """How many times the other's it is, on the same rounds and slices."""
    with np.errstate(invalid="ignore"):  # of two that are infinite
        return _interval(
            figure.point - other.point,
            figure.rounds - other.rounds,
            figure.slices - other.slices,
            figure.count,
        )


def noise(figure: Drawn, again: Drawn) -> float:
    """How far what ran twice may be from itself: the farther end of the interval, above 1."""
    found = ratio(again, figure)
    ends = [apart(each) for each in (found.low, found.high) if 0 < each < math.inf]
    return math.exp(max(ends)) if len(ends) == 2 else math.inf


def in_proportion(noise: float, figure: Drawn, other: Drawn) -> float:
    """
    What the noise of `figure` would be of another that ran but once: as much more or less of it as
    its interval is wider or narrower. One that works near its peak varies more than one at ease.
    """
    mine, theirs = (_width(interval(each)) for each in (figure, other))
    if not (0 < mine < math.inf and 0 < theirs < math.inf and noise < math.inf):
        return noise
    return _exp(math.log(noise) * theirs / mine)


def apart(ratio: float) -> float:
    """0.5 and 2 are as far from 1."""
    return abs(math.log(ratio)) if 0 < ratio < math.inf else math.inf


def _width(found: Interval) -> float:
    return math.log(found.high / found.low) if found.low > 0 and found.high < math.inf else math.inf


def _interval(point: float, rounds: Floats, slices: Floats, count: int) -> Interval:
    half = max(_student(count) * _spread(rounds), NORMAL * _spread(slices))
    if not math.isfinite(point + half):
        return Interval(_exp(point), 0.0, math.inf)
    return Interval(_exp(point), _exp(point - half), _exp(point + half))


def _student(rounds: int) -> float:
    """Of one round nothing is known. Beyond the table, no less than what is right."""
    if rounds < 2:
        return math.inf
    free = rounds - 1
    widest = STUDENT[free - 1] if free <= len(STUDENT) else NORMAL + 2.5 / free
    return widest * math.sqrt(rounds / free)


def _spread(logs: Floats) -> float:
    if not np.isfinite(logs).all():
        return math.inf
    return float(logs.std(ddof=1))


def _logs(figures: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(figures)


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf

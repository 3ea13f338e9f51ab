"""
How sure a figure of a few rounds is: a bootstrap over rounds, and over what is within them.

Pure. Pairs: the same rounds are drawn for both sides of a ratio, so what slows a whole round
cancels out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
LEVEL = 0.95

Values = NDArray[np.floating[Any]]
Rounds = Sequence[Sequence[float]]
"""Of each round what was measured in it: seconds of answers, latencies, or one figure."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and where it lies with 95 in 100."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{figure(self.value)} [{figure(self.low)}, {figure(self.high)}]"


def figure(value: float) -> str:
    """Three digits that count: 0.0712 1.24 18.3 412 1,530"""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def draws(sides: Sequence[Rounds], statistic: Callable[[Values], float], seed: int = 1) -> Values:
    """
    (resamples, sides): the statistic of each side in each resample.

    Every resample draws rounds, the same for all sides, and then within each side's rounds.
    """
    chance = np.random.default_rng(seed)
    count = len(sides[0])
    arrays = [[np.asarray(each, np.float64) for each in rounds] for rounds in sides]
    found = np.empty((RESAMPLES, len(sides)))
    for row in range(RESAMPLES):
        drawn = chance.integers(count, size=count)
        for column, rounds in enumerate(arrays):
            taken = [chance.choice(rounds[each], len(rounds[each])) for each in drawn]
            found[row, column] = statistic(np.concatenate(taken))
    return found


def whole(rounds: Rounds, statistic: Callable[[Values], float]) -> float:
    return statistic(np.concatenate([np.asarray(each, np.float64) for each in rounds]))


def mean(values: Values) -> float:
    return float(values.mean())


def p99(values: Values) -> float:
    """The smallest that 99 in 100 do not pass."""
    return float(np.quantile(values, 0.99, method="inverted_cdf"))


def around(value: float, resampled: Values) -> Interval:
    rest = (1 - LEVEL) / 2
    low, high = np.quantile(resampled, (rest, 1 - rest))
    return Interval(value, float(low), float(high))

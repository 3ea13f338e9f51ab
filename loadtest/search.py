"""
The largest rate that keeps a limit, over a function that says of a rate whether it does.

Pure; knows nothing of what is measured. Measurements are noisy: a rate is given up only where it
failed twice in a row, and the answer must be kept once more, for longer.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

Figures = TypeVar("Figures")

Measure = Callable[[float, bool], tuple[bool, Figures]]
"""(rate, whether for longer) -> (whether the limit was kept, what was measured)."""

PRECISION = 0.05
FACTOR = 2.0
CONFIRMATIONS = 6  # lower by the precision each; then by the factor


@dataclass(frozen=True, slots=True)
class Step(Generic[Figures]):
    rate: float
    kept: bool
    figures: Figures
    confirming: bool = False


@dataclass(frozen=True, slots=True)
class Found(Generic[Figures]):
    """
    rate   confirmed; None: not even the least rate was kept
    bounded  False where `rate` was kept and nothing above it was tried: the limit lies higher
    steps  in the order they were measured
    """

    rate: float | None
    bounded: bool
    steps: tuple[Step[Figures], ...]


def largest(
    measure: Measure[Figures],
    *,
    start: float,
    least: float = 0.1,
    most: float = math.inf,
    precision: float = PRECISION,
) -> Found[Figures]:
    """
    Doubles or halves from `start` until the limit lies between two rates, then bisects (by ratio)
    until they are within `precision` of each other, then confirms the lower one.

    A lower one that is not confirmed gives way to the next, lower by `precision` and after some by
    half, until one is or it is the least.
    """
    steps: list[Step[Figures]] = []

    def keeps(rate: float) -> bool:
        for _ in range(2):
            steps.append(Step(rate, *measure(rate, False)))
            if steps[-1].kept:
                return True
        return False

    low, high = _bracket(keeps, start, least, most)
    if low is None:
        return Found(None, True, tuple(steps))
    while high is not None and high > low * (1 + precision):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if keeps(middle) else (low, middle)
    for number in itertools.count(1):
        steps.append(Step(low, *measure(low, True), confirming=True))
        if steps[-1].kept:
            return Found(low, high is not None, tuple(steps))
        if low <= least:
            break
        low, high = max(least, low / (1 + precision if number < CONFIRMATIONS else FACTOR)), low
    return Found(None, True, tuple(steps))


def _bracket(
    keeps: Callable[[float], bool], start: float, least: float, most: float
) -> tuple[float | None, float | None]:
    """A rate that is kept and one that is not; None where there is none within the bounds."""
    rate = min(max(start, least), most)
    if keeps(rate):
        while rate < most:
            above = min(rate * FACTOR, most)
            if not keeps(above):
                return rate, above
            rate = above
        return rate, None
    while rate > least:
        below = max(rate / FACTOR, least)
        if keeps(below):
            return below, rate
        rate = below
    return None, rate

"""
Always-valid intervals: how far a mean is known, however often and whenever one looks.

The predictable plug-in empirical Bernstein confidence sequence of Waudby-Smith and Ramdas (2023,
"Estimating means of bounded random variables by betting", theorem 2): with probability 1 - alpha
the mean lies in the interval at every moment at once. So one may stop as soon as it tells enough.
Knows nothing of what is measured.
"""

from __future__ import annotations

from math import inf, log, log1p, sqrt
from typing import NamedTuple

# Of a single bet; more would make the interval hang on single values.
MOST = 0.5


class Seen(NamedTuple):
    """
    All that is kept of values between 0 and 1: six sums, so that processes can share them.

    n         values
    total     of them
    squares   of their distances from the mean before them
    weights   bets that were placed, `weighted` values times their bets
    spread    what the bets cost
    """

    n: float = 0.0
    total: float = 0.0
    squares: float = 0.0
    weights: float = 0.0
    weighted: float = 0.0
    spread: float = 0.0


def add(seen: Seen, value: float, *, alpha: float) -> Seen:
    """With one more value, 0 to 1."""
    n = seen.n + 1
    mean = (0.5 + seen.total) / n  # of those before
    variance = (0.25 + seen.squares) / n
    bet = min(MOST, sqrt(2 * log(2 / alpha) / (variance * n * log1p(n))))
    total = seen.total + value
    after = (0.5 + total) / (n + 1)
    return Seen(
        n=n,
        total=total,
        squares=seen.squares + (value - after) ** 2,
        weights=seen.weights + bet,
        weighted=seen.weighted + bet * value,
        spread=seen.spread + (value - mean) ** 2 * (-log1p(-bet) - bet),
    )


def interval(seen: Seen, *, alpha: float) -> tuple[float, float]:
    """Where the mean of such values lies: low and high."""
    if not seen.n:
        return -inf, inf
    centre = seen.weighted / seen.weights
    margin = (log(2 / alpha) + seen.spread) / seen.weights
    return centre - margin, centre + margin

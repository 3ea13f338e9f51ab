"""
The trial of a canary: what its comparisons with the incumbent tell, counted over all workers.

Knows nothing of how answers are compared.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from service.generation import Content, Verdict
from service.routes import Canary
from service.sequential import Seen, add, interval
from service.shared import Row, Rows

DISAGREEMENT, SLOWER = 0, 1
WIDTH = len(Seen._fields)


class Progress(NamedTuple):
    """
    What is known by now, whenever one looks; ranges lie within 0 and 1.

    comparisons   so far
    disagreement  mean of two answers to a request: low and high
    slower        share of comparisons in which the canary took more than its `max_slowdown` times
                  the incumbent's time: low and high
    """

    comparisons: int
    disagreement: tuple[float, float]
    slower: tuple[float, float]


class Trial:
    """
    name  of this trial and no other, of all that ever were
    file  that all workers share; None: of this process alone
    """

    def __init__(self, name: str, canary: Canary, file: Path | None) -> None:
        self.name = name
        self.canary = canary
        self._rows = Rows(file, rows=2, width=WIDTH)

    def compare(self, *, disagreement: float, slowdown: float) -> Verdict | None:
        """
        Count one comparison; give the verdict where one may be sure by now.

        disagreement  of the two answers, 0 to 1
        slowdown      quotient of the canary's time and the incumbent's
        """
        slower = float(slowdown > self.canary.max_slowdown)
        seen = self._add(DISAGREEMENT, disagreement), self._add(SLOWER, slower)
        return verdict(self.canary, progress(self.canary, *seen))

    def progress(self) -> Progress:
        """Of all workers' comparisons so far."""
        seen = (Seen(*self._rows.read(row)) for row in (DISAGREEMENT, SLOWER))
        return progress(self.canary, *seen)

    def _add(self, row: int, value: float) -> Seen:
        def added(before: Row) -> tuple[Row, Seen]:
            after = add(Seen(*before), value, alpha=_alpha(self.canary))
            return after, after

        return self._rows.change(row, added)


def trial_of(route: str, content: Content, routes: str) -> str:
    """The name of what goes on on that route; `routes` as `content.routes_of` tells them."""
    return f"trial-{route}-{content.trials}-{routes}"


def progress(canary: Canary, disagreement: Seen, slower: Seen) -> Progress:
    return Progress(
        comparisons=int(disagreement.n),
        disagreement=_range(disagreement, canary),
        slower=_range(slower, canary),
    )


def verdict(canary: Canary, progress: Progress) -> Verdict | None:
    """
    What may be said of the canary by now, at whatever moment one asks.

    The median quotient of times is above the limit where more than half of them are.
    """
    low, high = progress.disagreement
    few, many = progress.slower
    compared = f"after {progress.comparisons} comparisons"
    differs = f"answers differ by {low:.3f} to {high:.3f}"
    if low > canary.max_disagreement:
        why = f"{differs}, surely above {canary.max_disagreement:g}, {compared}"
        return Verdict(variant=canary.variant, promoted=False, why=why)
    if few > 0.5:
        why = f"surely more than {canary.max_slowdown:g} times the time, {compared}"
        return Verdict(variant=canary.variant, promoted=False, why=why)
    if high < canary.max_disagreement and many < 0.5:
        why = f"{differs}, surely below {canary.max_disagreement:g}, and in time, {compared}"
        return Verdict(variant=canary.variant, promoted=True, why=why)
    return None


def _range(seen: Seen, canary: Canary) -> tuple[float, float]:
    low, high = interval(seen, alpha=_alpha(canary))
    return max(low, 0.0), min(high, 1.0)


def _alpha(canary: Canary) -> float:
    """Of one of the two questions that a trial asks."""
    return canary.alpha / 2

"""
The trial of a canary: what its comparisons with the incumbent tell, counted over all workers.

Knows nothing of how answers are compared.
"""

from __future__ import annotations

from pathlib import Path

from service.generation import Verdict
from service.routes import Canary
from service.sequential import Seen, add, interval
from service.shared import Row, Rows

DISAGREEMENT, SLOWER = 0, 1
WIDTH = len(Seen._fields)


class Trial:
    """
    name  of this trial and no other
    file  that all workers share; None: of this process alone
    """

    def __init__(self, name: str, canary: Canary, file: Path | None) -> None:
        self.name = name
        self.canary = canary
        self._rows = Rows(file, rows=2, width=WIDTH)
        self._alpha = canary.alpha / 2  # one of two questions each

    def compare(self, *, disagreement: float, slowdown: float) -> Verdict | None:
        """
        Count one comparison; give the verdict where one may be sure by now.

        disagreement  of the two answers, 0 to 1
        slowdown      quotient of the canary's time and the incumbent's
        """
        slower = float(slowdown > self.canary.max_slowdown)
        seen = self._add(DISAGREEMENT, disagreement), self._add(SLOWER, slower)
        return verdict(self.canary, *seen)

    def seen(self) -> tuple[Seen, Seen]:
        """What was compared so far: disagreement, and how often the canary was slower."""
        return Seen(*self._rows.read(DISAGREEMENT)), Seen(*self._rows.read(SLOWER))

    def _add(self, row: int, value: float) -> Seen:
        def added(before: Row) -> tuple[Row, Seen]:
            after = add(Seen(*before), value, alpha=self._alpha)
            return after, after

        return self._rows.change(row, added)


def verdict(canary: Canary, disagreement: Seen, slower: Seen) -> Verdict | None:
    """
    What may be said of the canary by now, at whatever moment one asks.

    The median quotient of times is above the limit where more than half of them are.
    """
    alpha = canary.alpha / 2
    low, high = interval(disagreement, alpha=alpha)
    few, many = interval(slower, alpha=alpha)
    compared = f"after {disagreement.n:.0f} comparisons"
    differs = f"answers differ by {max(low, 0):.3f} to {min(high, 1):.3f}"
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

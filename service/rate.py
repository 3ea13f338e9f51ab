"""
How many requests a key may send: a bucket that refills steadily, as pure functions.

Knows nothing of keys, clocks, processes or HTTP.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

_Whole = Annotated[int, Meta(ge=1, le=1_000_000_000)]

# Sums of fractions of a request are not exact; a billionth of one decides nothing.
_DUST = 1e-9


class Rate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """
    So many requests in so many seconds, steadily; `burst` of them at once after a rest, where it
    is not said as many as in the whole time.
    """

    requests: _Whole
    seconds: _Whole = 60
    burst: _Whole | None = None

    @property
    def most(self) -> int:
        """Requests at once after a rest."""
        return self.burst or self.requests


class Standing(NamedTuple):
    """
    Where a key stands after it asked to send one.

    admitted  it may
    left      whole requests it could send now
    next_s    until it could send one more than those
    """

    admitted: bool
    left: int
    next_s: float


def ask(spent: float, idle_s: float, rate: Rate) -> tuple[float, Standing]:
    """
    One more request, `idle_s` after the last was asked for and left `spent` not yet given back.
    The new `spent`, and where that leaves the key. A key that never asked has spent 0.

    2 a second, 2 at once   spent 0 -> 1, one left   1 -> 2, none left   2 -> refused for 0.5 s
    """
    # Its rate may have become smaller since: nobody pays back more than there is to spend.
    spent = min(rate.most, max(0.0, spent - idle_s * rate.requests / rate.seconds))
    admitted = spent + 1 <= rate.most + _DUST
    if admitted:
        spent += 1
    free = max(0.0, rate.most - spent)
    left = int(free + _DUST)
    next_s = max(0.0, left + 1 - free) * rate.seconds / rate.requests
    return spent, Standing(admitted, left, next_s)

"""
How far down the ladder requests go under pressure: a rung at a time, and back with patience.

Knows nothing of variants: a rung is a number.
"""

from __future__ import annotations

from math import inf
from typing import NamedTuple

from service.routes import Ladder

# There are never so many smaller variants.
LOWEST = 8


class Standing(NamedTuple):
    """
    On which rung, 0 being the top, and since when, in seconds of any clock.

    calm  since when little waits; inf while much does
    """

    rung: int = 0
    since: float = 0.0
    calm: float = inf


def moved(ladder: Ladder, standing: Standing, waiting_s: float, now: float) -> Standing:
    """
    Where to stand with so much work waiting.

    Down once a rung has had the time to tell, for the work of the rung before still waits; up only
    when little has waited for `hold_s`.
    """
    rung, since, calm = standing
    if waiting_s >= ladder.down_s:
        told = rung == 0 or now - since >= ladder.down_s
        return Standing(rung + 1, now) if told and rung < LOWEST else Standing(rung, since)
    if waiting_s > ladder.up_s:
        return Standing(rung, since)
    calm = min(calm, now)
    if rung and now - max(calm, since) >= ladder.hold_s:
        return Standing(rung - 1, now, calm)
    return Standing(rung, since, calm)

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

    calm     since when little waits; inf while much does
    drained  when what waited as one last looked would be done: it is looked only when somebody asks
    """

    rung: int = 0
    since: float = 0.0
    calm: float = inf
    drained: float = inf


def moved(ladder: Ladder, standing: Standing, waiting_s: float, now: float) -> Standing:
    """
    Where to stand with so much work waiting.

    Down once a rung has had the time to tell, for the work of the rung before still waits; up only
    when little has waited for `hold_s`, a rung for each of those that have passed.
    """
    rung, since, calm, drained = standing
    done = now + waiting_s
    if waiting_s >= ladder.down_s:
        if rung < LOWEST and (rung == 0 or now - since >= ladder.down_s):
            rung, since = rung + 1, now
        return Standing(rung, since, drained=done)
    if waiting_s > ladder.up_s:
        return Standing(rung, since, drained=done)
    calm = min(calm, drained, now)
    held = int((now - max(calm, since)) / ladder.hold_s)
    if rung and held:
        rung, since = max(0, rung - held), now
    return Standing(rung, since, calm, done)

"""Learning rates as functions of numbers. No state, checkable by eye."""

from __future__ import annotations


def linear(step: int, *, warmup: int, total: int) -> float:
    """
    Straight up to 1, straight down to 0; the factor on the peak rate.

    warmup=2 total=6   step 0 1 2 3 4 5  ->  .5 1. 1. .75 .5 .25
    """
    if step < warmup:
        return (step + 1) / warmup
    return max(0.0, (total - step) / max(1, total - warmup))

"""Figures as people read them. Pure."""

from __future__ import annotations

import math


def number(value: float, digits: int = 3) -> str:
    """
    That many digits that count, thousands with commas; no exponent.

    1234.5 -> 1,234   0.01234 -> 0.0123   inf -> never
    """
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return "never"
    if value == 0:
        return "0"
    power = int(f"{value:.{digits - 1}e}".partition("e")[2])  # of 9.996 that of 10.0
    return f"{value:,.{max(0, digits - 1 - power)}f}"

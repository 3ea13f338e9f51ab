"""
Figures that a study measures of a variant besides its scores, kept beside it: not measured again.

Knows nothing of what is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from models.spec import Variant

ALL = "all"  # the line that is of all languages together
Figures = dict[str, float]


class Kept(msgspec.Struct, frozen=True):
    """
    digest  of the variant that was measured
    found   language, or all -> figure -> value
    """

    digest: str
    found: dict[str, Figures]


def kept(
    root: Path, variant: Variant, what: str, measure: Callable[[], Mapping[str, Figures]]
) -> dict[str, Figures]:
    """What was measured of this very variant, or is now; it stays in `root/.NAME.WHAT.json`."""
    file = root / f".{variant.name}.{what}.json"
    if file.exists():
        known = msgspec.json.decode(file.read_bytes(), type=Kept)
        if known.digest == variant.digest:
            return known.found
    found = dict(measure())
    file.write_bytes(msgspec.json.encode(Kept(variant.digest, found)))
    return found

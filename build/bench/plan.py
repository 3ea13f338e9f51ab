"""
What to measure and for how long: one value, read by every section. Knows no flags.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from models.spec import Variant


@dataclass(frozen=True, kw_only=True)
class Plan:
    """
    catalog      folder of variants
    variants     the manifests of those to measure
    checkpoints  by a variant's name, the torch folder it was exported from, to run eager beside it
    rounds       of each mode, interleaved
    seconds      of each measurement
    warmup_s     of load before it, not counted
    starts       of the server, to see how long one takes
    connections  at once, each with one text under way
    cores        model threads of the server, and threads in this process
    seed         of the texts
    """

    catalog: Path
    variants: tuple[Variant, ...]
    checkpoints: Mapping[str, Path]
    rounds: int
    seconds: float
    warmup_s: float
    starts: int
    connections: int
    cores: int
    seed: int

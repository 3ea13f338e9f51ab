"""
F1 by language of several variants, drawn. Knows nothing of files but the one it writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from models.spec import Input, Variant

# Told apart by people who see colours differently (Okabe and Ito 2008).
COLOURS = ("#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = "osD^vPX"
MACRO = "macro"
# The same picture is the same file, with text that can be searched.
mpl.rcParams["svg.hashsalt"] = "kadogo"
mpl.rcParams["svg.fonttype"] = "none"


def draw(variants: Sequence[Variant], file: Path) -> None:
    """A row a language, weakest last, a mark a variant; F1 on raw text with its 95 % interval."""
    rows = _rows(variants[0])
    apart = 0.7 / len(variants)
    figure = Figure(figsize=(7.5, 0.6 + 0.2 * len(rows) * (1 + len(variants) / 3)))
    axes = figure.subplots()
    for place, variant in enumerate(variants):
        assert variant.evidence
        scores = variant.evidence.quality["f1"][Input.RAW]
        found = {MACRO: scores.macro, **scores.languages}
        known = [(y, found[row]) for y, row in enumerate(rows) if row in found]
        axes.errorbar(
            [each.mean for _, each in known],
            [y + (place - (len(variants) - 1) / 2) * apart for y, _ in known],
            xerr=(
                [max(0, each.mean - each.low) for _, each in known],
                [max(0, each.high - each.mean) for _, each in known],
            ),
            fmt=MARKERS[place % len(MARKERS)],
            color=COLOURS[place % len(COLOURS)],
            markersize=4,
            linewidth=1.2,
            label=variant.name,
        )
    axes.axhline(0.5, color="#999999", linewidth=0.8)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("F1, raw text, with 95 % interval")
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=min(len(variants), 4), frameon=False)
    figure.set_layout_engine("constrained")
    figure.savefig(file, metadata={"Date": None, "Creator": "python -m build report"})


def _rows(baseline: Variant) -> list[str]:
    """The macro mean, then the languages from the baseline's best to its worst."""
    assert baseline.evidence
    found = baseline.evidence.quality["f1"][Input.RAW].languages
    return [MACRO, *sorted(found, key=lambda name: -found[name].mean)]

"""
Variants drawn: F1 by language, and against bytes and speed. Knows no files but those it writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from models.spec import Input, Interval, Variant

if TYPE_CHECKING:
    from build.frontier import Point

# Told apart by people who see colours differently (Okabe and Ito 2008).
COLOURS = ("#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = "osD^vPX"
MACRO = "macro"
# The same picture is the same file, with text that can be searched.
STABLE: dict[Any, Any] = {"svg.hashsalt": "kadogo", "svg.fonttype": "none"}


@contextmanager
def picture(
    file: Path, size: tuple[float, float], *, grid: Literal["x", "y", "both"], columns: int = 1
) -> Iterator[Any]:
    """
    Axes to draw into, as many as `columns` side by side; saved as SVG once they are drawn.

    size  width and height in inches
    grid  along which axis lines help to read
    """
    with mpl.rc_context(STABLE):
        figure = Figure(figsize=size)
        axes = figure.subplots(1, columns, sharey=True)
        yield axes
        for each in figure.axes:
            each.grid(axis=grid, color="#dddddd", linewidth=0.6)
            each.spines[["top", "right"]].set_visible(False)
        if figure.axes[0].get_legend_handles_labels()[0]:
            figure.legend(
                *figure.axes[0].get_legend_handles_labels(),
                loc="outside upper center",
                ncols=3,
                frameon=False,
                fontsize="small",
            )
        figure.set_layout_engine("constrained")
        figure.savefig(file, metadata={"Date": None, "Creator": "python -m build"})


def errors(intervals: Sequence[Interval]) -> tuple[list[float], list[float]]:
    """How far each interval reaches to either side of its mean."""
    return (
        [max(0.0, each.mean - each.low) for each in intervals],
        [max(0.0, each.high - each.mean) for each in intervals],
    )


def draw(variants: Sequence[Variant], file: Path) -> None:
    """A row a language, weakest last, a mark a variant; F1 on raw text with its 95 % interval."""
    rows = _rows(variants[0])
    apart = 0.7 / len(variants)
    size = (7.5, 0.6 + 0.2 * len(rows) * (1 + len(variants) / 3))
    with picture(file, size, grid="x") as axes:
        for place, variant in enumerate(variants):
            assert variant.evidence
            scores = variant.evidence.quality["f1"][Input.RAW]
            found = {MACRO: scores.macro, **scores.languages}
            known = [(y, found[row]) for y, row in enumerate(rows) if row in found]
            axes.errorbar(
                [each.mean for _, each in known],
                [y + (place - (len(variants) - 1) / 2) * apart for y, _ in known],
                xerr=errors([each for _, each in known]),
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


def draw_frontier(points: Sequence[Point], dominated: Mapping[str, str], file: Path) -> None:
    """F1 with its interval against bytes and against tokens/s; dominated variants are grey."""
    with picture(file, (9.5, 4.4), grid="both", columns=2) as (size, speed):
        for axes, label, place in (
            (size, "MB, tokenizer included", [each.variant.bytes / 1e6 for each in points]),
            (speed, "tokens/s, one core", [each.tokens_per_second.mean for each in points]),
        ):
            ordered = sorted(zip(place, points, strict=True), key=lambda each: each[0])
            for number, (x, point) in enumerate(ordered):
                colour = "#999999" if point.name in dominated else COLOURS[1]
                axes.errorbar(
                    x,
                    point.f1.mean,
                    yerr=errors([point.f1]),
                    fmt="o",
                    color=colour,
                    markersize=5,
                    linewidth=1.2,
                )
                # Every other name stands above, so that neighbours do not touch.
                above = number % 2 == 1
                axes.annotate(
                    point.name,
                    (x, point.f1.high if above else point.f1.low),
                    xytext=(0, 4 if above else -4),
                    textcoords="offset points",
                    rotation=35,
                    ha="left" if above else "right",
                    va="bottom" if above else "top",
                    fontsize="x-small",
                    color=colour,
                )
            axes.set_xscale("log")
            axes.set_xlabel(label)
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:g}" if axes is size else "{x:,.0f}")
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.margins(x=0.2, y=0.35)
        size.set_ylabel("F1, raw text, with 95 % interval")


def _rows(baseline: Variant) -> list[str]:
    """The macro mean, then the languages from the baseline's best to its worst."""
    assert baseline.evidence
    found = baseline.evidence.quality["f1"][Input.RAW].languages
    return [MACRO, *sorted(found, key=lambda name: -found[name].mean)]

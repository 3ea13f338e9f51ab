"""
What training carries over to languages, and kinds of text, that a variant was never trained on.

Figures come from manifests alone: a variant's languages are those it was trained on, its evidence
is of more.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from build.chart import COLOURS, MACRO, STABLE
from build.studies.plan import Row, Study
from models.spec import Input, Interval, Scores, Variant

# What a topic is told of; entities are found in raw sentences alone.
ASKED = {Input.RAW: "articles", Input.HEADLINE: "headlines"}
GAP = 0.06  # of a cell, around a frame
DARK = 0.5  # F1 under which a cell is dark


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A row asked texts written in one way: a column of the picture."""

    row: Row
    variant: Variant
    written: Input

    @property
    def title(self) -> str:
        """What it was trained on, and what it was asked where that may be another kind of text."""
        trained = str(self.row.at["trained on"])
        return trained if len(self.row.inputs) == 1 else f"{trained} → {ASKED[self.written]}"

    @property
    def f1(self) -> Scores:
        assert self.variant.evidence
        return self.variant.evidence.quality["f1"][self.written]

    @property
    def apart(self) -> Scores | None:
        """Minus the control, paired on the same texts; the control itself has none."""
        assert self.variant.evidence
        found = self.variant.evidence.difference.get("f1")
        return found[self.written] if found else None

    @property
    def worst(self) -> tuple[str, Interval] | None:
        """The language that lost most."""
        apart = self.apart
        return min(apart.languages.items(), key=lambda each: each[1].mean) if apart else None

    def is_unseen(self, language: str) -> bool:
        return language not in {MACRO, *self.variant.languages}

    def mean(self, *, unseen: bool) -> float | None:
        """F1 of the languages it was trained on, or of the others, each weighing the same."""
        found = self.f1.languages.items()
        some = [f1.mean for language, f1 in found if self.is_unseen(language) is unseen]
        return fmean(some) if some else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """Trials on the same languages, those on the same kind of text side by side; a control first"""

    title: str
    trials: tuple[Trial, ...]

    @property
    def places(self) -> list[str]:
        """The mean, then the languages from the control's best to its worst."""
        found = self.trials[0].f1.languages
        return [MACRO, *sorted(found, key=lambda name: -found[name].mean)]

    @property
    def column(self) -> str:
        """What the trials' titles say."""
        is_one_kind = len({trial.written for trial in self.trials}) == 1
        return "trained on" if is_one_kind else "trained on → asked"

    @property
    def compared(self) -> list[Trial]:
        """The trials that have a control."""
        return [trial for trial in self.trials if trial.apart]


def panels(study: Study, variants: Sequence[Variant]) -> list[Panel]:
    """The study's rows, which `variants` are of in their order, by what sets them apart."""
    found: dict[str, list[Trial]] = {}
    for row, variant in zip(study.rows, variants, strict=True):
        trials = [Trial(row=row, variant=variant, written=each) for each in row.inputs]
        found.setdefault(str(row.at[study.apart]), []).extend(trials)
    for trials in found.values():
        trials.sort(key=lambda trial: trial.row.inputs.index(trial.written))
    return [Panel(title=title, trials=tuple(trials)) for title, trials in found.items()]


def table(found: Sequence[Panel], file: Path) -> None:
    """A line for each trial and language, and for the mean of all languages."""
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        of = ("mean", "low", "high")
        head = ["variant", *found[0].trials[0].row.at, "asked", "language", "trained on it", "f1_n"]
        head += [*(f"f1_{each}" for each in of), *(f"minus_control_{each}" for each in of)]
        writer.writerow([*head, "split", "commit"])
        for panel in found:
            for trial in panel.trials:
                writer.writerows(_lines(trial))


def _lines(trial: Trial) -> Iterator[list[Any]]:
    evidence = trial.variant.evidence
    assert evidence
    apart = _by_place(trial.apart) if trial.apart else {}
    for place, f1 in _by_place(trial.f1).items():
        trained = "" if place == MACRO else "no" if trial.is_unseen(place) else "yes"
        where = [trial.variant.name, *trial.row.at.values(), trial.written, place, trained, f1.n]
        figures = [*_figures(f1), *_figures(apart.get(place))]
        yield [*where, *figures, evidence.split, evidence.commit]


def _by_place(scores: Scores) -> dict[str, Interval]:
    """The mean of the languages and each of them."""
    return {MACRO: scores.macro, **scores.languages}


def _figures(interval: Interval | None) -> list[str]:
    if interval is None:
        return ["", "", ""]
    return [f"{each:.4f}" for each in (interval.mean, interval.low, interval.high)]


def draw(found: Sequence[Panel], file: Path) -> None:
    """A column a trial, a row a language: F1 in hundredths, a frame where never trained on."""
    with mpl.rc_context(STABLE):
        widths = [len(panel.trials) + 1 for panel in found]
        figure = Figure(figsize=(1.2 + 0.75 * sum(widths), 5.2))
        row = figure.subplots(1, len(found), width_ratios=widths, squeeze=False)[0]
        for axes, panel in zip(row, found, strict=True):
            _panel(axes, panel)
        frame = _frame(0, 0, 1)
        frame.set_label("never trained on this language")
        figure.legend(handles=[frame], loc="outside lower center", frameon=False, fontsize="small")
        figure.set_layout_engine("constrained")
        figure.savefig(file, metadata={"Date": None, "Creator": "python -m build"})


def _frame(x: float, y: float, side: float) -> Rectangle:
    return Rectangle((x, y), side, side, fill=False, edgecolor=COLOURS[2], linewidth=1.6)


def _panel(axes: Any, panel: Panel) -> None:
    places = panel.places
    columns = [_by_place(trial.f1) for trial in panel.trials]
    values = [[column[place].mean for column in columns] for place in places]
    axes.pcolormesh(values, cmap="cividis", vmin=0, vmax=1, edgecolors="white", linewidth=1.5)
    for x, trial in enumerate(panel.trials):
        for y, place in enumerate(places):
            value = values[y][x]
            ink = "white" if value < DARK else "black"
            axes.text(x + 0.5, y + 0.5, f"{100 * value:.0f}", ha="center", va="center", color=ink)
            if trial.is_unseen(place):
                axes.add_patch(_frame(x + GAP, y + GAP, 1 - 2 * GAP))
    axes.set_title(f"{panel.title}: F1 x 100")
    axes.set_yticks([y + 0.5 for y in range(len(places))], places)
    titles = [trial.title for trial in panel.trials]
    axes.set_xticks(
        [x + 0.5 for x in range(len(titles))],
        titles,
        rotation=40,
        ha="right",
        rotation_mode="anchor",
    )
    axes.set_xlabel(panel.column)
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)

"""
A study for people: a table as CSV and Markdown, a picture, and what was seen in it.

Figures come from manifests alone; what was seen is written by hand in `build/pages/studies/`.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from build.chart import COLOURS, MARKERS, errors, picture
from build.frontier import float_bytes
from build.report import render
from build.studies import confidence, llm_int8, storage, transfer
from build.studies.measured import ALL, Figures
from build.studies.plan import Shown, Study
from models.spec import Input, Interval, Scores, Variant

MACRO = "macro"
SMALL = 0.01  # of F1
TICKS = (-0.6, -0.3, -0.1, -0.03, -SMALL, -0.005, -0.002, 0, 0.002, 0.005, SMALL, 0.03)
# What is measured of the rows beyond their scores.
MEASURED: dict[Shown, Any] = {
    Shown.CONFIDENCE: confidence,
    Shown.STORAGE: storage,
    Shown.LLM_INT8: llm_int8,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A row of the table: the variant, where it stands, how much smaller it is."""

    variant: Variant
    at: Mapping[str, float | str]
    smaller: float

    @property
    def f1(self) -> Scores:
        assert self.variant.evidence
        return self.variant.evidence.quality["f1"][Input.RAW]

    @property
    def apart(self) -> Scores:
        """Minus the baseline, paired."""
        assert self.variant.evidence
        return self.variant.evidence.difference["f1"][Input.RAW]

    @property
    def worst(self) -> tuple[str, Interval]:
        """The language that lost most."""
        return min(self.apart.languages.items(), key=lambda each: each[1].mean)


def write(
    name: str,
    study: Study,
    variants: Sequence[Variant],
    root: Path,
    corpus: Path,
    out: Path,
    *,
    quick: bool = False,
) -> list[Path]:
    """
    Write NAME.csv, NAME.svg and NAME.md into `out`; the first is what others are compared with.

    What else a study shows of its variants is measured now, in the catalog `root`. What was seen in
    the real ones is not said of toys (`quick`).
    """
    out.mkdir(parents=True, exist_ok=True)
    files = [out / f"{name}.{ending}" for ending in ("csv", "svg", "md")]
    baseline = variants[0]
    evidence = [each.evidence for each in variants if each.evidence]
    common = {
        "name": name,
        "study": study,
        "baseline": baseline,
        "data": "; ".join(dict.fromkeys(each.data for each in evidence)),
        "split": evidence[-1].split,
        "quick": quick,
    }
    found: Any
    if measured := MEASURED.get(study.shown):
        figures = measured.measure(root, [each.name for each in variants], corpus)
        figures_table(figures, files[0])
        measured.draw(figures, files[1])
        found = {variant: of[ALL] for variant, of in figures.items()}
    elif study.shown is Shown.TRANSFER:
        found = transfer.panels(study, variants)
        transfer.table(found, files[0])
        transfer.draw(found, files[1])
    else:
        found = scored_rows(study, variants, root)
        table(found, files[0])
        draw(study, baseline, found, files[1])
    page = render(f"study-{study.shown}.md", found=found, **common)
    files[2].write_text(page, encoding="utf-8")
    return files


def scored_rows(study: Study, variants: Sequence[Variant], root: Path) -> list[Found]:
    """The rows' scores; the baseline comes first in `variants`, whose catalog is `root`."""
    baseline, *others = variants
    whole = float_bytes(root / baseline.name, baseline)
    return [
        Found(variant=each, at=row.at, smaller=whole / each.bytes)
        for each, row in zip(others, study.rows, strict=True)
    ]


def figures_table(found: Mapping[str, Mapping[str, Figures]], file: Path) -> None:
    """A line for each variant and language, and for all languages together."""
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        first = next(iter(found.values()))
        writer.writerow(["variant", "language", *first[ALL]])
        for name, by_language in found.items():
            for language, figures in by_language.items():
                values = [f"{each:.6g}" for each in figures.values()]
                writer.writerow([name, language, *values])


def table(found: Sequence[Found], file: Path) -> None:
    """A line for each row and language, and for the mean of all languages."""
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        of = ("n", "mean", "low", "high")
        head = ["variant", *found[0].at, "language", *(f"f1_{each}" for each in of)]
        head += [f"minus_baseline_{each}" for each in of[1:]]
        writer.writerow([*head, "bytes", "parameters", "zeros", "split", "commit"])
        for row in found:
            evidence = row.variant.evidence
            assert evidence
            size = (row.variant.bytes, row.variant.parameters, f"{row.variant.sparsity:.4f}")
            scores, apart = _by_language(row.f1), _by_language(row.apart)
            for language, f1 in scores.items():
                figures = [f"{each:.4f}" for each in (f1.mean, f1.low, f1.high)]
                minus = apart[language]
                figures += [f"{each:.4f}" for each in (minus.mean, minus.low, minus.high)]
                where = [row.variant.name, *row.at.values(), language, f1.n]
                writer.writerow([*where, *figures, *size, evidence.split, evidence.commit])


def draw(study: Study, baseline: Variant, found: Sequence[Found], file: Path) -> None:
    """F1 minus the baseline's, paired, along the study's column; languages are thin behind."""
    with picture(file, (7.5, 4.2), grid="y") as axes:
        axes.axhline(0, color="#000000", linewidth=0.8, label=baseline.name)
        for place, (line, rows) in enumerate(_lines(study, found).items()):
            x = [row.at[study.along] for row in rows]
            colour = COLOURS[(place + 1) % len(COLOURS)]
            for language in rows[0].apart.languages:
                some = [row.apart.languages[language].mean for row in rows]
                axes.plot(x, some, color=colour, linewidth=0.5, alpha=0.3)
            macro = [row.apart.macro for row in rows]
            axes.errorbar(
                x,
                [each.mean for each in macro],
                yerr=errors(macro),
                fmt=f"{MARKERS[place % len(MARKERS)]}-",
                color=colour,
                markersize=4,
                linewidth=1.4,
                label=line,
            )
        # A ruinous row would flatten all others: beyond a hundredth the axis is logarithmic.
        axes.set_yscale("symlog", linthresh=SMALL)
        low, high = axes.get_ylim()
        axes.set_yticks([each for each in TICKS if low <= each <= high])
        axes.yaxis.set_major_formatter("{x:+g}")
        axes.set_xticks(sorted({row.at[study.along] for row in found}))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel(study.along)
        axes.set_ylabel("F1 minus baseline, with 95 % interval")


def _lines(study: Study, found: Sequence[Found]) -> dict[str, list[Found]]:
    """What is drawn as a line, from left to right, by what tells it from the others."""
    lines: dict[str, list[Found]] = {}
    for row in sorted(found, key=lambda row: row.at[study.along]):
        value = row.at[study.apart]
        label = value if isinstance(value, str) else f"{study.apart} {value:g}"
        lines.setdefault(label, []).append(row)
    return lines


def _by_language(scores: Scores) -> dict[str, Interval]:
    return {MACRO: scores.macro, **scores.languages}

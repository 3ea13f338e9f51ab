"""
What each variant gives up for how small and how fast it is, and which of them nobody need pick.

Reads manifests, and how long a baseline's tokenizer is. A variant is dominated by another of its
task that is no worse in F1, bytes and tokens/s, and better in one of them: the rest are the Pareto
front.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from build.chart import draw_frontier
from build.errors import BuildError
from build.provenance import ROOT
from build.publish import read
from build.report import by_task, render
from models import catalog, stored
from models.pipeline import TOKENIZER
from models.spec import Input, Interval, Task, Variant

PAGE = "compression.md"
ZOO = ROOT / "models" / "zoo"
FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """
    Where a variant stands.

    f1       macro, on raw text
    minus    the same minus its baseline's, paired; of a baseline 0
    smaller  times, than its baseline stored at 32 bits
    faster   times, than its baseline on one core, in one interleaved run
    """

    variant: Variant
    f1: Interval
    minus: Interval
    smaller: float
    faster: Interval
    tokens_per_second: Interval

    @property
    def name(self) -> str:
        return self.variant.name

    @property
    def good(self) -> tuple[float, float, float]:
        """The more of each, the better."""
        return self.f1.mean, -float(self.variant.bytes), self.tokens_per_second.mean


@dataclass(frozen=True, slots=True)
class Target:
    """At most `drop` of macro F1 below the baseline, `smaller` and `faster` by as many times."""

    drop: float
    smaller: float
    faster: float

    def share(self, point: Point) -> float:
        """How much of the target's size and speed there is, the lesser of both; 1 meets it."""
        return min(point.smaller / self.smaller, point.faster.mean / self.faster)


TARGETS = (Target(0.005, 4, 3), Target(0.01, 10, 8), Target(0.05, 30, 20))


def frontier(root: Path, out: Path) -> list[Path]:
    """
    Write the page and a picture a task into `out`; give back the files.

    Raises BuildError where no variant of a catalog was judged and measured, or one's baseline is
    not there, BrokenVariant.
    """
    groups = {
        task: found
        for task, variants in by_task(_all(root)).items()
        if len(found := points(root, variants)) > 1
    }
    if not groups:
        raise BuildError(
            f"no baseline in {root} has a variant with scores and speed beside it: "
            "python -m build evaluate NAME, then measure NAME"
        )
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for task, found in groups.items():
        written.append(out / picture(task))
        draw_frontier(found, dominated(found), written[-1])
    page = out / PAGE
    page.write_text(
        render(
            PAGE,
            groups=groups,
            dominated={task: dominated(found) for task, found in groups.items()},
            targets={
                task: [(target, nearest(target, found)) for target in TARGETS]
                for task, found in groups.items()
            },
            pictures={task: picture(task) for task in groups},
            embedded=are_embedded(point.variant for found in groups.values() for point in found),
        ),
        encoding="utf-8",
    )
    return [page, *written]


def picture(task: Task) -> str:
    return f"frontier-{task}.svg"


def are_embedded(variants: Iterable[Variant]) -> bool:
    """Whether these are the embedded variants, which the page has words about."""
    ours = {(each.name, each.digest) for each in _all(ZOO)}
    return all((each.name, each.digest) in ours for each in variants)


def points(root: Path, variants: Sequence[Variant]) -> list[Point]:
    """
    Of one task, in their order; who was not measured has no place.

    Raises BuildError where one's baseline is not there.
    """
    found = []
    for variant in variants:
        evidence = variant.evidence
        if not evidence or not evidence.speed:
            continue
        minus = evidence.difference.get("f1", {}).get(Input.RAW)
        if minus is None and variant.parent:
            continue
        baseline = read(root, variant.parent) if variant.parent else variant
        f1 = evidence.quality["f1"][Input.RAW].macro
        found.append(
            Point(
                variant=variant,
                f1=f1,
                minus=minus.macro if minus else Interval(n=f1.n, mean=0, low=0, high=0),
                smaller=float_bytes(root / baseline.name, baseline) / variant.bytes,
                faster=evidence.speed.ratio_to_baseline,
                tokens_per_second=evidence.speed.tokens_per_second,
            )
        )
    return found


def float_bytes(folder: Path, baseline: Variant) -> int:
    """Of the baseline exported at 32 bits, nothing packed: what sizes are compared with."""
    tokenizer = stored.locate(folder / TOKENIZER)
    packed = tokenizer.suffix == stored.PACKED
    length = stored.declared(tokenizer) if packed else tokenizer.stat().st_size
    return baseline.parameters * FLOAT_BYTES + length


def _all(root: Path) -> list[Variant]:
    return [catalog.read(file.parent) for file in root.glob(f"*/{catalog.MANIFEST}")]


def dominated(points: Iterable[Point]) -> dict[str, str]:
    """Name of each dominated variant -> of the best one that dominates it."""
    points = list(points)
    found = {}
    for point in points:
        better = [
            other
            for other in points
            if other.good != point.good
            and all(theirs >= mine for theirs, mine in zip(other.good, point.good, strict=True))
        ]
        if better:
            found[point.name] = max(better, key=lambda other: other.good).name
    return found


def nearest(target: Target, points: Iterable[Point]) -> Point | None:
    """Of those within the target's drop the one with most of its size and speed; None: no one."""
    within = [point for point in points if point.minus.mean >= -target.drop]
    return max(within, key=target.share, default=None)

"""
Figures of measurements: interleaved rounds, ratios within a round, targets, a table.

Pure; knows nothing of what was measured.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """`at_least`: more is better; else less."""

    bound: float
    at_least: bool = True

    def is_kept(self, value: float) -> bool:
        return value >= self.bound if self.at_least else value <= self.bound

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.bound:g}"


@dataclass(frozen=True)
class Figure:
    """One measured thing, a value a round. Ratios are of values of the same round."""

    section: str
    variant: str
    what: str
    unit: str
    rounds: tuple[float, ...]
    target: Target | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    @property
    def is_kept(self) -> bool | None:
        """Whether the median keeps the target; None where there is none."""
        return self.target.is_kept(self.median) if self.target else None


def interleave(
    modes: Mapping[str, Callable[[], float]], rounds: int
) -> dict[str, tuple[float, ...]]:
    """Each mode once a round, every other round backwards; the values of each, a round each."""
    found: dict[str, list[float]] = {name: [] for name in modes}
    for number in range(rounds):
        for name in list(modes)[:: 1 if number % 2 == 0 else -1]:
            found[name].append(modes[name]())
    return {name: tuple(values) for name, values in found.items()}


def ratios(one: Sequence[float], other: Sequence[float]) -> tuple[float, ...]:
    """Round by round, `one` by `other`."""
    return tuple(a / b for a, b in zip(one, other, strict=True))


def table(figures: Sequence[Figure]) -> str:
    """What was measured: median, least and most of the rounds, target."""
    head = ("", "variant", "measured", "median", "min - max", "unit", "target", "")
    lines = [head, *map(_cells, figures)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i in (3, 4) else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _cells(figure: Figure) -> tuple[str, ...]:
    kept = {None: "", True: "kept", False: "missed"}[figure.is_kept]
    return (
        figure.section,
        figure.variant,
        figure.what,
        _short(figure.median),
        f"{_short(min(figure.rounds))} - {_short(max(figure.rounds))}",
        figure.unit,
        str(figure.target or ""),
        kept,
    )


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

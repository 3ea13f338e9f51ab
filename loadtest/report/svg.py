"""
What pictures are drawn with: scales, axes, lines and labels, as SVG in text.

Colours are classes, which the page gives for light and for dark. Pure; knows nothing of load tests.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

COLOURS = 7
SIGN = 6.6  # of 12 units' text, about
LINE = 15.0


@dataclass(frozen=True, slots=True)
class Scale:
    """From figures to places; logarithmic where factors matter. What is infinite is at the end."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        if value == math.inf:
            return self.end
        low, high, at = (self._way(each) for each in (self.low, self.high, value))
        share = (at - low) / (high - low) if high > low else 0.5
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)

    def ticks(self, most: int = 6) -> list[float]:
        """Round figures within."""
        return _log_ticks(self.low, self.high, most) if self.log else self._even(most)

    def _even(self, most: int) -> list[float]:
        step = _round((self.high - self.low) / max(1, most - 1))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]

    def _way(self, value: float) -> float:
        return math.log(max(value, 1e-12)) if self.log else value


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A field with two scales; what is drawn in it is text that `picture` puts together."""

    x: Scale
    y: Scale

    def axes(
        self,
        *,
        x_ticks: Sequence[tuple[float, str]],
        y_ticks: Sequence[tuple[float, str]],
        x_name: str = "",
        y_name: str = "",
    ) -> str:
        left, right = self.x.start, self.x.end
        bottom, top = self.y.start, self.y.end
        drawn = [
            f'<path class="grid" d="M{left:.1f} {self.y(at):.1f}H{right:.1f}"/>'
            + text(left - 6, self.y(at) + 4, name, "quiet", "end")
            for at, name in y_ticks
        ]
        drawn += [
            f'<path class="tick" d="M{self.x(at):.1f} {bottom:.1f}v4"/>'
            + text(self.x(at), bottom + 17, name, "quiet", "middle")
            for at, name in x_ticks
        ]
        drawn.append(f'<path class="axis" d="M{left:.1f} {bottom:.1f}H{right:.1f}"/>')
        if x_name:
            drawn.append(text((left + right) / 2, bottom + 35, x_name, "quiet", "middle"))
        if y_name:
            drawn.append(text(left, top - 9, y_name, "quiet"))
        return "".join(drawn)

    def line(self, points: Sequence[tuple[float, float]], css: str, title: str = "") -> str:
        """Broken where a figure is none; an infinite one lies on the edge."""
        path, pen = [], "M"
        for x, y in points:
            if math.isnan(y):
                pen = "M"
                continue
            path.append(f"{pen}{self.x(x):.1f} {self.y(y):.1f}")
            pen = "L"
        return f'<path class="line {css}" d="{"".join(path)}">{_title(title)}</path>'

    def point(self, x: float, y: float, css: str, title: str = "", radius: float = 4.5) -> str:
        return (
            f'<circle class="point {css}" cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" '
            f'r="{radius:g}">{_title(title)}</circle>'
        )

    def across(self, low: float, high: float, y: float, css: str) -> str:
        return (
            f'<path class="bar {css}" d="M{self.x(low):.1f} {self.y(y):.1f}H{self.x(high):.1f}"/>'
        )

    def up(self, x: float, low: float, high: float, css: str) -> str:
        return (
            f'<path class="bar {css}" d="M{self.x(x):.1f} {self.y(low):.1f}V{self.y(high):.1f}"/>'
        )


def picture(width: float, height: float, label: str, *drawn: str) -> str:
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(label)}">'
        f"{''.join(drawn)}</svg>"
    )


def text(x: float, y: float, said: str, css: str = "", anchor: str = "start") -> str:
    where = "" if anchor == "start" else f' text-anchor="{anchor}"'
    style = f' class="{css}"' if css else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{where}{style}>{escape(said)}</text>'


def rectangle(x: float, y: float, width: float, height: float, css: str) -> str:
    return (
        f'<rect class="{css}" x="{x:.1f}" y="{y:.1f}" width="{max(0.0, width):.1f}" '
        f'height="{height:.1f}"/>'
    )


def colour(number: int) -> str:
    return f"c{number % COLOURS}"


def width_of(said: str) -> float:
    return SIGN * len(said)


def short(value: float) -> str:
    """1500 -> 1,500   0.05 -> 0.05   2.0 -> 2"""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def named(ticks: Sequence[float], name: Callable[[float], str] = short) -> list[tuple[float, str]]:
    return [(each, name(each)) for each in ticks]


def around(values: Sequence[float], *, log: bool, margin: float = 0.08) -> tuple[float, float]:
    """Bounds that leave a margin around what is finite."""
    known = [each for each in values if math.isfinite(each) and (each > 0 or not log)]
    if not known:
        return (1.0, 10.0) if log else (0.0, 1.0)
    low, high = min(known), max(known)
    if log:
        wide = max(math.log(high / low), 0.3) * margin
        return low * math.exp(-wide), high * math.exp(wide)
    wide = max(high - low, abs(high) * 0.02, 1e-9) * margin
    return low - wide, high + wide


def _title(said: str) -> str:
    return f"<title>{escape(said)}</title>" if said else ""


def _round(step: float) -> float:
    ten = 10.0 ** math.floor(math.log10(max(step, 1e-12)))
    return next((ten * each for each in (1, 2, 5, 10) if ten * each >= step - 1e-12), ten * 10)


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
        found = [n * 10.0**p for p in powers for n in steps if low <= n * 10.0**p <= high]
        if len(found) <= most:
            return found
    return found[:: max(1, len(found) // most)]

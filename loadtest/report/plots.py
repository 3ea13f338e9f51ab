"""The pictures of a comparison, each an SVG. Pure; knows nothing of pages."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from loadtest import figures
from loadtest.bootstrap import Difference, Interval
from loadtest.compare import CLIMB_FROM, CLIMB_TO, Climb
from loadtest.findings import COST, RATE, Findings, Row
from loadtest.report.numbers import number
from loadtest.report.svg import (
    LINE,
    Frame,
    Scale,
    around,
    colour,
    named,
    picture,
    rectangle,
    short,
    text,
    width_of,
)
from loadtest.report.tables import cost
from loadtest.report.verdict import WORDS, noise_told
from loadtest.watch import Quality

WIDTH, HEIGHT = 520.0, 340.0
LEFT, TOP, BOTTOM, RIGHT = 52.0, 28.0, 44.0, 14.0
SWATCH = 18.0
COMPARED = (RATE, "p50", "p99", COST)
BETTER = {RATE: "more is better"}
NINES = (0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999)
POINTS = 160
BIN_S = 0.5

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""

STRETCH, LEAST_STRETCHES, MOST_STRETCHES = 100, 4, 12  # of a climb; the first in requests


@dataclass(frozen=True, slots=True)
class Plot:
    """A picture with what it shows and how to read it."""

    name: str
    svg: str
    note: str


def plots(found: Findings, price: float) -> list[Plot]:
    """In the order they matter; those for which nothing was measured are left out."""
    made = [differences(found), quality(found), percentiles(found), rates(found), rounds(found)]
    made += [bars(found, price)]
    return [each for each in made if each]


# --- how many times --------------------------------------------------------------------------


def differences(found: Findings) -> Plot | None:
    first, *others = found.rows
    names = [name for name in COMPARED if name in found.noise]
    if not others:
        return None
    left, right = 12 + max(width_of(row.variant) for row in others), 92.0
    ends = [
        end
        for row in others
        for name in names
        for ratio in (found.differences[row.variant, first.variant, name].ratio,)
        for end in (ratio.low, ratio.high, ratio.mean)
    ]
    low, high = around([*ends, 0.95, 1.05], log=True, margin=0.06)
    step, head, gap = 18.0, 22.0, 10.0
    top = 4.0
    height = top + len(names) * (head + step * len(others) + gap) + 26
    x = Scale(low, high, left, WIDTH - right, log=True)
    frame = Frame(x=x, y=Scale(0, height, 0, height))
    bottom = height - 26
    drawn = [
        f'<path class="grid" d="M{x(at):.1f} {top:.1f}V{bottom:.1f}"/>'
        + text(x(at), bottom + 16, name, "quiet", "middle")
        for at, name in named(x.ticks(6), lambda value: f"×{short(value)}")
    ]
    bands, y = [f'<path class="axis" d="M{x(1):.1f} {top:.1f}V{bottom:.1f}"/>'], top
    for name in names:
        drawn.append(text(left, y + 12, WORDS[name], "strong"))
        told = f"noise {noise_told(found.noise[name])} · {BETTER.get(name, 'less is better')}"
        drawn.append(text(WIDTH - 4, y + 12, told, "quiet", "end"))
        y += head
        for place, row in enumerate(others, 1):
            at = y + step / 2 + 2
            each = found.differences[row.variant, first.variant, name]
            bands.append(_band(x, each.noise, at, step))
            said = f"{row.variant}: × {number(each.ratio.mean)} of {first.variant}"
            drawn.append(text(left - 8, at + 4, row.variant, "quiet" * bool(each.undecided), "end"))
            drawn.append(_difference(frame, each, at, colour(place), said))
            y += step
        y += gap
    drawn = [*bands, *drawn]
    return Plot(
        f"How many times {first.variant}",
        picture(WIDTH, height, f"Differences from {first.variant}", *drawn),
        "Bars are 95 % intervals over paired rounds; the shaded band is how far the machine "
        "differs from itself. What is grey cannot be told from it.",
    )


def _band(x: Scale, noise: float, at: float, high: float) -> str:
    if noise == math.inf:
        return ""
    start, end = x(1 / noise), x(noise)
    return rectangle(start, at - 9, max(2.0, end - start), high, "noise")


def _difference(frame: Frame, each: Difference, at: float, css: str, said: str) -> str:
    """A point with its interval, and to the right its figure."""
    css, style = ("mute", "quiet") if each.undecided else (css, "")
    drawn = []
    if math.isfinite(each.ratio.high):
        drawn.append(frame.across(each.ratio.low, each.ratio.high, at, css))
    if each.exists:
        drawn.append(frame.point(each.ratio.mean, at, css, said))
    sign = "≈" if each.undecided else "×"
    told = f"{sign} {number(each.ratio.mean)}" if each.exists else "failed"
    return "".join([*drawn, text(WIDTH - 4, at + 4, told, style, "end")])


# --- quality against rate --------------------------------------------------------------------


def quality(found: Findings) -> Plot | None:
    known = [(i, row, row.quality) for i, row in enumerate(found.rows) if row.quality]
    if not known:
        return None
    rates = [end for _, row, _ in known for end in _finite(row.rate)]
    heights = [end for _, _, f1 in known for end in (f1.low, f1.mean, f1.high)]
    frame = Frame(
        x=Scale(*around(rates, log=True, margin=0.16), LEFT, WIDTH - 16, log=True),
        y=Scale(*around(heights, log=False, margin=0.16), HEIGHT - BOTTOM, TOP),
    )
    drawn = [
        frame.axes(
            x_ticks=named(frame.x.ticks(6)),
            y_ticks=named(frame.y.ticks(6), lambda value: f"{value:.2f}"),
            x_name="right answers a second, at the peak",
            y_name="F1",
        )
    ]
    front = pareto([row for _, row, _ in known])
    stairs = [(row.rate.mean, row.quality.mean) for row in front if row.quality]
    drawn.append(frame.line(_stairs(stairs), "front"))
    taken: list[Box] = []
    for i, row, f1 in known:
        drawn.append(_mark(frame, row, f1, colour(i) if row in front else "mute"))
        taken += _boxes(frame, row, f1)
    for i, row, f1 in known:
        at = _free(frame.x(row.rate.mean), frame.y(f1.mean), row.variant, taken, frame)
        drawn.append(text(*at, row.variant, f"{colour(i)} ink" if row in front else "quiet"))
    return Plot(
        "Quality against rate",
        picture(WIDTH, HEIGHT, "F1 against the peak rate", *drawn),
        "Up and to the right is better. The line is the Pareto front: of those on it none is both "
        "slower and worse than another; grey ones are. Bars are 95 % intervals.",
    )


def _mark(frame: Frame, row: Row, f1: Quality, css: str) -> str:
    """A point with both its intervals."""
    drawn = []
    if math.isfinite(f1.high):
        drawn.append(frame.up(row.rate.mean, f1.low, f1.high, f"thin {css}"))
    if math.isfinite(row.rate.high):
        drawn.append(frame.across(row.rate.low, row.rate.high, f1.mean, css))
    said = f"{row.variant}: F1 {f1.mean:.3f}, {number(row.rate.mean)} answers/s"
    return "".join([*drawn, frame.point(row.rate.mean, f1.mean, css, said)])


def _boxes(frame: Frame, row: Row, f1: Quality) -> list[Box]:
    """Where a point lies and its F1's interval, so that no name is put there."""
    x, y = frame.x(row.rate.mean), frame.y(f1.mean)
    point = (x - 6, y - 6, x + 6, y + 6)
    if not math.isfinite(f1.high):
        return [point]
    return [point, (x - 2, frame.y(f1.high), x + 2, frame.y(f1.low))]


def pareto(rows: Sequence[Row]) -> list[Row]:
    """Of those with a known F1, whom nobody beats in both, the slowest first."""
    known = [row for row in rows if row.quality]

    def beaten(row: Row) -> bool:
        mine = (row.rate.mean, row.quality.mean if row.quality else 0.0)
        return any(
            (theirs := (other.rate.mean, other.quality.mean if other.quality else 0.0)) != mine
            and theirs[0] >= mine[0]
            and theirs[1] >= mine[1]
            for other in known
        )

    return sorted((row for row in known if not beaten(row)), key=lambda row: row.rate.mean)


def _stairs(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    found: list[tuple[float, float]] = []
    for x, y in points:
        if found:
            found.append((found[-1][0], y))
        found.append((x, y))
    return found


def _free(x: float, y: float, said: str, taken: list[Box], frame: Frame) -> tuple[float, float]:
    """A place beside a point that no label or point has yet."""
    wide = width_of(said)
    tries = [
        *((x + 9, y + dy) for dy in (-8, 16)),
        *((x - wide - 9, y + dy) for dy in (-8, 16)),
        *((x - wide / 2, y + dy) for dy in (-14, 24, -28, 38, -42, 52)),
        *((x + 9, y + dy) for dy in (-22, 30, -36, 44)),
        *((x - wide - 9, y + dy) for dy in (-22, 30, -36, 44)),
    ]
    for left, base in tries:
        box = (left, base - 11, left + wide, base + 3)
        inside = (
            box[0] >= frame.x.start
            and box[2] <= WIDTH - 2
            and box[1] >= frame.y.end - 10
            and box[3] <= frame.y.start
        )
        if inside and not any(_overlap(box, other) for other in taken):
            taken.append(box)
            return left, base
    return tries[0]


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


# --- latency ---------------------------------------------------------------------------------


def percentiles(found: Findings) -> Plot | None:
    """Of all arrivals by nines; a line ends where answers do."""
    rows = [(i, row) for i, row in enumerate(found.rows) if row.answers]
    if not rows:
        return None
    curves = {i: _curve(row) for i, row in rows}
    most = max(points[-1][0] for points in curves.values())
    frame, over = _field(found, (0, most), curves)
    nines = [(nine, _percent(p)) for p in NINES if (nine := _nines(p)) <= most + 0.05]
    drawn = [
        frame.axes(
            x_ticks=nines,
            y_ticks=_ticks(frame, curves.values()),
            x_name="share of the requests",
            y_name="answered within, ms",
        ),
        *over,
    ]
    drawn += [frame.line(points, colour(i), found.rows[i].variant) for i, points in curves.items()]
    return Plot(
        "Latency",
        picture(WIDTH, HEIGHT, "Latency percentiles", *drawn),
        f"What share of the requests was answered within, at {number(found.rate)} requests/s: one "
        "step to the right leaves out ten times as many. From when a request was due.",
    )


def _curve(row: Row) -> list[tuple[float, float]]:
    """(nines, ms)."""
    answered = 1 - row.failed
    most = _nines(1 - 1 / (row.answers + 1))
    shares = [1 - 10**-nine for nine in np.linspace(0, most, POINTS)]
    times = figures.percentiles_s(row.histogram, shares)
    return [
        (_nines(share * answered), seconds * 1000)
        for share, seconds in zip(shares, times, strict=True)
    ]


def _nines(share: float) -> float:
    """0.9 -> 1   0.99 -> 2"""
    return -math.log10(max(1e-9, 1 - share))


def _percent(share: float) -> str:
    return f"{100 * share:.5g} %"


# --- rate against p99 ------------------------------------------------------------------------


def rates(found: Findings) -> Plot | None:
    """What a search tried where there was one, else what the climb saw."""
    tries = {
        i: [(rate, 1000 * p99, kept) for rate, p99, kept in sorted(search.steps)]
        for i, row in _each(found)
        if (search := found.searches.get(row.variant)) and search.steps
    }
    lines = {i: least([(rate, ms) for rate, ms, _ in each]) for i, each in tries.items()}
    for i, row in _each(found):
        if i not in tries and row.variant in found.climbs:
            lines[i] = climbed(found.climbs[row.variant])
    if not lines:
        return None
    drawn_at = [*lines.values(), *([(rate, ms) for rate, ms, _ in each] for each in tries.values())]
    wide = around([rate for points in drawn_at for rate, _ in points], log=True)
    frame, over = _field(found, wide, dict(sorted(lines.items())), drawn_at, log=True)
    drawn = [
        frame.axes(
            x_ticks=named(frame.x.ticks(6)),
            y_ticks=_ticks(frame, drawn_at),
            x_name="requests a second",
            y_name="p99, ms",
        ),
        *over,
    ]
    for i, points in sorted(lines.items()):
        name = found.rows[i].variant
        drawn.append(frame.line(points, f"thin {colour(i)}", name))
        for rate, ms, kept in tries.get(i, []):
            said = f"{name}: p99 {number(ms)} ms at {number(rate)}/s"
            drawn.append(frame.point(rate, ms, colour(i) + ("" if kept else " open"), said, 3.5))
    return Plot(
        "Rate against p99",
        picture(WIDTH, HEIGHT, "p99 against the rate", *drawn),
        " ".join((*[SEARCHED] * bool(tries), *[CLIMBED] * (len(lines) > len(tries)))),
    )


SEARCHED = (
    "Circles are what the search for the largest rate tried, full where the limit, which is "
    "dashed, was kept; their line is the least p99 at that rate or above."
)
CLIMBED = (
    "Lines without circles are of the load that climbs, each corner of about 100 requests, or "
    "of a quarter of the climb where it has fewer: rough, and none of the figures."
)


def least(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """
    Of points by their rate, the least p99 at each rate or above: a hiccup raises none of it.

    (10, 5) (10, 3) (20, 9) (30, 7)   -> (10, 3) (20, 7) (30, 7)
    """
    found: list[tuple[float, float]] = []
    for rate, ms in sorted(points, reverse=True):
        low = min(ms, found[-1][1]) if found else ms
        found = [*(found[:-1] if found and found[-1][0] == rate else found), (rate, low)]
    return found[::-1]


def climbed(climb: Climb) -> list[tuple[float, float]]:
    """(requests a second, p99 in ms) of a climb in a few stretches."""
    run = climb.run
    arrivals = figures.arrivals([run])
    stretches = min(MOST_STRETCHES, max(LEAST_STRETCHES, arrivals // STRETCH))
    bins = _bins(climb, run.seconds / stretches)
    return [
        (climb.peak * _load(at, run.seconds), p99) for at, _, p99 in bins if not math.isnan(p99)
    ]


# --- cost and size ---------------------------------------------------------------------------


Bars = list[tuple[int, Interval, str]]
"""A variant's number, its figure, and that in words."""


def bars(found: Findings, price: float) -> Plot | None:
    groups = [(name, each) for name, each in _groups(found, price).items() if each]
    if not groups:
        return None
    left, right = 12 + max(width_of(row.variant) for row in found.rows), 70.0
    step, head, gap = 20.0, 22.0, 14.0
    height = 8 + sum(head + step * len(each) + gap for _, each in groups)
    drawn, y = [], 8.0
    for name, values in groups:
        drawn.append(text(left, y + 12, name, "strong"))
        y += head
        ends = [v.high if math.isfinite(v.high) else v.mean for _, v, _ in values]
        x = Scale(0, max(ends), left, WIDTH - right)
        for i, value, said in values:
            drawn.append(_bar(x, value, y, colour(i)))
            drawn.append(text(left - 8, y + 13, found.rows[i].variant, "", "end"))
            drawn.append(text(WIDTH - 4, y + 13, said, "", "end"))
            y += step
        y += gap
    return Plot(
        "Cost and size",
        picture(WIDTH, height, "Cost and size", *drawn),
        "Cost is of the CPU-seconds that the server's processes took at the same rate for all; "
        "whiskers are 95 % intervals.",
    )


def _groups(found: Findings, price: float) -> dict[str, Bars]:
    def sure(value: float) -> Interval:
        return Interval(value, value, value)

    rows = _each(found)
    costs = [(i, value) for i, row in rows if (value := cost(row, price))]
    joules = [(i, row.server.energy_j) for i, row in rows if row.server.energy_j]
    sizes = [(i, row.bytes / 1e6) for i, row in rows if row.bytes]
    return {
        f"a million answers, at ${price:g} an hour of one CPU": [
            (i, each, f"${number(each.mean)}") for i, each in costs
        ],
        "joules an answer, of the whole processor": [
            (i, sure(each), f"{number(each)} J") for i, each in joules
        ],
        "size": [(i, sure(each), f"{number(each)} MB") for i, each in sizes],
    }


def _bar(x: Scale, value: Interval, y: float, css: str) -> str:
    drawn = rectangle(x.start, y + 3, x(value.mean) - x.start, 12, f"fill {css}")
    if not value.low < value.high < math.inf:
        return drawn
    reach = f"M{x(value.low):.1f} {y + 9:.1f}H{x(value.high):.1f}"
    return f'{drawn}<path class="whisker" d="{reach}"/>'


def _each(found: Findings) -> list[tuple[int, Row]]:
    return list(enumerate(found.rows))


# --- round by round --------------------------------------------------------------------------


def rounds(found: Findings) -> Plot | None:
    """The p99 of each: what the machine did meanwhile."""
    series = {i: [1000 * each for each in row.rounds["p99"]] for i, row in _each(found)}
    count = max(len(each) for each in series.values())
    if count < 2:
        return None
    lines = {i: [(float(n), ms) for n, ms in enumerate(each, 1)] for i, each in series.items()}
    frame, over = _field(found, (1, count), lines, limited=False)
    drawn = [
        frame.axes(
            x_ticks=named(range(1, count + 1)),
            y_ticks=_ticks(frame, lines.values()),
            x_name="round",
            y_name="p99, ms",
        ),
        *over,
    ]
    for i, points in lines.items():
        name = found.rows[i].variant
        drawn.append(frame.line(points, f"thin {colour(i)}", name))
        drawn += [frame.point(n, ms, colour(i), f"{name}: {number(ms)} ms", 3) for n, ms in points]
    return Plot(
        "Round by round",
        picture(WIDTH, HEIGHT, "p99 of every round", *drawn),
        "Lines that move together are the machine's doing and cancel out; those that move apart "
        "are what makes intervals wide.",
    )


# --- the climb -------------------------------------------------------------------------------


def climbs(found: Findings) -> list[Plot]:
    """A picture a variant, all at one scale: its client's view over its queue and batches."""
    if not found.climbs:
        return []
    seen = {name: _bins(climb) for name, climb in found.climbs.items()}
    moments = [each for climb in found.climbs.values() for each in climb.server.moments]
    times = [ms for bins in seen.values() for _, p50, p99 in bins for ms in (p50, p99)]
    scales = (
        _reach(times),
        (0.0, max([1.0, *(each.waiting for each in moments)]) * 1.08),
        (0.0, max([1.0, *(each.batch for each in moments if each.batch > 0)]) * 1.08),
    )
    return [
        Plot(name, _climb(found, name, seen[name], scales), "")
        for name in (row.variant for row in found.rows)
        if name in found.climbs
    ]


def _climb(
    found: Findings,
    name: str,
    bins: Sequence[tuple[float, float, float]],
    scales: Sequence[tuple[float, float]],
) -> str:
    climb = found.climbs[name]
    number_of = next(i for i, row in enumerate(found.rows) if row.variant == name)
    css, high, gap, width = colour(number_of), 92.0, 34.0, 360.0
    seconds = climb.run.seconds
    moments = [each for each in climb.server.moments if each.at_s <= seconds]

    def load(at_s: float) -> float:
        return _load(at_s, seconds)

    x = Scale(CLIMB_FROM, CLIMB_TO, 46, width - 18)
    strips: Mapping[str, list[tuple[list[tuple[float, float]], str]]] = {
        "latency, ms: p50 and p99": [
            ([(load(at), p99) for at, _, p99 in bins], css),
            ([(load(at), p50) for at, p50, _ in bins], f"thin {css}"),
        ],
        "windows waiting": [([(load(m.at_s), m.waiting) for m in moments], css)],
        "windows a batch": [([(load(m.at_s), m.batch) for m in moments], css)],
    }
    drawn = [text(4, 15, name, f"strong {css} ink")]
    drawn.append(text(width - 6, 15, f"peak {number(found.row(name).rate.mean)}/s", "quiet", "end"))
    for place, ((label, lines), (low, top)) in enumerate(zip(strips.items(), scales, strict=True)):
        y = 46 + place * (high + gap)
        frame = Frame(x=x, y=Scale(low, top, y + high, y, log=place == 0))
        last = place == len(strips) - 1
        drawn.append(
            frame.axes(
                x_ticks=[(at, f"{at:.0%}") for at in (0.2, 0.4, 0.6, 0.8, 1.0, 1.2)]
                if last
                else [],
                y_ticks=_ticks(frame, [points for points, _ in lines], 4),
                x_name="offered, of its peak" if last else "",
                y_name=label,
            )
        )
        drawn.append(f'<path class="limit" d="M{x(1.0):.1f} {y:.1f}V{y + high:.1f}"/>')
        drawn += [frame.line(points, style) for points, style in lines]
    height = 46 + 3 * high + 2 * gap + 40
    return picture(width, height, f"{name} while its load climbs", *drawn)


def _load(at_s: float, seconds: float) -> float:
    """Of a climb, of its peak."""
    return CLIMB_FROM + (CLIMB_TO - CLIMB_FROM) * min(max(at_s / seconds, 0.0), 1.0)


def _bins(climb: Climb, wide_s: float = BIN_S) -> list[tuple[float, float, float]]:
    """(middle, p50, p99) in ms of the requests due in each stretch; who failed took for ever."""
    run = climb.run
    edges = np.arange(0, max(run.seconds, wide_s) + wide_s / 2, wide_s)
    due = np.array([each.due_s for each in run.requests])
    times = 1000 * figures.latencies_s([replace(run, dropped=0)])
    found = [times[(start <= due) & (due < end)] for start, end in itertools.pairwise(edges)]
    # Nobody wrote down when they were due; where the load is the largest, most likely.
    found[-1] = np.append(found[-1], [math.inf] * run.dropped)
    return [
        (float(start + wide_s / 2), *_quantiles(each))
        for start, each in zip(edges, found, strict=False)
    ]


def _quantiles(times: figures.Floats) -> tuple[float, float]:
    if not len(times):
        return math.nan, math.nan
    p50, p99 = np.quantile(times, [0.5, 0.99], method="inverted_cdf")
    return float(p50), float(p99)


# --- a field of latencies --------------------------------------------------------------------


def _field(
    found: Findings,
    wide: tuple[float, float],
    lines: Mapping[int, Sequence[tuple[float, float]]],
    more: Sequence[Sequence[tuple[float, float]]] = (),
    *,
    log: bool = False,
    limited: bool = True,
) -> tuple[Frame, list[str]]:
    """
    Milliseconds upwards, and what is drawn over its axes: the names of the lines above it, the
    limit in it.
    """
    names, below = _names(found, list(lines))
    limit = [1000 * found.limit_s] if found.limit_s and limited else []
    values = [ms for points in (*lines.values(), *more) for _, ms in points]
    frame = Frame(
        x=Scale(*wide, LEFT, WIDTH - RIGHT, log=log),
        y=Scale(*_reach([*values, *limit]), HEIGHT - BOTTOM, TOP + below, log=True),
    )
    return frame, [names, *(frame.line([(x, ms) for x in wide], "limit") for ms in limit)]


def _names(found: Findings, shown: Sequence[int]) -> tuple[str, float]:
    """Each beside a piece of its line, in rows, and how high these are."""
    drawn, x, y = [], 0.0, 12.0
    for i in shown:
        name = found.rows[i].variant
        wide = SWATCH + 6 + width_of(name) + 18
        if x and x + wide > WIDTH:
            x, y = 0.0, y + LINE
        drawn.append(f'<path class="line {colour(i)}" d="M{x:.1f} {y - 4:.1f}h{SWATCH:g}"/>')
        drawn.append(text(x + SWATCH + 6, y, name, f"{colour(i)} ink"))
        x += wide
    return "".join(drawn), y + 4


# --- what never ends -------------------------------------------------------------------------


def _reach(values: Sequence[float], margin: float = 0.05) -> tuple[float, float]:
    """Bounds of milliseconds; above those that end there is room where some do not."""
    low, high = around(values, log=True, margin=margin)
    return low, high * (high / low) ** 0.15 if math.inf in values else high


def _ticks(
    frame: Frame, lines: Iterable[Sequence[tuple[float, float]]], most: int = 7
) -> list[tuple[float, str]]:
    """Of the scale upwards, whose edge is `never` where a line has an end there."""
    ticks = named(frame.y.ticks(most))
    if not any(y == math.inf for points in lines for _, y in points):
        return ticks
    below = [(at, name) for at, name in ticks if frame.y(at) - frame.y.end >= LINE]
    return [*below, (frame.y.high, number(math.inf))]


def _finite(value: Interval) -> tuple[float, ...]:
    known = math.isfinite(value.high) and value.low > 0
    return (value.low, value.mean, value.high) if known else (value.mean,)

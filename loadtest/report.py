"""
The comparison as a table for the terminal and as one HTML page that needs nothing else.

Pure: values in, text out. Knows nothing of Locust.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from loadtest.measure import Block, Row, percentile, times_ms

HEAD = (
    *("variant", "task", "answers/s", "of single blocks"),
    *("p50 ms", "p95 ms", "p99 ms", "answers", "failures"),
)

# A curve's points: dense at the slow end, where callers notice.
SHARES = (*(i / 50 for i in range(50)), 0.985, 0.99, 0.995, 0.999, 1.0)
WIDTH, HEIGHT, LEFT, BOTTOM = 720, 260, 44, 30
COLOURS = 6

STYLE = """
:root{color-scheme:light dark;--ground:#fff;--ink:#1c1e21;--quiet:#61666d;--line:#d9dce1;
--c0:#0b66c3;--c1:#b8500c;--c2:#1a7f4b;--c3:#8a3ab9;--c4:#a81c4b;--c5:#5d6b00}
@media(prefers-color-scheme:dark){:root{--ground:#15171a;--ink:#e8eaed;--quiet:#9aa0a8;
--line:#363a40;--c0:#6db1ff;--c1:#ff9f5a;--c2:#5fd393;--c3:#cf95f5;--c4:#ff86ab;--c5:#cdd96a}}
body{margin:2rem auto;max-width:60rem;padding:0 1rem;background:var(--ground);color:var(--ink);
font:16px/1.5 system-ui,sans-serif}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.35rem .7rem;border-bottom:1px solid var(--line);text-align:right}
th:first-child,td:first-child,th:nth-child(2),td:nth-child(2){text-align:left}
th{color:var(--quiet);font-weight:600}.wide{overflow-x:auto}svg{width:100%;height:auto}
svg text{fill:var(--quiet);font-size:11px}.grid{stroke:var(--line)}
.curve{fill:none;stroke-width:2}dl{display:grid;grid-template-columns:max-content 1fr;gap:0 1rem}
dt,.quiet{color:var(--quiet)}dd{margin:0}.key{display:inline-block;width:.8em;height:.8em}
""" + "".join(
    f".c{i}{{stroke:var(--c{i})}}.key.c{i}{{background:var(--c{i})}}" for i in range(COLOURS)
)


@dataclass(frozen=True)
class Page:
    """All that a report tells. `verdict`: the promises that were broken, none: all of `kept`."""

    settings: dict[str, Any]
    rows: tuple[Row, ...]
    blocks: tuple[Block, ...]
    verdict: tuple[str, ...]
    kept: str


def table(rows: Sequence[Row]) -> str:
    """Aligned columns: names to the left, numbers to the right."""
    lines = [HEAD, *map(cells, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def cells(row: Row) -> tuple[str, ...]:
    """One row as people read it, in the order of `HEAD`."""
    return (
        row.variant,
        row.task,
        f"{row.rate:.1f}",
        # One block alone is no range.
        f"{row.slowest:.1f}-{row.fastest:.1f}" if row.slowest < row.fastest else "-",
        f"{row.p50_ms:.1f}",
        f"{row.p95_ms:.1f}",
        f"{row.p99_ms:.1f}",
        str(row.answers),
        f"{row.failures} ({row.failed:.1%})" if row.failures else "0",
    )


def html(page: Page) -> str:
    """The whole report: verdict, table, curves of response times, errors, settings."""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Kadogo load test</title>
<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>
<h1>Kadogo load test</h1>
{_verdict(page)}
<div class="wide">{_table(page.rows)}</div>
<p class="quiet">Variants ran in turn in short blocks, each after a warm-up that is not counted.
Callers wait for an answer before they ask again, so a slower server is also asked less often.
Percentiles come from every response time of a right answer.</p>
<h2>Response times</h2>
{_chart(page)}
{_errors(page.rows)}
<h2>Settings</h2>
<dl>{"".join(f"<dt>{_e(k)}</dt><dd>{_e(v)}</dd>" for k, v in page.settings.items())}</dl>
</body></html>
"""


def _verdict(page: Page) -> str:
    if not page.verdict:
        return f"<p>{_e(page.kept)}</p>"
    return f"<p>Broken promises:</p><ul>{''.join(f'<li>{_e(s)}</li>' for s in page.verdict)}</ul>"


def _table(rows: Sequence[Row]) -> str:
    head = "".join(f"<th>{_e(name)}</th>" for name in HEAD)
    body = "".join(f"<tr>{''.join(f'<td>{_e(c)}</td>' for c in cells(row))}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _errors(rows: Sequence[Row]) -> str:
    found = [(row.variant, text, n) for row in rows for text, n in row.errors.items()]
    if not found:
        return ""
    lines = "".join(f"<li>{_e(name)}: {_e(text)}, {n} times</li>" for name, text, n in found)
    return f"<h2>Failures</h2><ul>{lines}</ul>"


def _chart(page: Page) -> str:
    """For each variant the share of answers (up) that took at most so long (right, log scale)."""
    times = {row.variant: _times(page, row) for row in page.rows if row.answers}
    if not times:
        return "<p>Nothing was answered.</p>"
    low = math.floor(math.log10(max(0.1, min(t[0] for t in times.values()))))
    high = max(low + 1, math.ceil(math.log10(max(t[-1] for t in times.values()))))
    curves = "".join(
        f'<polyline class="curve c{i % COLOURS}" points="{_points(t, low, high)}"/>'
        for i, t in enumerate(times.values())
    )
    keys = " ".join(
        f'<span><span class="key c{i % COLOURS}"></span> {_e(name)}</span>'
        for i, name in enumerate(times)
    )
    return (
        f"<p>{keys}</p>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="Share of answers by response time">{_grid(low, high)}{curves}</svg>'
    )


def _times(page: Page, row: Row) -> list[float]:
    return times_ms(block for block in page.blocks if block.variant == row.variant)


def _points(times: Sequence[float], low: int, high: int) -> str:
    return " ".join(
        f"{_x(percentile(times, share), low, high):.1f},{_y(share):.1f}" for share in SHARES
    )


def _grid(low: int, high: int) -> str:
    across = "".join(
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH}" y1="{_y(s):.1f}" y2="{_y(s):.1f}"/>'
        f'<text x="{LEFT - 6}" y="{_y(s) + 4:.1f}" text-anchor="end">{s:.0%}</text>'
        for s in (0, 0.25, 0.5, 0.75, 0.95, 1)
    )
    up = "".join(
        f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_y(1):.1f}" y2="{_y(0):.1f}"/>'
        f'<text x="{x:.1f}" y="{HEIGHT - 10}" text-anchor="middle">{ms:g} ms</text>'
        for ms in (10.0**power for power in range(low, high + 1))
        for x in (_x(ms, low, high),)
    )
    return across + up


def _x(ms: float, low: int, high: int) -> float:
    way = (math.log10(max(ms, 10.0**low)) - low) / (high - low)
    return LEFT + way * (WIDTH - LEFT - 24)


def _y(share: float) -> float:
    return 10 + (1 - share) * (HEIGHT - BOTTOM - 10)


def _e(value: object) -> str:
    return escape(str(value))

"""The report as Markdown and as JSON. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from loadtest.bootstrap import Interval
from loadtest.findings import Findings, Row
from loadtest.report import tables
from loadtest.report.page import TASKS
from loadtest.report.verdict import Verdict, shortened, verdict

FORMAT = "kadogo-comparison/2"
INFINITE = "infinite"


def markdown(reports: Sequence[Findings], settings: Mapping[str, object], price: float) -> str:
    parts = ["# Variants compared"]
    for found in reports:
        said = verdict(found)
        if len(reports) > 1:
            parts.append(f"## {TASKS.get(found.task, found.task)}")
        parts.append(f"**{said.headline}**")
        parts.append("\n".join(f"- {each}" for each in _below(said)))
        parts += [tables.markdown(each).strip() for each in tables.tables(found, price)]
    parts.append("## How it was measured")
    parts.append("\n".join(f"- {name}: {value}" for name, value in settings.items()))
    return "\n\n".join(parts) + "\n"


def terminal(reports: Sequence[Findings], price: float) -> str:
    """What is printed at the end: all verdicts, then the tables."""
    lines: list[str] = []
    for found in reports:
        said = verdict(found)
        lines += [said.headline, *_below(said), ""]
    for found in reports:
        for table in tables.tables(found, price):
            lines += [table.name, tables.plain(table), ""]
    return "\n".join(lines).replace("`", "")


def _below(said: Verdict) -> list[str]:
    """What stands below the headline."""
    return [
        *(f"Not kept: {each}" for each in shortened(said.wrong)),
        *(f"The load was in the way: {each}" for each in said.spoilt),
        *(f"Not proved: {each}" for each in said.unjudged),
        *said.reasons,
        *said.undecided,
        *(f"To be doubted: {each}" for each in said.doubts),
    ]


def book(
    reports: Sequence[Findings], settings: Mapping[str, object], price: float
) -> dict[str, Any]:
    """For programs. A failure took for ever, which is "infinite"; what nobody knows is null."""
    return {
        "format": FORMAT,
        "settings": dict(settings),
        "price_cpu_hour": price,
        "tasks": [_task(found, price) for found in reports],
    }


def to_json(value: Mapping[str, Any]) -> str:
    return json.dumps(_plain(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _task(found: Findings, price: float) -> dict[str, Any]:
    said = verdict(found)
    return {
        "task": found.task,
        "verdict": said.headline,
        "deploy": [
            {"variant": each.row.variant, "f1_drop": each.drop, "p99_surely": each.sure}
            for each in said.picks
        ],
        "reasons": said.reasons,
        "undecided": said.undecided,
        "broken": [*map(str, found.broken)],
        "mismatches": [*map(str, found.mismatches)],
        "ended": found.ended,
        "spoilt": [*map(str, found.spoilt)],
        "unjudged": [*map(str, found.unjudged)],
        "doubts": [*map(str, found.doubts)],
        "rate": found.rate,
        "limit_s": found.limit_s,
        "quality_of": "answers" if found.labelled else "evidence",
        "noise": {name: _known(each) for name, each in found.noise.items()},
        "variants": [_row(row, price) for row in found.rows],
        "differences": _pairs(found),
        "searches": {
            name: [{"rate": rate, "p99_s": p99, "kept": kept} for rate, p99, kept in each.steps]
            for name, each in found.searches.items()
        },
        "rates_within_limit": {
            name: {"rate": each.rate, "or_more": not each.bounded, "invalid": each.invalid}
            for name, each in found.searches.items()
        },
        "climbs": {
            name: {"peak": climb.peak, "server": [asdict(each) for each in climb.server.moments]}
            for name, climb in found.climbs.items()
        },
    }


def _pairs(found: Findings) -> list[dict[str, Any]]:
    return [
        {
            "variant": mine,
            "of": theirs,
            "statistic": name,
            "ratio": each.ratio,
            "noise": _known(each.noise),
            "decided": not each.undecided,
        }
        for (mine, theirs, name), each in found.differences.items()
    ]


def _row(row: Row, price: float) -> dict[str, Any]:
    return {
        "variant": row.variant,
        "rate": row.rate,
        "rate_is_least": row.least,
        "latency_s": {**row.percentiles, "p999": row.p999_s},
        "goodput": row.goodput,
        "answers": row.answers,
        "failed": row.failed,
        "failures": row.failures,
        "peak_failed": row.peak_failed,
        "peak_failures": row.peak_failures,
        "load": {
            "offered": row.load.offered,
            "sent": row.load.achieved,
            "dropped": row.load.dropped,
            "late_p99_s": row.load.late_p99_s,
            "cores": row.load.cores,
        },
        "server": asdict(row.server),
        "cost_per_million": tables.cost(row, price),
        "bytes": row.bytes,
        "f1": asdict(row.quality) if row.quality else None,
        "histogram_us": row.histogram,
        "rounds": row.rounds,
    }


def _known(noise: float) -> float | None:
    return noise if math.isfinite(noise) else None


def _plain(value: Any) -> Any:
    if isinstance(value, Interval):
        ends = (value.low, value.high) if math.isfinite(value.high) else (None, None)
        return _plain({"mean": value.mean, "low": ends[0], "high": ends[1]})
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return INFINITE if value == math.inf else None
    return value

"""
What is told of a run: progress, the facts it rests on, the table, and `bench.json`.

Knows nothing of how anything was measured.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from build import provenance
from build.bench.load import generator_name
from build.bench.plan import Plan
from build.figures import Figure, table
from loadtest.stolen import TITLE, Stolen


def say(line: str) -> None:
    """Progress, apart from the table."""
    print(line, file=sys.stderr, flush=True)


def facts(plan: Plan, stolen: Stolen) -> dict[str, str]:
    """What a reader must know to believe the figures; `stolen` since the run began."""
    return {
        "processor": provenance.host(),
        "cores": f"{plan.cores}; server, generator and this process share them, none is pinned",
        TITLE: str(stolen),
        "load": f"{plan.connections} connections, one text each, by {generator_name()}",
        "rounds": f"{plan.rounds} of {plan.seconds:g} s after {plan.warmup_s:g} s of warm-up; "
        "every other one backwards; medians of ratios within a round",
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def tell(figures: Sequence[Figure], facts: Mapping[str, str], folder: Path) -> None:
    """Print the table and the facts; write both to `folder`/bench.json."""
    print(table(figures))
    for name, value in facts.items():
        print(f"{name}: {value}")
    folder.mkdir(parents=True, exist_ok=True)
    book = {"facts": facts, "figures": [_record(figure) for figure in figures]}
    (folder / "bench.json").write_text(json.dumps(book, indent=1, ensure_ascii=False) + "\n")
    print(f"written: {folder / 'bench.json'}")


def _record(figure: Figure) -> dict[str, Any]:
    target = str(figure.target) if figure.target else None
    return asdict(figure) | {"target": target, "median": figure.median, "kept": figure.is_kept}

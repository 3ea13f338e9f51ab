"""
A load test ends in a verdict: what was promised against what was measured.

Pure; knows nothing of how it was measured.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from loadtest.measure import Row

GENERATOR_LIMIT = 0.7


@dataclass(frozen=True)
class Promise:
    """`failures`: share of the calls at most, 0 to 1. `p95_ms` None: nothing was promised."""

    failures: float = 0.01
    p95_ms: float | None = None


def kept(promise: Promise) -> str:
    """What is said where `broken` finds nothing."""
    promises = [f"at most {promise.failures:.1%} of a variant's calls fail"]
    if promise.p95_ms is not None:
        promises.append(f"its p95 is at most {promise.p95_ms:g} ms")
    return f"Kept: every variant answers, {', '.join(promises)}."


def broken(promise: Promise, rows: Iterable[Row]) -> list[str]:
    """One sentence for each promise a variant broke; empty when all were kept."""
    return [sentence for row in rows for sentence in _broken(promise, row)]


def _broken(promise: Promise, row: Row) -> list[str]:
    sentences = []
    if not row.answers:
        sentences.append(f"{row.variant}: nothing was answered")
    if row.failed > promise.failures:
        worst = next(iter(row.errors), "")
        sentences.append(
            f"{row.variant}: {row.failed:.1%} of the calls failed, promised at most "
            f"{promise.failures:.1%}; most often: {worst}"
        )
    if promise.p95_ms is not None and row.p95_ms > promise.p95_ms:
        sentences.append(
            f"{row.variant}: p95 is {row.p95_ms:.1f} ms, promised at most {promise.p95_ms:g} ms"
        )
    return sentences


def doubts(rows: Iterable[Row]) -> list[str]:
    """Why a figure may say more about the load generator than about the server."""
    return [
        f"{row.variant}: the generator used {row.generator:.0%} of a core and may be the limit; "
        "run Locust distributed, or `make bench` for saturated rates"
        for row in rows
        if row.generator > GENERATOR_LIMIT
    ]

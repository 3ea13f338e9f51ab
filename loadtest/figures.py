"""
Figures of runs: exact percentiles, rates, failures, and histograms to write down.

A request that failed or was dropped took for ever: who refuses a tenth of his requests has no p99.
Pure; knows nothing of Locust, variants or how runs are compared.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

from loadtest.record import Run

Floats = NDArray[np.float64]

MOST_US = 3_600_000_000
DIGITS = 3
DROPPED = "never sent: too many were under way"


def latencies_s(runs: Iterable[Run]) -> Floats:
    """Of all arrivals, in no order; infinite where there was no right answer."""
    times: list[float] = []
    for run in runs:
        times += [r.latency_s if r.error is None else math.inf for r in run.requests]
        times += [math.inf] * run.dropped
    return np.array(times, dtype=np.float64)


def percentile_s(runs: Iterable[Run], share: float) -> float:
    """
    What this share of the arrivals took at most; 0 of none.

    1 2 3 s and a failure   share 0.5 -> 2   share 0.75 -> 3   share 0.76 -> inf
    """
    return all_percentiles_s(runs, [share])[0]


def all_percentiles_s(runs: Iterable[Run], shares: Sequence[float]) -> list[float]:
    """As `percentile_s`, one a share."""
    times = latencies_s(runs)
    if not len(times):
        return [0.0] * len(shares)
    return [float(each) for each in np.quantile(times, shares, method="inverted_cdf")]


def rate(runs: Sequence[Run]) -> float:
    """Right answers a second."""
    seconds = sum(run.seconds for run in runs)
    return sum(map(in_time, runs)) / seconds if seconds else 0.0


def in_time(run: Run) -> int:
    """
    Right answers that came before its end.

    In a closed loop as many more are under way then as there are callers: a tenth of a short run.
    """
    return sum(bool(each.done_s <= run.seconds) for each in run.right)


def goodput(runs: Sequence[Run], limit_s: float) -> float:
    """Right answers within the limit, a second."""
    seconds = sum(run.seconds for run in runs)
    within = sum(each.latency_s <= limit_s for run in runs for each in run.right)
    return within / seconds if seconds else 0.0


def arrivals(runs: Iterable[Run]) -> int:
    """Sent or dropped."""
    return sum(len(run.requests) + run.dropped for run in runs)


def failures(runs: Iterable[Run]) -> dict[str, int]:
    """What went wrong -> how often, the most frequent first."""
    found: Counter[str] = Counter()
    for run in runs:
        found.update(each.error for each in run.requests if each.error is not None)
        if run.dropped:
            found[DROPPED] += run.dropped
    return dict(found.most_common())


# --- histograms: HDR, microseconds, three digits ---------------------------------------------


def encoded(seconds: Iterable[float]) -> str:
    """As text, that many languages' HdrHistogram reads."""
    histogram = _empty()
    for each in seconds:
        histogram.record_value(min(max(1, round(each * 1e6)), MOST_US))
    return str(histogram.encode().decode("ascii"))


def added(histograms: Iterable[str]) -> str:
    """What one that saw everything would have."""
    total = _empty()
    for each in histograms:
        total.decode_and_add(each)
    return str(total.encode().decode("ascii"))


def percentiles_s(histogram: str, shares: Sequence[float]) -> list[float]:
    """One a share; 0 of an empty histogram."""
    found = HdrHistogram.decode(histogram)
    if not found.total_count:
        return [0.0] * len(shares)
    return [float(found.get_value_at_percentile(100 * share)) / 1e6 for share in shares]


def _empty() -> Any:
    return HdrHistogram(1, MOST_US, DIGITS)

"""
What one worker of a distributed run measured, small enough to be sent, and what all did together.

Histograms are HDR: three digits exact, and merged they are what one worker would have measured.
Pure; knows nothing of Locust.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from loadtest.figures import added, encoded, in_time, percentiles_s
from loadtest.record import Run
from loadtest.validity import Generator, invalid


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """
    latency, late  encoded histograms of microseconds: of right answers; of all that were sent
    every          as latency, of right answers and failures
    errors         what went wrong -> how often
    in_time        right answers that came before the end
    cores          of the busiest worker
    """

    variant: str
    arrivals: str
    seconds: float
    sent: int
    dropped: int
    latency: str
    every: str
    late: str
    errors: Mapping[str, int]
    cores: float
    in_time: int
    workers: int = 1

    @property
    def failures(self) -> int:
        return sum(self.errors.values())

    @property
    def right(self) -> int:
        return self.sent - self.failures


def measured(run: Run) -> Share:
    return Share(
        variant=run.variant,
        arrivals=run.arrivals,
        seconds=run.seconds,
        sent=len(run.requests),
        dropped=run.dropped,
        latency=encoded(each.latency_s for each in run.right),
        every=encoded(each.latency_s for each in run.requests),
        late=encoded(each.late_s for each in run.requests),
        errors=dict(Counter(each.error for each in run.requests if each.error)),
        cores=run.cores,
        in_time=in_time(run),
    )


def merged(shares: Sequence[Share]) -> Share:
    """One at least, all of the same run."""
    errors: Counter[str] = Counter()
    for each in shares:
        errors.update(each.errors)
    return Share(
        variant=shares[0].variant,
        arrivals=shares[0].arrivals,
        seconds=shares[0].seconds,
        sent=sum(each.sent for each in shares),
        dropped=sum(each.dropped for each in shares),
        latency=added(each.latency for each in shares),
        every=added(each.every for each in shares),
        late=added(each.late for each in shares),
        errors=dict(errors.most_common()),
        cores=max(each.cores for each in shares),
        in_time=sum(each.in_time for each in shares),
        workers=sum(each.workers for each in shares),
    )


def to_wire(share: Share) -> dict[str, Any]:
    return asdict(share)


def from_wire(data: Mapping[str, Any]) -> Share:
    return Share(**data)


def percentile_s(share: Share, percent: float) -> float:
    """Of all arrivals: what failed or was dropped took for ever. 0 of none."""
    arrivals = share.sent + share.dropped
    rank = max(1, math.ceil(percent / 100 * arrivals - 1e-9))
    if arrivals and rank > share.right:
        return math.inf
    return percentiles_s(share.latency, [rank / max(1, share.right)])[0]


def generator(share: Share) -> Generator:
    return Generator(
        seconds=share.seconds,
        sent=share.sent,
        dropped=share.dropped,
        late_p99_s=percentiles_s(share.late, [0.99])[0],
        p99_s=percentiles_s(share.every, [0.99])[0],
        cores=share.cores,
    )


def figures(share: Share) -> dict[str, Any]:
    """What is told and written of a run; a percentile that is endless is None."""
    found = generator(share)
    return {
        "variant": share.variant,
        "arrivals": share.arrivals,
        "seconds": share.seconds,
        "workers": share.workers,
        "offered/s": round(found.offered, 3),
        "sent/s": round(found.achieved, 3),
        "right answers/s": round(share.in_time / share.seconds, 3),
        "sent": share.sent,
        "right": share.right,
        "dropped": share.dropped,
        **{f"p{percent:g} ms": _ms(percentile_s(share, percent)) for percent in (50, 90, 99, 99.9)},
        "p99 late ms": round(found.late_p99_s * 1000, 3),
        "generator cores": round(share.cores, 3),
        "errors": dict(share.errors),
        "invalid": invalid(found),
    }


def _ms(seconds: float) -> float | None:
    return round(seconds * 1000, 3) if math.isfinite(seconds) else None

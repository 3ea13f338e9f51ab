"""
Why a run proves nothing, whatever it found: its generator was in the way.

Pure; knows nothing of what is a good latency.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from loadtest.record import Run

# Latency counts from when a request was due, so lateness hides nothing but is added to what the
# server took. Up to a tenth of the p99 it does not change what the figure says; and a generator
# whose clock ticks in milliseconds is some of them late whatever it does.
LATE_S = 0.005
LATE_SHARE = 0.1
DROPPED = 0.01

# Of the one core that gevent has. What waits in its loop grows as u / (1 - u): above this it is
# several times what sending takes.
CORES = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class Generator:
    """
    How a generator did.

    sent, dropped  arrivals; together they are what was offered
    late_p99_s     from due to sent
    p99_s          from due to done, of all that were sent
    cores          of the busiest process, where there are several
    """

    seconds: float
    sent: int
    dropped: int
    late_p99_s: float
    p99_s: float
    cores: float

    @property
    def offered(self) -> float:
        """Arrivals a second."""
        return (self.sent + self.dropped) / self.seconds

    @property
    def achieved(self) -> float:
        """Requests sent a second."""
        return self.sent / self.seconds


def generator(run: Run) -> Generator:
    return Generator(
        seconds=run.seconds,
        sent=len(run.requests),
        dropped=run.dropped,
        late_p99_s=p99([each.late_s for each in run.requests]),
        p99_s=p99([each.latency_s for each in run.requests]),
        cores=run.cores,
    )


def invalid(found: Generator) -> list[str]:
    """One sentence for each reason; none: the run may be believed."""
    reasons = []
    if not found.sent:
        reasons.append("nothing was sent")
    if late(found):
        reasons.append(
            f"requests went out late: the p99 of lateness is {found.late_p99_s * 1000:.1f} ms, "
            f"above {_bound(found) * 1000:.1f} ms (use more callers, a quieter machine or a lower "
            "rate)"
        )
    if found.dropped > DROPPED * (found.sent + found.dropped):
        share = found.dropped / (found.sent + found.dropped)
        reasons.append(f"{share:.1%} of the arrivals were dropped, above {DROPPED:.0%}")
    if found.cores > CORES:
        reasons.append(
            f"the generator took {found.cores:.2f} of its one core, above {CORES:g}: "
            "spread it over workers"
        )
    return reasons


def late(found: Generator) -> bool:
    """Whether requests went out so late that latencies say something of the generator."""
    return found.late_p99_s > _bound(found)


def in_the_way(run: Run, senders: int) -> list[str]:
    """Why an open loop of so many senders says nothing of its server, whatever that did."""
    return invalid(generator(unhindered(run, senders)))


def stalled(run: Run, senders: int) -> bool:
    """Whether the generator itself was late."""
    return late(generator(unhindered(run, senders)))


def unhindered(run: Run, senders: int) -> Run:
    """
    Without what waited for the server: requests that were due while none of so many senders was
    free. And what was dropped, if ever all were busy: it waited for a sender, too.
    """
    sent = np.sort([each.sent_s for each in run.requests])
    done = np.sort([each.done_s for each in run.requests])
    due = np.array([each.due_s for each in run.requests])
    under_way = np.searchsorted(sent, due, "right") - np.searchsorted(done, due, "right")
    free = [each for each, busy in zip(run.requests, under_way, strict=True) if busy < senders]
    at_once = np.arange(1, len(sent) + 1) - np.searchsorted(done, sent, "right")
    kept = bool((at_once >= senders).any())
    return replace(run, requests=tuple(free), dropped=0 if kept else run.dropped)


def _bound(found: Generator) -> float:
    return max(LATE_S, LATE_SHARE * found.p99_s)


def p99(values: list[float]) -> float:
    """A straight line between neighbours, as numpy's default; 0 of none."""
    return float(np.quantile(values, 0.99)) if values else 0.0

"""
The server's side: its metrics, and of its processes the CPU, memory and energy, before and after.

Metrics are read over HTTP. Processes are looked at where they run on this machine; energy is read
where the platform measures it (RAPL). What cannot be measured is None, never guessed. Writing the
metrics takes a server some milliseconds, in which nobody is answered: look before and after what is
measured, and follow only what is not.
"""

from __future__ import annotations

import bisect
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from prometheus_client.parser import text_string_to_metric_families

from loadtest.meanwhile import meanwhile
from loadtest.process import cpu_s, memory_bytes
from loadtest.record import Unusable
from loadtest.server import fetch, variants, workers_of

SETTLE_S = 0.05  # a request is counted once its last byte is sent: a moment after it arrives
RAPL = Path("/sys/class/powercap")

Labels = frozenset[tuple[str, str]]
Metrics = Mapping[tuple[str, Labels], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """
    At a server, once.

    at_s      by this machine's clock
    metrics   as text: reading them takes time that the generator lacks
    cpu_s     of all its processes, since they began; told_cpu_s: once it had told its metrics
    memory    bytes of all its processes; shared ones once, where the system tells (PSS)
    energy_j  of the processor, whoever used it, since some time; `wraps_j`: it begins anew there
    """

    at_s: float
    metrics: str
    cpu_s: float | None = None
    told_cpu_s: float | None = None
    memory: int | None = None
    energy_j: float | None = None
    wraps_j: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """
    What a server did between two looks.

    counted  every sample's growth
    memory   at its end
    """

    seconds: float
    counted: Metrics
    cpu_s: float | None = None
    memory: int | None = None
    energy_j: float | None = None

    def total(self, name: str, **labels: str) -> float:
        """Of the samples of that name with these labels."""
        return sum(self._values(name, labels))

    def mean(self, histogram: str, **labels: str) -> float:
        """Of what a histogram counted; NaN of nothing."""
        count = self.total(f"{histogram}_count", **labels)
        return self.total(f"{histogram}_sum", **labels) / count if count else math.nan

    def least(self, histogram: str, share: float, **labels: str) -> float:
        """
        What the value at this share surely is above: the lower edge of its bucket. 0 of nothing.

        100 counted up to 0.1, 99 of them up to 0.05   share 0.995 -> 0.05
        """
        heaps: dict[float, float] = {}
        for edge, value in self._buckets(histogram, labels):
            heaps[edge] = heaps.get(edge, 0.0) + value
        whole = max(heaps.values(), default=0.0)
        below = [edge for edge, heap in heaps.items() if heap < share * whole - 1e-9]
        return max(below, default=0.0)

    def _values(self, name: str, labels: Mapping[str, str]) -> Iterator[float]:
        wanted = set(labels.items())
        return (v for (found, its), v in self.counted.items() if found == name and wanted <= its)

    def _buckets(self, name: str, labels: Mapping[str, str]) -> Iterator[tuple[float, float]]:
        wanted = set(labels.items())
        for (found, its), value in self.counted.items():
            if found == f"{name}_bucket" and wanted <= its:
                yield float(dict(its)["le"]), value


@dataclass(frozen=True, slots=True)
class Quality:
    """
    F1 with its 95 % interval, NaN where there is none.

    drop  how far it may be below its baseline's, at most
    n     texts; None: not said
    """

    mean: float
    low: float
    high: float
    drop: float | None = None
    n: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """What a server says of one variant; `parent`: what it was made from."""

    name: str
    task: str
    ready: bool = True
    bytes: int | None = None
    digest: str = ""
    parent: str | None = None
    labels: tuple[str, ...] = ()
    quality: Quality | None = None


class Server:
    """One that runs, asked with KADOGO_KEY where there is one."""

    def __init__(self, host: str) -> None:
        self.host = host
        self._processes = _processes(host)

    def look(self) -> Look:
        """Raises Unusable."""
        time.sleep(SETTLE_S)
        cpu_s, memory = _cpu_s(self._processes), _memory(self._processes)
        energy_j, wraps_j = _energy()
        metrics = fetch(self.host, "/metrics").decode()
        return Look(
            at_s=time.perf_counter(),
            metrics=metrics,
            cpu_s=cpu_s,
            told_cpu_s=_cpu_s(self._processes),
            memory=memory,
            energy_j=energy_j,
            wraps_j=wraps_j,
        )

    def following(self, every_s: float) -> AbstractContextManager[list[Look]]:
        """Looks at the metrics alone, again and again, until it is left."""

        def look() -> Look:
            metrics = fetch(self.host, "/metrics").decode()
            return Look(at_s=time.perf_counter(), metrics=metrics)

        return meanwhile(look, every_s)

    def facts(self) -> list[Fact]:
        """Of every variant. Raises Unusable."""
        return variants(self.host, fact)


# --- reading ---------------------------------------------------------------------------------


def read(text: str) -> dict[tuple[str, Labels], float]:
    """Prometheus' text format."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def between(before: Look, after: Look) -> Window:
    start, end = read(before.metrics), read(after.metrics)
    energy_j = None
    if before.energy_j is not None and after.energy_j is not None:
        grown = after.energy_j - before.energy_j
        energy_j = grown if grown >= 0 else grown + after.wraps_j
    # Telling its metrics takes a server as long as some answers, and is no part of them.
    began = before.cpu_s if before.told_cpu_s is None else before.told_cpu_s
    return Window(
        seconds=after.at_s - before.at_s,
        counted=_grown(start, end),
        cpu_s=None if began is None or after.cpu_s is None else after.cpu_s - began,
        memory=after.memory,
        energy_j=energy_j,
    )


def fact(variant: Mapping[str, Any]) -> Fact:
    """Of what /v1/variants says. Raises KeyError, TypeError."""
    return Fact(
        name=variant["name"],
        task=variant["task"],
        ready=variant["state"] == "ready",
        bytes=variant.get("bytes"),
        digest=variant.get("digest") or "",
        parent=variant.get("parent"),
        labels=tuple(variant.get("labels") or ()),
        quality=_quality(variant.get("evidence"), variant.get("parent")),
    )


def _quality(evidence: Any, parent: str | None) -> Quality | None:
    """On raw text, as callers write; of a variant that has no parent there is no drop."""
    try:
        f1 = evidence["quality"]["f1"]["raw"]["macro"]
    except (TypeError, KeyError):
        return None
    try:
        drop = max(0.0, -evidence["difference"]["f1"]["raw"]["macro"]["low"])
    except (TypeError, KeyError):
        drop = None if parent else 0.0
    return Quality(f1["mean"], f1["low"], f1["high"], drop)


# --- over time -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Moment:
    """A server between two looks: windows waiting at its end; of its batches the mean."""

    at_s: float
    waiting: float
    batch: float
    padding: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """Moments, by the clock of the run they were seen in."""

    moments: Sequence[Moment] = field(default_factory=tuple)


def followed(looks: Sequence[Look], variant: str, done_s: Sequence[float]) -> Followed:
    """
    What a variant's queue and batches did, from looks by another clock than the run's.

    done_s  when the run's answers came: the clocks are set so that the server's count of answers
            grows as they did
    """
    if len(looks) < 2:
        return Followed()
    found = [read(each.metrics) for each in looks]
    own = frozenset({("variant", variant)})
    answered = [_of(each, "kadogo_texts_total", own) for each in found]
    zero = _zero([each.at_s for each in looks], answered, sorted(done_s))
    moments = []
    for i in range(1, len(looks)):
        seen = Window(seconds=0.0, counted=_grown(found[i - 1], found[i]))
        moments.append(
            Moment(
                at_s=looks[i].at_s - zero,
                waiting=_of(found[i], "kadogo_queue_depth", own),
                batch=seen.mean("kadogo_batch_texts", variant=variant),
                padding=seen.mean("kadogo_padding_ratio", variant=variant),
            )
        )
    return Followed(moments=tuple(moments))


def _grown(start: Metrics, end: Metrics) -> Metrics:
    return {key: value - start.get(key, 0.0) for key, value in end.items()}


def _of(metrics: Metrics, name: str, labels: Labels) -> float:
    return metrics.get((name, labels), 0.0)


def _zero(at_s: Sequence[float], answered: Sequence[float], done_s: Sequence[float]) -> float:
    """When the run's clock was at 0, within a hundredth of a second, by least squares."""

    def wrong(zero: float) -> float:
        grown = (bisect.bisect_right(done_s, at - zero) for at in at_s)
        return sum(
            (each - answered[0] - want) ** 2 for each, want in zip(answered, grown, strict=True)
        )

    return min((at_s[0] - 1 + i / 100 for i in range(300)), key=wrong)


# --- processes -------------------------------------------------------------------------------


def _processes(host: str) -> list[psutil.Process]:
    """The server's; none where it runs elsewhere: a process of that number may be another's."""
    try:
        workers = workers_of(host)
        found = [workers[0].parent(), *workers] if workers else []
        port = urlsplit(host).port or 80
        listens = any(
            each.laddr and each.laddr.port == port and each.status == psutil.CONN_LISTEN
            for process in found
            for each in process.net_connections(kind="tcp")
        )
        return found if listens else []
    except (psutil.Error, Unusable):
        return []


def _cpu_s(processes: Sequence[psutil.Process]) -> float | None:
    """None where a process is not there, or is not ours to look at."""
    try:
        return sum(map(cpu_s, processes)) if processes else None
    except psutil.Error:
        return None


def _memory(processes: Sequence[psutil.Process]) -> int | None:
    """As `_cpu_s`."""
    try:
        return sum(map(memory_bytes, processes)) if processes else None
    except psutil.Error:
        return None


def _energy(root: Path = RAPL) -> tuple[float | None, float]:
    """Joules of all packages, and where the counter begins anew; None where it is not readable."""
    try:
        packages = [each for each in root.glob("intel-rapl:*") if each.name.count(":") == 1]
        used = [int((each / "energy_uj").read_text()) for each in packages]
        most = [int((each / "max_energy_range_uj").read_text()) for each in packages]
    except (OSError, ValueError):
        return None, 0.0
    return (sum(used) / 1e6, max(most) / 1e6) if used else (None, 0.0)

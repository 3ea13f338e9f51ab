"""
Every metric, declared once, and the only lines that touch them.

Works the same in one process and, where PROMETHEUS_MULTIPROC_DIR is set before this is imported,
in several. Labels are task, variant, status class and reason: never a text, a path or a caller.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import cache, partial
from pathlib import Path

import psutil
from prometheus_client import CONTENT_TYPE_LATEST as CONTENT_TYPE_LATEST
from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    ProcessCollector,
    disable_created_metrics,
    values,
)
from prometheus_client import generate_latest as _exposition
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

_pid = os.getpid()


def _forked() -> None:
    global _pid
    _pid = os.getpid()


# The client library asks the system which process this is each time something is counted: a
# fiftieth of what a text costs under a sandboxed kernel.
os.register_at_fork(after_in_child=_forked)
if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
    values.ValueClass = values.MultiProcessValue(lambda: _pid)  # type: ignore[no-untyped-call]
# A gauge beside every series, which nobody reads.
disable_created_metrics()  # type: ignore[no-untyped-call]

SECONDS = (
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.008, 0.012, 0.02,
    0.03, 0.05, 0.08, 0.12, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0,
)  # fmt: skip
TEXTS = (1, 2, 4, 8, 16, 32, 64, 128)
TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
DIFFERENCES = (
    -1.0, -0.3, -0.1, -0.03, -0.01, -0.003, -0.001, 0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0,
)  # fmt: skip
RATIOS = (0.1, 0.2, 0.33, 0.5, 0.67, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
SHARES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75)

REQUEST = Histogram(
    "kadogo_request_seconds",
    "Time from the first byte read to the last byte sent, by status class.",
    ["task", "variant", "status_class"],
    buckets=SECONDS,
)
QUEUE = Histogram(
    "kadogo_queue_seconds",
    "Time a request waited until the first of its windows was begun.",
    ["variant"],
    buckets=SECONDS,
)
ENCODE = Histogram(
    "kadogo_encode_seconds", "Time to encode a request's texts.", ["variant"], buckets=SECONDS
)
MODEL = Histogram(
    "kadogo_model_seconds", "Time of one batch in the model.", ["variant"], buckets=SECONDS
)
BATCH_TEXTS = Histogram(
    "kadogo_batch_texts", "Windows of text in one batch.", ["variant"], buckets=TEXTS
)
BATCH_TOKENS = Histogram(
    "kadogo_batch_tokens", "Tokens in one batch, without padding.", ["variant"], buckets=TOKENS
)
PADDING = Histogram(
    "kadogo_padding_ratio", "Share of one batch that is padding.", ["variant"], buckets=SHARES
)
DEPTH = Gauge(
    "kadogo_queue_depth",
    "Windows waiting now, over all processes.",
    ["variant"],
    multiprocess_mode="livesum",
)
PREDICTION = Histogram(
    "kadogo_prediction_ratio",
    "Time a request waited and ran, in units of what was predicted when it came.",
    ["variant"],
    buckets=RATIOS,
)
REJECTIONS = Counter(
    "kadogo_rejections_total", "Requests not answered with a result, by reason.", ["reason"]
)
DEGRADED = Counter(
    "kadogo_degraded_total",
    "Requests answered by a smaller variant that satisfies their policy too, by who would have.",
    ["variant", "reason"],
)
SHADOW_SAID = Counter(
    "kadogo_shadow_said_total",
    "What two answers to a text say, entities or best labels: said by both, or by one alone.",
    ["variant", "shadow", "by"],
)
SHADOW_DIFFERENCE = Histogram(
    "kadogo_shadow_difference_seconds",
    "Time of a core that a shadow took minus that of the variant which answered, in the model.",
    ["variant", "shadow"],
    buckets=DIFFERENCES,
)
SHADOW_LOST = Counter(
    "kadogo_shadow_lost_total",
    "Requests a shadow was to read along and did not.",
    ["variant", "shadow", "reason"],
)
DROPPED = Counter(
    "kadogo_dropped_total", "Windows not run because nobody waited any more.", ["variant", "reason"]
)
HALTED = Counter(
    "kadogo_halted_total",
    "Runs nobody waited for, ended for somebody who did; they begin again.",
    ["variant"],
)
ANSWERED = Counter("kadogo_texts_total", "Texts answered.", ["variant"])
LAST = Gauge(
    "kadogo_last_answer_timestamp_seconds",
    "When a text was last answered, in seconds since 1970.",
    ["variant"],
    multiprocess_mode="max",
)
READ = Counter("kadogo_tokens_total", "Tokens run, without padding.", ["variant"])
INFO = Gauge(
    "kadogo_variant_info",
    "One for each variant in the catalog: what it is, whether it serves, and if not, why not.",
    ["variant", "task", "runtime", "digest", "state", "reason"],
    multiprocess_mode="livemax",
)
PROMISED = Gauge(
    "kadogo_promised_disagreement_ratio",
    "Of what a variant or its baseline says, the share that the other does not: at most this, "
    "as the variant's evidence has it.",
    ["variant", "baseline"],
    multiprocess_mode="livemax",
)
TRIED = Gauge(
    "kadogo_trial_info",
    "One for each canary whose trial has ended, by its verdict: promoted or rolled_back.",
    ["route", "variant", "verdict"],
    multiprocess_mode="livemax",
)
WORKERS = Gauge("kadogo_workers", "Worker processes that live.", multiprocess_mode="livesum")
DEATHS = Counter("kadogo_worker_deaths_total", "Worker processes that died without being told to.")


class VariantMetrics:
    """One variant's metrics, their labels looked up once; the observer of its batcher."""

    def __init__(self, variant: str) -> None:
        self._queue = QUEUE.labels(variant)
        self._encode = ENCODE.labels(variant)
        self._model = MODEL.labels(variant)
        self._batch_texts = BATCH_TEXTS.labels(variant)
        self._batch_tokens = BATCH_TOKENS.labels(variant)
        self._padding = PADDING.labels(variant)
        self._depth = DEPTH.labels(variant)
        self._prediction = PREDICTION.labels(variant)
        self._halted = HALTED.labels(variant)
        self._answered = ANSWERED.labels(variant)
        self._last = LAST.labels(variant)
        self._read = READ.labels(variant)
        self._variant = variant

    def ran(self, *, items: int, tokens: int, padded: int, seconds: float) -> None:
        self._model.observe(seconds)
        self._batch_texts.observe(items)
        self._batch_tokens.observe(tokens)
        self._padding.observe((padded - tokens) / padded)
        self._read.inc(tokens)

    def dropped(self, reason: str) -> None:
        _dropped(self._variant, reason).inc()

    def halted(self) -> None:
        self._halted.inc()

    def waiting(self, items: int, tokens: int) -> None:
        self._depth.set(items)

    def predicted(self, ratio: float) -> None:
        """What a request took by what was predicted."""
        self._prediction.observe(ratio)

    def answered(self, *, texts: int, queue_s: float, encode_s: float) -> None:
        self._answered.inc(texts)
        self._last.set_to_current_time()
        self._queue.observe(queue_s)
        self._encode.observe(encode_s)


def requested(*, task: str, variant: str, status: int, seconds: float) -> None:
    """A request of ours was answered with `status`; `variant` is "none" where none was chosen."""
    _request(task, variant, status // 100).observe(seconds)


def rejected(reason: str) -> None:
    """A request got no result."""
    _rejections(reason).inc()


def shadowed(*, variant: str, shadow: str, said: Mapping[str, int], seconds: float) -> None:
    """A shadow read along: how much was said by `both`, the `variant` and the `shadow` alone."""
    for by, count in said.items():
        SHADOW_SAID.labels(variant, shadow, by).inc(count)
    SHADOW_DIFFERENCE.labels(variant, shadow).observe(seconds)


def shadow_lost(*, variant: str, shadow: str, reason: str) -> None:
    SHADOW_LOST.labels(variant, shadow, reason).inc()


def degraded(*, variant: str, reason: str) -> None:
    """A smaller one answers instead of `variant`: work waits, or the queue is full."""
    DEGRADED.labels(variant, reason).inc()


def shown(
    *,
    variant: str,
    task: str,
    runtime: str,
    digest: str,
    state: str,
    reason: str = "",
    here: bool = True,
) -> None:
    """`variant` is in the catalog in this state, or no longer; what we cannot know is empty."""
    INFO.labels(variant, task, runtime, digest, state, reason).set(int(here))


def promised(*, variant: str, baseline: str, disagreement: float) -> None:
    """What the evidence of `variant` says of its answers beside those of its baseline."""
    PROMISED.labels(variant, baseline).set(disagreement)


def tried(*, route: str, variant: str, promoted: bool, here: bool) -> None:
    """The trial of a canary has ended so, or its route is no longer there."""
    verdict = "promoted" if promoted else "rolled_back"
    TRIED.labels(route, variant, verdict).set(int(here))


def exposition() -> bytes:
    """The metrics of every process, in Prometheus' text format."""
    forget_the_dead()
    registry = _registry()
    if registry is not REGISTRY:  # which has those of its own process
        registry.register(_Processes())
    return _exposition(registry)


def counted() -> list[Sample]:
    """What every process has counted till now, added up. Without the buckets."""
    samples = (sample for family in _registry().collect() for sample in family.samples)
    return [sample for sample in samples if not sample.name.endswith("_bucket")]


def _registry() -> CollectorRegistry:
    """This process' metrics, or where there are several processes those of all."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return REGISTRY
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry


class _Processes(Collector):
    """What each living process takes of the machine, as the client library tells of its own."""

    def collect(self) -> Iterable[Metric]:
        families: dict[str, Metric] = {}
        for pid in sorted(_processes()):
            for found in ProcessCollector(pid=partial(int, pid), registry=None).collect():
                family = Metric(found.name, found.documentation, found.type)
                for sample in found.samples:
                    families.setdefault(found.name, family).add_sample(
                        sample.name, {"pid": str(pid)}, sample.value
                    )
        return families.values()


def begin() -> None:
    """This process is a worker from now on."""
    forget_the_dead()
    WORKERS.set(1)


def end() -> None:
    """This process ends because it was told to: it is no dead one."""
    for file in _processes().get(os.getpid(), ()):
        file.unlink(missing_ok=True)


def forget_the_dead() -> None:
    """Gauges of processes that died without saying so no longer count, and they are counted."""
    for pid, files in _processes().items():
        if pid != os.getpid() and not _alive(pid):
            gone = {file.name for file in files if _unlinked(file)}
            # Every process has one of these; of two who look at once only one unlinks it.
            DEATHS.inc(f"gauge_livesum_{pid}.db" in gone)


def _processes() -> dict[int, list[Path]]:
    """The files of gauges that count while their process lives, by process."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    found: dict[int, list[Path]] = {}
    for file in sorted(Path(folder).glob("gauge_live*_*.db")) if folder else ():
        found.setdefault(int(file.stem.rpartition("_")[2]), []).append(file)
    return found


def _unlinked(file: Path) -> bool:
    try:
        file.unlink()
    except FileNotFoundError:
        return False
    return True


def _alive(pid: int) -> bool:
    """One that ended is a zombie until its parent looks, which may be seconds."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True  # there is one, of somebody else


@cache
def _request(task: str, variant: str, status_class: int) -> Histogram:
    return REQUEST.labels(task, variant, f"{status_class}xx")


@cache
def _rejections(reason: str) -> Counter:
    return REJECTIONS.labels(reason)


@cache
def _dropped(variant: str, reason: str) -> Counter:
    return DROPPED.labels(variant, reason)

"""
OpenTelemetry: a span for each request, and for each stage in which it was answered.

Nothing of OpenTelemetry is imported here before `begin`, and nothing done: off is free. Spans have
names, counts and times, never a text. Knows nothing of HTTP's routes or of lanes.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping
from time import perf_counter
from typing import Any

from models.errors import BadSetting

# OpenTelemetry's own names where it has one, by ours.
_NAMES = {
    "method": "http.request.method",
    "path": "http.route",
    "status": "http.response.status_code",
}
# What a caller may hand on, as W3C's Trace Context has it.
_HANDED_ON = (b"traceparent", b"tracestate")

# How long a process that ends waits for the collector, in seconds.
END_S = 3.0

# OpenTelemetry's, once there are some in this process.
_provider: Any = None
_tracer: Any = None


class Span:
    """That of the request at hand; this one is none."""

    trace_id: str | None = None

    def tell(self, told: Mapping[str, Any]) -> None:
        """How the request ended."""


class _Told(Span):
    """One that is told to the collector."""

    def __init__(self, span: Any) -> None:
        self._span = span
        self.trace_id = format(span.get_span_context().trace_id, "032x")

    def tell(self, told: Mapping[str, Any]) -> None:
        self._span.update_name(f"{told['method']} {told['path'] or '-'}")
        for name, value in told.items():
            if value is not None:
                self._span.set_attribute(_NAMES.get(name, f"kadogo.{name}"), value)
        if told["status"] >= 500:
            from opentelemetry.trace import StatusCode

            self._span.set_status(StatusCode.ERROR)


_NONE = Span()


def check() -> None:
    """Raises `BadSetting` where what speaks to a collector is not installed."""
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter  # noqa: F401
    except ImportError:
        raise BadSetting(
            "KADOGO_TRACES needs OpenTelemetry's exporter: pip install -r requirements/tracing.txt"
        ) from None


def begin(collector: str, share: float) -> None:
    """
    Tell the `collector` of a `share` of the requests from now on, and of those of which their
    callers say that they are traced.

    With the SDK that BentoML brings, and not through its own setting: that would write down every
    span before it decides, and on our routes its middleware is not in the way.
    """
    global _provider, _tracer
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    named = Resource({SERVICE_NAME: "kadogo"}).merge(OTELResourceDetector().detect())
    _provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(share)), resource=named)
    exporter = OTLPSpanExporter(endpoint=f"{collector}/v1/traces")
    _provider.add_span_processor(BatchSpanProcessor(exporter))
    _tracer = _provider.get_tracer("kadogo")


async def end() -> None:
    """Tell what was not told yet, if the collector listens: nobody waits long for it."""
    if _tracer is not None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_S):
                await asyncio.to_thread(_provider.force_flush)


def is_on() -> bool:
    return _tracer is not None


@contextlib.contextmanager
def request(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[Span]:
    """The span of a request, under that of its caller where the headers name one."""
    if _tracer is None:
        yield _NONE
        return
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    handed = {n.decode(): v.decode("latin-1") for n, v in headers if n in _HANDED_ON}
    # An exception's message may quote a text.
    with _tracer.start_as_current_span(
        "request",
        context=TraceContextTextMapPropagator().extract(handed),
        kind=SpanKind.SERVER,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        yield _Told(span)


def stages(times: Mapping[str, tuple[float, float]], **told: str | int) -> None:
    """What was done for the request at hand: stage -> when it began and ended (`perf_counter`)."""
    if _tracer is None:
        return
    from opentelemetry.trace import get_current_span

    if not get_current_span().get_span_context().trace_flags.sampled:
        return
    zero = time.time_ns() - int(1e9 * perf_counter())
    attributes = {f"kadogo.{name}": value for name, value in told.items()}
    for name, (began, ended) in times.items():
        start = zero + int(1e9 * began)
        span = _tracer.start_span(name, start_time=start, attributes=attributes)
        span.end(zero + int(1e9 * ended))

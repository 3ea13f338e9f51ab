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


class Span:
    """That of the request at hand; this one is none."""

    trace_id: str | None = None

    def tell(self, told: Mapping[str, Any]) -> None:
        """How the request ended."""


class _Told(Span):
    """One that is told to the collector, if it is among those."""

    def __init__(self, span: Any, failed: Any) -> None:
        self._span = span
        self._failed = failed
        self.trace_id = format(span.get_span_context().trace_id, "032x")

    def tell(self, told: Mapping[str, Any]) -> None:
        span = self._span
        if not span.is_recording():
            return
        span.update_name(f"{told['method']} {told['path'] or '-'}")
        for name, value in told.items():
            if value is not None:
                span.set_attribute(_NAMES.get(name, f"kadogo.{name}"), value)
        if told["status"] >= 500:
            span.set_status(self._failed)


class _Tracer:
    """OpenTelemetry's, of this process; it is imported here and nowhere else."""

    def __init__(self, collector: str, share: float) -> None:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        named = Resource({SERVICE_NAME: "kadogo"}).merge(OTELResourceDetector().detect())
        self.provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(share)), resource=named
        )
        exporter = OTLPSpanExporter(endpoint=f"{collector}/v1/traces")
        self.provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self.provider.get_tracer("kadogo")
        self._extract = TraceContextTextMapPropagator().extract
        self._server = trace.SpanKind.SERVER
        self._failed = trace.StatusCode.ERROR
        self._at_hand = trace.get_current_span

    @contextlib.contextmanager
    def request(self, headers: Iterable[tuple[bytes, bytes]]) -> Iterator[Span]:
        handed = {n.decode(): v.decode("latin-1") for n, v in headers if n in _HANDED_ON}
        # An exception's message may quote a text.
        with self._tracer.start_as_current_span(
            "request",
            context=self._extract(handed),
            kind=self._server,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            yield _Told(span, self._failed)

    def stages(self, times: Mapping[str, tuple[float, float]], told: Mapping[str, Any]) -> None:
        if not self._at_hand().get_span_context().trace_flags.sampled:
            return
        zero = time.time_ns() - int(1e9 * perf_counter())
        attributes = {f"kadogo.{name}": value for name, value in told.items()}
        for name, (began, ended) in times.items():
            start = zero + int(1e9 * began)
            span = self._tracer.start_span(name, start_time=start, attributes=attributes)
            span.end(zero + int(1e9 * ended))


_NOBODY = Span()
_tracer: _Tracer | None = None


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
    global _tracer
    _tracer = _Tracer(collector, share)


async def end() -> None:
    """Tell what was not told yet, if the collector listens: nobody waits long for it."""
    if _tracer is not None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_S):
                await asyncio.to_thread(_tracer.provider.force_flush)


def is_on() -> bool:
    return _tracer is not None


def request(
    headers: Iterable[tuple[bytes, bytes]], *, told: bool = True
) -> contextlib.AbstractContextManager[Span]:
    """
    The span of a request that is to be told, under that of its caller where the headers name one.
    """
    return _tracer.request(headers) if _tracer and told else contextlib.nullcontext(_NOBODY)


def stages(times: Mapping[str, tuple[float, float]], **told: str | int) -> None:
    """What was done for the request at hand: stage -> when it began and ended (`perf_counter`)."""
    if _tracer is not None:
        _tracer.stages(times, told)

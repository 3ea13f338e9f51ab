"""Traces: told to a collector over OTLP, where asked for, stage by stage, and never a text."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from models.errors import BadSetting
from models.spec import Task
from service import tracing
from service.settings import ROOT
from tests.listening import listening
from tests.test_serve import SENTENCE, Server, serving
from tests.tiny import write_variant

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
ROUTES = """
[[route]]
name = "all"
task = "ner"
variant = "ner-base"
shadow = { variant = "ner-small", share = 1 }
"""
STAGES = ["decode", "encode", "queue", "run"]


def test_what_is_off_imports_nothing() -> None:
    imported = "import sys, service.api, service.seen, service.tracing as tracing"
    code = f"{imported}; print(tracing.is_on(), *sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    on, *modules = done.stdout.split()
    assert on == "False" and not any(name.startswith("opentelemetry") for name in modules)


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(BadSetting, match=r"requirements/tracing\.txt"):
        tracing.check()


class Collector:
    """What OTLP over HTTP told: the spans, and every byte that came."""

    url = ""

    def __init__(self) -> None:
        told = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
        pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter")
        self._read = told.ExportTraceServiceRequest.FromString
        self.spans: list[Any] = []
        self.received: list[bytes] = []

    def hear(self, path: str, body: bytes) -> None:
        assert path == "/v1/traces"
        self.received.append(body)
        for resource in self._read(body).resource_spans:
            self.spans.extend(span for scope in resource.scope_spans for span in scope.spans)

    def of(self, trace: str) -> list[Any]:
        return [span for span in self.spans if span.trace_id.hex() == trace]

    def until(self, trace: str, count: int) -> list[Any]:
        for _ in range(300):
            if len(self.of(trace)) >= count:
                return self.of(trace)
            time.sleep(0.1)
        raise AssertionError([span.name for span in self.of(trace)])


def attributes(span: Any) -> dict[str, Any]:
    values = {each.key: each.value for each in span.attributes}
    return {name: getattr(value, value.WhichOneof("value")) for name, value in values.items()}


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    collector = Collector()
    with listening(collector.hear) as collector.url:
        yield collector


@pytest.fixture(scope="module", params=["on", "off"], ids=["fast path", "BentoML's path"])
def server(
    request: pytest.FixtureRequest, collector: Collector, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    catalog, home = tmp_path_factory.mktemp("zoo"), tmp_path_factory.mktemp("home")
    write_variant(catalog, "ner-base", Task.NER)
    write_variant(catalog, "ner-small", Task.NER)
    (home / "routes.toml").write_text(ROUTES)
    settings = {
        "KADOGO_FAST_PATH": request.param,
        "KADOGO_ROUTES": str(home / "routes.toml"),
        "KADOGO_TRACES": collector.url,
        "KADOGO_TRACES_SHARE": "0",  # only of whom the caller says so
        "KADOGO_ACCESS_LOG": "on",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    with serving(catalog, home, **settings) as server:
        yield server


Ask = Callable[..., str]


@pytest.fixture
def ask(server: Server) -> Ask:
    """Ask within a trace of its own; gives that."""
    numbers = iter(range(time.monotonic_ns(), time.monotonic_ns() + 10**9))

    def asked(path: str, *, sampled: str = "01", **body: Any) -> str:
        trace = format(next(numbers), "032x")
        headers = {"traceparent": f"00-{trace}-{CALLER}-{sampled}"}
        httpx.post(f"{server.url}{path}", json={"inputs": SENTENCE, **body}, headers=headers)
        return trace

    return asked


@pytest.mark.parametrize("path", ["/v1/ner", "/ner"])
def test_a_request_is_told_stage_by_stage_under_its_callers_span(
    collector: Collector, server: Server, ask: Ask, path: str
) -> None:
    trace = ask(path, variant="ner-base")
    spans = {span.name: span for span in collector.until(trace, 5)}
    request = spans.pop(f"POST {path}")
    assert request.parent_span_id.hex() == CALLER
    told = attributes(request)
    assert (told["http.route"], told["http.response.status_code"]) == (path, 200)
    assert [each.string_value for each in told["kadogo.variants"].values] == ["ner-base"]
    assert sorted(spans) == STAGES
    for span in spans.values():
        assert span.parent_span_id == request.span_id
        told = attributes(span)
        assert (told["kadogo.variant"], told["kadogo.windows"]) == ("ner-base", 1)
        assert told["kadogo.tokens"] > 5 and told["kadogo.priority"] == "interactive"
    times = [(spans[name].start_time_unix_nano, spans[name].end_time_unix_nano) for name in STAGES]
    assert all(start <= end for start, end in times)
    assert spans["encode"].end_time_unix_nano <= spans["run"].start_time_unix_nano
    assert spans["run"].end_time_unix_nano <= spans["decode"].start_time_unix_nano
    assert server.lines_with(f'"trace_id":"{trace}"')


def test_who_reads_along_is_told_as_such(collector: Collector, ask: Ask) -> None:
    trace = ask("/v1/ner")
    spans = collector.until(trace, 9)
    shadow = [span for span in spans if attributes(span).get("kadogo.priority") == "shadow"]
    assert sorted(span.name for span in shadow) == STAGES
    assert {attributes(span)["kadogo.variant"] for span in shadow} == {"ner-small"}


def test_a_comparison_tells_of_each_variant(collector: Collector, ask: Ask) -> None:
    spans = collector.until(ask("/v1/compare", task="ner"), 9)
    runs = [attributes(span) for span in spans if span.name == "run"]
    assert {told["kadogo.variant"] for told in runs} == {"ner-base", "ner-small"}


def test_a_refusal_is_told_without_its_path(collector: Collector, ask: Ask) -> None:
    [span] = collector.until(ask("/SECRET?SECRET=1"), 1)
    assert span.name == "POST -"
    assert attributes(span)["http.response.status_code"] == 404


def test_who_is_not_to_be_traced_is_not(collector: Collector, ask: Ask, server: Server) -> None:
    before = len(collector.spans)
    silent = ask("/v1/ner", sampled="00", variant="ner-base")
    httpx.post(f"{server.url}/v1/ner", json={"inputs": SENTENCE, "variant": "ner-base"})
    after = collector.until(ask("/v1/ner", variant="ner-base"), 5)
    assert collector.of(silent) == [] and len(collector.spans) == before + len(after)


def test_no_text_is_told(collector: Collector, ask: Ask) -> None:
    for body in ({"inputs": "SECRET"}, {"inputs": "SECRET", "SECRET": 1}):
        collector.until(ask("/v1/ner", **body), 1)
    everything = b"".join(collector.received)
    assert b"kadogo" in everything
    assert not any(text in everything for text in (b"SECRET", b"Sani", b"Bello"))


def test_a_server_that_stops_tells_what_it_has(
    collector: Collector, tmp_path_factory: pytest.TempPathFactory
) -> None:
    catalog, home = tmp_path_factory.mktemp("zoo"), tmp_path_factory.mktemp("home")
    write_variant(catalog, "ner-base", Task.NER)
    late = {"KADOGO_TRACES": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "600000"}
    with serving(catalog, home, **late) as server:
        httpx.post(
            f"{server.url}/v1/ner",
            json={"inputs": "Kano"},
            headers={"traceparent": f"00-{TRACE}-{CALLER}-01"},
        )
        assert collector.of(TRACE) == []
    assert len(collector.of(TRACE)) == 5

"""Laws of the benchmark: rounds, ratios, groups, the load it makes; and one short whole run."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from build.__main__ import main
from build.bench import cli, echo, load, plain, routing, server
from build.bench.speed import by_task
from build.bench.throughput import sorted_over_all, sorted_within, texts_for
from build.bench.traffic import TEXTS, bodies_of, texts_of
from build.errors import BuildError
from build.figures import Figure, Target, interleave, ratios, table
from models import catalog
from models.spec import Task
from service.schemas import NerReply, Timing
from tests.tiny import judged, write_variant

ROOT = Path(__file__).resolve().parent.parent


# --- figures ----------------------------------------------------------------------------------


def test_modes_are_interleaved_every_other_round_backwards():
    ran: list[str] = []

    def mode(name: str) -> float:
        ran.append(name)
        return float(len(ran))

    found = interleave({"a": lambda: mode("a"), "b": lambda: mode("b")}, 3)
    assert ran == ["a", "b", "b", "a", "a", "b"]
    assert found == {"a": (1, 4, 5), "b": (2, 3, 6)}


def test_ratios_are_taken_round_by_round():
    assert ratios([8, 3], [4, 1]) == (2, 3)


def test_a_median_is_held_against_its_target():
    slow = Figure("s", "v", "w", "ratio", (0.6, 0.9, 0.8), Target(0.85))
    assert slow.median == 0.8 and slow.is_kept is False
    assert Figure("s", "v", "w", "s", (5.0,), Target(6, at_least=False)).is_kept
    assert Figure("s", "v", "w", "s", (5.0,)).is_kept is None


def test_the_table_shows_median_range_and_target():
    figures = [
        Figure("start", "all", "to ready", "s", (3.0, 4.0, 7.5), Target(6, at_least=False)),
        Figure("speed", "ner-base", "one core", "tokens/s", (2345.6,)),
    ]
    assert table(figures) == "\n".join(
        [
            "       variant   measured  median      min - max  unit      target",
            "start  all       to ready       4        3 - 7.5  s         <= 6    kept",
            "speed  ner-base  one core   2,346  2,346 - 2,346  tokens/s",
        ]
    )


# --- the same texts in process ----------------------------------------------------------------


def test_texts_are_sorted_within_those_waiting():
    found = sorted_within([9, 2, 3, 8, 5, 1], 4, 2)
    assert found == [[1, 2], [3, 0], [5], [4]]


def test_texts_are_sorted_over_all():
    assert sorted_over_all([9, 2, 3, 8, 5], 2) == [[1, 2], [4, 3], [0]]


@given(st.lists(st.integers(1, 500), max_size=60), st.integers(1, 20), st.integers(1, 8))
def test_every_text_is_in_exactly_one_group(lengths, waiting, cores):
    for groups in (sorted_within(lengths, waiting, cores), sorted_over_all(lengths, waiting)):
        assert sorted(index for group in groups for index in group) == list(range(len(lengths)))


@pytest.mark.parametrize(
    "rate, seconds, texts", [(0, 6, 32), (20, 6, 128), (41, 6, 240), (1e4, 6, 512)]
)
def test_a_set_of_texts_fills_the_time_in_whole_groups(rate, seconds, texts):
    assert texts_for(rate, seconds, 512) == texts


def test_a_variant_compressed_from_another_comes_after_it(tmp_path):
    base = catalog.read(write_variant(tmp_path, "ner-base", Task.NER))
    small = msgspec.structs.replace(base, name="ner-a", parent="ner-base")
    news = catalog.read(write_variant(tmp_path, "news-base", Task.CLASSIFICATION))
    assert by_task([small, news, base]) == {
        Task.NER: [base, small],
        Task.CLASSIFICATION: [news],
    }


def test_traffic_is_what_the_load_test_sends():
    texts = texts_of(Task.NER, seed=5)
    assert len(texts) == TEXTS
    assert texts == texts_of(Task.NER, seed=5)
    asked = [json.loads(body) for body in bodies_of(texts, "ner-a")]
    assert asked == [{"inputs": text, "variant": "ner-a"} for text in texts]


def test_a_missing_variant_is_named_with_those_there(tmp_path):
    write_variant(tmp_path, "ner-tiny", Task.NER)
    with pytest.raises(BuildError, match=r"does not hold nothing; it holds ner-tiny"):
        cli.variants_in(tmp_path, ["nothing"])
    with pytest.raises(BuildError, match="holds no variants"):
        cli.variants_in(tmp_path / "empty", [])


def test_a_torch_folder_must_be_a_checkpoint_of_a_measured_variant(tmp_path):
    variant = catalog.read(write_variant(tmp_path, "ner-base", Task.NER))
    with pytest.raises(BuildError, match="--torch"):
        cli.checkpoints_of([variant], [f"ner-base={tmp_path}"])
    (tmp_path / "config.json").write_text("{}")
    found = cli.checkpoints_of([variant], [f"ner-base={tmp_path}"])
    assert found == {"ner-base": tmp_path}
    with pytest.raises(BuildError, match="--torch"):
        cli.checkpoints_of([variant], [f"ner-int8={tmp_path}"])


# --- the echo lane ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return texts_of(Task.NER, seed=1)


@pytest.fixture(scope="module")
def echoed(tmp_path_factory, texts) -> Path:
    return echo.write(tmp_path_factory.mktemp("catalog"), texts)


def test_the_echo_variant_proves_itself_and_finds_entities(echoed, texts):
    answers = catalog.open_variant(echoed).answer(texts)
    found = sum(len(answer.entities) for answer in answers) / len(texts)
    assert 2 < found < 10
    assert all(answer.unknown == 0 for answer in answers)


@pytest.mark.parametrize("mode", plain.Mode)
def test_plain_starlette_replies_as_kadogo_does(echoed, texts, mode):
    pipeline = catalog.open_variant(echoed)
    text, sample = texts[:2]
    client = TestClient(plain.app(pipeline, mode, sample))
    reply = client.post("/v1/ner", json={"inputs": text, "variant": echo.NAME}).json()
    assert reply.keys() == set(NerReply.__struct_fields__)
    assert reply["timing_ms"].keys() == set(Timing.__struct_fields__)
    assert reply["digest"] == pipeline.variant.digest
    works = mode in (plain.Mode.INLINE, plain.Mode.THREADS)
    expected = pipeline.answer([text if works else sample])
    assert reply["results"] == json.loads(msgspec.json.encode(expected))


# --- load -------------------------------------------------------------------------------------


def test_a_rate_counts_what_ended_in_the_window():
    seen = load.Load((0.2, 0.9, 1.5, 2.0, 2.5, 3.5), 0, 0.1)
    assert seen.rate(after_s=1, until_s=3) == 1.5


class _Stub(BaseHTTPRequestHandler):
    """Every text with a "!" in it fails."""

    protocol_version = "HTTP/1.1"
    closing = False

    def do_POST(self) -> None:
        ask = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = b'{"title": "no"}' if "!" in ask["inputs"] else b'{"results": [{}]}'
        self.send_response(500 if "!" in ask["inputs"] else 200)
        self.send_header("Content-Length", str(len(body)))
        if self.closing:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def stub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Stub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1/ner"
    server.shutdown()
    server.server_close()


BODIES = [json.dumps({"inputs": text}, ensure_ascii=False).encode() for text in ("Èkó", "a!", "b")]


def test_whatever_makes_the_load_counts_right_answers_and_failures(stub):
    seen = load.saturate(stub, BODIES, connections=3, seconds=1)
    assert len(seen.ended_s) > 3 and seen.failures > 0
    assert list(seen.ended_s) == sorted(seen.ended_s)


def test_the_python_client_sends_the_texts_in_turn(stub):
    ended, failures = asyncio.run(load._callers(stub, BODIES, 1, 0.5))
    assert abs(len(ended) - 2 * failures) <= 2
    assert min(ended) > 0


def test_the_python_client_opens_what_the_server_closes(stub, monkeypatch):
    monkeypatch.setattr(_Stub, "closing", True)
    ended, failures = asyncio.run(load._callers(stub, BODIES[:1], 2, 0.5))
    assert len(ended) > 2 and failures == 0


def test_a_server_that_takes_no_connection_is_named():
    with pytest.raises(BuildError, match="/v1/ner takes no connection: "):
        asyncio.run(load._callers("http://127.0.0.1:9/v1/ner", BODIES, 1, 0.5))


def test_settings_of_ones_own_server_are_none_of_the_measured(monkeypatch, tmp_path):
    monkeypatch.setenv("KADOGO_KEYS", "keys.toml")
    monkeypatch.setenv("KADOGO_THREADS", "7")
    monkeypatch.setattr(
        server.process, "serving", lambda name, command, environment, **_: environment
    )
    started = server.kadogo(tmp_path, threads=2, settings={"KADOGO_ACCESS_LOG": "on"})
    mine = {name: value for name, value in started.items() if name.startswith("KADOGO_")}
    assert mine == {
        "KADOGO_CATALOG": str(tmp_path),
        "KADOGO_THREADS": "2",
        "KADOGO_ACCESS_LOG": "on",
    }
    assert started["PATH"]


# --- all of it --------------------------------------------------------------------------------


def quick(folder: Path, only: str) -> tuple[subprocess.CompletedProcess[str], list[dict[str, Any]]]:
    """A short run on the variants in `folder`/catalog, and what it measured."""
    command = [sys.executable, "-m", "build.bench", "--quick", "--only", only]
    command += ["--catalog", str(folder / "catalog"), "--out", str(folder / "reports")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done, json.loads((folder / "reports" / "bench.json").read_text())["figures"]


def test_a_quick_run_measures_a_real_server(tmp_path):
    write_variant(tmp_path / "catalog", "ner-tiny", Task.NER)
    done, figures = quick(tmp_path, "throughput,speed,overhead")
    medians = {(f["variant"], f["what"]): f["median"] for f in figures}
    assert medians["ner-tiny", "HTTP"] > 0
    assert medians["ner-tiny", "HTTP / in process, sorted within 16 waiting"] > 0
    assert medians["ner-tiny", "failed calls"] == 0
    assert medians["ner-tiny", "one core"] > 0
    targets = {f["what"]: f["target"] for f in figures if f["section"] == "overhead"}
    assert targets["CPU, Kadogo / Starlette (JSON in, pipeline inline, JSON out)"] == "<= 2"
    assert sum(what.startswith("CPU, Kadogo / Starlette") for what in targets) == 4
    assert "HTTP / in process, sorted over all" in done.stdout


def test_a_quick_run_measures_what_watching_costs(tmp_path):
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    write_variant(tmp_path / "catalog", "ner-tiny", Task.NER)
    _, figures = quick(tmp_path, "watched")
    assert [f["what"] for f in figures if f["unit"] == "ratio"] == [
        "CPU, access log / unwatched",
        "CPU, traces of 1 in 100 / unwatched",
        "CPU, traces of all / unwatched",
    ]
    assert all(f["median"] > 0 for f in figures)


def test_a_quick_run_measures_what_workers_cost_and_bring(tmp_path):
    write_variant(tmp_path / "catalog", "ner-tiny", Task.NER)
    _, figures = quick(tmp_path, "workers")
    found = {f["what"]: f["median"] for f in figures}
    assert found["2 workers: memory"] > 1.3 * found["1 worker: memory"] > 0
    assert found["4 workers: rate"] > 0
    if sys.platform == "linux":
        assert found["1 worker: want a core"] > 0


def test_a_quick_run_measures_what_a_decision_costs(tmp_path):
    catalog = tmp_path / "catalog"
    write_variant(catalog, "ner-base", Task.NER, evidence=judged(0.9))
    write_variant(catalog, "ner-tiny", Task.NER, parent="ner-base", evidence=judged(0.6, -0.3))
    _, figures = quick(tmp_path, "routing")
    assert {figure["variant"] for figure in figures} == {"ner-base"}
    assert {figure["what"]: figure["target"] for figure in figures} == {
        "a request, named": None,
        "policy adds": "<= 50",
        "policy of a time adds": "<= 50",
    }


def test_policies_that_choose_differently_are_held_against_their_own_choice(monkeypatch):
    took = {b"named small": 1.0, b"named fast": 2.0, b"small": 11.0, b"fast": 32.0}

    class Asking:
        def __init__(self, url):
            pass

        def body(self, text, *, policy=None, variant=None):
            if variant:
                return f"named {variant}".encode()
            return b"fast" if "max_latency_ms" in policy else b"small"

        def variant(self, body):
            return body.decode()

        def medians_us(self, ways, seconds):
            return {name: took[body] for name, body in ways.items()}

        def close(self):
            pass

    monkeypatch.setattr(routing, "Asking", Asking)
    monkeypatch.setattr(routing, "kadogo", lambda *_, **__: nullcontext(SimpleNamespace(url="")))
    plan = SimpleNamespace(seed=1, catalog=ROOT, cores=1, seconds=0.1, rounds=1)
    found = {(each.variant, each.what): each.median for each in routing.measure(plan)}
    assert found == {
        ("small", "a request, named"): 1,
        ("fast", "a request, named"): 2,
        ("small", "policy adds"): 10,
        ("fast", "policy of a time adds"): 30,
    }


def test_what_was_measured_before_a_stop_is_told(tmp_path, monkeypatch, capsys):
    write_variant(tmp_path / "catalog", "ner-tiny", Task.NER)

    def stopped(plan):
        raise KeyboardInterrupt

    figure = Figure("start", "ner-tiny", "ready", "s", (1.0,))
    monkeypatch.setitem(cli.SECTIONS, "start", lambda plan: [figure])
    monkeypatch.setitem(cli.SECTIONS, "throughput", stopped)
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    words = ["bench", "--only", "start,throughput", "--catalog", str(tmp_path / "catalog")]
    assert main([*words, "--out", str(tmp_path)]) == 130
    told = json.loads((tmp_path / "bench.json").read_text())
    assert [each["what"] for each in told["figures"]] == ["ready"]
    assert told["facts"]["broken off"].startswith("in throughput")
    err = capsys.readouterr().err
    assert "stopped" in err and "continues" not in err


def test_without_evidence_no_decision_is_measured(tmp_path):
    write_variant(tmp_path / "catalog", "ner-tiny", Task.NER, parent="ner-base")
    done, _ = quick(tmp_path, "routing")
    assert "routing: left out" in done.stderr


def test_no_catalog_is_one_line(tmp_path):
    command = [sys.executable, "-m", "build.bench", "--catalog", str(tmp_path / "nowhere")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "holds no variants" in done.stderr

"""Laws of the load test: what is asked in which order, and what is said of it."""

from __future__ import annotations

import itertools
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest import report
from loadtest.measure import Block, Request, order, percentile, rows, steady
from loadtest.texts import traffic
from loadtest.verdict import Promise, broken, doubts, kept

ROOT = Path(__file__).resolve().parent.parent


# --- arithmetic ------------------------------------------------------------------------------


@given(
    st.lists(st.floats(0, 1e5), min_size=1, max_size=50).map(sorted),
    st.sampled_from([0, 0.5, 0.95, 0.99, 1]),
)
def test_percentiles_are_numpys(values, share):
    assert percentile(values, share) == pytest.approx(np.quantile(values, share), abs=1e-6)


def test_the_percentile_of_nothing_is_zero():
    assert percentile([], 0.99) == 0


def test_every_other_round_runs_backwards():
    assert order(["a", "b"], 2) == ["a", "b", "b", "a"]
    assert order(["a", "b", "c"], 3) == list("abccbaabc")


def test_only_what_ended_in_the_window_counts():
    requests = [Request(ended, 1.0) for ended in (0.5, 1.0, 1.5, 3.0, 3.5)]
    assert [r.ended_s for r in steady(requests, after_s=1, until_s=3)] == [1.5, 3.0]


def _block(variant: str, times: list[float | str], seconds: float = 2.0) -> Block:
    requests = tuple(
        Request(1.0, 9.0, each) if isinstance(each, str) else Request(1.0, each) for each in times
    )
    return Block(variant, "ner", seconds, requests, 0.2)


BLOCKS = [
    _block("ner-base", [10.0, 20.0, 30.0, 40.0]),
    _block("ner-<int8>", [1.0] * 8 + ["HTTP 429"] * 2),
    _block("ner-<int8>", [3.0] * 4),
    _block("ner-base", [50.0, 60.0]),
]


def test_a_row_joins_the_blocks_of_its_variant():
    base, small = rows(BLOCKS)
    assert (base.variant, base.answers, base.rate) == ("ner-base", 6, 1.5)
    assert (base.slowest, base.fastest, base.p50_ms) == (1.0, 2.0, 35.0)
    assert (small.failures, small.errors, small.answers) == (2, {"HTTP 429": 2}, 12)
    assert small.p50_ms == 1.0


def test_a_verdict_names_each_broken_promise():
    found = rows(BLOCKS)
    assert broken(Promise(failures=0.2, p95_ms=100), found) == []
    sentences = broken(Promise(failures=0.01, p95_ms=30), found)
    assert len(sentences) == 2
    assert "ner-base: p95 is 57.5 ms" in sentences[0]
    assert "HTTP 429" in sentences[1]


def test_what_was_kept_is_named():
    assert kept(Promise()) == "Kept: every variant answers, at most 1.0% of a variant's calls fail."
    assert "its p95 is at most 30 ms" in kept(Promise(p95_ms=30))


def test_one_block_is_no_range():
    [row] = rows([_block("a", [1.0, 2.0])])
    assert report.cells(row)[2:4] == ("1.0", "-")


def test_a_busy_generator_is_doubted():
    busy = Block("a", "ner", 1.0, (Request(1.0, 1.0),), 0.9)
    assert doubts(rows([busy])) and not doubts(rows(BLOCKS))


# --- report ----------------------------------------------------------------------------------


def test_the_table_is_aligned_and_whole():
    assert report.table(rows(BLOCKS)) == "\n".join(
        [
            "variant     task  answers/s  of single blocks  p50 ms  p95 ms  p99 ms  answers"
            "   failures",
            "ner-base    ner         1.5           1.0-2.0    35.0    57.5    59.5        6"
            "          0",
            "ner-<int8>  ner         3.0           2.0-4.0     1.0     3.0     3.0       12"
            "  2 (14.3%)",
        ]
    )


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append(tag)
        self.links += [value for name, value in attrs if name in {"src", "href"}]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize("blocks", [BLOCKS, [_block("a", ["HTTP 500"])]])
def test_the_report_is_one_whole_page_that_needs_nothing_else(blocks):
    found = tuple(rows(blocks))
    page = report.Page({"host": "<here>"}, found, tuple(blocks), ("a: <slow>",), "")
    text = report.html(page)
    tags = _Tags()
    tags.feed(text)
    assert tags.open == [] and tags.links == []
    assert tags.seen.count("polyline") == sum(row.answers > 0 for row in found)
    assert "<here>" not in text and "<slow>" not in text and "ner-<int8>" not in text
    assert "prefers-color-scheme:dark" in text


# --- the whole thing, against a server that is not ours ---------------------------------------


def test_a_report_without_broken_promises_names_the_kept_ones():
    page = report.Page({}, tuple(rows(BLOCKS)), tuple(BLOCKS), (), "Kept: <all>.")
    assert "<p>Kept: &lt;all&gt;.</p>" in report.html(page)


class _Stub(BaseHTTPRequestHandler):
    """Answers /v1/ner as Kadogo does; every second text to "shaky" fails."""

    protocol_version = "HTTP/1.1"
    counter: ClassVar = itertools.count()
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        names = ("steady", "shaky")
        found = [{"name": name, "task": "ner", "state": "ready"} for name in names]
        self._say(200, {"variants": [*found, {"name": "bad", "task": "ner", "state": "failed"}]})

    def do_POST(self) -> None:
        ask = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(ask["inputs"])
        if ask["variant"] == "shaky" and next(self.counter) % 2:
            self._say(500, {"title": "Internal error"})
        else:
            self._say(200, {"results": [{"entities": []}]})

    def _say(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def stub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Stub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def _run(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loadtest", *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_a_run_counts_answers_and_failures_and_writes_its_reports(stub, tmp_path):
    done = _run(
        *("--host", stub, "--users", "4", "--block", "0.6", "--warmup", "0.2"),
        *("--rounds", "2", "--out", str(tmp_path)),
    )
    assert done.returncode == 1, done.stderr
    assert "shaky: " in done.stderr and "HTTP 500" in done.stderr
    assert "steady: " not in done.stderr
    book = json.loads((tmp_path / "loadtest.json").read_text())
    steady_row, shaky_row = book["rows"]
    assert steady_row["answers"] > 0 and steady_row["failures"] == 0
    assert shaky_row["answers"] > 0 and shaky_row["failures"] > 0
    assert shaky_row["errors"].keys() == {"HTTP 500"}
    assert "bad" not in [row["variant"] for row in book["rows"]]
    assert (tmp_path / "loadtest.html").read_text().startswith("<!doctype html>")
    assert "steady" in done.stdout and "p99 ms" in done.stdout
    assert set(_Stub.asked) <= set(traffic("sentences", count=512, seed=1))


def test_an_unknown_variant_is_one_line_naming_the_known(stub):
    done = _run("--host", stub, "--variants", "steady,nothing")
    assert done.returncode == 2
    assert done.stderr == "not ready: nothing; ready are steady, shaky\n"


def test_no_server_is_one_line_that_says_what_to_do():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        done = _run("--host", f"http://127.0.0.1:{free.getsockname()[1]}")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "no server answers at http://127.0.0.1" in done.stderr and "make serve" in done.stderr

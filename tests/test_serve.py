"""The server as people run it: `bentoml serve`, two workers, signals, BentoML's own client."""

from __future__ import annotations

import contextlib
import http.client
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bentoml
import httpx
import psutil
import pydantic
import pytest
from _bentoml_sdk.service import Service
from prometheus_client.parser import text_string_to_metric_families

from models.spec import Task
from service import app
from service.native import NativeAsk, ServerMistakes
from service.settings import ROOT
from tests.tiny import write_variant

SENTENCE = "Sani Bello ya je Kano ranar Litinin."
ENTITIES = [("PER", "Sani Bello"), ("LOC", "Kano"), ("DATE", "Litinin")]


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zoo")
    write_variant(folder, "ner-int8", Task.NER)
    write_variant(folder, "news-int8", Task.CLASSIFICATION)
    return folder


class Server:
    def __init__(self, process: subprocess.Popen[bytes], url: str, log: Path) -> None:
        self.process = process
        self.url = url
        self.home = log.parent
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text()

    def lines_with(self, fragment: str) -> list[str]:
        """Its log's lines with it: they are written after the answer has gone: waited for."""
        end = time.monotonic() + 30
        while True:
            found = [line for line in self.log.splitlines() if fragment in line]
            if found or time.monotonic() > end:
                return found
            time.sleep(0.05)

    def until_ready(self, workers: int) -> None:
        """Each of them: /readyz is answered by whichever comes first."""
        for _ in range(600):
            assert self.process.poll() is None, self.log
            with contextlib.suppress(httpx.TransportError):
                ready = httpx.get(f"{self.url}/readyz").status_code == 200
                if ready and self.log.count("ready in ") == workers:
                    return
            time.sleep(0.1)
        raise AssertionError(f"not ready in a minute:\n{self.log}")

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of that name with these labels."""
        text = httpx.get(f"{self.url}/metrics").text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


@contextlib.contextmanager
def serving(
    catalog: Path, home: Path, *, host: str = "127.0.0.1", **settings: str
) -> Iterator[Server]:
    """A server of its own, stopped at the end; asked over the loopback, wherever it is bound."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ours = {name: v for name, v in os.environ.items() if not name.startswith(("KADOGO", "BENTO"))}
    ours |= {"KADOGO_CATALOG": str(catalog), "BENTOML_HOME": str(home), **settings}
    command = ["-m", "bentoml", "serve", "service.app:Kadogo", "--host", host]
    log = home / "log"
    with log.open("wb") as written:
        process = subprocess.Popen(
            [sys.executable, *command, "--port", str(port)],
            cwd=ROOT,
            env=ours,
            stdout=written,
            stderr=subprocess.STDOUT,
        )
    server = Server(process, f"http://127.0.0.1:{port}", log)
    try:
        server.until_ready(int(settings.get("KADOGO_WORKERS", 1)))
        yield server
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


@pytest.fixture(scope="module")
def server(catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("two-workers")
    with serving(catalog, home, KADOGO_WORKERS="2", KADOGO_MAX_BODY="10000") as server:
        yield server


def entities(reply: httpx.Response) -> list[tuple[str, str]]:
    assert reply.status_code == 200, reply.text
    return [(e["label"], e["text"]) for e in reply.json()["results"][0]["entities"]]


def test_the_log_says_where_to_open_what_is_ready(server: Server) -> None:
    told = server.lines_with("ready in ")
    assert len(told) == 2 and all(f"; open {server.url}" in line for line in told)


def test_a_request_is_answered_end_to_end(server: Server) -> None:
    assert entities(httpx.post(f"{server.url}/v1/ner", json={"inputs": SENTENCE})) == ENTITIES


def test_an_idle_connection_is_kept_for_longer_than_callers_keep_theirs(server: Server) -> None:
    url = httpx.URL(server.url)
    asking = http.client.HTTPConnection(url.host, url.port, timeout=30)
    asking.connect()
    kept = asking.sock
    for _ in range(2):
        asking.request("GET", "/livez")
        assert asking.getresponse().read() == b"\n" and asking.sock is kept
        time.sleep(5.5)  # uvicorn's own default is 5
    asking.close()


def test_bentomls_own_client_is_answered(server: Server) -> None:
    with bentoml.SyncHTTPClient(server.url) as client:
        reply = client.ner(inputs=SENTENCE, parameters={"aggregation": "simple"})
        assert [(e["label"], e["text"]) for e in reply["results"][0]["entities"]] == ENTITIES
        reply = client.classify(inputs=["kwallo kwallo", "banki"], variant="news-int8")
        assert [r["labels"][0]["label"] for r in reply["results"]] == ["sports", "business"]
        with pytest.raises(bentoml.exceptions.NotFound, match="known are ner-int8"):
            client.ner(inputs=SENTENCE, variant="ner-large")


def test_bentomls_own_paths_heed_the_headers_too(server: Server) -> None:
    def asked(**headers: str) -> httpx.Response:
        return httpx.post(f"{server.url}/ner", json={"inputs": SENTENCE}, headers=headers)

    told = asked(**{"X-Request-ID": "amina-1", "X-Priority": "batch"})
    assert told.status_code == 200 and told.headers["x-request-id"] == "amina-1"
    assert told.headers["x-variant"] == told.json()["variant"]
    assert "model;dur=" in told.headers["server-timing"]
    refused = asked(**{"X-Priority": "first"})
    assert refused.status_code == 422 and refused.json()["title"] == "Invalid request"
    assert asked(**{"X-Request-Timeout-Ms": "soon"}).status_code == 422


def test_the_metrics_of_two_workers_add_up(server: Server) -> None:
    def asked(_: int) -> int:
        with httpx.Client() as client:  # a connection of its own, so either worker may take it
            for _ in range(5):
                assert client.post(f"{server.url}/v1/ner", json={"inputs": "Kano"}).is_success
            return int(client.get(f"{server.url}/v1/status").json()["process"])

    labels = {"task": "ner", "variant": "ner-int8", "status_class": "2xx"}
    before = server.metric("kadogo_request_seconds_count", **labels)
    workers: set[int] = set()
    rounds = 0
    with ThreadPoolExecutor(8) as callers:
        while len(workers) < 2 and rounds < 50:
            workers |= set(callers.map(asked, range(8)))
            rounds += 1
    assert len(workers) == 2
    for _ in range(6):  # whichever worker answers
        assert server.metric("kadogo_request_seconds_count", **labels) == before + rounds * 40
    assert server.metric("kadogo_variant_info", variant="ner-int8") == 1
    assert server.metric("kadogo_queue_depth", variant="ner-int8") == 0


def test_servers_of_one_home_count_apart(server: Server, catalog: Path, tmp_path: Path) -> None:
    httpx.post(f"{server.url}/v1/ner", json={"inputs": "Kano"})
    before = server.metric("kadogo_texts_total")
    with serving(catalog, tmp_path, BENTOML_HOME=str(server.home)) as other:
        assert other.metric("kadogo_texts_total") == 0
        assert httpx.post(f"{other.url}/v1/ner", json={"inputs": "Kano"}).is_success
        assert other.metric("kadogo_texts_total") == 1
        assert server.metric("kadogo_texts_total") == before
        assert len(list(server.home.glob("prometheus*"))) == 2
    assert server.metric("kadogo_texts_total") == before
    assert len(list(server.home.glob("prometheus*"))) == 1


def test_unknown_paths_make_no_new_series(server: Server) -> None:
    for path in ("/nowhere/1", "/nowhere/2", "/static_content/x", "/v1/ner/x"):
        assert httpx.get(server.url + path).status_code == 404
    assert "nowhere" not in httpx.get(f"{server.url}/metrics").text


def test_a_body_is_bounded_on_every_way_in(server: Server) -> None:
    for path in ("/v1/ner", "/ner"):
        body = b'{"inputs": "' + b"a" * 20_000 + b'"}'
        json_type = {"content-type": "application/json"}
        whole = httpx.post(server.url + path, content=body, headers=json_type)
        chunked = httpx.post(server.url + path, content=iter([body]), headers=json_type)
        assert whole.status_code == chunked.status_code == 413, path


def test_no_text_is_logged_on_any_way_in(server: Server) -> None:
    bodies = (b'{"inputs": "SECRET', b'{"input": "SECRET"}', b'{"inputs": {"SECRET": 1}}')
    for path in ("/v1/ner", "/ner"):
        for body in bodies:
            headers = {"content-type": "application/json"}
            refusal = httpx.post(server.url + path, content=body, headers=headers)
            assert 400 <= refusal.status_code < 500
            assert "SECRET" not in refusal.text
    assert "SECRET" not in server.log
    assert "Traceback" not in server.log and "Exception on" not in server.log


def test_mistakes_of_ours_are_still_logged() -> None:
    class Ours(pydantic.BaseModel):
        name: str

    def logged(raises: Callable[[], object]) -> bool:
        try:
            raises()
        except Exception:
            record = logging.LogRecord("", 0, "", 0, "", None, sys.exc_info())
        return ServerMistakes().filter(record)

    def fails() -> None:
        raise bentoml.exceptions.InternalServerError("ours")

    def refuses() -> None:
        raise bentoml.exceptions.BadInput("theirs")

    assert logged(fails) and logged(lambda: 1 / 0) and logged(lambda: Ours(name=1))
    assert not logged(refuses) and not logged(lambda: NativeAsk(inputs=1))


def test_docs_are_served_without_leaving_the_host(server: Server) -> None:
    assert "swagger-ui" in httpx.get(f"{server.url}/docs").text
    assert "http" not in httpx.get(f"{server.url}/docs").text.lower().replace("<!doctype html>", "")
    assert httpx.get(f"{server.url}/docs/assets/swagger-ui-bundle.js").status_code == 200


def test_usage_is_not_tracked(server: Server) -> None:
    assert "bentoml.com" not in server.log
    asked = "import service.app, bentoml._internal.utils.analytics.usage_stats as u; "
    ours = {name: v for name, v in os.environ.items() if not name.startswith(("KADOGO", "BENTO"))}
    done = subprocess.run(
        [sys.executable, "-c", asked + "print(u.do_not_track())"],
        cwd=ROOT,
        env=ours,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "True"


def test_this_bentoml_has_the_hook_of_the_fast_path() -> None:
    assert app.service_options(app.ours, fast=True).keys() == {"service_class"}


def test_a_bentoml_without_the_hook_gets_the_mount(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Service, "to_asgi")
    assert app.service_options(app.ours, fast=True) == {}


def test_without_the_fast_path_the_answers_are_the_same(catalog: Path, tmp_path: Path) -> None:
    with serving(catalog, tmp_path, KADOGO_FAST_PATH="off") as server:
        assert entities(httpx.post(f"{server.url}/v1/ner", json={"inputs": SENTENCE})) == ENTITIES
        unknown = httpx.post(f"{server.url}/v1/ner", json={"inputs": "a", "variant": "x"})
        assert unknown.status_code == 404
        assert unknown.headers["content-type"] == "application/problem+json"
        assert httpx.get(f"{server.url}/v1/ner").status_code == 405
        assert server.metric("kadogo_texts_total") == 1
        for path in ("/livez", "/readyz", "/healthz", "/docs", "/openapi.json", "/v1/status"):
            assert httpx.get(server.url + path).status_code == 200, path
        with bentoml.SyncHTTPClient(server.url) as client:
            assert client.ner(inputs="Kano")["variant"] == "ner-int8"


def test_a_stopping_server_says_so_answers_what_it_has_and_exits_with_0(
    catalog: Path, tmp_path: Path
) -> None:
    settings = {
        "KADOGO_DRAIN_S": "1.5",
        "KADOGO_QUEUE_TEXTS": "1000000",
        "KADOGO_QUEUE_TOKENS": "100000000",
        "KADOGO_MAX_TEXT": "1000000",
        "KADOGO_DEADLINE_MS": "120000",
    }
    with serving(catalog, tmp_path, **settings) as server, ThreadPoolExecutor(1) as caller:
        long = {"inputs": [SENTENCE * 10_000] * 8}
        asked = caller.submit(httpx.post, f"{server.url}/v1/ner", json=long, timeout=120)
        time.sleep(0.5)
        assert not asked.done()
        server.process.send_signal(signal.SIGTERM)
        assert until_not_ready(server) == 503
        during = httpx.post(f"{server.url}/v1/ner", json={"inputs": "Kano"})
        assert during.status_code == 200
        answered = asked.result(120)
        assert answered.status_code == 200
        assert len(answered.json()["results"]) == 8
        assert server.process.wait(60) == 0
        assert "stopping: not ready now, the door closes in 1.5 s" in server.log
        assert "Traceback" not in server.log


def test_a_server_that_begins_a_worker_is_stopped_all_the_same(
    catalog: Path, tmp_path: Path
) -> None:
    with serving(catalog, tmp_path, KADOGO_WORKERS="2") as server:
        parent = psutil.Process(server.process.pid)
        workers = set(parent.children())
        min(workers, key=lambda worker: worker.pid).kill()
        deadline = time.monotonic() + 30
        while set(parent.children()) <= workers:  # without rest: it is being begun for moments only
            assert time.monotonic() < deadline, "the worker is not replaced"
        server.process.terminate()
        assert server.process.wait(30) == 0


def until_not_ready(server: Server) -> int:
    for _ in range(100):
        status = httpx.get(f"{server.url}/readyz").status_code
        if status != 200:
            return status
        time.sleep(0.01)
    raise AssertionError("still ready")


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        (
            *("KADOGO_QUEU_TEXTS", "1"),
            "there is no setting KADOGO_QUEU_TEXTS; did you mean KADOGO_QUEUE_TEXTS?",
        ),
        (
            *("KADOGO_PROVIDER", "NoSuchExecutionProvider"),
            "KADOGO_PROVIDER: execution provider NoSuchExecutionProvider is not available here; "
            "this onnxruntime has ",
        ),
    ],
)
def test_a_bad_setting_ends_the_start_with_one_line(
    tmp_path: Path, name: str, value: str, line: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bentoml", "serve", "service.app:Kadogo", "--host", "127.0.0.1"],
        cwd=ROOT,
        env={**os.environ, "BENTOML_HOME": str(tmp_path), name: value},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    [said] = done.stderr.strip().splitlines()
    assert said.startswith(f"kadogo: {line}")


def test_wrong_routes_end_the_start_with_their_line(tmp_path: Path) -> None:
    routes = tmp_path / "routes.toml"
    routes.write_text('\n[[route]]\nname = "one"\ntask = "ner"\nvariant = "ner-gone"\n')
    test_a_bad_setting_ends_the_start_with_one_line(
        tmp_path,
        "KADOGO_ROUTES",
        str(routes),
        f"{routes}: line 5: route one: there is no variant ner-gone; of ner there are ner-base",
    )

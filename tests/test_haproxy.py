"""The shipped proxy before real servers: what it bounds, what it keeps in, and how it drains."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from models.spec import Task
from service.settings import ROOT
from tests.test_serve import ENTITIES, SENTENCE, Server, entities, serving
from tests.tiny import write_variant

CONFIGURATION = ROOT / "deploy" / "haproxy.cfg"
HAPROXY = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

pytestmark = pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed")

Address = tuple[str, int]


@contextlib.contextmanager
def proxying(configuration: Path, server: Server) -> Iterator[Address]:
    """The proxy before `server`, and those its configuration adds, once it has found one ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address: Address = free.getsockname()
    ours = {
        **os.environ,
        "KADOGO_BIND": "{}:{}".format(*address),
        "KADOGO_SERVER": server.url.removeprefix("http://"),
    }
    with (server.home / "haproxy").open("wb") as log:
        process = subprocess.Popen(
            [str(HAPROXY), "-f", str(configuration)], env=ours, stdout=log, stderr=log
        )
    try:
        until_ready("http://{}:{}".format(*address), process)
        yield address
    finally:
        process.terminate()
        process.wait(30)


def until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        assert process.poll() is None
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/readyz").status_code == 200:
                return
        time.sleep(0.1)
    raise AssertionError("the proxy finds no server ready")


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zoo")
    write_variant(folder, "ner-int8", Task.NER)
    return folder


@pytest.fixture(scope="module")
def server(catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(catalog, tmp_path_factory.mktemp("one")) as server:
        yield server


@pytest.fixture(scope="module")
def proxy(server: Server) -> Iterator[Address]:
    with proxying(CONFIGURATION, server) as address:
        yield address


@pytest.fixture
def url(proxy: Address) -> str:
    return "http://{}:{}".format(*proxy)


def until_closed(connection: socket.socket) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            received += part
    return received


def test_headers_that_never_end_are_cut_while_others_are_answered(proxy: Address, url: str) -> None:
    def drips(connection: socket.socket) -> None:
        """A header of one letter more, now and then: never silent for long, and never done."""
        with contextlib.suppress(OSError):
            for _ in range(600):
                connection.sendall(b"x")
                time.sleep(0.1)

    with contextlib.ExitStack() as stack, ThreadPoolExecutor(40) as callers:
        slow = [stack.enter_context(socket.create_connection(proxy, timeout=60)) for _ in range(40)]
        for connection in slow:
            connection.sendall(b"POST /v1/ner HTTP/1.1\r\nHost: kadogo\r\nX-Slow: ")
        dripping = [callers.submit(drips, connection) for connection in slow]
        for _ in range(20):
            asked = httpx.post(f"{url}/v1/ner", json={"inputs": SENTENCE})
            assert entities(asked) == ENTITIES
        assert not any(each.done() for each in dripping)  # they held on meanwhile
        answers = [until_closed(connection) for connection in slow]
    assert {answer[:13] for answer in answers} <= {b"HTTP/1.1 408 ", b""}  # b"": reset at once
    assert any(answers)


def test_a_header_too_large_is_refused(url: str) -> None:
    refused = httpx.get(f"{url}/v1/status", headers={"X-Large": "x" * 20_000})
    assert refused.status_code == 400
    many = {f"X-{n}": "x" for n in range(100)}
    assert httpx.get(f"{url}/v1/status", headers=many).status_code == 400


def test_connections_of_one_address_are_bounded(proxy: Address, url: str) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(250):
            with contextlib.suppress(ConnectionResetError):
                stack.enter_context(socket.create_connection(proxy, timeout=60))
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{url}/livez")
    for _ in range(100):
        with contextlib.suppress(httpx.TransportError):
            assert httpx.get(f"{url}/livez").status_code == 200
            return
        time.sleep(0.1)
    raise AssertionError("the address stays shut out")


def test_metrics_stay_inside(url: str, server: Server) -> None:
    assert httpx.get(f"{server.url}/metrics").status_code == 200
    kept = httpx.get(f"{url}/metrics")
    assert kept.status_code == 404
    assert "kadogo_texts_total" not in kept.text


def test_a_request_has_one_id_all_the_way(url: str, server: Server) -> None:
    given = httpx.get(f"{url}/v1/status", headers={"X-Request-ID": "mine-7"})
    assert given.headers["x-request-id"] == "mine-7"
    made = httpx.get(f"{url}/v1/status").headers["x-request-id"]
    until_logged(server, "mine-7", made)


def until_logged(server: Server, *ids: str) -> None:
    for _ in range(100):
        log = (server.home / "haproxy").read_text()
        if all(each in log for each in ids):
            return
        time.sleep(0.1)
    raise AssertionError(log)


def test_no_key_is_in_the_proxys_log(url: str, server: Server) -> None:
    headers = {"Authorization": "Bearer kadogo_SECRET", "X-API-Key": "kadogo_SECRET"}
    asked = httpx.post(f"{url}/v1/ner", json={"inputs": "SECRET"}, headers=headers)
    until_logged(server, asked.headers["x-request-id"])
    assert "SECRET" not in (server.home / "haproxy").read_text()


def test_a_connection_serves_many_requests(proxy: Address) -> None:
    with socket.create_connection(proxy, timeout=30) as connection:
        for _ in range(3):
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: kadogo\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_servers_are_stopped_one_after_another_without_a_failed_request(
    catalog: Path, tmp_path: Path
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with serving(catalog, tmp_path / "one") as one, serving(catalog, tmp_path / "two") as two:
        configuration = tmp_path / "haproxy.cfg"
        second = two.url.removeprefix("http://")
        configuration.write_text(f"{CONFIGURATION.read_text()}  server kadogo2 {second}\n")
        with proxying(configuration, one) as address, ThreadPoolExecutor(4) as callers:
            url = "http://{}:{}".format(*address)
            until_both(url)

            def ask(_: int) -> int:
                """On a connection that is kept, and on one of its own."""
                with httpx.Client(base_url=url) as client:
                    seen = [client.post("/v1/ner", json={"inputs": "Kano"}) for _ in range(20)]
                return sum(answer.status_code != 200 for answer in seen)

            failed = 0
            one.process.send_signal(signal.SIGTERM)
            while one.process.poll() is None:
                failed += sum(callers.map(ask, range(8)))
            failed += sum(callers.map(ask, range(8)))
    assert one.process.returncode == 0
    assert failed == 0


def until_both(url: str) -> None:
    seen = set()
    for _ in range(300):
        answer = httpx.get(f"{url}/v1/status")
        if answer.status_code == 200:
            seen.add(answer.json()["process"])
        if len(seen) == 2:
            return
        time.sleep(0.05)
    raise AssertionError("one of the servers is never asked")

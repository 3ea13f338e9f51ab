"""A real server with keys: every way in is shut, limits hold over processes, nothing leaks."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import itertools
import json
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import bentoml
import httpx
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from models.spec import Task
from service import keys, openapi
from service.guard import OPEN_BELOW
from service.keys import Scope
from service.rate import Rate
from service.settings import ROOT
from tests.test_serve import ENTITIES, SENTENCE, Server, entities, serving
from tests.tiny import write_variant

JSON_TYPE = {"content-type": "application/json"}
DESCRIBED = sorted(json.loads(openapi.document())["paths"])
NATIVE = ["/ner", "/classify", "/schema.json", "/docs.json"]
ANYBODYS = [
    "/livez",
    "/healthz",
    "/readyz",
    "/metrics",
    "/docs",
    "/openapi.json",
    "/",
    "/page/page.js",
]
ANSWERING = {"/v1/ner", "/v1/classify", "/ner", "/classify"}
BURST = 50


class Keyring:
    """A file of keys, and the tokens by the keys' names."""

    def __init__(self, folder: Path) -> None:
        limit = Rate(requests=BURST, seconds=36_000)  # nothing comes back while a test runs
        made = {
            "newsroom": keys.new("newsroom", [Scope.INFER], None),
            "operator": keys.new("operator", [Scope.ADMIN], None),
            "limited": keys.new("limited", [Scope.INFER], limit),
        }
        self.tokens = {name: token for name, (token, _) in made.items()}
        self.file = folder / "keys.toml"
        self.file.write_text("\n".join(lines for _, lines in made.values()))

    def bearing(self, name: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens[name]}"}


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zoo")
    write_variant(folder, "ner-int8", Task.NER)
    write_variant(folder, "news-int8", Task.CLASSIFICATION)
    return folder


@pytest.fixture(scope="module")
def keyring(tmp_path_factory: pytest.TempPathFactory) -> Keyring:
    return Keyring(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module", params=["on", "off"], ids=["fast path", "BentoML's path"])
def server(
    request: pytest.FixtureRequest,
    catalog: Path,
    keyring: Keyring,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    settings = {
        "KADOGO_FAST_PATH": request.param,
        "KADOGO_KEYS": str(keyring.file),
        "KADOGO_BODY_S": "0.5",
        "KADOGO_CORS_ORIGINS": "https://a.example, https://b.example",
        "KADOGO_WORKERS": "2",
    }
    # Others could reach it: that is what keys are for.
    with serving(catalog, tmp_path_factory.mktemp("home"), host="0.0.0.0", **settings) as server:
        close(both(server, keyring))
        yield server


def both(server: Server, keyring: Keyring) -> dict[int, httpx.Client]:
    """A connection to each of the two workers, once both are ready, by the worker's process."""
    found: dict[int, httpx.Client] = {}
    for _ in range(3000):
        client = httpx.Client(base_url=server.url, timeout=30)
        status = client.get("/v1/status", headers=keyring.bearing("newsroom")).json()
        if status["state"] == "ready" and status["process"] not in found:
            found[status["process"]] = client
        else:
            client.close()
        if len(found) == 2:
            return found
    raise AssertionError("one worker takes every connection")


def close(clients: dict[int, httpx.Client]) -> None:
    for client in clients.values():
        client.close()


# --- keys ------------------------------------------------------------------------------------


def test_with_its_key_a_caller_is_answered(server: Server, keyring: Keyring) -> None:
    asked = {"json": {"inputs": SENTENCE}, "headers": keyring.bearing("newsroom")}
    assert entities(httpx.post(f"{server.url}/v1/ner", **asked)) == ENTITIES
    assert entities(httpx.post(f"{server.url}/ner", **asked)) == ENTITIES


def test_bentomls_own_client_sends_its_token(server: Server, keyring: Keyring) -> None:
    with bentoml.SyncHTTPClient(server.url, token=keyring.tokens["newsroom"]) as client:
        assert client.ner(inputs="Kano")["variant"] == "ner-int8"
    for token in ("wrong", None):
        with (
            pytest.raises(bentoml.exceptions.BentoMLException, match="schema"),
            bentoml.SyncHTTPClient(server.url, token=token) as client,
        ):
            client.ner(inputs="Kano")


def test_hugging_faces_client_sends_its_token(server: Server, keyring: Keyring) -> None:
    model = f"{server.url}/models/ner-int8"
    client = InferenceClient(model=model, token=keyring.tokens["newsroom"])
    found = client.token_classification(SENTENCE)
    assert [(each.entity_group, each.word) for each in found] == ENTITIES
    with pytest.raises(HfHubHTTPError) as refused:
        InferenceClient(model=model, token="wrong").token_classification(SENTENCE)
    assert refused.value.response.status_code == 401


def test_without_a_key_every_path_but_the_open_ones_is_shut(server: Server) -> None:
    shut = {*DESCRIBED, *NATIVE, "/v1/check/x", "/static_content/x", "/nowhere"} - {*ANYBODYS}
    shut = {path for path in shut if not path.startswith(OPEN_BELOW)}
    with httpx.Client(base_url=server.url, follow_redirects=True) as client:
        for path, method in itertools.product(shut, ("GET", "POST", "PUT", "OPTIONS")):
            for headers in ({}, {"Authorization": "Bearer kadogo_wrong"}):
                refused = client.request(method, path, headers=headers)
                assert refused.status_code == 401, (method, path)
                assert refused.headers["www-authenticate"].startswith("Bearer")
                assert refused.json()["type"] == "urn:kadogo:problem:unauthorized"
        for path in ANYBODYS:
            assert client.get(path).status_code == 200, path


def test_a_key_without_the_scope_is_refused(server: Server, keyring: Keyring) -> None:
    path = f"{server.url}/v1/check/x"
    assert httpx.get(path, headers=keyring.bearing("newsroom")).status_code == 403
    assert httpx.get(path, headers=keyring.bearing("operator")).status_code == 404
    as_operator = keyring.bearing("operator")
    assert httpx.get(f"{server.url}/v1/variants", headers=as_operator).status_code == 200


# --- limits ----------------------------------------------------------------------------------


def test_a_limit_holds_over_all_processes_to_the_last_request(
    server: Server, keyring: Keyring
) -> None:
    limited = keyring.bearing("limited")

    def ask(client: httpx.Client) -> httpx.Response:
        return client.post("/v1/ner", json={"inputs": "Kano"}, headers=limited)

    clients = both(server, keyring)
    answers = [ask(client) for client in clients.values()]
    assert [answer.status_code for answer in answers] == [200, 200]  # one of each worker
    with ThreadPoolExecutor(2) as callers:
        each = callers.map(lambda c: [ask(c) for _ in range(BURST - 1)], clients.values())
        answers += [answer for some in each for answer in some]
    close(clients)
    admitted = [answer for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert (len(admitted), len(refused)) == (BURST, BURST)
    left = [int(a.headers["ratelimit"].split(";")[1].removeprefix("r=")) for a in admitted]
    assert sorted(left) == list(range(BURST))
    assert all(int(a.headers["retry-after"]) > 0 for a in refused)
    assert server.metric("kadogo_rejections_total", reason="rate_limited") >= BURST


def test_what_a_key_has_spent_outlives_a_worker(
    catalog: Path, keyring: Keyring, tmp_path: Path
) -> None:
    def ask(times: int) -> list[int]:
        headers = keyring.bearing("limited")
        return [
            httpx.get(f"{server.url}/v1/status", headers=headers).status_code for _ in range(times)
        ]

    with serving(catalog, tmp_path, KADOGO_KEYS=str(keyring.file), KADOGO_WORKERS="2") as server:
        workers = both(server, keyring)
        assert ask(20) == [200] * 20
        close(workers)
        os.kill(next(iter(workers)), 9)
        assert ask(40) == [200] * 30 + [429] * 10
        [counted] = server.home.rglob("spent")
    assert not counted.exists()


# --- bodies ----------------------------------------------------------------------------------


@contextlib.contextmanager
def connected(server: Server) -> Iterator[socket.socket]:
    url = httpx.URL(server.url)
    with socket.create_connection((url.host, url.port), timeout=30) as connection:
        yield connection


def until_closed(connection: socket.socket) -> bytes:
    received = b""
    while part := connection.recv(65536):
        received += part
    return received


@pytest.mark.parametrize(
    "asked",
    [
        *("POST /v1/ner", "POST /ner", "POST /v1/compare", "POST /models/ner-int8"),
        *("POST /v2/models/ner-int8/infer", "PUT /v1/routes", "POST /v1/check"),
    ],
)
def test_a_body_that_trickles_is_cut(server: Server, keyring: Keyring, asked: str) -> None:
    head = (
        f"{asked} HTTP/1.1\r\nHost: kadogo\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {keyring.tokens['operator']}\r\nContent-Length: 100\r\n\r\n"
    )
    with connected(server) as slow:
        slow.sendall(head.encode() + b'{"inputs": "SECRET')
        other = {"json": {"inputs": SENTENCE}, "headers": keyring.bearing("newsroom")}
        assert entities(httpx.post(f"{server.url}/v1/ner", **other)) == ENTITIES
        answer = until_closed(slow)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"within 0.5 s; send it faster" in answer
    assert b"SECRET" not in answer


class Bomb:
    """Unpickling it leaves a file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self._file),)


def test_no_pickle_is_opened_on_any_path(server: Server, keyring: Keyring, tmp_path: Path) -> None:
    gone_off = tmp_path / "gone off"
    bomb = pickle.dumps({"inputs": Bomb(gone_off)})
    for path in [*DESCRIBED, *NATIVE, "/", "/nowhere"]:
        for kind in ("application/vnd.bentoml+pickle", "application/octet-stream"):
            headers = {**keyring.bearing("operator"), "content-type": kind}
            headers |= {"payload-container": "NdarrayContainer", "args-number": "1"}
            refused = httpx.post(server.url + path, content=bomb, headers=headers)
            assert 400 <= refused.status_code < 500, path
            assert refused.status_code == 415 or path not in ANSWERING, path
    assert not gone_off.exists()
    pickle.loads(bomb)
    assert gone_off.exists()  # it was one


@pytest.mark.parametrize(
    "kind", ["multipart/form-data; boundary=x", "application/x-www-form-urlencoded"]
)
def test_bentoml_reads_no_forms(server: Server, keyring: Keyring, kind: str) -> None:
    headers = {**keyring.bearing("newsroom"), "content-type": kind}
    refused = httpx.post(f"{server.url}/ner", content=b"inputs=Kano", headers=headers)
    assert refused.status_code == 415
    assert refused.headers["content-type"] == "application/problem+json"


def test_what_a_body_becomes_is_bounded(server: Server, keyring: Keyring) -> None:
    bomb = gzip.compress(b" " * (64 << 20))
    headers = {**keyring.bearing("newsroom"), **JSON_TYPE, "content-encoding": "gzip"}
    path = f"{server.url}/v2/models/ner-int8/infer"
    assert httpx.post(path, content=bomb, headers=headers, timeout=30).status_code == 413


def test_elsewhere_nothing_is_unpacked(server: Server, keyring: Keyring) -> None:
    headers = {**keyring.bearing("newsroom"), **JSON_TYPE, "content-encoding": "gzip"}
    for path in ("/v1/ner", "/ner"):
        assert httpx.post(server.url + path, content=b"x", headers=headers).status_code == 415


# --- paths -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/v1/variants/..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/v1/variants/../../../../etc/passwd",
        "/v1/variants/..",
        "/v1/variants/%2e%2e%2fvariant.json",
        "/v1/variants/ner-int8%00",
        "/docs/assets/..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/docs/assets/../../../app.py",
        "/docs/assets/%2e%2e/%2e%2e/http_app.py",
        "/docs/assets//etc/passwd",
        "/docs/assets/",
        "/page/..%2fpage.py",
        "/page/../../service/page.py",
        "/page/%2e%2e/page.py",
        "/models/..%2f..%2fetc%2fpasswd",
    ],
)
def test_no_path_leads_to_a_file(server: Server, keyring: Keyring, path: str) -> None:
    url = httpx.URL(server.url)
    asking = http.client.HTTPConnection(url.host, url.port, timeout=30)  # sends it as it stands
    asking.request("GET", path, headers=keyring.bearing("newsroom"))
    answer = asking.getresponse()
    assert answer.status == (405 if path.startswith("/models/") else 404)
    said = answer.read()
    assert b"root:" not in said and b"import" not in said


@pytest.mark.parametrize("name", ["../../etc/passwd", "..%2f..%2fservice%2fapp.py", "ner-int8/.."])
def test_no_model_is_a_path(server: Server, keyring: Keyring, name: str) -> None:
    url = httpx.URL(server.url)
    asking = http.client.HTTPConnection(url.host, url.port, timeout=30)
    headers = {**keyring.bearing("newsroom"), **JSON_TYPE}
    asking.request("POST", f"/models/{name}", body=b'{"inputs": "Kano"}', headers=headers)
    answer = asking.getresponse()
    said = answer.read()
    assert answer.status == 404
    assert b"passwd" not in said and b"app.py" not in said


# --- origins ---------------------------------------------------------------------------------


def preflight(server: Server, origin: str) -> httpx.Response:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type",
    }
    return httpx.options(f"{server.url}/v1/ner", headers=headers)


def test_a_page_of_a_named_origin_may_ask(server: Server, keyring: Keyring) -> None:
    for origin in ("https://a.example", "https://b.example"):
        asked = preflight(server, origin)
        assert asked.status_code == 200
        assert asked.headers["access-control-allow-origin"] == origin
        headers = {"Origin": origin, **keyring.bearing("newsroom")}
        answer = httpx.post(f"{server.url}/v1/ner", json={"inputs": "Kano"}, headers=headers)
        assert answer.headers["access-control-allow-origin"] == origin
        assert answer.headers["access-control-expose-headers"] == "*"
        assert "access-control-allow-credentials" not in answer.headers
        refused = httpx.post(f"{server.url}/v1/ner", headers={"Origin": origin})
        assert refused.headers["access-control-allow-origin"] == origin


def test_a_page_of_another_origin_may_not(server: Server, keyring: Keyring) -> None:
    for origin in ("https://c.example", "https://a.example.org", "null"):
        refused = preflight(server, origin)
        assert refused.status_code == 400
        headers = {"Origin": origin, **keyring.bearing("newsroom")}
        answer = httpx.post(f"{server.url}/v1/ner", json={"inputs": "Kano"}, headers=headers)
        for said in (refused, answer):
            assert "access-control-allow-origin" not in said.headers


# --- what is kept secret ---------------------------------------------------------------------


def test_neither_texts_nor_tokens_are_logged(server: Server, keyring: Keyring) -> None:
    tokens = [*keyring.tokens.values(), "kadogo_WRONG_TOKEN"]
    bodies = [{"inputs": "SECRET TEXT"}, {"inputs": ["SECRET TEXT", 3]}, {"SECRET": "SECRET"}]
    paths = ("/v1/ner", "/v1/classify", "/ner", "/v1/nowhere", "/v1/variants/SECRET")
    with httpx.Client(base_url=server.url) as client:
        for path, token in itertools.product(paths, tokens):
            for headers in ({"Authorization": f"Bearer {token}"}, {"X-API-Key": token}):
                for body in bodies:
                    client.post(f"{path}?text=SECRET", json=body, headers=headers)
                    client.post(path, json=body, headers=headers)
                client.get(path, headers=headers)
    assert "ready in" in server.log
    assert "SECRET" not in server.log and "WRONG_TOKEN" not in server.log
    assert not [token for token in tokens if token in server.log]
    assert "Traceback" not in server.log


# --- starting --------------------------------------------------------------------------------


def refused_start(home: Path, *words: str, **environment: str) -> str:
    """The one line with which a server that does not start says why."""
    ours = {name: v for name, v in os.environ.items() if not name.startswith(("KADOGO", "BENTO"))}
    done = subprocess.run(
        [sys.executable, "-m", "bentoml", "serve", "service.app:Kadogo", *words],
        cwd=ROOT,
        env={**ours, "BENTOML_HOME": str(home), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    [said] = done.stderr.strip().splitlines()
    return said


@pytest.mark.parametrize(
    ("words", "environment", "host"),
    [
        (["--host", "0.0.0.0"], {}, "0.0.0.0"),
        (["--host", "::"], {}, "::"),
        ([], {}, "0.0.0.0"),  # what BentoML does of itself
        ([], {"BENTOML_HOST": "192.0.2.7"}, "192.0.2.7"),
        (["--host", "0.0.0.0"], {"KADOGO_AUTH": ""}, "0.0.0.0"),
        ([], {"BENTOML_CONFIG_OPTIONS": "api_server.http.host=192.0.2.8"}, "192.0.2.8"),
    ],
)
def test_a_server_that_others_can_reach_does_not_start_without_keys(
    tmp_path: Path, words: list[str], environment: dict[str, str], host: str
) -> None:
    said = refused_start(tmp_path, *words, **environment)
    assert said.startswith(f"kadogo: bound to {host} it would answer whoever reaches it; make one")
    made = ".venv/bin/python -m service.keys new NAME >> keys.toml"
    for way in (made, "KADOGO_KEYS=", "--host", "KADOGO_AUTH=off"):
        assert way in said


def test_a_file_of_keys_that_is_wrong_ends_the_start(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    file.write_text("[[key]]\nname = 'a'\nsha256 = 'kadogo_SECRET'\nscopes = ['infer']\n")
    said = refused_start(tmp_path, KADOGO_KEYS=str(file))
    assert "line 3: sha256 must be 64 hexadecimal digits" in said and "SECRET" not in said


def test_a_token_given_for_the_file_is_not_repeated(tmp_path: Path) -> None:
    said = refused_start(tmp_path, KADOGO_KEYS="kadogo_SECRET")
    assert (
        said == "kadogo: KADOGO_KEYS will not do; give an existing file, absolute or from the root"
    )


def test_where_it_is_said_nobody_is_asked_for_a_key(catalog: Path, tmp_path: Path) -> None:
    with serving(catalog, tmp_path, host="0.0.0.0", KADOGO_AUTH="off") as server:
        answer = httpx.post(f"{server.url}/v1/ner", json={"inputs": SENTENCE})
        assert entities(answer) == ENTITIES
        assert not {"ratelimit", "access-control-allow-origin"} & answer.headers.keys()
        asked = preflight(server, "https://a.example")
        assert "access-control-allow-origin" not in asked.headers and asked.status_code == 405

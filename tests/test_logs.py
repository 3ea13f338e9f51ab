"""Log lines: one JSON object each with the request's ids, and never a text or a key."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from models.spec import Task
from service.logs import Lines, Words
from service.seen import SEEN, Watch, note, trace_id_of
from tests.test_secure import Keyring
from tests.test_serve import ENTITIES, SENTENCE, Server, entities, serving
from tests.tiny import write_variant

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


# --- a line ----------------------------------------------------------------------------------


def record(text: str = "ready in %.1f s", *args: object, **more: Any) -> logging.LogRecord:
    made = logging.LogRecord("kadogo", logging.INFO, "", 0, text, args or (1.25,), None)
    made.__dict__.update(more)
    return made


def within(request: list[tuple[bytes, bytes]], work: Callable[[], Any]) -> Any:
    """What `work` gives while such a request is at hand."""
    given: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        given.append(work())

    scope = {"type": "http", "method": "GET", "path": "/", "headers": request}
    asyncio.run(Watch(app)(scope, None, None))  # type: ignore[arg-type]
    return given[0]


def test_a_line_is_one_json_object() -> None:
    line = json.loads(Lines().format(record(created=0.5)))
    assert line["time"] == "1970-01-01T00:00:00.500+00:00"
    assert (line["level"], line["event"], line["logger"]) == ("info", "ready in 1.2 s", "kadogo")
    assert line["process"] > 0 and "request_id" not in line
    assert "\n" not in Lines().format(record("two\nlines%s", ""))


def test_a_line_within_a_request_has_its_ids() -> None:
    headers = [(b"x-request-id", b"mine"), (b"traceparent", TRACEPARENT.encode())]
    line = json.loads(within(headers, lambda: Lines().format(record())))
    assert (line["request_id"], line["trace_id"]) == ("mine", TRACE)
    words = within(headers, lambda: Words("%(message)s").format(record()))
    assert words == f"ready in 1.2 s (mine, trace {TRACE})"


def test_ids_are_made_where_none_came_or_none_that_is_safe() -> None:
    headers = [(b"x-request-id", b"<b>"), (b"traceparent", b"00-0-0-0")]
    lines = [json.loads(within(headers, lambda: Lines().format(record()))) for _ in range(2)]
    assert lines[0]["request_id"] != lines[1]["request_id"] != "<b>"
    assert lines[0]["trace_id"] != lines[1]["trace_id"] and len(lines[0]["trace_id"]) == 32


@pytest.mark.parametrize(
    ("given", "trace"),
    [
        (TRACEPARENT, TRACE),
        (f"01-{TRACE}-00f067aa0ba902b7-01-more", TRACE),
        (f"ff-{TRACE}-00f067aa0ba902b7-01", None),
        (f"00-{'0' * 32}-00f067aa0ba902b7-01", None),
        (f"00-{TRACE.upper()}-00f067aa0ba902b7-01", None),
        (f"00-{TRACE}\n-00f067aa0ba902b7-01", None),
        ("", None),
    ],
)
def test_a_trace_is_the_callers_where_it_says_one_as_it_must(given: str, trace: str | None) -> None:
    assert trace_id_of([(b"traceparent", given.encode())]) == trace


def test_an_error_tells_its_message_only_where_no_caller_is() -> None:
    text = "SEC" + "RET"  # so that the source lines of the traceback do not hold it

    def logged(form: logging.Formatter) -> str:
        try:
            raise ValueError(text)
        except ValueError:
            return form.format(record(exc_info=sys.exc_info()))

    for form in (Lines(), Words()):
        assert f"ValueError: {text}" in logged(form)
        told: str = within([], lambda form=form: logged(form))
        assert "ValueError" in told and "in logged" in told and text not in told


# --- a request -------------------------------------------------------------------------------


def followed(
    caplog: pytest.LogCaptureFixture, path: str, app: Any
) -> tuple[list[dict[str, Any]], list[Message]]:
    """The lines of the access log, and what was sent."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    caplog.set_level(logging.INFO, logger="kadogo.access")
    scope = {"type": "http", "method": "GET", "path": path, "headers": []}
    asyncio.run(Watch(app, access=True)(scope, None, send))  # type: ignore[arg-type]
    return [each.__dict__["fields"] for each in caplog.records], sent


def answering(status: int) -> Any:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        note("one", "two")
        note("one")
        await send({"type": "http.response.start", "status": status, "headers": []})

    return app


def test_the_variants_of_a_request_are_told_once_each(caplog: pytest.LogCaptureFixture) -> None:
    [line], _ = followed(caplog, "/v1/compare", answering(200))
    assert line.pop("ms") >= 0
    assert line == {"method": "GET", "path": None, "status": 200, "variants": ["one", "two"]}


@pytest.mark.parametrize(("path", "status", "lines"), [("/readyz", 200, 0), ("/readyz", 503, 1)])
def test_a_probe_is_told_where_it_fails(
    caplog: pytest.LogCaptureFixture, path: str, status: int, lines: int
) -> None:
    told, sent = followed(caplog, path, answering(status))
    assert (len(told), sent[0]["status"]) == (lines, status)


def test_a_caller_who_left_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async def leaves(scope: Scope, receive: Receive, send: Send) -> None:
        pass

    [line], sent = followed(caplog, "/v1/ner", leaves)
    assert (line["status"], sent) == (499, [])


def test_what_is_no_request_passes() -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((scope["type"], SEEN.get()))

    asyncio.run(Watch(app, access=True)({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    assert seen == [("lifespan", None)]


# --- a server --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keyring(tmp_path_factory: pytest.TempPathFactory) -> Keyring:
    return Keyring(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module", params=["on", "off"], ids=["fast path", "BentoML's path"])
def server(
    request: pytest.FixtureRequest, keyring: Keyring, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    catalog, home = tmp_path_factory.mktemp("zoo"), tmp_path_factory.mktemp("home")
    write_variant(catalog, "ner-base", Task.NER)
    write_variant(catalog, "ner-small", Task.NER)
    spoilt = write_variant(catalog, "ner-spoilt", Task.NER) / "model.onnx"
    spoilt.write_bytes(spoilt.read_bytes() + b"x")
    settings = {
        "KADOGO_FAST_PATH": request.param,
        "KADOGO_KEYS": str(keyring.file),
        "KADOGO_ACCESS_LOG": "on",
        "KADOGO_LOG": "json",
    }
    with serving(catalog, home, **settings) as server:
        yield server


def lines(server: Server) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.log.splitlines()]


def of_request(server: Server, request_id: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.lines_with(f'"request_id":"{request_id}"')]


def test_every_line_is_a_json_object(server: Server) -> None:
    found = lines(server)
    assert {line["logger"] for line in found} >= {"bentoml.serve", "kadogo"}
    [quarantined] = [line for line in found if "ner-spoilt is quarantined" in line["event"]]
    assert quarantined["level"] == "error"
    assert all({"time", "level", "event", "logger", "process"} <= line.keys() for line in found)


@pytest.mark.parametrize(
    ("method", "path", "template", "status", "variants"),
    [
        ("POST", "/v1/ner", "/v1/ner", 200, ["ner-base"]),
        ("POST", "/ner", "/ner", 200, ["ner-base"]),
        ("POST", "/v1/compare", "/v1/compare", 200, ["ner-base", "ner-small"]),
        ("POST", "/models/ner-small", "/models/{variant:path}", 200, ["ner-small"]),
        ("GET", "/v1/variants/ner-small", "/v1/variants/{name}", 200, []),
        ("GET", "/v1/variants/SECRET", "/v1/variants/{name}", 404, []),
        ("GET", "/SECRET", None, 404, []),
    ],
)
def test_a_request_is_one_line_with_what_became_of_it(
    server: Server,
    keyring: Keyring,
    method: str,
    path: str,
    template: str | None,
    status: int,
    variants: list[str],
) -> None:
    number = secrets.token_hex(4)
    headers = {**keyring.bearing("newsroom"), "x-request-id": number, "traceparent": TRACEPARENT}
    body = {"inputs": SENTENCE, **({"task": "ner"} if "compare" in path else {})}
    with httpx.Client(base_url=server.url, headers=headers) as client:
        asked = client.post(path, json=body) if method == "POST" else client.get(path)
    assert asked.status_code == status
    [line] = of_request(server, number)
    assert (line["event"], line["logger"]) == ("request", "kadogo.access")
    assert (line["method"], line["path"], line["status"]) == (method, template, status)
    assert (line["variants"], line["trace_id"]) == (variants, TRACE)
    assert line["ms"] > 0


def test_a_request_has_the_id_that_it_was_answered_with(server: Server, keyring: Keyring) -> None:
    headers = keyring.bearing("newsroom")
    asked = httpx.post(f"{server.url}/v1/ner", json={"inputs": SENTENCE}, headers=headers)
    assert entities(asked) == ENTITIES
    assert len(of_request(server, asked.headers["x-request-id"])) == 1


def test_uvicorn_says_it_once_and_in_the_same_form(server: Server) -> None:
    url = httpx.URL(server.url)
    with socket.create_connection((url.host, url.port), timeout=30) as connection:
        connection.sendall(b"SECRET\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")
    said = [json.loads(line) for line in server.lines_with('"logger":"uvicorn.error"')]
    assert [(line["level"], line["event"]) for line in said] == [
        ("warning", "Invalid HTTP request received.")
    ]


def test_no_text_and_no_key_is_in_the_log(server: Server, keyring: Keyring) -> None:
    bodies = [b'{"inputs": "SECRET"}', b'{"inputs": "SECRET', b'{"SECRET": 1}', b'"SECRET"']
    paths = ["/v1/ner", "/ner", "/v1/compare", "/models/ner-base", "/v2/models/ner-base/infer"]
    keys = [keyring.bearing("newsroom"), {"Authorization": "Bearer kadogo_SECRET"}]
    for key in keys:
        headers = {**key, "content-type": "application/json", "X-SECRET": "SECRET"}
        with httpx.Client(base_url=server.url, headers=headers) as client:
            for path in paths:
                for body in bodies:
                    client.post(path, content=body)
                client.post(f"{path}?text=SECRET", content=bodies[0])
                client.get(f"/v1/SECRET{path}")
    assert "SECRET" not in server.log
    assert not any(token in server.log for token in keyring.tokens.values())
    assert {line["status"] for line in lines(server) if "status" in line} >= {200, 401, 404, 422}


def test_words_are_for_people(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    write_variant(tmp_path / "zoo", "ner-base", Task.NER)
    settings = {"KADOGO_LOG": "text", "KADOGO_ACCESS_LOG": "on"}
    with serving(tmp_path / "zoo", tmp_path / "home", **settings) as server:
        headers = {"x-request-id": "mine"}
        httpx.post(f"{server.url}/v1/ner", json={"inputs": SENTENCE}, headers=headers)
        [line] = server.lines_with("(mine, trace ")
    assert "[INFO]" in line and "POST /v1/ner 200 in " in line and " ms ner-base" in line

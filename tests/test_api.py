"""Our routes over HTTP, on tiny real variants: answers, limits, problems, what is shown."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.testclient import TestClient
from starlette.types import Message

from models.spec import Golden, Options, Task
from service import native
from service.api import Answers, build
from service.cost import Line
from service.lanes import Lanes
from service.route import Asked
from service.schemas import PARAMETERS, Parameters
from service.settings import Settings
from tests.tiny import NER_WORDS, judged, write_variant

SENTENCE = "Sani Bello ya je Kano ranar Litinin."
ENTITIES = [("PER", "Sani Bello"), ("LOC", "Kano"), ("DATE", "Litinin")]


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zoo")
    more = {f"Kano{number}": "B-LOC" for number in range(50)}
    write_variant(folder, "ner-base", Task.NER, words={**NER_WORDS, **more}, evidence=judged(0.8))
    evidence = judged(0.799, -0.001)
    write_variant(folder, "ner-int8", Task.NER, parent="ner-base", evidence=evidence)
    write_variant(folder, "news-int8", Task.CLASSIFICATION)
    spoil(write_variant(folder, "ner-spoilt", Task.NER))
    return folder


def spoil(variant: Path) -> None:
    model = variant / "model.onnx"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)


def app_of(lanes: Lanes, settings: Settings) -> Starlette:
    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with lanes.open():
            yield

    return build(Answers(lanes, settings), lifespan=lifespan)


@pytest.fixture(scope="module")
def client(catalog: Path) -> Iterator[TestClient]:
    settings = Settings(catalog=catalog, max_inputs=3, max_text=1000, max_body=5000)
    with TestClient(app_of(Lanes(settings), settings)) as client:
        yield client


def ask(client: TestClient, path: str, **body: Any) -> Any:
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


# --- answers ---------------------------------------------------------------------------------


def test_a_sentence_is_answered_with_its_entities(client: TestClient) -> None:
    reply = ask(client, "/v1/ner", inputs=SENTENCE)
    [result] = reply["results"]
    assert [(e["label"], e["text"]) for e in result["entities"]] == ENTITIES
    assert all(SENTENCE[e["start"] : e["end"]] == e["text"] for e in result["entities"])
    assert reply["task"] == "ner"
    assert reply["variant"] == "ner-int8"
    assert len(reply["digest"]) == 16
    assert reply["timing_ms"].keys() == {"queue", "encode", "model", "total"}
    assert result.keys() == {"entities", "tokens", "windows", "unknown"}


def test_texts_are_answered_in_their_order(client: TestClient) -> None:
    reply = ask(client, "/v1/classify", inputs=["kwallo kwallo", "banki", "asibiti " * 5])
    best = [result["labels"][0]["label"] for result in reply["results"]]
    assert best == ["sports", "business", "health"]
    assert reply["variant"] == "news-int8"


def test_a_variant_is_named(client: TestClient) -> None:
    assert ask(client, "/v1/ner", inputs="Kano", variant="ner-base")["variant"] == "ner-base"


def test_parameters_shape_the_answer(client: TestClient) -> None:
    one = ask(client, "/v1/classify", inputs="kwallo", parameters={"top_k": 1})
    assert len(one["results"][0]["labels"]) == 1
    utf16 = ask(client, "/v1/ner", inputs="😀 Kano", parameters={"offset_unit": "utf16"})
    assert utf16["results"][0]["entities"][0]["start"] == 3


def test_a_piece_says_its_number_and_its_spelling(client: TestClient) -> None:
    parameters = {"aggregation": "none", "offset_unit": "utf16"}
    reply = ask(client, "/v1/ner", inputs="ya je Kano", parameters=parameters)
    [piece] = reply["results"][0]["entities"]
    assert (piece["label"], piece["index"], piece["piece"]) == ("B-LOC", 3, "▁Kano")
    [entity] = ask(client, "/v1/ner", inputs="ya je Kano")["results"][0]["entities"]
    assert entity.keys() == {"label", "start", "end", "text", "score"}


def test_null_means_left_out(client: TestClient) -> None:
    given = ask(client, "/v1/ner", inputs="Kano", variant=None, parameters=None)
    assert given["results"] == ask(client, "/v1/ner", inputs="Kano")["results"]


def test_a_long_text_is_answered_like_a_short_one(catalog: Path) -> None:
    settings = Settings(catalog=catalog)
    with TestClient(app_of(Lanes(settings), settings)) as client:
        text = "Sani ya je Kano . " * 3000
        [result] = ask(client, "/v1/ner", inputs=text)["results"]
    assert len(result["entities"]) == 6000
    assert result["windows"] > 100


def test_an_answer_says_which_variant_and_where_the_time_went(client: TestClient) -> None:
    response = client.post("/v1/ner", json={"inputs": "Kano"}, headers={"X-Request-ID": "abc-1"})
    assert response.headers["x-request-id"] == "abc-1"
    assert response.headers["x-variant"] == "ner-int8"
    stages = [part.split(";")[0] for part in response.headers["server-timing"].split(", ")]
    assert stages == ["queue", "encode", "model", "total"]


def test_every_answer_has_a_request_id(client: TestClient) -> None:
    for path in ("/v1/variants", "/v1/status", "/nowhere", "/v1/ner"):
        assert client.get(path).headers["x-request-id"]


# --- refusals --------------------------------------------------------------------------------


def refused(client: TestClient, path: str, content: bytes | str, **headers: str) -> dict[str, Any]:
    sent = {"content-type": "application/json", **headers}
    response = client.post(path, content=content, headers=sent)
    problem: dict[str, Any] = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert problem["status"] == response.status_code
    assert problem["request_id"] == response.headers["x-request-id"]
    assert problem["title"] and problem["detail"]
    return problem


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b'{"inputs": "SECRET"',
        b'{"inputs": "SECRET" "variant": 1}',
        b'{"inputs": "\xff"}',
        b'{"inputs": "\xed\xa0\x80"}',
        rb'{"inputs": "\ud800"}',
        rb'{"inputs": "\ud800\ud800 SECRET"}',
        rb'{"inputs": "\udc00 SECRET"}',
        b'\xef\xbb\xbf{"inputs": "SECRET"}',
        b'{"inputs": "a\nb"}',
    ],
)
def test_what_is_not_json_in_utf8_is_malformed(client: TestClient, body: bytes) -> None:
    problem = refused(client, "/v1/ner", body)
    assert problem["status"] == 400
    assert "SECRET" not in json.dumps(problem)


@pytest.mark.parametrize("body", [b"", b" \n"])
def test_an_empty_body_is_called_empty(client: TestClient, body: bytes) -> None:
    assert refused(client, "/v1/ner", body)["detail"] == "the body is empty"


def test_a_byte_order_mark_is_called_so(client: TestClient) -> None:
    detail = refused(client, "/v1/ner", b'\xef\xbb\xbf{"inputs": "a"}')["detail"]
    assert detail == "the body begins with a byte order mark: send the JSON without it"


@pytest.mark.parametrize(
    "text",
    [r"\ud83d", r"\ud83dabc", r"\uDBFF and more", r"\ude00 and more", r"\ud83d\n", r"\ud83d\ud83d"],
)
def test_half_a_surrogate_pair_is_called_so(client: TestClient, text: str) -> None:
    for body in (f'{{"inputs":"{text}"}}', f'{{"inputs": ["{text}"]}}\n'):
        assert "half of a surrogate pair" in refused(client, "/v1/ner", body)["detail"]


@pytest.mark.parametrize(
    "body", [rb'{"inputs": "\ud83d\ude00', b'{"inputs": "a"', rb'{"inputs": "\ud83d']
)
def test_a_body_cut_off_is_called_truncated(client: TestClient, body: bytes) -> None:
    assert "truncated" in refused(client, "/v1/ner", body)["detail"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, ""),
        ([], ""),
        ("SECRET", ""),
        ({"inputs": 3}, "/inputs"),
        ({"inputs": None}, "/inputs"),
        ({"inputs": {"SECRET": 1}}, "/inputs"),
        ({"inputs": []}, "/inputs"),
        ({"inputs": ""}, "/inputs"),
        ({"inputs": " \n\t"}, "/inputs"),
        ({"inputs": ["SECRET", ""]}, "/inputs/1"),
        ({"inputs": ["SECRET", 4]}, "/inputs/1"),
        ({"inputs": "SECRET", "SECRET": 1}, ""),
        ({"inputs": "SECRET", "variant": 3}, "/variant"),
        ({"inputs": "SECRET", "parameters": {"SECRET": 1}}, "/parameters"),
        ({"inputs": "SECRET", "parameters": {"aggregation": "SECRET"}}, "/parameters/aggregation"),
        ({"inputs": "SECRET", "parameters": {"offset_unit": "SECRET"}}, "/parameters/offset_unit"),
        ({"inputs": "SECRET", "parameters": {"min_score": 1.5}}, "/parameters/min_score"),
        ({"inputs": "SECRET", "parameters": {"min_score": "SECRET"}}, "/parameters/min_score"),
    ],
)
def test_a_bad_field_is_pointed_at_and_nothing_is_repeated(
    client: TestClient, body: Any, pointer: str
) -> None:
    problem = refused(client, "/v1/ner", json.dumps(body))
    assert problem["status"] == 422
    assert [error["pointer"] for error in problem["errors"]] == [pointer]
    assert "SECRET" not in json.dumps(problem)


def test_a_bad_choice_is_answered_with_the_choices(client: TestClient) -> None:
    body = '{"inputs": "a", "parameters": {"aggregation": "best"}}'
    assert "none, simple, first, average, max" in refused(client, "/v1/ner", body)["detail"]


@pytest.mark.parametrize(
    ("path", "name", "value", "detail"),
    [
        (
            *("/v1/ner", "top_k", 2),
            "top_k is a parameter of classification; ner knows min_score, aggregation, offset_unit",
        ),
        (
            *("/v1/classify", "aggregation", "first"),
            "aggregation is a parameter of ner; classification knows min_score, top_k",
        ),
        (
            *("/v1/classify", "offset_unit", "SECRET"),
            "offset_unit is a parameter of ner; classification knows min_score, top_k",
        ),
    ],
)
def test_a_parameter_of_the_other_task_is_refused(
    client: TestClient, path: str, name: str, value: Any, detail: str
) -> None:
    problem = refused(client, path, json.dumps({"inputs": "a", "parameters": {name: value}}))
    assert problem["status"] == 422
    assert problem["errors"] == [{"pointer": f"/parameters/{name}", "detail": detail}]


def test_the_parameters_of_the_tasks_are_the_options_of_an_answer() -> None:
    shared = set(Parameters.__struct_fields__)
    own = [set(kind.__struct_fields__) - shared for kind in PARAMETERS.values()]
    # Of Hugging Face's wire alone; tests/test_huggingface.py asks for them.
    elsewhere = ["ignore", "squash"]
    assert sorted([*shared, *own[0], *own[1], *elsewhere]) == sorted(Options.__struct_fields__)
    assert all(kind().options() == Options() for kind in PARAMETERS.values())


def test_a_bad_parameter_of_classification_is_pointed_at(client: TestClient) -> None:
    problem = refused(client, "/v1/classify", '{"inputs": "a", "parameters": {"top_k": 0}}')
    assert [error["pointer"] for error in problem["errors"]] == ["/parameters/top_k"]


@pytest.mark.parametrize(
    ("body", "known"),
    [
        ({"inputs": "a", "SECRET": 1}, "inputs, variant, policy, parameters"),
        ({"inputs": "a", "top_k": 1}, "inputs, variant, policy, parameters"),
        ({"inputs": "a", "parameters": {"SECRET": 1}}, "min_score, aggregation, offset_unit"),
        # Shaped like what msgspec says of where a field is.
        ({"inputs": "a", "x` - at `$.SECRET": 1}, "inputs, variant, policy, parameters"),
    ],
)
def test_an_unknown_field_is_answered_with_the_known_ones(
    client: TestClient, body: Any, known: str
) -> None:
    problem = refused(client, "/v1/ner", json.dumps(body))
    assert [error["detail"] for error in problem["errors"]] == [f"unknown field; known are {known}"]
    assert "SECRET" not in json.dumps(problem)


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        ({"inputs": "a", "varient": "ner-int8"}, "unknown field; did you mean variant? known are "),
        ({"inputs": "a", "Parameters": {}}, "unknown field; did you mean parameters? known are "),
        ({"inputs": "a", "parameters": {"minscore": 1}}, "unknown field; did you mean min_score? "),
        ({"inputs": "a", "variant" * 9: 1}, "unknown field; known are "),
        ({"inputs": "a", "": 1}, "unknown field; known are "),
    ],
)
def test_a_misspelt_field_is_answered_with_the_nearest(
    client: TestClient, body: Any, hint: str
) -> None:
    [error] = refused(client, "/v1/ner", json.dumps(body))["errors"]
    assert error["detail"].startswith(hint)
    assert not {"varient", "Parameters", "minscore", "variant" * 9} & {*error["detail"].split()}


@pytest.mark.parametrize("body", [{"SECRET": "a"}, {"parameters": {"SECRET": 1}}])
def test_an_unknown_field_hides_no_missing_one(client: TestClient, body: Any) -> None:
    unknown, missing = refused(client, "/v1/ner", json.dumps(body))["errors"]
    assert unknown["detail"].startswith("unknown field")
    assert missing == {"pointer": "", "detail": "Object missing required field `inputs`"}


def test_a_query_string_is_not_ignored_in_silence(client: TestClient) -> None:
    problem = refused(client, "/v1/ner?variant=ner-base&SECRET=1", '{"inputs": "a"}')
    assert problem["status"] == 422
    assert "query string" in problem["detail"] and "SECRET" not in json.dumps(problem)


def test_an_unknown_variant_is_answered_with_the_known_ones(client: TestClient) -> None:
    problem = refused(client, "/v1/ner", '{"inputs": "a", "variant": "ner-large"}')
    assert problem["status"] == 404
    assert "ner-base, ner-int8" in problem["detail"]


def test_a_variant_of_the_other_task_is_unknown_here(client: TestClient) -> None:
    problem = refused(client, "/v1/classify", '{"inputs": "a", "variant": "ner-int8"}')
    assert problem["status"] == 404
    assert "known are news-int8" in problem["detail"]


def test_a_quarantined_variant_is_answered_with_the_reason(client: TestClient) -> None:
    problem = refused(client, "/v1/ner", '{"inputs": "a", "variant": "ner-spoilt"}')
    assert problem["status"] == 503
    assert "model.onnx is not the file" in problem["detail"]


@pytest.mark.parametrize(
    "body", [{"inputs": ["a"] * 4}, {"inputs": "a" * 1001}, {"inputs": ["a" * 999] * 6}]
)
def test_too_much_is_refused(client: TestClient, body: Any) -> None:
    assert refused(client, "/v1/ner", json.dumps(body))["status"] == 413


def test_too_long_a_text_is_told_what_to_do(client: TestClient) -> None:
    detail = refused(client, "/v1/ner", json.dumps({"inputs": ["a", "b" * 1001]}))["detail"]
    assert detail == ("/inputs/1 has 1001 characters; at most 1000 are taken in one text: split it")


def test_a_body_without_a_length_is_bounded_too(client: TestClient) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 100

    response = client.post("/v1/ner", content=endless())
    assert response.status_code == 413


def test_the_largest_request_allowed_is_answered(client: TestClient) -> None:
    assert len(ask(client, "/v1/ner", inputs=["Kano " * 200] * 3)["results"]) == 3


@pytest.mark.parametrize("name", ["content-type", "content-encoding"])
def test_other_content_is_refused(client: TestClient, name: str) -> None:
    problem = refused(client, "/v1/ner", '{"inputs": "a"}', **{name: "gzip"})
    assert problem["status"] == 415


def test_a_wrong_method_is_told_the_right_one(client: TestClient) -> None:
    response = client.get("/v1/ner")
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/v1/nothing", "/v1/ner/", "/v1/variants/", "/v2/"])
def test_an_unknown_path_is_a_problem(client: TestClient, path: str) -> None:
    headers = {"Host": "elsewhere.example", "X-Request-ID": "mine"}
    response = client.post(path, json={}, headers=headers, follow_redirects=False)
    assert response.status_code == 404 and "location" not in response.headers
    assert "there is nothing here; /docs shows what there is" in response.text
    assert response.headers["x-request-id"] == "mine"


def test_no_text_is_logged(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="kadogo")
    client.post("/v1/ner", json={"inputs": "SECRET"})
    client.post("/v1/ner", json={"inputs": ["SECRET", ""]})
    client.post("/v1/ner", content=b'{"inputs": SECRET}')
    assert "SECRET" not in caplog.text


# --- policies --------------------------------------------------------------------------------


def test_a_policy_is_answered_with_its_decision(client: TestClient) -> None:
    policy = {"prefer": "best", "min_f1": 0.79, "language": "ha"}
    response = client.post("/v1/ner", json={"inputs": SENTENCE, "policy": policy})
    reply = response.json()
    assert reply["variant"] == "ner-base"
    assert reply["reason"] == "best of 2 that satisfy min_f1 0.79 for hau"
    assert reply["rejected"] == [
        {"variant": "ner-int8", "reason": "lower: F1 surely 0.7940 against 0.7950"}
    ]
    assert response.headers["x-variant"] == "ner-base"
    assert response.headers["x-variant-reason"] == reply["reason"]


def test_without_a_name_or_a_policy_the_default_says_why(client: TestClient) -> None:
    reply = ask(client, "/v1/ner", inputs=SENTENCE)
    assert reply["reason"] == "default: smallest of 2 that satisfy max_f1_drop 0.01"
    assert [each["variant"] for each in reply["rejected"]] == ["ner-base"]
    named = ask(client, "/v1/ner", inputs=SENTENCE, variant="ner-base")
    assert (named["reason"], named["rejected"]) == ("named", [])


def test_a_policy_on_latency_is_decided_on_predictions_of_this_host(client: TestClient) -> None:
    policy = {"prefer": "fastest", "max_latency_ms": 30_000}
    reply = ask(client, "/v1/ner", inputs=SENTENCE, policy=policy)
    assert reply["reason"] == "fastest of 2 that satisfy max_f1_drop 0.01, max_latency_ms 30000"
    never = client.post("/v1/ner", json={"inputs": SENTENCE, "policy": {"max_latency_ms": 1e-6}})
    assert never.status_code == 409
    assert all(near["latency_ms"] is not None for near in never.json()["nearest"])


def test_an_unsatisfied_policy_is_a_409_with_the_nearest(client: TestClient) -> None:
    body = {"inputs": SENTENCE, "policy": {"min_f1": 0.99}}
    response = client.post("/v1/ner", json=body)
    assert response.status_code == 409
    problem = response.json()
    assert problem["type"] == "urn:kadogo:problem:policy_unsatisfied"
    assert problem["detail"] == (
        "no variant satisfies the policy; nearest is ner-base: F1 may be 0.795, below 0.99"
    )
    assert problem["nearest"][0] == {
        "variant": "ner-base",
        "reason": "F1 may be 0.795, below 0.99",
        "f1": 0.795,
        "f1_drop": 0.0,
        "latency_ms": None,
        "bytes": problem["nearest"][0]["bytes"],
    }


@pytest.mark.parametrize(
    ("policy", "pointer", "detail"),
    [
        ({"prefer": "SECRET"}, "/policy/prefer", "it is one of smallest, fastest, best, cheapest"),
        ({"min_f1": 90}, "/policy/min_f1", "Expected `float` <= 1.0"),
        *(
            ({"language": it}, "/policy/language", "a language is its ISO 639 code, such as hau or")
            for it in ("HA", "Hausa", "")
        ),
        ({"language": "qq"}, "/policy", "language is an ISO 639-3 code such as hau"),
        ({"SECRET": 1}, "/policy", "unknown field; known are prefer, min_f1, max_f1_drop"),
        ({"degrade": "no"}, "/policy/degrade", "it is one of allowed, never"),
    ],
)
def test_what_is_no_policy_is_refused_with_where(
    client: TestClient, policy: dict[str, Any], pointer: str, detail: str
) -> None:
    problem = refused(client, "/v1/ner", json.dumps({"inputs": "a", "policy": policy}))
    [error] = problem["errors"]
    assert error["pointer"] == pointer and error["detail"].startswith(detail)
    assert "SECRET" not in json.dumps(problem)


def test_a_name_and_a_policy_together_are_refused(client: TestClient) -> None:
    body = {"inputs": "a", "variant": "ner-int8", "policy": {}}
    problem = refused(client, "/v1/ner", json.dumps(body))
    assert problem["errors"] == [
        {"pointer": "/policy", "detail": "give a variant or a policy, not both"}
    ]


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("X-Request-Timeout-Ms", "0"),
        ("X-Request-Timeout-Ms", "-5"),
        ("X-Request-Timeout-Ms", "1.5"),
        ("X-Request-Timeout-Ms", "9" * 400),
        ("X-Request-Timeout-Ms", "9" * 5000),
        ("X-Priority", "shadow"),
        ("X-Priority", "SECRET"),
    ],
)
def test_a_header_that_asks_for_what_there_is_not_is_refused(
    client: TestClient, header: str, value: str
) -> None:
    response = client.post("/v1/ner", json={"inputs": "a"}, headers={header: value})
    assert response.status_code == 422
    assert header in response.json()["detail"] and "SECRET" not in response.text


# --- routes ----------------------------------------------------------------------------------

ROUTES = """
[[route]]
name = "trial"
task = "ner"
split = { ner-int8 = 1, ner-base = 1 }
sticky = "X-Client"

[[route]]
name = "topics"
task = "classification"
policy = { prefer = "best" }
"""


def test_a_route_answers_who_asks_for_nothing(catalog: Path, tmp_path: Path) -> None:
    file = tmp_path / "routes.toml"
    file.write_text(ROUTES)
    settings = Settings(catalog=catalog, routes=file)
    with TestClient(app_of(Lanes(settings), settings)) as client:
        got = set()
        for number in range(20):
            sticky = {"X-Client": str(number)}
            first = client.post("/v1/ner", json={"inputs": SENTENCE}, headers=sticky)
            again = client.post("/v1/ner", json={"inputs": SENTENCE}, headers=sticky)
            assert first.json()["reason"] == "route trial: by its key"
            assert first.json()["variant"] == again.json()["variant"]
            back = {"X-Route": first.headers["x-route"]}
            replayed = client.post("/v1/ner", json={"inputs": SENTENCE}, headers=back)
            assert replayed.json()["variant"] == first.json()["variant"]
            assert replayed.json()["reason"] == "route trial: as before"
            got.add(first.json()["variant"])
        assert got == {"ner-base", "ner-int8"}
        topics = client.post("/v1/classify", json={"inputs": "kudi"})
        reason = "route topics: the only one that satisfies max_f1_drop 0.01"
        assert topics.json()["reason"] == reason
        assert "x-route" not in topics.headers


def test_wrong_routes_are_told_with_their_line_and_nothing_serves(
    catalog: Path, tmp_path: Path
) -> None:
    file = tmp_path / "routes.toml"
    file.write_text(ROUTES + "wieght = 1\n")
    settings = Settings(catalog=catalog, routes=file)
    with TestClient(app_of(Lanes(settings), settings)) as client:
        told = client.get("/readyz").json()["detail"]
        line = len(file.read_text().splitlines())
        assert told == f"line {line}: Object contains unknown field `wieght`"


# --- load ------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def held(lanes: Lanes) -> AsyncIterator[None]:
    """Every model thread is busy within."""
    gate, busy = threading.Event(), threading.Semaphore(0)

    def hold() -> None:
        busy.release()
        gate.wait(30)

    for _ in range(lanes.pool.threads):
        lanes.pool._executor.submit(hold)
    try:
        for _ in range(lanes.pool.threads):
            await asyncio.to_thread(busy.acquire)
        yield
    finally:
        gate.set()


def over(app: Starlette) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=app)
    return httpx.AsyncClient(transport=transport, base_url="http://kadogo")


async def until_waiting(lanes: Lanes, texts: int) -> None:
    while sum(each.waiting_windows for each in lanes.status().variants.values()) < texts:
        await asyncio.sleep(0.001)


def test_a_full_queue_is_a_429_with_the_time_to_come_back(catalog: Path) -> None:
    settings = Settings(catalog=catalog, threads=1, queue_texts=1)
    lanes = Lanes(settings)

    async def scenario() -> None:
        async with lanes.open(), over(build(Answers(lanes, settings))) as client:
            body = {"inputs": "Kano"}
            async with held(lanes):
                running = asyncio.ensure_future(client.post("/v1/ner", json=body))
                await asyncio.sleep(0.05)
                waiting = asyncio.ensure_future(client.post("/v1/ner", json=body))
                await until_waiting(lanes, 1)
                refused = await client.post("/v1/ner", json=body)
            assert refused.status_code == 429
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.json()["retry_after_ms"] >= 0
            assert refused.json()["variant"] == "ner-int8"
            assert (await running).status_code == (await waiting).status_code == 200

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_an_answer_that_is_late_is_a_504(catalog: Path) -> None:
    settings = Settings(catalog=catalog, threads=1, deadline_ms=50)
    lanes = Lanes(settings)

    async def scenario() -> None:
        async with lanes.open(), over(build(Answers(lanes, settings))) as client:
            async with held(lanes):
                late = await client.post("/v1/ner", json={"inputs": "Kano"})
            assert late.status_code == 504
            assert late.json()["variant"] == "ner-int8"

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_a_caller_may_wait_for_less_time_and_never_for_more(catalog: Path) -> None:
    settings = Settings(catalog=catalog, threads=1, deadline_ms=100)
    lanes = Lanes(settings)

    async def scenario() -> None:
        async with lanes.open(), over(build(Answers(lanes, settings))) as client:
            for asked in ("20", "100000"):
                headers = {"X-Request-Timeout-Ms": asked, "X-Priority": "batch"}
                async with held(lanes):
                    late = await client.post("/v1/ner", json={"inputs": "Kano"}, headers=headers)
                assert late.status_code == 504

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_what_would_wait_beyond_its_deadline_is_refused_at_once(catalog: Path) -> None:
    settings = Settings(catalog=catalog, threads=1)
    lanes = Lanes(settings)

    async def scenario() -> None:
        async with lanes.open(), over(build(Answers(lanes, settings))) as client:
            lane, _ = lanes.choose(Asked(task=Task.NER), 0)
            lane.batcher.line = Line(each=1.0)  # seconds a token
            body = {"inputs": "Kano"}
            async with held(lanes):
                first = asyncio.ensure_future(client.post("/v1/ner", json=body))
                await asyncio.sleep(0.05)
                second = asyncio.ensure_future(client.post("/v1/ner", json=body))
                await until_waiting(lanes, 1)
                hasty = await client.post(
                    "/v1/ner", json=body, headers={"X-Request-Timeout-Ms": "2000"}
                )
            assert hasty.status_code == 429
            assert 1000 < hasty.json()["retry_after_ms"] < 20_000
            assert (await first).status_code == (await second).status_code == 200

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_under_pressure_a_smaller_variant_that_satisfies_the_policy_answers(catalog: Path) -> None:
    settings = Settings(catalog=catalog, threads=1)
    lanes = Lanes(settings)
    best = {"inputs": "Kano", "policy": {"prefer": "best", "min_f1": 0.5}}
    only = {"inputs": "Kano", "policy": {"prefer": "best", "min_f1": 0.5, "degrade": "never"}}

    async def scenario() -> None:
        async with lanes.open(), over(build(Answers(lanes, settings))) as client:
            for lane in lanes.all:
                lane.batcher.line = Line(each=1.0)  # seconds a token
            async with held(lanes):
                asked = []
                for body in (best, best, best, only):
                    asked.append(asyncio.ensure_future(client.post("/v1/ner", json=body)))
                    await asyncio.sleep(0.05)
            replies = [(await each).json() for each in asked]
        assert [reply["variant"] for reply in replies] == [
            "ner-base", "ner-int8", "ner-int8", "ner-base",
        ]  # fmt: skip
        assert re.search(r"; a smaller one, for \d+\.\d s of work waits$", replies[1]["reason"])
        assert [each["variant"] for each in replies[1]["rejected"]] == ["ner-base"]

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_a_full_queue_is_passed_by_on_the_ladder_before_anyone_is_refused(catalog: Path) -> None:
    settings = Settings(catalog=catalog, threads=1, queue_texts=1)
    lanes = Lanes(settings)
    body = {"inputs": "Kano", "policy": {"prefer": "best", "min_f1": 0.5}}

    async def scenario() -> None:
        async with lanes.open(), over(build(Answers(lanes, settings))) as client:
            async with held(lanes):
                asked = []
                for _ in range(4):
                    asked.append(asyncio.ensure_future(client.post("/v1/ner", json=body)))
                    await asyncio.sleep(0.05)
            replies = [(await each) for each in asked]
        assert [reply.status_code for reply in replies] == [200, 200, 200, 429]
        assert [reply.json()["variant"] for reply in replies] == [
            "ner-base", "ner-base", "ner-int8", "ner-int8",
        ]  # fmt: skip
        assert replies[2].json()["reason"].endswith("; a smaller one, for its queue is full")

    asyncio.run(asyncio.wait_for(scenario(), 30))


@pytest.mark.parametrize("bentos", [False, True])
def test_the_work_of_a_caller_who_hangs_up_is_dropped(catalog: Path, bentos: bool) -> None:
    settings = Settings(catalog=catalog, threads=1)
    lanes = Lanes(settings)
    answers = Answers(lanes, settings)
    hanging_up = hanging_up_on_bentos if bentos else hanging_up_on_ours

    async def scenario() -> None:
        async with lanes.open(), over(build(answers)) as client:
            async with held(lanes):
                first = asyncio.ensure_future(client.post("/v1/ner", json={"inputs": "Kano"}))
                await asyncio.sleep(0.05)
                leaves = asyncio.Event()
                leaving = asyncio.ensure_future(hanging_up(answers, leaves))
                await until_waiting(lanes, 1)
                leaves.set()
                await leaving
            assert (await first).status_code == 200

    before = dropped(), left()
    asyncio.run(asyncio.wait_for(scenario(), 30))
    assert (dropped(), left()) == (before[0] + 1, before[1] + 1)


def dropped() -> float:
    labels = {"variant": "ner-int8", "reason": "caller_left"}
    return REGISTRY.get_sample_value("kadogo_dropped_total", labels) or 0.0


def left() -> float:
    return REGISTRY.get_sample_value("kadogo_rejections_total", {"reason": "caller_left"}) or 0.0


async def hanging_up_on_ours(answers: Answers, leaves: asyncio.Event) -> None:
    """A request whose caller sends all of it and hangs up when `leaves` is set."""
    body = b'{"inputs": "Abuja", "variant": "ner-int8"}'
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[Message] = []

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await leaves.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/ner",
        "root_path": "",
        "headers": [(b"content-type", b"application/json")],
        "query_string": b"",
    }
    await build(answers)(scope, receive, send)
    assert sent == []


async def hanging_up_on_bentos(answers: Answers, leaves: asyncio.Event) -> None:
    """The same of BentoML's own path, which has read the body by then."""

    async def receive() -> Message:
        await leaves.wait()
        return {"type": "http.disconnect"}

    context: Any = SimpleNamespace(  # as BentoML's: its own needs its whole app
        request=Request({"type": "http", "headers": []}, receive),
        response=SimpleNamespace(status_code=200, headers={}),
    )
    await native.reply(answers, Task.NER, {"inputs": "Abuja", "variant": "ner-int8"}, context)
    assert context.response.status_code == 499


# --- life ------------------------------------------------------------------------------------


def test_while_loading_the_server_lives_and_is_not_ready(catalog: Path) -> None:
    settings = Settings(catalog=catalog)
    client = TestClient(build(Answers(Lanes(settings), settings)))  # never started
    assert client.get("/livez").status_code == 200
    assert client.get("/healthz").status_code == 200
    asked = client.post("/v1/ner", json={"inputs": "a"})
    shown = (client.get(path) for path in ("/readyz", "/v1/variants", "/v1/variants/ner-int8"))
    for response in (asked, *shown):
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
    assert client.get("/v1/status").json()["state"] == "loading"


def test_while_draining_it_is_not_ready_but_answers(catalog: Path) -> None:
    settings = Settings(catalog=catalog)
    lanes = Lanes(settings)
    with TestClient(app_of(lanes, settings)) as client:
        assert client.get("/readyz").status_code == 200
        lanes.drain()
        assert client.get("/readyz").status_code == 503
        assert client.post("/v1/ner", json={"inputs": "Kano"}).status_code == 200
        assert client.get("/livez").status_code == 200


def test_an_empty_catalog_is_never_ready_and_says_why(tmp_path: Path) -> None:
    settings = Settings(catalog=tmp_path)
    with TestClient(app_of(Lanes(settings), settings)) as client:
        assert client.get("/readyz").status_code == 503
        status = client.get("/v1/status").json()
        assert status["state"] == "failed"
        assert "holds no variants" in status["reason"]
        assert client.post("/v1/ner", json={"inputs": "a"}).status_code == 503


def test_a_catalog_of_spoilt_variants_is_never_ready(tmp_path: Path) -> None:
    spoil(write_variant(tmp_path, "ner-int8", Task.NER))
    settings = Settings(catalog=tmp_path)
    with TestClient(app_of(Lanes(settings), settings)) as client:
        assert client.get("/readyz").status_code == 503
        problem = client.post("/v1/ner", json={"inputs": "a"})
        assert problem.status_code == 503
        assert "ner-int8" in problem.json()["detail"]


# --- what is shown ---------------------------------------------------------------------------


def test_every_variant_is_listed_with_its_state(client: TestClient) -> None:
    variants = client.get("/v1/variants").json()["variants"]
    assert [(v["name"], v["state"], v["default"]) for v in variants] == [
        ("ner-base", "ready", False),
        ("ner-int8", "ready", True),
        ("ner-spoilt", "quarantined", False),
        ("news-int8", "ready", True),
    ]
    assert all("golden" not in v and v["licence"]["name"] == "Apache-2.0" for v in variants)
    assert "model.onnx" in variants[2]["reason"]


def test_one_variant_is_shown_with_its_whole_manifest(client: TestClient) -> None:
    shown = client.get("/v1/variants/ner-int8").json()
    assert shown["name"] == "ner-int8"
    assert shown["format"] == "kadogo-variant/1"
    assert shown["golden"] == []
    assert shown["lineage"] == ["Tiny()"]
    assert "evidence" in shown


def test_an_unknown_variant_is_not_shown(client: TestClient) -> None:
    response = client.get("/v1/variants/ner-large")
    assert response.status_code == 404
    assert response.json()["detail"] == (
        "there is no variant ner-large; known are ner-base, ner-int8, ner-spoilt, news-int8"
    )


def test_a_variant_without_a_readable_manifest_is_not_called_unknown(tmp_path: Path) -> None:
    write_variant(tmp_path, "ner-int8", Task.NER)
    (write_variant(tmp_path, "ner-old", Task.NER) / "variant.json").write_text("{}")
    settings = Settings(catalog=tmp_path)
    with TestClient(app_of(Lanes(settings), settings)) as client:
        detail = client.get("/v1/variants/ner-old").json()["detail"]
    assert detail.startswith("ner-old is quarantined: variant.json")


def test_the_status_tells_the_state_of_every_variant(client: TestClient) -> None:
    status = client.get("/v1/status").json()
    assert status["state"] == "ready"
    assert status["variants"]["ner-int8"]["state"] == "ready"
    assert status["variants"]["ner-spoilt"]["state"] == "quarantined"
    assert status["variants"]["ner-spoilt"]["reason"]
    assert status["uptime_seconds"] > 0


def test_golden_answers_are_shown_where_there_are_some(tmp_path: Path) -> None:
    golden = Golden(text=".", language="hau", entities=())
    write_variant(tmp_path, "ner-int8", Task.NER, golden=(golden,))
    settings = Settings(catalog=tmp_path)
    with TestClient(app_of(Lanes(settings), settings)) as client:
        assert client.get("/v1/variants/ner-int8").json()["golden"][0]["language"] == "hau"


def test_the_front_page_leads_to_the_docs(client: TestClient) -> None:
    front = client.get("/")
    assert front.status_code == 200 and front.headers["content-type"].startswith("text/html")
    assert '<a href="docs">' in front.text and client.get("/docs").status_code == 200

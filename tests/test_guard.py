"""The guard before every path: who is let in, what a refusal says, what a limit tells."""

from __future__ import annotations

import asyncio
import json
import re
import tomllib
from typing import Any

import httpx
import msgspec
import pytest
from prometheus_client import REGISTRY
from starlette.types import Receive, Send

from service import edge, keys, openapi, problems
from service.guard import OPEN, Guard, fields, scope_of, token_of
from service.keys import UNCHANGED, Key, KeyChanges, Keys, Scope
from service.rate import Rate, Standing

PATHS = sorted(json.loads(openapi.document())["paths"])
BENTOMLS = ["/ner", "/classify", "/schema.json", "/docs.json", "/static_content/x"]


class Behind:
    """An app that answers everything and remembers which key it was asked with."""

    def __init__(self) -> None:
        self.asked: list[str | None] = []

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        self.asked.append(edge.Caller(b"id", timeout_s=1).key)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
        await send({"type": "http.response.body", "body": b""})


class Door:
    """A guard with an infer key, an admin key and one with a limit, and what is behind it."""

    def __init__(self, rate: Rate | None = None) -> None:
        made = {
            "newsroom": keys.new("newsroom", [Scope.INFER], None),
            "operator": keys.new("operator", [Scope.ADMIN], None),
            "limited": keys.new("limited", [Scope.INFER], rate or Rate(requests=2, seconds=3600)),
        }
        self.tokens = {name: token for name, (token, _) in made.items()}
        self.behind = Behind()
        known = [key_of(lines) for _, lines in made.values()]
        self.hashes = {key.name: key.sha256 for key in known}
        self.changes = UNCHANGED
        keyring = Keys(tuple(known))
        self.guard = Guard(self.behind, keys=keyring, changes=lambda: self.changes)

    def ask(self, method: str, path: str, **headers: str) -> httpx.Response:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}

        async def asked() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.guard)
            async with httpx.AsyncClient(transport=transport, base_url="http://kadogo") as client:
                return await client.request(method, path, headers=sent)

        return asyncio.run(asked())

    def bearing(self, name: str, method: str = "POST", path: str = "/v1/ner") -> httpx.Response:
        return self.ask(method, path, authorization=f"Bearer {self.tokens[name]}")


def key_of(lines: str) -> Key:
    [table] = tomllib.loads(lines)["key"]
    return msgspec.convert(table, Key)


def problem_of(response: httpx.Response) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["status"] == response.status_code
    assert problem["request_id"] == response.headers["x-request-id"]
    return problem


# --- the table -------------------------------------------------------------------------------


def test_every_path_needs_a_key_but_those_that_are_open_on_purpose() -> None:
    anyone = {path for path in [*PATHS, *BENTOMLS] if scope_of("GET", path) is None}
    anyone -= {"/v2/health/live", "/v2/health/ready"}
    assert anyone == {"/livez", "/healthz", "/readyz", "/metrics"}
    assert OPEN - anyone == {"/", "/docs", "/openapi.json"}
    assert scope_of("GET", "/page/page.js") is None


@pytest.mark.parametrize(
    "path",
    [
        *("/v1/nowhere", "/livez/", "//livez", "/livez/..", "/METRICS", "/metrics/x", "/v1/ner/"),
        *("/page", "/pages/x", "/page.js", "/index.html"),
        *("/docs.json", "/docsx", "/v2", "/v2/health", "/v2/models/ner-int8/ready", "", "*", "//"),
    ],
)
def test_what_is_only_like_an_open_path_is_not_open(path: str) -> None:
    assert scope_of("GET", path) is Scope.INFER


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/routes"),
        ("GET", "/v1/routes"),
        ("GET", "/v1/keys"),
        ("DELETE", "/v1/keys/newsroom"),
        ("POST", "/v2/repository/models/ner-int8/load"),
        ("PUT", "/v1/variants/ner-int8"),
        ("DELETE", "/v1/anything"),
        ("PATCH", "/ner"),
    ],
)
def test_what_changes_the_server_is_for_admins(method: str, path: str) -> None:
    assert scope_of(method, path) is Scope.ADMIN


def test_asking_what_is_in_the_repository_is_not() -> None:
    assert scope_of("POST", "/v2/repository/index") is Scope.INFER


# --- who is let in ---------------------------------------------------------------------------


def test_a_key_is_let_in_and_known_by_its_name() -> None:
    door = Door()
    assert door.bearing("newsroom").status_code == 200
    assert door.ask("POST", "/v1/ner", x_api_key=door.tokens["newsroom"]).status_code == 200
    assert door.ask("GET", "/livez").status_code == 200
    assert door.bearing("operator", path="/v1/check/x").status_code == 200
    assert door.behind.asked == ["newsroom", "newsroom", None, "operator"]


@pytest.mark.parametrize("path", [*PATHS, *BENTOMLS, "/v1/check/x", "/nowhere"])
def test_without_the_right_key_nothing_behind_is_reached(path: str) -> None:
    door = Door()
    if scope_of("GET", path) is None:
        return
    for method in ("GET", "POST", "HEAD", "OPTIONS", "PUT", "TRACE"):
        for headers in ({}, {"authorization": "Bearer wrong"}, {"x_api_key": ""}):
            refused = door.ask(method, path, **headers)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"] == 'Bearer realm="kadogo"'
    assert door.behind.asked == []


def test_a_key_that_is_revoked_opens_nothing_from_the_next_request_on() -> None:
    door = Door()
    assert door.bearing("newsroom").status_code == 200
    door.changes = KeyChanges(revoked={door.hashes["newsroom"]: "newsroom"})
    refused = problem_of(door.bearing("newsroom"))
    assert refused["status"] == 401 and "not one of this server's" in refused["detail"]
    assert door.bearing("operator").status_code == 200
    assert door.behind.asked == ["newsroom", "operator"]


def test_a_refusal_says_what_to_do_and_repeats_no_token() -> None:
    door = Door()
    none = problem_of(door.ask("POST", "/v1/ner"))
    assert "Authorization: Bearer" in none["detail"]
    wrong = problem_of(door.ask("POST", "/v1/ner", authorization="Bearer SECRET"))
    assert "not one of this server's" in wrong["detail"] and "SECRET" not in json.dumps(wrong)
    short = problem_of(door.bearing("newsroom", path="/v1/check/x"))
    assert short["status"] == 403 and "scope admin" in short["detail"]
    assert door.behind.asked == []


def test_refusals_are_counted_by_their_kind() -> None:
    def count(reason: str) -> float:
        return REGISTRY.get_sample_value("kadogo_rejections_total", {"reason": reason}) or 0

    door = Door()
    before = [count(reason) for reason in ("unauthorized", "forbidden", "rate_limited")]
    door.ask("POST", "/v1/ner")
    door.bearing("newsroom", "PUT")
    for _ in range(3):
        door.bearing("limited")
    after = [count(reason) for reason in ("unauthorized", "forbidden", "rate_limited")]
    assert after == [was + 1 for was in before]


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ([(b"authorization", b"Bearer abc")], b"abc"),
        ([(b"authorization", b"bearer  abc ")], b"abc"),
        ([(b"authorization", b"Basic abc")], None),
        ([(b"authorization", b"Bearer")], b""),
        ([(b"authorization", b"Basic x"), (b"x-api-key", b"abc")], b"abc"),
        ([(b"authorization", b"Bearer one"), (b"authorization", b"Bearer two")], b"one"),
        ([(b"cookie", b"abc")], None),
        ([], None),
    ],
)
def test_the_token_is_of_the_first_header_that_has_one(
    headers: problems.Headers, token: bytes | None
) -> None:
    assert token_of(headers) == token


# --- limits ----------------------------------------------------------------------------------


def test_a_limit_is_told_with_every_answer_and_no_limit_is_not() -> None:
    door = Door(Rate(requests=2, seconds=3600))
    answers = [door.bearing("limited") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert {answer.headers["ratelimit-policy"] for answer in answers} == {'"default";q=2;w=3600'}
    told = [re.fullmatch(r'"default";r=(\d);t=(\d+)', a.headers["ratelimit"]) for a in answers]
    assert [found and found[1] for found in told] == ["1", "0", "0"]
    assert answers[2].headers["retry-after"] == (told[2] and told[2][2])
    assert answers[0].headers["a"] == "b"
    assert not {"ratelimit", "ratelimit-policy"} & door.bearing("newsroom").headers.keys()


def test_whoever_is_over_the_limit_is_told_when_to_come_back() -> None:
    door = Door(Rate(requests=1, seconds=60))
    door.bearing("limited")
    refused = door.bearing("limited")
    problem = problem_of(refused)
    assert problem["type"] == "urn:kadogo:problem:rate_limited"
    assert "1 requests in 60 s" in problem["detail"]
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert 0 < problem["retry_after_ms"] <= 60_000
    assert door.behind.asked == ["limited"]


def test_a_limit_is_changed_while_it_is_spent() -> None:
    door = Door(Rate(requests=2, seconds=3600))
    assert [door.bearing("limited").status_code for _ in range(3)] == [200, 200, 429]
    door.changes = KeyChanges(rates={"limited": Rate(requests=5, seconds=3600)})
    assert [door.bearing("limited").status_code for _ in range(4)] == [200, 200, 200, 429]
    door.changes = KeyChanges(rates={"limited": None, "newsroom": Rate(requests=1, seconds=3600)})
    assert [door.bearing("limited").status_code for _ in range(9)] == [200] * 9
    assert [door.bearing("newsroom").status_code for _ in range(2)] == [200, 429]


def test_one_keys_limit_is_nobody_elses() -> None:
    door = Door(Rate(requests=1, seconds=3600))
    assert [door.bearing("limited").status_code for _ in range(2)] == [200, 429]
    assert door.bearing("newsroom").status_code == 200


def test_only_what_needs_the_key_and_is_allowed_costs() -> None:
    door = Door(Rate(requests=1, seconds=3600))
    for _ in range(3):
        assert door.bearing("limited", "GET", "/livez").status_code == 200
        assert door.bearing("limited", "PUT").status_code == 403
    assert door.bearing("limited").status_code == 200


def test_a_wait_of_no_time_at_all_is_told_as_a_second() -> None:
    told = dict(fields(Rate(requests=1000, seconds=1), Standing(True, 5, 0.0004)))
    assert told[b"ratelimit"] == b'"default";r=5;t=1'

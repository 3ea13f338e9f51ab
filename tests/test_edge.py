"""The edge: bodies within limits, safe request ids, problems that repeat nothing."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import logging
import tracemalloc
import zlib
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope

from models.errors import (
    InvalidRequest,
    MalformedRequest,
    NotReady,
    Overloaded,
    TooLarge,
    UnsupportedContent,
)
from service.bodies import JSON, check_content, inflated, read_body
from service.edge import BoundedBody, Caller, Post
from service.forms import FieldError, FieldsInvalid
from service.job import CallerLeft
from service.problems import (
    PROBLEM,
    Headers,
    Outcome,
    error_alone,
    refused,
    refused_at,
    request_id_of,
)


def chunks(*parts: bytes) -> list[Message]:
    last = len(parts) - 1
    return [
        {"type": "http.request", "body": part, "more_body": i < last}
        for i, part in enumerate(parts)
    ]


def receiving(messages: Iterable[Message]) -> Receive:
    each = iter(messages)

    async def receive() -> Message:
        return next(each)

    return receive


# --- bodies ----------------------------------------------------------------------------------


def test_a_body_in_chunks_is_read_whole() -> None:
    assert asyncio.run(read_body(receiving(chunks(b"ab", b"", b"cd")), 4)) == b"abcd"


def test_reading_stops_at_the_limit_whatever_is_still_to_come() -> None:
    messages = iter(chunks(b"abc", b"def", b"never read", b"nor this"))
    with pytest.raises(TooLarge, match="larger than 4 bytes"):
        asyncio.run(read_body(receiving(messages), 4))
    assert next(messages)["body"] == b"never read"


def test_a_caller_who_hangs_up_while_sending_has_left() -> None:
    messages = [chunks(b"ab", b"")[0], {"type": "http.disconnect"}]
    with pytest.raises(CallerLeft):
        asyncio.run(read_body(receiving(messages), 4))


@pytest.mark.parametrize(
    "value",
    [
        b"application/json",
        b"application/json; charset=utf-8",
        b'Application/JSON;charset="UTF-8"',
        b"application/vnd.kadogo+json",
    ],
)
def test_json_in_utf8_is_read(value: bytes) -> None:
    check_content([(b"content-type", value), (b"content-encoding", b"identity")], 10)


@pytest.mark.parametrize(
    "header",
    [
        (b"content-type", b"text/plain"),
        (b"content-type", b"application/x-www-form-urlencoded"),
        (b"content-type", b"application/json; charset=latin-1"),
        (b"content-type", b"application/jsonx"),
        (b"content-encoding", b"gzip"),
    ],
)
def test_other_content_is_not(header: tuple[bytes, bytes]) -> None:
    with pytest.raises(UnsupportedContent):
        check_content([header], 10)


def test_no_content_type_passes_for_json() -> None:
    check_content([], 10)


def test_a_length_beyond_the_limit_is_refused_before_a_byte_is_read() -> None:
    with pytest.raises(TooLarge):
        check_content([(b"content-length", b"11")], 10)


def test_another_type_and_compression_are_read_where_they_are_wanted() -> None:
    binary = (b"content-type", b"application/octet-stream")
    check_content([binary, (b"content-encoding", b"gzip")], 10, also=binary[1], compressed=True)
    with pytest.raises(UnsupportedContent, match="application/json or application/octet-stream"):
        check_content([(b"content-type", b"text/plain")], 10, also=binary[1])
    with pytest.raises(UnsupportedContent, match="or with gzip or deflate"):
        check_content([(b"content-encoding", b"br")], 10, compressed=True)


@given(st.binary(max_size=100), st.sampled_from([b"gzip", b"deflate"]))
def test_what_was_compressed_is_what_it_was(body: bytes, encoding: bytes) -> None:
    compressed = gzip.compress(body) if encoding == b"gzip" else zlib.compress(body)
    assert inflated(compressed, encoding, 100) == body
    for broken in (compressed[:-1], compressed + b"x", compressed * 2, body):
        with pytest.raises(MalformedRequest):
            inflated(broken, encoding, 100)


@given(st.binary(), st.sampled_from([b"gzip", b"deflate"]))
def test_any_bytes_are_inflated_or_refused(body: bytes, encoding: bytes) -> None:
    with contextlib.suppress(MalformedRequest, TooLarge):
        assert len(inflated(body, encoding, 9)) <= 9


def test_a_small_body_does_not_become_a_large_one() -> None:
    bomb = gzip.compress(bytes(10**8))
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge, match="larger than 1000 bytes"):
            inflated(bomb, b"gzip", 1000)
        assert tracemalloc.get_traced_memory()[1] < 10**6
    finally:
        tracemalloc.stop()
    assert len(inflated(gzip.compress(bytes(1000)), b"gzip", 1000)) == 1000


# --- request ids -----------------------------------------------------------------------------


@pytest.mark.parametrize("given", [b"a", b"A-1._z", b"x" * 128])
def test_a_safe_request_id_is_kept(given: bytes) -> None:
    assert request_id_of([(b"x-request-id", given)]) == given


@pytest.mark.parametrize("given", [b"", b"x" * 129, b"a b", b"a\tb", "é".encode(), b'a"b'])
def test_an_unsafe_request_id_is_replaced(given: bytes) -> None:
    made = request_id_of([(b"x-request-id", given)])
    assert made != given
    assert request_id_of([(b"x-request-id", made)]) == made


def test_made_request_ids_differ() -> None:
    assert len({request_id_of([]) for _ in range(100)}) == 100


# --- problems --------------------------------------------------------------------------------


def shown(outcome: Outcome) -> dict[str, Any]:
    problem: dict[str, Any] = msgspec.json.decode(outcome.body)
    return problem


def test_a_problem_has_the_members_of_rfc_9457() -> None:
    outcome = refused(InvalidRequest("the text is empty"), b"id-1", "ner-int8")
    assert shown(outcome) == {
        "type": "urn:kadogo:problem:invalid_request",
        "title": "Invalid request",
        "status": 422,
        "detail": "the text is empty",
        "request_id": "id-1",
        "variant": "ner-int8",
    }
    assert (b"content-type", b"application/problem+json") in outcome.headers


def test_a_bad_field_is_pointed_at() -> None:
    outcome = refused(FieldsInvalid(FieldError("/inputs/1", "the text is empty")), b"id")
    assert shown(outcome)["errors"] == [{"pointer": "/inputs/1", "detail": "the text is empty"}]


@pytest.mark.parametrize(("wait_s", "seconds"), [(0.0, b"1"), (0.2, b"1"), (2.3, b"3")])
def test_an_overload_says_when_to_come_back_in_whole_seconds(wait_s: float, seconds: bytes) -> None:
    outcome = refused(Overloaded("full", retry_after_s=wait_s), b"id")
    assert outcome.status == 429
    assert (b"retry-after", seconds) in outcome.headers
    assert shown(outcome)["retry_after_ms"] == round(wait_s * 1000)


def test_not_ready_says_when_to_come_back() -> None:
    assert (b"retry-after", b"1") in refused(NotReady("loading"), b"id").headers


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/v2", JSON),
        ("/v2/", JSON),
        ("/v2/models/x", JSON),
        ("/v22", PROBLEM),
        ("/v1/ner", PROBLEM),
        ("/", PROBLEM),
        ("*", PROBLEM),
    ],
)
def test_the_shape_of_an_error_goes_by_the_surface(path: str, kind: bytes) -> None:
    outcome = refused_at(path, Overloaded("full", retry_after_s=2.3), b"id")
    assert outcome.status == 429
    assert set(outcome.headers) == {(b"content-type", kind), (b"retry-after", b"3")}
    assert shown(outcome)["error" if kind == JSON else "detail"] == "full"


def test_an_unforeseen_error_tells_neither_the_caller_nor_the_log_its_message(
    caplog: pytest.LogCaptureFixture,
) -> None:
    text = "SEC" + "RET"  # so that the source lines of the traceback do not hold it

    def fails() -> None:
        raise ValueError(text)

    caplog.set_level(logging.DEBUG)
    try:
        fails()
    except ValueError as error:
        outcome = refused(error, b"id-7")
    assert outcome.status == 500
    assert "id-7" in caplog.text and "ValueError" in caplog.text and "in fails" in caplog.text
    assert text not in caplog.text + outcome.body.decode()


# --- the endpoint ----------------------------------------------------------------------------


def posted(
    endpoint: Any, headers: Headers, messages: Iterable[Message], path: str = "/v1/ner"
) -> list[Message]:
    """What the endpoint sends."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path}
    scope |= {"headers": headers, "query_string": b""}
    asyncio.run(endpoint(scope, receiving(messages), send))
    return sent


async def _echo(body: bytes, caller: Caller) -> Outcome:
    return Outcome(200, body, [])


async def _never(body: bytes, caller: Caller) -> Outcome:
    await asyncio.Event().wait()
    raise AssertionError


def test_an_answer_repeats_the_request_id() -> None:
    post = Post(_echo, task="ner", max_body=10, deadline_s=5, body_s=5)
    start, body = posted(post, [(b"x-request-id", b"mine")], chunks(b"hello"))
    assert start["status"] == 200
    assert (b"x-request-id", b"mine") in start["headers"]
    assert (b"content-length", b"5") in start["headers"]
    assert body["body"] == b"hello"


def test_a_surface_may_retell_its_problems_but_not_their_headers() -> None:
    async def full(body: bytes, caller: Caller) -> Outcome:
        raise Overloaded("2 windows are waiting", retry_after_s=2.5)

    post = Post(full, task="ner", max_body=10, deadline_s=5, body_s=5, retold=error_alone)
    start, body = posted(post, [], chunks(b"hello"))
    assert start["status"] == 429
    assert (b"retry-after", b"3") in start["headers"]
    assert (b"content-type", b"application/json") in start["headers"]
    assert msgspec.json.decode(body["body"]) == {"error": "2 windows are waiting"}


def test_no_answer_within_the_deadline_is_a_504() -> None:
    post = Post(_never, task="ner", max_body=10, deadline_s=0.01, body_s=5)
    start, body = posted(post, [], chunks(b"hello"))
    assert start["status"] == 504
    assert msgspec.json.decode(body["body"])["title"] == "Deadline exceeded"


def trickled(app: Any, *parts: bytes) -> list[Message]:
    """What is sent to a caller whose body begins so and never ends."""
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]

    async def receive() -> Message:
        if messages:
            return messages.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    async def scenario() -> list[Message]:
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/ner", "headers": []}
        await app({**scope, "query_string": b""}, receive, send)
        return sent

    return asyncio.run(scenario())


def test_a_body_that_never_ends_is_a_408_and_the_connection_is_closed() -> None:
    post = Post(_echo, task="ner", max_body=10, deadline_s=5, body_s=0.01)
    bounded = BoundedBody(post, max_body=10, body_s=0.01)
    for app in (post, bounded):
        for parts in ([], [b"ab"]):
            start, body = trickled(app, *parts)
            assert start["status"] == 408
            assert (b"connection", b"close") in start["headers"]
            assert "within 0.01 s; send it faster" in msgspec.json.decode(body["body"])["detail"]


def test_a_deadline_before_the_bodys_own_time_is_up_is_a_504() -> None:
    post = Post(_echo, task="ner", max_body=10, deadline_s=0.01, body_s=5)
    assert trickled(post, b"ab")[0]["status"] == 504


def test_an_endpoint_may_read_bodies_in_its_own_way() -> None:
    async def backwards(scope: Scope, receive: Receive, max_body: int) -> bytes:
        return (await read_body(receive, max_body))[::-1]

    async def told(body: bytes, caller: Caller) -> Outcome:
        caller.task = "ner"
        assert caller.header("x-more") == "1" and caller.header("x-less") is None
        return await _echo(body, caller)

    post = Post(told, max_body=10, deadline_s=5, body_s=5, read=backwards)
    kind = (b"content-type", b"text/plain")
    start, body = posted(post, [kind, (b"x-more", b"1")], chunks(b"hello"))
    assert (start["status"], body["body"]) == (200, b"olleh")
    start, _ = posted(post, [], chunks(b"hello hello"))
    assert start["status"] == 413


def test_nothing_is_sent_to_a_caller_who_left() -> None:
    post = Post(_echo, task="ner", max_body=10, deadline_s=5, body_s=5)
    assert posted(post, [], [{"type": "http.disconnect"}]) == []


def test_bodies_that_others_read_are_bounded_as_well() -> None:
    seen: list[bytes] = []

    async def reads(scope: Any, receive: Receive, send: Any) -> None:
        seen.append((await receive())["body"])

    bounded = BoundedBody(reads, max_body=4, body_s=5)
    assert posted(bounded, [], chunks(b"ab", b"cd")) == []
    assert seen == [b"abcd"]
    for path, kind in (("/v1/ner", PROBLEM), ("/v2/models/x/infer", JSON)):
        start, _ = posted(bounded, [], chunks(b"ab", b"cde"), path)
        assert start["status"] == 413
        assert (b"content-type", kind) in start["headers"]
    assert seen == [b"abcd"]


@pytest.mark.parametrize(
    "kind",
    [
        b"application/vnd.bentoml+pickle",
        b"multipart/form-data; boundary=x",
        b"application/x-www-form-urlencoded",
    ],
)
def test_where_others_would_read_more_than_json_nothing_else_passes(kind: bytes) -> None:
    async def reads(scope: Any, receive: Receive, send: Any) -> None:
        raise AssertionError

    bounded = BoundedBody(reads, max_body=4, body_s=5, json={"/ner"})
    start, _ = posted(bounded, [(b"content-type", kind)], chunks(b"ab"), "/ner")
    assert start["status"] == 415

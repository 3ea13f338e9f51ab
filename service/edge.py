"""
Where HTTP ends and values begin: bodies within limits, request ids, errors as RFC 9457 problems.

Knows nothing of variants or BentoML. Neither an error's answer nor a log line repeats a text.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import secrets
import traceback
import zlib
from collections.abc import Awaitable, Callable, Container, Iterable, Mapping, Sequence
from contextvars import ContextVar
from time import perf_counter
from typing import Any, NamedTuple

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.errors import (
    DeadlineExceeded,
    InvalidRequest,
    KadogoError,
    MalformedRequest,
    NotReady,
    Overloaded,
    RateLimited,
    RequestError,
    SlowBody,
    TooLarge,
    UnsupportedContent,
)
from service import metrics
from service.batch import CallerLeft
from service.fair import Priority
from service.forms import FieldsInvalid
from service.policy import Unsatisfied
from service.schemas import Error, Problem, Reply

logger = logging.getLogger("kadogo")

Headers = list[tuple[bytes, bytes]]

JSON = b"application/json"
PROBLEM = b"application/problem+json"
# nginx's number for a request whose caller left before the answer; only metrics see it.
CALLER_LEFT = 499
# What a caller of a server that is starting or stopping is told to wait.
NOT_READY_RETRY_S = 1.0

# The name of the key that the request at hand came with, where keys are asked for: `guard.py`.
KEY: ContextVar[str | None] = ContextVar("kadogo_key", default=None)

# Nobody waits for a shadow: no caller may ask for one.
_PRIORITIES = {b"interactive": Priority.INTERACTIVE, b"batch": Priority.BATCH}
_SAFE_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_JSON_TYPE = re.compile(
    rb"""application/(?:[a-z0-9.+-]+\+)?json\s*(?:;\s*charset="?utf-?8"?\s*)?""", re.IGNORECASE
)
# zlib's window sizes: with gzip's header and, as RFC 9110 defines "deflate", with zlib's.
_WINDOWS = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}


class Caller:
    """
    Who asks: the request's id, when it came (`perf_counter`), and what we learn on the way.

    receive    ASGI's, by which leaving is heard; None where it cannot be
    path       the parameters of the route's path
    task       and `variant` that answers, once chosen
    timeout_s  after `started`; what is not begun by then is not run
    key        whose share of the cores it is; None: everybody's who has none
    again      what X-Route is answered with
    """

    __slots__ = (
        "_headers",
        "_receive",
        "again",
        "key",
        "path",
        "priority",
        "request_id",
        "started",
        "task",
        "timeout_s",
        "variant",
    )

    def __init__(
        self,
        request_id: bytes,
        receive: Receive | None = None,
        headers: Sequence[tuple[bytes, bytes]] = (),
        path: Mapping[str, str] | None = None,
        *,
        timeout_s: float,
    ) -> None:
        self.request_id = request_id
        self.path = path or {}
        self.started = perf_counter()
        self.task: str | None = None
        self.variant: str | None = None
        self.timeout_s = timeout_s
        self.priority = Priority.INTERACTIVE
        self.key = KEY.get()
        self.again: str | None = None
        self._receive = receive
        self._headers = headers

    @property
    def deadline(self) -> float:
        """By `perf_counter`."""
        return self.started + self.timeout_s

    def header(self, name: str) -> str | None:
        """The request's header of that name, in lower case; the first of several."""
        wanted = name.encode("latin-1", "replace")
        return next((v.decode("latin-1") for n, v in self._headers if n == wanted), None)

    def read(self) -> None:
        """
        What the headers ask: a shorter timeout, a lower priority.

        Raises `InvalidRequest` where one does not say it as it must.
        """
        for name, value in self._headers:
            if name == b"x-request-timeout-ms":
                if not value.isdigit() or len(value) > 15 or not int(value):
                    raise InvalidRequest("X-Request-Timeout-Ms is a whole number of milliseconds")
                self.timeout_s = min(self.timeout_s, int(value) / 1000)
            elif name == b"x-priority":
                if value not in _PRIORITIES:
                    raise InvalidRequest("X-Priority is interactive or batch")
                self.priority = _PRIORITIES[value]

    @property
    def leaving(self) -> Callable[[], Awaitable[None]] | None:
        """A coroutine function that returns when the caller has hung up."""
        return None if self._receive is None else self._left

    async def _left(self) -> None:
        receive = self._receive
        while receive is not None and (await receive())["type"] != "http.disconnect":
            pass


class Outcome(NamedTuple):
    """What is sent."""

    status: int
    body: bytes
    headers: Headers


# The body behind these headers, at most so many bytes of it.
Read = Callable[[Scope, Receive, int], Awaitable[bytes]]
# A problem in another shape.
Retell = Callable[[Outcome], Outcome]


async def read_json(scope: Scope, receive: Receive, max_body: int) -> bytes:
    """A JSON body. Raises what `check_content` and `read_body` raise."""
    check_content(scope["headers"], max_body)
    return await read_body(receive, max_body)


class Post:
    """
    An ASGI endpoint for `POST` of one body: bytes in, `Outcome` out, errors as problems.

    A plain ASGI callable on purpose: a route of such costs no request object, no response object
    and no middleware of its own.

    task    for the metrics; None: the one that `answer` finds out and tells its caller
    read    of what type a body is, and how it is read
    retold  a problem in the shape that the callers of this endpoint expect
    """

    def __init__(
        self,
        answer: Callable[[bytes, Caller], Awaitable[Outcome]],
        *,
        task: str | None = None,
        max_body: int,
        deadline_s: float,
        body_s: float,
        read: Read = read_json,
        retold: Retell | None = None,
    ) -> None:
        self._answer = answer
        self._task = task
        self._max_body = max_body
        self._deadline_s = deadline_s
        self._body_s = body_s
        self._read = read
        self._retold = retold

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers, path = scope["headers"], scope.get("path_params")
        request_id = request_id_of(headers)
        caller = Caller(request_id, receive, headers, path, timeout_s=self._deadline_s)
        status = CALLER_LEFT
        try:
            outcome = await settled(self._read_and_answer(scope, receive, caller), caller)
            status = outcome.status
            if self._retold and status >= 400:
                outcome = self._retold(outcome)
            await deliver(send, outcome, caller.request_id)
        except CallerLeft:
            metrics.rejected("caller_left")
        finally:
            requested(self._task or caller.task or "none", caller, status)

    async def _read_and_answer(self, scope: Scope, receive: Receive, caller: Caller) -> Outcome:
        if scope["query_string"]:
            raise InvalidRequest("a query string is not read here; send all of it in the body")
        caller.read()
        async with asyncio.timeout(caller.timeout_s):
            body = await in_time(self._read(scope, receive, self._max_body), self._body_s)
            return await self._answer(body, caller)


async def settled(answering: Awaitable[Outcome], caller: Caller) -> Outcome:
    """What `answering` comes to: its outcome, or the problem its error becomes."""
    try:
        return await answering
    except TimeoutError:
        late = DeadlineExceeded("the answer did not come within the deadline")
        return refused(late, caller.request_id, caller.variant)
    except CallerLeft:
        raise
    except Exception as error:
        return refused(error, caller.request_id, caller.variant)


def answer_headers(reply: Reply, content_type: bytes, again: str | None) -> Headers:
    """
    What every answer says beside its body: who answered and why, and where the time went.

    again  what asks for the same choice again
    """
    took = reply.timing_ms
    timing = (
        f"queue;dur={took.queue}, encode;dur={took.encode}, "
        f"model;dur={took.model}, total;dur={took.total}"
    )
    headers = [
        (b"content-type", content_type),
        (b"x-variant", reply.variant.encode()),
        (b"x-variant-reason", reply.reason.encode()),
        (b"server-timing", timing.encode()),
    ]
    if again is not None:
        headers.append((b"x-route", again.encode()))
    return headers


def requested(task: str, caller: Caller, status: int) -> None:
    """Count a request that has been answered, or whose caller has left."""
    metrics.requested(
        task=task,
        variant=caller.variant or "none",
        status=status,
        seconds=perf_counter() - caller.started,
    )


async def deliver(send: Send, outcome: Outcome, request_id: bytes) -> None:
    """Send it, without a response object between."""
    headers = [
        (b"content-length", b"%d" % len(outcome.body)),
        (b"x-request-id", request_id),
        *outcome.headers,
    ]
    await send({"type": "http.response.start", "status": outcome.status, "headers": headers})
    await send({"type": "http.response.body", "body": outcome.body})


def header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """The first of that name, which is written in small letters."""
    return next((value for each, value in headers if each == name), None)


def request_id_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The caller's X-Request-ID if it is safe to repeat, else a new one."""
    for name, value in headers:
        if name == b"x-request-id" and _SAFE_ID.fullmatch(value):
            return value
    return secrets.token_hex(8).encode()


def check_content(
    headers: Iterable[tuple[bytes, bytes]],
    max_body: int,
    *,
    also: bytes | None = None,
    compressed: bool = False,
) -> None:
    """
    Refuse by the headers alone what is not JSON or says it is too large.

    No content type at all passes for JSON. `also`: another type that is taken; `compressed`: so
    are the encodings that `inflated` reads. Raises `UnsupportedContent`, `TooLarge`.
    """
    for name, value in headers:
        if name == b"content-type":
            if value not in (JSON, also) and not _JSON_TYPE.fullmatch(value):
                other = f" or {also.decode()}" if also else ""
                raise UnsupportedContent(
                    f"send JSON in UTF-8, as Content-Type: application/json{other}"
                )
        elif name == b"content-encoding":
            if value.lower() != b"identity" and not (compressed and value.lower() in _WINDOWS):
                other = ", or with gzip or deflate" if compressed else ""
                raise UnsupportedContent(
                    f"send the body as it is, without a Content-Encoding{other}"
                )
        elif name == b"content-length" and value.isdigit() and int(value) > max_body:
            raise _too_large(max_body)


async def read_body(receive: Receive, max_body: int) -> bytes:
    """
    The whole body. Stops as soon as it is beyond `max_body` bytes, whatever its headers said.

    Raises `TooLarge`; `CallerLeft` when the connection closes first.
    """
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise CallerLeft
        part = message.get("body", b"")
        size += len(part)
        if size > max_body:
            raise _too_large(max_body)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts) if len(parts) > 1 else part


async def in_time(reading: Awaitable[bytes], body_s: float) -> bytes:
    """Raises `SlowBody` where the body is not whole within so many seconds."""
    try:
        async with asyncio.timeout(body_s):
            return await reading
    except TimeoutError:
        raise SlowBody(
            f"the body was not all here within {body_s:g} s; send it faster, or less of it"
        ) from None


def inflated(body: bytes, encoding: bytes, max_body: int) -> bytes:
    """
    What `body` was before it was compressed with gzip or deflate.

    Stops at the limit, so that a small body does not become a large one. Raises `TooLarge`, and
    `MalformedRequest` for what is not of that encoding, not whole, or followed by something.
    """
    inflate = zlib.decompressobj(_WINDOWS[encoding])
    try:
        whole = inflate.decompress(body, max_body + 1)
    except zlib.error:
        raise MalformedRequest(f"the body is not {encoding.decode()}") from None
    if len(whole) > max_body:
        raise _too_large(max_body)
    if not inflate.eof or inflate.unused_data:
        raise MalformedRequest(f"the body is not one whole piece of {encoding.decode()}")
    return whole


def _too_large(max_body: int) -> TooLarge:
    return TooLarge(f"the body is larger than {max_body} bytes; send fewer or shorter texts")


def refused(error: Exception, request_id: bytes, variant: str | None = None) -> Outcome:
    """Count the error, log it if we did not foresee it, and give the problem it becomes."""
    metrics.rejected(_reason(error))
    if not isinstance(error, KadogoError | HTTPException):
        _log_unforeseen(error, request_id)
    return problem_of(error, request_id, variant)


def problem_of(error: Exception, request_id: bytes, variant: str | None = None) -> Outcome:
    """The problem an error becomes; one we did not foresee tells the caller nothing of itself."""
    reason = _reason(error)
    if isinstance(error, HTTPException):
        return _of_starlette(error, reason, request_id)
    if not isinstance(error, KadogoError):
        detail = "something we did not foresee; the log has it under this request id"
        return _problem(500, reason, KadogoError.title, detail, request_id)
    wait_s = _wait_s(error)
    outcome = _problem(
        error.status,
        reason,
        error.title,
        str(error),
        request_id,
        variant=variant,
        retry_after_ms=None if wait_s is None else math.ceil(wait_s * 1000),
        errors=error.errors if isinstance(error, FieldsInvalid) else None,
        nearest=error.nearest if isinstance(error, Unsatisfied) else None,
    )
    if isinstance(error, SlowBody):  # what is still to come must not keep the connection
        outcome.headers.append((b"connection", b"close"))
    if wait_s is not None:
        outcome.headers.append((b"retry-after", b"%d" % max(1, math.ceil(wait_s))))
    return outcome


def error_alone(problem: Outcome) -> Outcome:
    """A problem as `{"error": "..."}`, what it says and nothing more; its headers stay."""
    told = msgspec.json.decode(problem.body, type=Problem)
    headers = [(name, JSON if name == b"content-type" else v) for name, v in problem.headers]
    return Outcome(problem.status, msgspec.json.encode(Error(told.detail)), headers)


def _reason(error: Exception) -> str:
    """The error in one word, for metrics and the problem's type."""
    if isinstance(error, HTTPException):
        return {404: "unknown_path", 405: "wrong_method"}.get(error.status_code, "bad_request")
    if isinstance(error, KadogoError):
        return error.title.lower().replace(" ", "_")
    return "internal_error"


def _of_starlette(error: HTTPException, reason: str, request_id: bytes) -> Outcome:
    """No such path, or not with this method."""
    allow = (error.headers or {}).get("Allow")
    detail = {
        "unknown_path": "there is nothing here; /docs shows what there is",
        "wrong_method": f"this path answers {allow}",
    }.get(reason, error.detail)
    outcome = _problem(error.status_code, reason, error.detail, detail, request_id)
    if allow:
        outcome.headers.append((b"allow", allow.encode()))
    return outcome


def _wait_s(error: KadogoError) -> float | None:
    """Seconds after which it is worth asking again, where we know."""
    if isinstance(error, Overloaded | RateLimited):
        return error.retry_after_s
    return NOT_READY_RETRY_S if isinstance(error, NotReady) else None


def _problem(
    status: int, reason: str, title: str, detail: str, request_id: bytes, **more: Any
) -> Outcome:
    problem = Problem(
        type=f"urn:kadogo:problem:{reason}",
        title=title,
        status=status,
        detail=detail,
        request_id=request_id.decode(),
        **more,
    )
    return Outcome(status, msgspec.json.encode(problem), [(b"content-type", PROBLEM)])


def _log_unforeseen(error: Exception, request_id: bytes) -> None:
    """Where it happened and what kind; never its message, which may quote a caller's text."""
    where = "".join(traceback.format_tb(error.__traceback__))
    logger.error("request %s: %s\n%s", request_id.decode(), type(error).__name__, where)


# By the beginning of their paths: surfaces where whatever is not a `Post` retells its problems too.
_RETOLD: dict[str, Retell] = {"/v2": error_alone}


def refused_at(path: str, error: Exception, request_id: bytes) -> Outcome:
    """As `refused`, in the shape errors have at this path, whether there is something or not."""
    outcome = refused(error, request_id)
    for start, retold in _RETOLD.items():
        if f"{path}/".startswith(f"{start}/"):
            return retold(outcome)
    return outcome


async def problem(request: Request, error: Exception) -> Response:
    """Starlette's exception handler for every route that is not a `Post`."""
    scope = request.scope
    request_id = request_id_of(scope["headers"])
    return as_response(refused_at(scope["path"], error, request_id), request_id)


def page(read: Callable[[Request], object]) -> Callable[[Request], Awaitable[Response]]:
    """A route whose answer is a value, as JSON."""

    async def got(request: Request) -> Response:
        return as_json(request, read(request))

    return got


def as_json(request: Request, value: object) -> Response:
    outcome = Outcome(200, msgspec.json.encode(value), [(b"content-type", JSON)])
    return as_response(outcome, request_id_of(request.scope["headers"]))


def as_response(outcome: Outcome, request_id: bytes) -> Response:
    response = Response(outcome.body, outcome.status)
    response.raw_headers += [*outcome.headers, (b"x-request-id", request_id)]
    return response


class BoundedBody:
    """
    ASGI middleware: a body that BentoML reads for us is bounded as on our own routes.

    Under the paths in `json` nothing but JSON passes: BentoML would read forms, and unpickle.
    """

    def __init__(
        self, app: ASGIApp, *, max_body: int, body_s: float, json: Container[str] = ()
    ) -> None:
        self._app = app
        self._max_body = max_body
        self._body_s = body_s
        self._json = json

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        request_id = request_id_of(scope["headers"])
        try:
            if scope["path"] in self._json:
                check_content(scope["headers"], self._max_body)
            body = await in_time(read_body(receive, self._max_body), self._body_s)
        except RequestError as error:
            await deliver(send, refused_at(scope["path"], error, request_id), request_id)
        except CallerLeft:
            metrics.rejected("caller_left")
        else:
            await self._app(scope, _replay(body, receive), send)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives `body` at once, then whatever comes next."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return messages.pop() if messages else await receive()

    return replayed

"""
What goes out: values as JSON, and errors as RFC 9457 problems, counted and logged.

Neither an error's answer nor a log line repeats a text. Knows nothing of requests' bodies.
"""

from __future__ import annotations

import logging
import math
import re
import secrets
import traceback
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Send

from models.errors import (
    KadogoError,
    NotReady,
    Overloaded,
    RateLimited,
    SlowBody,
)
from service import metrics
from service.bodies import JSON
from service.forms import FieldsInvalid
from service.policy import Unsatisfied
from service.schemas import Error, Problem

Headers = list[tuple[bytes, bytes]]
PROBLEM = b"application/problem+json"
# What a caller of a server that is starting or stopping is told to wait.
NOT_READY_RETRY_S = 1.0
_SAFE_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
logger = logging.getLogger("kadogo")


class Outcome(NamedTuple):
    """What is sent."""

    status: int
    body: bytes
    headers: Headers


# A problem in another shape.
Retell = Callable[[Outcome], Outcome]


def request_id_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The caller's X-Request-ID if it is safe to repeat, else a new one."""
    for name, value in headers:
        if name == b"x-request-id" and _SAFE_ID.fullmatch(value):
            return value
    return secrets.token_hex(8).encode()


async def deliver(send: Send, outcome: Outcome, request_id: bytes) -> None:
    """Send it, without a response object between."""
    headers = [
        (b"content-length", b"%d" % len(outcome.body)),
        (b"x-request-id", request_id),
        *outcome.headers,
    ]
    await send({"type": "http.response.start", "status": outcome.status, "headers": headers})
    await send({"type": "http.response.body", "body": outcome.body})


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

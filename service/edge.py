"""
Where HTTP ends and values begin: who asks, and what becomes of what was asked.

Knows nothing of variants or BentoML.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from contextvars import ContextVar
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.errors import (
    DeadlineExceeded,
    InvalidRequest,
    RequestError,
)
from service import metrics, seen
from service.bodies import Read, check_content, in_time, read_body, read_json, slow
from service.fair import Priority
from service.job import CallerLeft
from service.problems import Headers, Outcome, Retell, deliver, refused, refused_at, request_id_of
from service.schemas import Reply

# nginx's number for a request whose caller left before the answer; only metrics see it.
CALLER_LEFT = 499
# The name of the key that the request at hand came with, where keys are asked for: `guard.py`.
KEY: ContextVar[str | None] = ContextVar("kadogo_key", default=None)
# Nobody waits for a shadow: no caller may ask for one.
_PRIORITIES = {b"interactive": Priority.INTERACTIVE, b"batch": Priority.BATCH}


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
        first_s = min(self._body_s, caller.timeout_s)
        body: bytes | None = None
        try:
            # One timer for both: the body's time, and then what is left of the caller's.
            async with asyncio.timeout(first_s) as timer:
                body = await self._read(scope, receive, self._max_body)
                timer.reschedule((timer.when() or 0.0) - first_s + caller.timeout_s)
                return await self._answer(body, caller)
        except TimeoutError:
            if body is None and first_s < caller.timeout_s:
                raise slow(first_s) from None
            raise


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
    if caller.variant:
        seen.note(caller.variant)
    metrics.requested(
        task=task,
        variant=caller.variant or "none",
        status=status,
        seconds=perf_counter() - caller.started,
    )


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

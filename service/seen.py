"""
The request at hand, seen from outside: its id, its trace, who answered, and how it ended.

What is logged while it lasts carries its ids. Knows nothing of what is asked or answered.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Iterable
from contextvars import ContextVar
from time import perf_counter
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import tracing
from service.problems import request_id_of

logger = logging.getLogger("kadogo.access")

# Probes and scrapes, every few seconds: worth a line only where they fail, and no trace.
PROBES = frozenset({"/livez", "/healthz", "/readyz", "/metrics"})
# nginx's number for a request whose caller left before the answer.
CALLER_LEFT = 499
# W3C's: version, trace, parent, flags, and what a later version may add.
_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")


class Seen:
    """
    request_id  the caller's, if it is safe to repeat, else a new one: what the answer says too
    variants    that answered, or were to
    """

    __slots__ = ("_headers", "_trace_id", "request_id", "variants")

    def __init__(self, request_id: bytes, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.request_id = request_id.decode()
        self.variants: list[str] = []
        self._headers = headers
        self._trace_id: str | None = None

    @property
    def trace_id(self) -> str:
        """Of the trace it belongs to, as the caller says, else a new one."""
        if self._trace_id is None:
            self._trace_id = trace_id_of(self._headers) or secrets.token_hex(16)
        return self._trace_id

    def traced(self, trace_id: str) -> None:
        """It is told to a collector under this one."""
        self._trace_id = trace_id


SEEN: ContextVar[Seen | None] = ContextVar("kadogo_seen", default=None)


def note(*variants: str) -> None:
    """These answered the request at hand, or were to."""
    seen = SEEN.get()
    if seen is not None:
        seen.variants += (name for name in variants if name not in seen.variants)


def trace_id_of(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """What `traceparent` says, if it says it as W3C's Trace Context has it."""
    for name, value in headers:
        if name == b"traceparent":
            found = _TRACEPARENT.fullmatch(value)
            return found[1].decode() if found and found[1].strip(b"0") else None
    return None


class Watch:
    """
    ASGI middleware before all others: whatever is done for a request knows which one it is.

    access  each gets a line in the log, once it has been answered
    """

    def __init__(self, app: ASGIApp, *, access: bool = False) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = scope["headers"]
        request_id = request_id_of(headers)
        if (b"x-request-id", request_id) not in headers:
            headers = [*headers, (b"x-request-id", request_id)]
            scope = {**scope, "headers": headers}
        seen = Seen(request_id, headers)
        SEEN.set(seen)
        if self._access or tracing.is_on():
            await self._followed(seen, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _followed(self, seen: Seen, scope: Scope, receive: Receive, send: Send) -> None:
        """To its end."""
        started = perf_counter()
        status = CALLER_LEFT
        probe = scope["path"] in PROBES

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with tracing.request(scope["headers"], told=not probe) as span:
            if span.trace_id:
                seen.traced(span.trace_id)
            try:
                await self._app(scope, receive, sent)
            except Exception:
                status = 500
                raise
            finally:
                told = _told(seen, scope, status)
                span.tell(told)
                if self._access and not (probe and status < 400):
                    _log(told, perf_counter() - started)


def _told(seen: Seen, scope: Scope, status: int) -> dict[str, Any]:
    """What may be known of a request: never its path as it came, for who knows what is in it."""
    return {
        "method": scope["method"],
        "path": getattr(scope.get("route"), "path", None),
        "status": status,
        "variants": seen.variants,
        "request_id": seen.request_id,
    }


def _log(told: dict[str, Any], seconds: float) -> None:
    ms = round(1000 * seconds, 2)
    words = (told["method"], told["path"] or "-", told["status"], ms, ",".join(told["variants"]))
    fields = {"ms": ms, **{name: value for name, value in told.items() if name != "request_id"}}
    logger.info("%s %s %d in %g ms %s", *words, extra={"event": "request", "fields": fields})

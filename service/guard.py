"""
Who may ask for what, decided before any route: keys, scopes and rates, for every path there is.

One table instead of a mark on each route, so that nobody can forget it on a new one: what is not in
the table needs a key. Knows nothing of what the paths answer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.errors import Forbidden, KadogoError, RateLimited, Unauthorized
from service import keys, rate
from service.edge import KEY
from service.keys import UNCHANGED, Key, KeyChanges, Keys
from service.problems import Headers, deliver, refused, request_id_of
from service.rate import Rate, Standing
from service.shared import Row, Rows, of_this_server

# For everybody: probes, which carry no keys; metrics, which are counts and names of variants, and
# which a proxy keeps from the outside; how the API is used, as the repository tells anyway; and the
# page, which has nothing to show until it asks.
OPEN = frozenset({"/", "/docs", "/healthz", "/livez", "/metrics", "/openapi.json", "/readyz"})
OPEN_BELOW = ("/docs/", "/page/", "/v2/health/")
# What changes the server, and every method that is there to change something.
ADMIN_BELOW = (
    *("/v1/routes", "/v1/generations", "/v1/keys", "/v1/check"),
    "/v2/repository/models",
)
ADMIN_METHODS = frozenset({"DELETE", "PATCH", "PUT"})


def scope_of(method: str, path: str) -> keys.Scope | None:
    """What a key must be allowed for this; None: no key is needed."""
    if path in OPEN or path.startswith(OPEN_BELOW):
        return None
    changing = method == "POST" and path.startswith("/v1/variants/")
    if changing or method in ADMIN_METHODS or path.startswith(ADMIN_BELOW):
        return keys.Scope.ADMIN
    return keys.Scope.INFER


class Guard:
    """
    ASGI middleware: without the right key the answer is a problem and nothing behind is reached.

    It looks at headers alone, before a byte of the body is read. So a request costs one of what its
    key may send, however many texts it holds: those are not known yet, and whoever is over his
    limit is to cost nothing. What is refused here costs nothing either.

    keys     those of the file
    changes  what has become of them since
    """

    def __init__(
        self, app: ASGIApp, *, keys: Keys, changes: Callable[[], KeyChanges] = lambda: UNCHANGED
    ) -> None:
        self._app = app
        self._file = self._keys = keys
        self._changes = changes
        self._seen = UNCHANGED
        self._meter = Meter(keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        told: Headers = []
        try:
            key = self._key_of(scope)
            if key is not None and key.rate is not None:
                standing = self._meter.ask(key, key.rate)
                told = fields(key.rate, standing)
                check_rate(key.rate, standing)
        except KadogoError as error:
            request_id = request_id_of(scope["headers"])
            outcome = refused(error, request_id)
            if isinstance(error, Unauthorized):
                told = [(b"www-authenticate", b'Bearer realm="kadogo"')]
            outcome.headers.extend(told)
            await deliver(send, outcome, request_id)
        else:
            KEY.set(key.name if key else None)
            await self._app(scope, receive, _telling(send, told) if told else send)

    def _key_of(self, scope: Scope) -> Key | None:
        """The key by which it may; None where it needs none. Raises `Unauthorized`, `Forbidden`."""
        needed = scope_of(scope["method"], scope["path"])
        if needed is None:
            return None
        token = token_of(scope["headers"])
        if token is None:
            raise Unauthorized("no key came with the request; send it as Authorization: Bearer KEY")
        key = self._now().find(token)
        if key is None:
            raise Unauthorized("the key is not one of this server's; ask who runs it for another")
        if not key.may(needed):
            raise Forbidden(f"the key may not do this; it takes one with the scope {needed}")
        return key

    def _now(self) -> Keys:
        changes = self._changes()
        if changes is not self._seen:
            self._seen, self._keys = changes, self._file.changed(changes)
        return self._keys


def token_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """Of the first header that has one: `Authorization: Bearer TOKEN` or `X-API-Key: TOKEN`."""
    for name, value in headers:
        if name == b"authorization":
            scheme, _, token = value.partition(b" ")
            if scheme.lower() == b"bearer":
                return token.strip()
        elif name == b"x-api-key":
            return value
    return None


class Meter:
    """What every key has sent of late, counted over all processes of this server."""

    def __init__(self, keys: Keys) -> None:
        # One for each, for any may be given a limit while the server serves.
        self._rows = {key.name: row for row, key in enumerate(keys.every)}
        file = of_this_server("spent")
        self._spent = Rows(file, rows=len(keys.every), width=2)

    def ask(self, key: Key, limit: Rate) -> Standing:
        """Send one more, if it may. A row is what is spent, and when that was so."""

        def spend(row: Row) -> tuple[Row, Standing]:
            spent, when = row
            now = time.monotonic()  # one clock for every process of the machine
            spent, standing = rate.ask(spent, now - when, limit)
            return (spent, now), standing

        return self._spent.change(self._rows[key.name], spend)


def check_rate(limit: Rate, standing: Standing) -> None:
    """Raises `RateLimited` where the key may not send this one."""
    if not standing.admitted:
        raise RateLimited(
            f"the key may send {limit.requests} requests in {limit.seconds} s and has done so; "
            "Retry-After says when it may send the next",
            retry_after_s=standing.next_s,
        )


def fields(limit: Rate, standing: Standing) -> Headers:
    """
    The limit and where the key stands, as draft-ietf-httpapi-ratelimit-headers-11 has them: `t` is
    how long no more than `r` can be sent.
    """
    policy = f'"default";q={limit.requests};w={limit.seconds}'
    now = f'"default";r={standing.left};t={max(1, math.ceil(standing.next_s))}'
    return [(b"ratelimit-policy", policy.encode()), (b"ratelimit", now.encode())]


def _telling(send: Send, headers: Headers) -> Send:
    """A `send` that adds them to the answer's own."""

    async def told(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *headers]}
        await send(message)

    return told

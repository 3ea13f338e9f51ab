"""
Routes of those who run the server: what was changed while it served, and changing it.

`guard.py` lets in only keys that may. Knows nothing of how a change is made.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from models.errors import Forbidden, InvalidRequest, MalformedRequest
from service import metrics
from service.bodies import JSON, check_content, in_time, read_body
from service.changes import Changes
from service.edge import CALLER_LEFT, KEY
from service.generation import Generation
from service.job import CallerLeft
from service.keys import COMMAND
from service.problems import Outcome, as_response, request_id_of
from service.schemas import Changed, History, KeyNow, KeysNow, RoutesNow, read_limit

# Far more than anyone writes by hand.
MAX_ROUTES = 1 << 20
MOST_DIGITS = 8  # of a generation's number

Answer = Callable[[Request], Awaitable[object]]


class Admin:
    """Everything here takes a key, also on a server that asks nobody else for one."""

    def __init__(self, changes: Changes, *, body_s: float) -> None:
        self._changes = changes
        self._body_s = body_s

    def routes(self) -> list[BaseRoute]:
        paths: dict[str, dict[str, Answer]] = {
            "/v1/routes": {"GET": self._routes, "PUT": self._route},
            "/v1/generations": {"GET": self._history},
            "/v1/generations/{number}/restore": {"POST": self._restore},
            "/v1/variants/{name}/load": {"POST": self._load},
            "/v1/variants/{name}/unload": {"POST": self._unload},
            "/v1/check": {"POST": self._check},
            "/v1/keys": {"GET": self._keys},
            "/v1/keys/{name}": {"PUT": self._limit, "DELETE": self._revoke},
        }
        # One for each path, so that who comes with another method is told all that it takes.
        return [Route(path, self._json(each), methods=[*each]) for path, each in paths.items()]

    def _json(self, answers: Mapping[str, Answer]) -> Callable[[Request], Awaitable[Response]]:
        async def answered(request: Request) -> Response:
            who()
            try:
                if request.method in ("POST", "DELETE") and await self._body(request):
                    raise InvalidRequest("this takes no body: what it does is in its path")
                method = "GET" if request.method == "HEAD" else request.method
                body = msgspec.json.encode(await answers[method](request))
            except CallerLeft:
                metrics.rejected("caller_left")
                return Response(status_code=CALLER_LEFT)
            outcome = Outcome(200, body, [(b"content-type", JSON)])
            return as_response(outcome, request_id_of(request.scope["headers"]))

        return answered

    async def _body(self, request: Request) -> bytes:
        return await in_time(read_body(request.receive, MAX_ROUTES), self._body_s)

    async def _routes(self, _: Request) -> object:
        current = self._changes.current()
        return RoutesNow(generation=current.number, routes=current.content.routes)

    async def _route(self, request: Request) -> object:
        try:
            text = (await self._body(request)).decode()
        except UnicodeDecodeError:
            raise MalformedRequest("the routes are not UTF-8") from None
        if not text.strip():  # as of a file that was not there
            raise InvalidRequest("the body is empty; to have no routes, send a comment: # none")
        return _changed(await self._changes.route(text, who=who()))

    async def _history(self, _: Request) -> object:
        return History(generations=self._changes.history())

    async def _restore(self, request: Request) -> object:
        number = request.path_params["number"]
        if not number.isdecimal() or len(number) > MOST_DIGITS:
            raise InvalidRequest("generations are numbers, as GET /v1/generations has them")
        return _changed(await self._changes.restore(int(number), who=who()))

    async def _load(self, request: Request) -> object:
        return _changed(await self._changes.load(request.path_params["name"], who=who()))

    async def _unload(self, request: Request) -> object:
        return _changed(await self._changes.unload(request.path_params["name"], who=who()))

    async def _check(self, _: Request) -> object:
        return _changed(await self._changes.check(who=who()))

    async def _keys(self, _: Request) -> object:
        number = self._changes.current().number
        return KeysNow(
            generation=number,
            keys=[
                KeyNow(name=key.name, scopes=key.scopes, rate=key.rate, revoked=revoked)
                for key, revoked in self._changes.every_key()
            ],
        )

    async def _limit(self, request: Request) -> object:
        check_content(request.scope["headers"], MAX_ROUTES)
        rate = read_limit(await self._body(request)).rate
        return _changed(await self._changes.limit(request.path_params["name"], rate, who=who()))

    async def _revoke(self, request: Request) -> object:
        if request.url.query not in ("", "sure=true", "sure=false"):
            raise InvalidRequest("?sure=true is all that can be said here")
        name, sure = request.path_params["name"], request.url.query == "sure=true"
        return _changed(await self._changes.revoke(name, sure=sure, who=who()))


def who() -> str:
    """The name of the key that asks. Raises `Forbidden` where the server asks for none."""
    key = KEY.get()
    if key is None:
        raise Forbidden(
            "a server is changed with a key alone, and this one knows none: make one with "
            f"`{COMMAND} --scope admin >> keys.toml` and start it with KADOGO_KEYS=keys.toml"
        )
    return key


def _changed(generation: Generation) -> Changed:
    return Changed(
        generation=generation.number,
        when=generation.when,
        who=generation.who,
        what=generation.what,
    )

"""
The page at `/`: plain files that ask this server what any caller may ask of it.

They are served to everybody and locked in: nothing comes from elsewhere, nothing written into the
page is run, and no markup is made of text. Knows nothing of what the page asks.
"""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.staticfiles import StaticFiles

# service/page/, beside this file.
FOLDER = Path(__file__).with_suffix("")
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        # Where a browser knows these, whatever would read markup (innerHTML) raises instead.
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    # Kept, and asked after each time: an answer of an older version's page is worth nothing.
    "cache-control": "no-cache",
}


class Page:
    """The page's routes; they are not the API's, so `openapi.py` does not describe them."""

    def __init__(self) -> None:
        self._files = StaticFiles(directory=FOLDER)

    def routes(self) -> list[BaseRoute]:
        return [Route("/", self._index), Route("/page/{name}", self._file)]

    async def _index(self, request: Request) -> Response:
        return await self._get("index.html", request)

    async def _file(self, request: Request) -> Response:
        return await self._get(request.path_params["name"], request)

    async def _get(self, name: str, request: Request) -> Response:
        """Raises Starlette's 404 where there is no such file."""
        response = await self._files.get_response(name, request.scope)
        response.headers.update(HEADERS)
        return response

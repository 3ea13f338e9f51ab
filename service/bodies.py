"""
What comes in, within limits: headers that say what a body is, and the body.

Knows nothing of what it means, or of how a refusal is worded.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import Awaitable, Callable, Iterable

from starlette.types import Receive, Scope

from models.errors import (
    MalformedRequest,
    SlowBody,
    TooLarge,
    UnsupportedContent,
)
from service.job import CallerLeft

JSON = b"application/json"
_JSON_TYPE = re.compile(
    rb"""application/(?:[a-z0-9.+-]+\+)?json\s*(?:;\s*charset="?utf-?8"?\s*)?""", re.IGNORECASE
)
# zlib's window sizes: with gzip's header and, as RFC 9110 defines "deflate", with zlib's.
_WINDOWS = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}
# The body behind these headers, at most so many bytes of it.
Read = Callable[[Scope, Receive, int], Awaitable[bytes]]


async def read_json(scope: Scope, receive: Receive, max_body: int) -> bytes:
    """A JSON body. Raises what `check_content` and `read_body` raise."""
    check_content(scope["headers"], max_body)
    return await read_body(receive, max_body)


def header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """The first of that name, which is written in small letters."""
    return next((value for each, value in headers if each == name), None)


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
        raise slow(body_s) from None


def slow(body_s: float) -> SlowBody:
    return SlowBody(f"the body was not all here within {body_s:g} s; send it faster, or less of it")


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

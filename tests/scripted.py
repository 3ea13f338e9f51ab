"""A server of scripted latencies: what it says and when is known, so measuring can be checked."""

from __future__ import annotations

import asyncio
import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

RIGHT = {"results": [{"entities": []}]}


@dataclass(frozen=True)
class Reply:
    """Status 0: the connection is cut instead. A body that is bytes goes out as it is."""

    after_s: float = 0.0
    status: int = 200
    body: Any = field(default_factory=lambda: RIGHT)
    headers: tuple[str, ...] = ()


def limited(answer_s: float, *, a_second: int, over_s: float) -> Callable[[int], Reply]:
    """
    Each request takes so long, and longer where more came a second since it was last idle, of a
    third of a second at least.
    """
    began = last = -math.inf
    came = 0

    def reply(number: int) -> Reply:
        nonlocal began, last, came
        now = time.monotonic()
        if now - last > 0.3:
            began, came = now, 0
        last, came = now, came + 1
        return Reply(over_s if came > a_second * max(1 / 3, now - began) else answer_s)

    return reply


def desk(a_second: float, *, most_s: float) -> Callable[[int], Reply]:
    """One after another, so many a second; who would wait longer is refused till it is empty."""
    free = 0.0

    def reply(number: int) -> Reply:
        nonlocal free
        now = time.monotonic()
        wait = max(free - now, 0.0) + 1 / a_second
        if wait > most_s:
            return Reply(status=429, body={"retry_after_ms": wait * 1000})
        free = now + wait
        return Reply(wait)

    return reply


def _told(reply: Reply) -> bytes:
    body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
    lines = [f"HTTP/1.1 {reply.status} X", f"Content-Length: {len(body)}", *reply.headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass
class Scripted:
    """
    A running server.

    heads   of the requests, as they came
    bodies  parsed
    """

    url: str = ""
    heads: list[str] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)


def stalls(answer_s: float, *, at: int, stall_s: float) -> Callable[[int], Reply]:
    """Each request takes so long, but from request `at` on nothing is answered for `stall_s`."""
    until = 0.0

    def reply(number: int) -> Reply:
        nonlocal until
        now = time.monotonic()
        if number == at:
            until = now + stall_s
        return Reply(max(answer_s, until - now))

    return reply


@contextmanager
def scripted(
    reply: Callable[[int], Reply], facts: Mapping[str, Any] | None = None
) -> Iterator[Scripted]:
    """
    `reply` is asked what becomes of request 0, 1, ... as it comes.

    facts  path -> what is answered to a GET of it, which is no request in this sense: a body, a
           Reply, or what makes one of them each time
    """
    found = Scripted()
    ready = threading.Event()
    loop = asyncio.new_event_loop()

    async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                if head.startswith("GET "):
                    known = (facts or {}).get(head.split()[1], Reply(status=404))
                    known = known() if callable(known) else known
                    writer.write(_told(known if isinstance(known, Reply) else Reply(body=known)))
                    continue
                length = next(
                    int(line.split(":")[1])
                    for line in head.lower().splitlines()
                    if line.startswith("content-length:")
                )
                body = json.loads(await reader.readexactly(length))
                said = reply(len(found.heads))
                found.heads.append(head)
                found.bodies.append(body)
                await asyncio.sleep(said.after_s)
                if not said.status:
                    break
                writer.write(_told(said))
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()

    async def serve() -> None:
        server = await asyncio.start_server(answered, "127.0.0.1", 0, backlog=1024)
        found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def stop() -> None:
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for each in rest:
            each.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    def live() -> None:
        loop.run_until_complete(serve())
        ready.set()
        loop.run_forever()
        loop.run_until_complete(stop())
        loop.close()

    thread = threading.Thread(target=live)
    thread.start()
    ready.wait()
    try:
        yield found
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()

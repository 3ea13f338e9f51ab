"""
Saturates one route over HTTP: so many connections, each asking again as soon as it is answered.

wrk makes the load where it is installed, since it takes next to nothing of the server's cores; a
small client of ours else. Knows nothing of models or of what the answers say.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from urllib.parse import urlsplit

from build.errors import BuildError
from loadtest import wrk

MARK = '"results"'


@dataclass(frozen=True)
class Load:
    """
    What came back.

    ended_s    when each right answer came, seconds since the load began, ascending
    failures   other answers and broken connections
    generator  cores the load generator itself used
    """

    ended_s: tuple[float, ...]
    failures: int
    generator: float

    def rate(self, *, after_s: float, until_s: float) -> float:
        """
        Right answers a second between two moments.

        Begin after the load is steady: then the work under way at the start makes up for that
        under way at the end.
        """
        return sum(after_s < t <= until_s for t in self.ended_s) / (until_s - after_s)


def generator_name() -> str:
    return "wrk" if wrk.installed() else "a Python client (install wrk for a lighter one)"


def saturate(url: str, bodies: Sequence[bytes], *, connections: int, seconds: float) -> Load:
    """POST the bodies in turn, over and over, for at least `seconds`."""
    if wrk.installed():
        return _wrk(url, bodies, connections, seconds)
    before, began = time.process_time(), time.perf_counter()
    ended, failures = asyncio.run(_callers(url, bodies, connections, seconds))
    cores = (time.process_time() - before) / (time.perf_counter() - began)
    return Load(tuple(sorted(ended)), failures, cores)


def _wrk(url: str, bodies: Sequence[bytes], connections: int, seconds: float) -> Load:
    before, began = _children_s(), time.perf_counter()
    found = wrk.saturate(url, bodies, MARK, connections=connections, seconds=seconds)
    cores = (_children_s() - before) / (time.perf_counter() - began)
    return Load(found.ended_s, found.failed, cores)


def _children_s() -> float:
    """CPU seconds of the child processes that have ended: of servers still running, none."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


async def _callers(
    url: str, bodies: Sequence[bytes], connections: int, seconds: float
) -> tuple[list[float], int]:
    place = urlsplit(url)
    turn = count()
    ended: list[float] = []
    failures = 0
    began = time.perf_counter()

    def request() -> bytes:
        body = bodies[next(turn) % len(bodies)]
        head = (
            f"POST {place.path} HTTP/1.1\r\nHost: {place.netloc}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    async def caller() -> None:
        while time.perf_counter() - began < seconds:
            await connection()

    async def connection() -> None:
        """Asks until the time is up, or the server closes it."""
        nonlocal failures
        try:
            reader, writer = await asyncio.open_connection(place.hostname, place.port)
        except OSError as error:
            raise BuildError(f"{url} takes no connection: {error.strerror or error}") from error
        is_open = True
        try:
            while is_open and time.perf_counter() - began < seconds:
                writer.write(request())
                status, body, is_open = await _answer(reader)
                if status == 200 and MARK.encode() in body:
                    ended.append(time.perf_counter() - began)
                else:
                    failures += 1
        except (OSError, EOFError, ValueError, IndexError):
            failures += 1
        finally:
            writer.close()

    await asyncio.gather(*(caller() for _ in range(connections)))
    return ended, failures


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes, bool]:
    """Status and body of an answer with a Content-Length, and whether more may be asked."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = int(head.split(maxsplit=2)[1])
    length = int(head.split(b"content-length:")[1].split(b"\r\n", 1)[0])
    return status, await reader.readexactly(length), b"connection: close" not in head

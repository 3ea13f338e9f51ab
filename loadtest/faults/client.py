"""
An open-loop HTTP client: requests go out when they are due, whatever has become of those before.

Bare asyncio: a tool that needs half a core for a thousand requests a second cannot share two cores
with what it measures. Knows nothing of what is asked.
"""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from loadtest.arrivals import Poisson, due
from loadtest.record import Unusable
from loadtest.traffic import retry_after_s


@dataclass(frozen=True, slots=True)
class Answer:
    """
    What became of one request; times by `time.perf_counter`.

    due     when it was to go out: latency counts from here
    status  0: the connection broke, or nothing came in time, or no HTTP
    asked   the request's body
    """

    due: float
    sent: float
    done: float
    status: int
    body: bytes
    asked: bytes = b""

    @property
    def latency_s(self) -> float:
        return self.done - self.due

    @property
    def retry_after_s(self) -> float | None:
        """Of a refusal: when it said to come back."""
        return retry_after_s(self.status, self.body)


@dataclass(frozen=True, slots=True)
class Run:
    """
    Some requests that were offered at a rate.

    dropped  for want of connections
    cpu      the client's own share of the machine, 0 to 1
    lag_s    how late the latest of 99 % went out
    """

    answers: tuple[Answer, ...]
    seconds: float
    dropped: int
    cpu: float
    lag_s: float

    @property
    def in_time(self) -> list[Answer]:
        """Right answers before its end: of a closed loop each caller's last one comes after it."""
        begun = min((each.due for each in self.answers), default=0.0)
        end = begun + self.seconds
        return [each for each in self.answers if each.status == 200 and each.done <= end]


class Pool:
    """Connections to one server, one request at a time on each; with its key, where it has one."""

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        most: int = 2048,
        timeout_s: float = 30.0,
        again: bool = True,
    ) -> None:
        """
        again  ask once more where an idle connection was closed just then

        Raises Unusable for anything but http: a key would go out for all to read.
        """
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.path.strip("/"):
            raise Unusable(f"{url} will not do: this client speaks plain http://HOST:PORT")
        self.host, self.port = parts.hostname or "127.0.0.1", parts.port or 80
        self.timeout_s = timeout_s
        self._key = f"Authorization: Bearer {key}\r\n" if key else ""
        self._most = most
        self._again = again
        self._idle: list[_Connection] = []
        self._open = 0

    async def post(
        self, path: str, body: bytes, headers: str = "", *, due: float | None = None
    ) -> Answer | None:
        """None where every connection there may be is busy."""
        sent = time.perf_counter()
        due = sent if due is None else due
        if not self._idle and self._open >= self._most:
            return None
        request = (
            f"POST {path} HTTP/1.1\r\nHost: {self.host}\r\n{self._key}{headers}"
            "Content-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode() + body
        try:
            async with asyncio.timeout(self.timeout_s):
                status, answer = await self._asked(request)
        except (OSError, ValueError):  # ValueError: what came is no HTTP
            return Answer(due, sent, time.perf_counter(), 0, b"", body)
        return Answer(due, sent, time.perf_counter(), status, answer, body)

    async def _asked(self, request: bytes) -> tuple[int, bytes]:
        """Once more where a server closed a connection that was idle just as it was asked again."""
        while True:
            connection = await self._take()
            used = connection.used
            try:
                found = await connection.ask(request)
            except BaseException as error:
                self._open -= 1
                connection.close()
                if isinstance(error, OSError) and used and self._again:
                    continue
                raise
            self._idle.append(connection)
            return found

    def close(self) -> None:
        for connection in self._idle:
            connection.close()

    async def _take(self) -> _Connection:
        """One that is open; it counts as one of the open, until whoever took it says otherwise."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                return connection
            self._open -= 1
        self._open += 1
        loop = asyncio.get_running_loop()
        try:
            _, made = await loop.create_connection(_Connection, self.host, self.port)
        except BaseException:
            self._open -= 1
            raise
        return made


class _Connection(asyncio.Protocol):
    """Reads one answer at a time; ours all say how long they are, others' may come in chunks."""

    def __init__(self) -> None:
        self.closed = self.used = False
        self._transport: Any = None
        self._read = bytearray()
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def data_received(self, data: bytes) -> None:
        try:
            self._received(data)
        except ValueError as error:
            if self._answer is not None and not self._answer.done():
                self._answer.set_exception(error)
            self.close()

    def _received(self, data: bytes) -> None:
        self._read += data
        head, found, rest = self._read.partition(b"\r\n\r\n")
        if not found or self._answer is None:
            return
        lower = head.lower()
        body, length = _body(bytes(lower), bytes(rest))
        if body is None:
            return
        self.closed = b"\r\nconnection: close" in lower
        if not self._answer.done():
            self._answer.set_result((int(head[9:12]), body))
            self.used = True
        self._read = bytearray(rest[length:])

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionResetError())

    def close(self) -> None:
        self.closed = True
        if self._transport is not None:
            self._transport.close()


def _body(head: bytes, rest: bytes) -> tuple[bytes | None, int]:
    """
    The body at the beginning of `rest` and how many bytes of it it takes; None: not all there yet.

    In chunks: 4\\r\\nwiki\\r\\n0\\r\\n\\r\\n  ->  wiki
    """
    if b"\r\ntransfer-encoding: chunked" not in head:
        at = head.find(b"\r\ncontent-length:")
        length = int(head[at + 17 :].partition(b"\r\n")[0]) if at >= 0 else 0
        return (rest[:length], length) if len(rest) >= length else (None, 0)
    body, at = b"", 0
    while (end := rest.find(b"\r\n", at)) >= 0:
        size = int(rest[at:end].partition(b";")[0], 16)
        at = end + 2 + size + 2
        if len(rest) < at:
            return None, 0
        if not size:
            return body, at
        body += rest[end + 2 : at - 2]
    return None, 0


async def offered(
    pool: Pool,
    path: str,
    bodies: Sequence[bytes],
    *,
    rate: float,
    seconds: float,
    headers: str = "",
    seed: int = 1,
) -> Run:
    """Open loop: `rate` requests a second on average, each when it is due."""
    tasks: list[asyncio.Task[Answer | None]] = []
    lags: list[float] = []
    async with _measured() as measured:
        begun = time.perf_counter()
        for number, at in enumerate(due(Poisson(rate), seconds=seconds, seed=seed)):
            moment = begun + at
            wait_s = moment - time.perf_counter()
            if wait_s > 0.0005:
                await asyncio.sleep(wait_s)
            lags.append(max(0.0, time.perf_counter() - moment))
            body = bodies[number % len(bodies)]
            tasks.append(asyncio.ensure_future(pool.post(path, body, headers, due=moment)))
        found = await asyncio.gather(*tasks)
    lags.sort()
    return Run(
        answers=tuple(answer for answer in found if answer),
        seconds=seconds,
        dropped=found.count(None),
        cpu=measured[0],
        lag_s=lags[int(0.99 * (len(lags) - 1))] if lags else 0.0,
    )


async def closed(
    pool: Pool, path: str, bodies: Sequence[bytes], *, callers: int, seconds: float
) -> Run:
    """Closed loop: so many callers, each of whom asks again as soon as he is answered."""
    found: list[Answer] = []
    until = time.perf_counter() + seconds
    numbers = iter(range(10**9))

    async def ask() -> None:
        while time.perf_counter() < until:
            answer = await pool.post(path, bodies[next(numbers) % len(bodies)])
            if answer:
                found.append(answer)

    async with _measured() as measured:
        await asyncio.gather(*(ask() for _ in range(callers)))
    return Run(tuple(found), seconds, 0, measured[0], 0.0)


@asynccontextmanager
async def _measured() -> AsyncIterator[list[float]]:
    """
    The share of the machine that this process took within, once it is over.

    Garbage is not collected meanwhile: after a minute there are a hundred thousand answers to look
    through, and nothing is sent for as long as that takes.
    """
    share: list[float] = []
    gc.collect()
    gc.disable()
    cpu, wall = time.process_time(), time.perf_counter()
    try:
        yield share
    finally:
        gc.enable()
    cores = os.cpu_count() or 1
    share.append((time.process_time() - cpu) / (time.perf_counter() - wall) / cores)

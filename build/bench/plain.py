"""
Plain Starlette servers that reply as Kadogo does: what the same HTTP costs without it.

`python -m build.bench.plain FOLDER --mode MODE --sample TEXT --port N` answers /v1/ner from one
variant with uvicorn, uvloop and httptools. Knows no queue, no batches, no limits, no metrics.
"""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path
from time import perf_counter

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from models import catalog
from models.pipeline import Pipeline
from models.spec import Answer, Options, Task


class Mode(StrEnum):
    """
    What is done between the body of a request and that of its reply.

    INLINE      the JSON is read, the text encoded, run and decoded at once, the reply serialised
    THREADS     the same, the text's part in Starlette's thread pool
    SERIALISED  the JSON is read, a reply made beforehand serialised
    BYTES       nothing: always the same bytes
    """

    INLINE = "inline"
    THREADS = "threads"
    SERIALISED = "serialised"
    BYTES = "bytes"


class Ask(msgspec.Struct):
    inputs: str


class Timing(msgspec.Struct):
    """Milliseconds, as Kadogo gives them; nothing queues here."""

    encode: float
    model: float
    total: float
    queue: float = 0.0


class Reply(msgspec.Struct):
    task: Task
    variant: str
    digest: str
    results: list[Answer]
    timing_ms: Timing
    reason: str = "named"
    rejected: tuple[str, ...] = ()


def app(pipeline: Pipeline, mode: Mode, sample: str) -> Starlette:
    """`sample` warms the pipeline up; the modes that only ever give one answer give its."""
    variant, digest = pipeline.variant, pipeline.variant.digest
    read_ask, options = msgspec.json.Decoder(Ask).decode, Options()

    def reply(text: str) -> Reply:
        began = perf_counter()
        encoded = pipeline.encode(text)
        ready = perf_counter()
        logits = pipeline.run(encoded.windows)
        ran = perf_counter()
        answer = pipeline.decode(encoded, logits, options)
        took = Timing(_ms(ready - began), _ms(ran - ready), _ms(perf_counter() - began))
        return Reply(variant.task, variant.name, digest, [answer], took)

    made = reply(sample)
    made_bytes = msgspec.json.encode(made)

    async def inline(body: bytes) -> bytes:
        return msgspec.json.encode(reply(read_ask(body).inputs))

    async def threads(body: bytes) -> bytes:
        return msgspec.json.encode(await run_in_threadpool(reply, read_ask(body).inputs))

    async def serialised(body: bytes) -> bytes:
        read_ask(body)
        return msgspec.json.encode(made)

    async def same_bytes(_: bytes) -> bytes:
        return made_bytes

    modes: dict[Mode, Callable[[bytes], Awaitable[bytes]]] = {
        Mode.INLINE: inline,
        Mode.THREADS: threads,
        Mode.SERIALISED: serialised,
        Mode.BYTES: same_bytes,
    }
    answer = modes[mode]

    async def ner(request: Request) -> Response:
        return Response(await answer(await request.body()), media_type="application/json")

    async def is_ready(_: Request) -> Response:
        return Response()

    return Starlette(routes=[Route("/v1/ner", ner, methods=["POST"]), Route("/readyz", is_ready)])


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m build.bench.plain", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mode", type=Mode, choices=list(Mode), required=True)
    parser.add_argument("--sample", required=True)
    parser.add_argument("--port", type=int, required=True)
    args = parser.parse_args()
    uvicorn.run(
        app(catalog.open_variant(args.folder), args.mode, args.sample),
        host="127.0.0.1",
        port=args.port,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()

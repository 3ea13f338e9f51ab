"""
Starlette, a pool of threads and onnxruntime: each request runs by itself on the next free thread.

Knows nothing of batches.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from loadtest.peers.ner import Ner
from loadtest.peers.settings import told

TOLD = told()
NER = Ner(TOLD.model, TOLD.settings.intra)
POOL = ThreadPoolExecutor(TOLD.settings.threads)


async def ner(request: Request) -> Response:
    text = msgspec.json.decode(await request.body())["inputs"]
    (entities,) = await asyncio.get_running_loop().run_in_executor(POOL, NER, [text])
    return Response(msgspec.json.encode({"entities": entities}), media_type="application/json")


app = Starlette(routes=[Route("/ner", ner, methods=["POST"])])

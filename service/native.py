"""
The same answers for BentoML's own client: `bentoml.SyncHTTPClient(url).ner(inputs="...")`.

Thin on purpose: the fast routes are those of `api.py`. Knows nothing of queues or models.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any

import msgspec
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from models.errors import DeadlineExceeded, KadogoError
from models.spec import Task
from service import edge, metrics
from service.api import Answers
from service.schemas import convert_ask


class NativeAsk(BaseModel):
    """The body of a request; `parameters` as in /openapi.json."""

    # BentoML logs pydantic's errors whole, and they quote the input unless told not to.
    model_config = ConfigDict(hide_input_in_errors=True)

    inputs: str | list[str]
    variant: str | None = None
    parameters: dict[str, Any] = {}


class NativeReply(BaseModel):
    """The reply of /v1/ner or /v1/classify."""

    task: str
    variant: str
    digest: str
    results: list[dict[str, Any]]
    timing_ms: dict[str, float]


async def reply(answers: Answers, task: Task, ask: dict[str, Any]) -> NativeReply | Response:
    """The reply to `ask`, the fields of a `NativeAsk`; a problem where there is none."""
    started = perf_counter()
    request_id = edge.request_id_of(())
    try:
        async with asyncio.timeout(answers.deadline_s):
            answered = await answers.reply(task, convert_ask(ask), started=started)
    except TimeoutError:
        late = DeadlineExceeded(f"no answer within {answers.deadline_s:g} seconds")
        return _refused(late, task, started, request_id)
    except KadogoError as error:
        return _refused(error, task, started, request_id)
    except Exception as error:
        edge.log_unforeseen(error, request_id)
        return _refused(error, task, started, request_id)
    _count(task, answered.variant, 200, started)
    return NativeReply(**msgspec.to_builtins(answered))


def _refused(error: Exception, task: Task, started: float, request_id: bytes) -> Response:
    outcome = edge.refused(error, request_id)
    _count(task, outcome.variant, outcome.status, started)
    return edge.as_response(outcome, request_id)


def _count(task: Task, variant: str, status: int, started: float) -> None:
    seconds = perf_counter() - started
    metrics.requested(task=task, variant=variant, status=status, seconds=seconds)

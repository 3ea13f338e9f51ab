"""
The same answers for BentoML's own client: `bentoml.SyncHTTPClient(url).ner(inputs="...")`.

Thin on purpose: the fast routes are those of `api.py`. Knows nothing of queues or models.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import bentoml
import msgspec
from bentoml.exceptions import BentoMLException
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.responses import Response

from models.spec import Task
from service import edge, metrics, problems
from service.api import Answers
from service.bodies import JSON
from service.job import CallerLeft
from service.schemas import convert_ask


class NativeAsk(BaseModel):
    """The body of a request; `parameters` as in /openapi.json."""

    # BentoML logs pydantic's errors whole, and they quote the input unless told not to.
    model_config = ConfigDict(hide_input_in_errors=True)

    inputs: str | list[str]
    variant: str | None = None
    policy: dict[str, Any] | None = None
    parameters: dict[str, Any] | None = None


class ServerMistakes(logging.Filter):
    """
    For BentoML's log of exceptions: without those that are the caller's mistake.

    It would write an error with its whole traceback for every bad body.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, ValidationError):
            return not error.title.startswith(NativeAsk.__name__)
        return not isinstance(error, BentoMLException) or error.error_code >= 500


class NativeReply(BaseModel):
    """The reply of /v1/ner or /v1/classify."""

    task: str
    variant: str
    digest: str
    reason: str
    rejected: list[dict[str, Any]]
    results: list[dict[str, Any]]
    timing_ms: dict[str, float]


async def reply(
    answers: Answers, task: Task, ask: dict[str, Any], context: bentoml.Context
) -> NativeReply | Response:
    """
    The reply to `ask`, the fields of a `NativeAsk`; a problem where there is none.

    context  BentoML's: the request's headers are heeded, the answer's are set
    """
    request, response = context.request, context.response
    headers = request.scope["headers"]
    request_id = problems.request_id_of(headers)
    caller = edge.Caller(request_id, request.receive, headers, timeout_s=answers.deadline_s)
    replies: list[NativeReply] = []

    async def answered() -> problems.Outcome:
        caller.read()
        async with asyncio.timeout(caller.timeout_s):
            found = await answers.reply(task, convert_ask(ask, task), caller)
        replies.append(NativeReply(**msgspec.to_builtins(found)))
        return problems.Outcome(200, b"", edge.answer_headers(found, JSON, caller.again))

    status = edge.CALLER_LEFT
    try:
        outcome = await edge.settled(answered(), caller)
        status = outcome.status
    except CallerLeft:
        metrics.rejected("caller_left")
        outcome = problems.Outcome(status, b"", [])
    finally:
        edge.requested(task, caller, status)
    # BentoML puts these over whatever answer it is given.
    response.status_code = status
    for name, value in (*outcome.headers, (b"x-request-id", request_id)):
        response.headers[name.decode()] = value.decode()
    return replies[0] if replies else problems.as_response(outcome, request_id)

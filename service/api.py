"""
Every route as one Starlette app: ner and classify, the surfaces beside them, and what is only read.

Knows nothing of BentoML's service: `app.py` puts this app in front of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Lifespan

from models.errors import KadogoError, NotReady, Overloaded
from models.spec import Options, Task
from service import huggingface, metrics, openapi
from service.admin import Admin
from service.bodies import JSON
from service.changes import Changes
from service.edge import Caller, Post, answer_headers
from service.inference_protocol import InferenceProtocol
from service.keys import Keys
from service.lane import Answered, Lane
from service.lanes import Lanes
from service.page import Page
from service.policy import Decision
from service.problems import Outcome, as_response, page, problem, problem_of, request_id_of
from service.route import Asked
from service.schemas import (
    Ask,
    ClassificationReply,
    NerReply,
    Reply,
    Timing,
    VariantList,
    read_ask,
    texts_of,
)
from service.settings import Settings
from service.shadow import Shadows
from service.side_by_side import SideBySide

PATHS = {Task.NER: "/v1/ner", Task.CLASSIFICATION: "/v1/classify"}
REPLIES: dict[Task, type[Reply]] = {
    Task.NER: NerReply,
    Task.CLASSIFICATION: ClassificationReply,
}


def build(answers: Answers, *, lifespan: Lifespan[Starlette] | None = None) -> Starlette:
    """The app. Whoever calls it starts the lanes and closes them, here or in `lifespan`."""
    hot: list[BaseRoute] = [
        Route(path, answers.endpoint(task), methods=["POST"]) for task, path in PATHS.items()
    ]
    app = Starlette(
        routes=[
            *hot,
            *answers.others(),
            *Admin(answers.changes, body_s=answers.body_s).routes(),
            *Pages(answers.lanes).routes(),
            *Page().routes(),
        ],
        exception_handlers={HTTPException: problem, KadogoError: problem, Exception: problem},
        lifespan=lifespan,
    )
    # A slash too many is no path, as any other: Starlette would send the caller on, without a body
    # or a request id, to wherever his Host says, and by http.
    app.router.redirect_slashes = False
    return app


class Answers:
    """
    From what was asked to what is replied; HTTP and BentoML's client share it.

    keys  of the file that guards the server, where there is one
    """

    def __init__(self, lanes: Lanes, settings: Settings, keys: Keys | None = None) -> None:
        self.lanes = lanes
        self.changes = Changes(lanes, keys or Keys())
        self.shadows = Shadows(self.changes.judge)
        self.deadline_s = settings.deadline_ms / 1000
        self.body_s = settings.body_s
        self._settings = settings

    async def reply(self, task: Task, ask: Ask, caller: Caller) -> Reply:
        """The answer to `ask`. Raises a `KadogoError`, or `CallerLeft`."""
        settings = self._settings
        texts = texts_of(ask, max_inputs=settings.max_inputs, max_text=settings.max_text)
        lane, decision, answered = await self._answered(task, ask, texts, caller)
        caller.again = decision.again
        self._shadow(decision, lane, texts, ask.options, answered)
        return _reply(lane, decision, answered, perf_counter() - caller.started)

    async def _answered(
        self, task: Task, ask: Ask, texts: list[str], caller: Caller
    ) -> tuple[Lane, Decision, Answered]:
        """By whom it is decided, or by who is below where a queue is full."""
        asked = Asked(
            task=task,
            variant=ask.variant,
            policy=ask.policy,
            key=caller.key,
            number=caller.request_id.decode(),
            header=caller.header,
        )
        lane, decision = self.lanes.choose(asked, sum(map(len, texts)), caller.priority)
        while True:
            caller.variant = lane.variant.name
            try:
                answered = await lane.answer(
                    texts,
                    ask.options,
                    deadline=caller.deadline,
                    key=caller.key,
                    priority=caller.priority,
                    leaving=caller.leaving,
                )
            except Overloaded:
                if not decision.smaller:
                    raise
                decision = self.lanes.below(decision, 1, "its queue is full", "refused")
                smaller = self.lanes.lane(decision.variant.name)
                if smaller is None:  # unloaded meanwhile
                    raise
                lane = smaller
            else:
                return lane, decision, answered

    def _shadow(
        self, decision: Decision, lane: Lane, texts: list[str], options: Options, given: Answered
    ) -> None:
        """Who reads along, where the decision says so, is compared with who answered."""
        if decision.shadow is None or decision.shadow.name == lane.variant.name:
            return
        reader = self.lanes.lane(decision.shadow.name)
        if reader is None:  # unloaded meanwhile
            return
        trial = self.lanes.trial(decision.trial) if decision.trial else None
        on_trial = (decision.trial, trial) if decision.trial and trial else None
        self.shadows.begin(
            reader, texts, options, given=given, by=lane.variant.name, trial=on_trial
        )

    async def outcome(
        self,
        task: Task,
        ask: Ask,
        caller: Caller,
        written: Callable[[Reply], bytes] = msgspec.json.encode,
    ) -> Outcome:
        """The reply to `ask` as `written`, with headers that tell what answered and how fast."""
        reply = await self.reply(task, ask, caller)
        return _outcome(reply, written(reply), caller.again)

    def endpoint(self, task: Task) -> Post:
        """POST of an `Ask` as JSON."""

        async def answer(body: bytes, caller: Caller) -> Outcome:
            return await self.outcome(task, read_ask(body, task), caller)

        return Post(
            answer,
            task=task,
            max_body=self._settings.max_body,
            deadline_s=self.deadline_s,
            body_s=self.body_s,
        )

    def others(self) -> list[BaseRoute]:
        """The answers in other shapes: Hugging Face's, Triton's, several variants' side by side."""
        models = huggingface.Models(self.lanes, self._settings, self.outcome)
        compare = SideBySide(self.lanes, self._settings).endpoint()
        return [
            *InferenceProtocol(self.lanes, self._settings, self.reply, self.changes).routes(),
            Route("/models/{variant:path}", models, methods=["POST"]),
            Route("/v1/compare", compare, methods=["POST"]),
        ]


def _reply(lane: Lane, decision: Decision, answered: Answered, total_s: float) -> Reply:
    variant = lane.variant
    return REPLIES[variant.task](
        task=variant.task,
        variant=variant.name,
        digest=lane.digest,
        reason=decision.reason,
        rejected=decision.rejected,
        results=answered.answers,
        timing_ms=Timing.of_seconds(
            queue=answered.queue_s,
            encode=answered.encode_s,
            model=answered.model_s,
            total=total_s,
        ),
    )


def _outcome(reply: Reply, body: bytes, again: str | None) -> Outcome:
    return Outcome(200, body, answer_headers(reply, JSON, again))


class Pages:
    """Everything that is only read."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._openapi = openapi.document()

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/v1/variants", page(self._variants)),
            Route("/v1/variants/{name}", page(self._variant)),
            Route("/v1/status", page(self._status)),
            Route("/livez", self._alive),
            Route("/healthz", self._alive),
            Route("/readyz", self._ready),
            Route("/metrics", self._metrics),
            Route("/openapi.json", self._openapi_json),
            Route("/docs", self._docs),
            Mount("/docs/assets", StaticFiles(directory=openapi.assets(), check_dir=False)),
        ]

    def _variants(self, _: Request) -> object:
        return VariantList(variants=self._lanes.summaries())

    def _variant(self, request: Request) -> object:
        return self._lanes.detail(request.path_params["name"])

    def _status(self, _: Request) -> object:
        return self._lanes.status()

    async def _alive(self, _: Request) -> Response:
        return PlainTextResponse("\n")

    async def _ready(self, request: Request) -> Response:
        """A probe told "not yet" is no request refused: it is not counted as one."""
        wrong = self._lanes.unready
        if wrong is None:
            return PlainTextResponse("\n")
        request_id = request_id_of(request.scope["headers"])
        return as_response(problem_of(NotReady(wrong), request_id), request_id)

    async def _metrics(self, _: Request) -> Response:
        exposition = await asyncio.to_thread(metrics.exposition)
        return Response(exposition, media_type=metrics.CONTENT_TYPE_LATEST)

    async def _openapi_json(self, _: Request) -> Response:
        return Response(self._openapi, media_type=JSON.decode())

    async def _docs(self, _: Request) -> Response:
        return HTMLResponse(openapi.PAGE)

"""
Open Inference Protocol v2 over HTTP with Triton's extensions, so that `tritonclient.http` works
as it is: a variant is a model, and its digest the model's only version.

Knows nothing of queues, batches or BentoML.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from math import inf
from time import perf_counter
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope

from models.errors import (
    InvalidRequest,
    KadogoError,
    MalformedRequest,
    NotReady,
    UnknownVariant,
)
from models.spec import Task, Variant
from service import metrics
from service.admin import who
from service.bodies import JSON, check_content, header, inflated, read_body
from service.changes import Changes
from service.edge import Caller, Post, answer_headers
from service.forms import FieldError, FieldsInvalid, decoded
from service.inference_schemas import (
    OUTPUTS,
    ChangeRequest,
    IndexRequest,
    Live,
    ModelReady,
    Ready,
    ServerMetadata,
    config,
    entry,
    metadata,
)
from service.lane import Lane
from service.lanes import Lanes
from service.problems import (
    Outcome,
    as_json,
    as_response,
    error_alone,
    page,
    problem_of,
    request_id_of,
)
from service.schemas import (
    Ask,
    Reply,
    State,
    VariantStatus,
    convert_ask,
    texts_of,
)
from service.settings import Settings
from service.statistics import ModelStatsList, statistics
from service.tensors import (
    TEXTS_AT,
    Datatype,
    InferRequest,
    InferResponse,
    Tensor,
    read_request,
    split,
    texts_in,
    written,
)

# A variant's paths; without a version it is the one there is.
MODELS = ("/v2/models/{name}", "/v2/models/{name}/versions/{version}")
BINARY = b"application/octet-stream"
# Where the JSON of a body ends and binary tensors begin.
HEADER_LENGTH = "inference-header-content-length"
# The protocol's own parameters of a request; all others are ours.
_PARAMETERS = ("binary_data_output", "timeout")

T = TypeVar("T", bool, int)
Replying = Callable[[Task, Ask, Caller], Awaitable[Reply]]


class InferenceProtocol:
    """Every route below `/v2`. `reply` answers an `Ask`, as for the other surfaces."""

    def __init__(self, lanes: Lanes, settings: Settings, reply: Replying, changes: Changes) -> None:
        self._changes = changes
        self._lanes = lanes
        self._reply = reply
        self._settings = settings

    def routes(self) -> list[BaseRoute]:
        settings = self._settings

        def post(path: str, answer: Callable[[bytes, Caller], Awaitable[Outcome]]) -> Route:
            endpoint = Post(
                answer,
                max_body=settings.max_body,
                deadline_s=settings.deadline_ms / 1000,
                body_s=settings.body_s,
                read=read_tensors,
                retold=retold,
            )
            return Route(path, endpoint, methods=["POST"])

        routes: list[BaseRoute] = [
            Route("/v2", page(lambda _: ServerMetadata())),
            Route("/v2/health/live", page(lambda _: Live(True))),
            Route("/v2/health/ready", self._ready),
            Route("/v2/models/stats", self._stats),
            post("/v2/repository/index", self._index),
            post("/v2/repository/models/{name}/load", self._load),
            post("/v2/repository/models/{name}/unload", self._unload),
        ]
        for model in MODELS:
            routes += [
                Route(model, page(self._metadata)),
                Route(f"{model}/ready", self._model_ready),
                Route(f"{model}/config", page(self._config)),
                Route(f"{model}/stats", self._stats),
                post(f"{model}/infer", self._infer),
            ]
        return routes

    async def _infer(self, body: bytes, caller: Caller) -> Outcome:
        variant = self._lane(caller.path).variant
        caller.task, caller.variant = variant.task, variant.name
        said, binary = split(body, _header_length(caller))
        request = read_request(said)
        outputs = wanted(request, variant.task)
        settings = self._settings
        caller.timeout_s = min(caller.timeout_s, _timeout_s(request))
        max_inputs, max_text = settings.max_inputs, settings.max_text
        ask = ask_of(request, texts_in(request, binary, most=max_inputs), variant)
        # Says better than `reply` where in the body a bad text is.
        texts_of(ask, max_inputs=max_inputs, max_text=max_text, pointer=TEXTS_AT)
        async with asyncio.timeout(caller.deadline - perf_counter()):
            reply = await self._reply(variant.task, ask, caller)
        return _outcome(request.id, reply, outputs, caller.again)

    async def _index(self, body: bytes, _: Caller) -> Outcome:
        asked = _index_request(body)
        variants = self._variants().items()
        index = [
            entry(name, status)
            for name, status in variants
            if status.state is State.READY or not asked.ready
        ]
        return Outcome(200, msgspec.json.encode(index), [(b"content-type", JSON)])

    async def _load(self, body: bytes, caller: Caller) -> Outcome:
        _check_change(body)
        await self._changes.load(caller.path["name"], who=who())
        return Outcome(200, b"", [])

    async def _unload(self, body: bytes, caller: Caller) -> Outcome:
        _check_change(body)
        await self._changes.unload(caller.path["name"], who=who())
        return Outcome(200, b"", [])

    async def _stats(self, request: Request) -> Response:
        """Of the variant in the path, or of all that serve."""
        if "name" in request.path_params:
            lane = self._lane(request.path_params)
            digests = {lane.variant.name: lane.digest}
        else:
            variants = self._variants().items()
            digests = {n: v.digest or "" for n, v in variants if v.state is State.READY}
        samples = await asyncio.to_thread(metrics.counted)
        stats = [statistics(name, digest, samples) for name, digest in digests.items()]
        return as_json(request, ModelStatsList(model_stats=stats))

    async def _ready(self, request: Request) -> Response:
        wrong = self._lanes.unready
        return (
            as_json(request, Ready(True)) if wrong is None else _not_yet(request, NotReady(wrong))
        )

    async def _model_ready(self, request: Request) -> Response:
        try:
            lane = self._lane(request.path_params)
        except KadogoError as error:
            return _not_yet(request, error)
        return as_json(request, ModelReady(lane.variant.name, True))

    def _metadata(self, request: Request) -> object:
        return metadata(self._lane(request.path_params).variant)

    def _config(self, request: Request) -> object:
        return config(self._lane(request.path_params).variant, self._settings)

    def _lane(self, path: Mapping[str, str]) -> Lane:
        """Raises what `Lanes.named` raises, and `UnknownVariant` for another version."""
        lane = self._lanes.named(path["name"])
        if path.get("version", lane.digest) != lane.digest:
            raise UnknownVariant(f"{lane.variant.name} is here in version {lane.digest} only")
        return lane

    def _variants(self) -> dict[str, VariantStatus]:
        """Every variant of the catalog. Raises `NotReady`."""
        if self._lanes.state is State.LOADING:
            raise NotReady("the models are still loading")
        return self._lanes.status().variants


async def read_tensors(scope: Scope, receive: Receive, max_body: int) -> bytes:
    """
    JSON, perhaps with binary tensors after it, perhaps compressed: as it was before that.

    Not refused for being called binary: Triton's asynchronous client calls everything so.
    """
    headers = scope["headers"]
    check_content(headers, max_body, also=BINARY, compressed=True)
    body = await read_body(receive, max_body)
    encoding = (header(headers, b"content-encoding") or b"identity").lower()
    if encoding == b"identity":
        return body
    return await asyncio.to_thread(inflated, body, encoding, max_body)


def retold(problem: Outcome) -> Outcome:
    """A problem as the protocol words it; it knows no 422."""
    told = error_alone(problem)
    return told._replace(status=400) if told.status == InvalidRequest.status else told


def wanted(request: InferRequest, task: Task) -> dict[str, bool]:
    """
    The outputs to answer with, and whether in binary; all there are where none are named.

    Raises `FieldsInvalid` for one there is not, or named twice.
    """
    always = _parameter(request, "binary_data_output", bool) or False
    if not request.outputs:
        return dict.fromkeys(OUTPUTS[task], always)
    found: dict[str, bool] = {}
    for index, output in enumerate(request.outputs):
        pointer = f"/outputs/{index}/name"
        if output.name not in OUTPUTS[task]:
            known = ", ".join(OUTPUTS[task])
            raise FieldsInvalid(FieldError(pointer, f"no such output; {task} has {known}"))
        if output.name in found:
            raise FieldsInvalid(FieldError(pointer, f"{output.name} is asked for twice"))
        binary = output.parameters.binary_data if output.parameters else None
        found[output.name] = always if binary is None else binary
    return found


def ask_of(request: InferRequest, texts: list[str], variant: Variant) -> Ask:
    """The request in our own words. Raises `FieldsInvalid` for parameters that will not do."""
    given = {n: v for n, v in (request.parameters or {}).items() if n not in _PARAMETERS}
    if "aggregation_strategy" in given and "aggregation" not in given:
        given["aggregation"] = given.pop("aggregation_strategy")
    said = {"inputs": texts, "variant": variant.name, "parameters": given}
    return convert_ask(said, variant.task, strict=False)


def _parameter(request: InferRequest, name: str, kind: type[T]) -> T | None:
    value = (request.parameters or {}).get(name)
    if value is not None and type(value) is not kind:
        raise FieldsInvalid(FieldError(f"/parameters/{name}", f"it is a {kind.__name__}"))
    return value


def _timeout_s(request: InferRequest) -> float:
    """Triton's `timeout`, in microseconds; 0 is none."""
    microseconds = _parameter(request, "timeout", int) or 0
    if not 0 <= microseconds < 1 << 63:
        raise FieldsInvalid(FieldError("/parameters/timeout", "it is in microseconds, 0 or more"))
    return microseconds / 1e6 or inf


def _header_length(caller: Caller) -> int | None:
    value = caller.header(HEADER_LENGTH)
    if value is None:
        return None
    if not (value.isascii() and value.isdigit()) or len(value) > 15:
        raise MalformedRequest("Inference-Header-Content-Length is a number of bytes")
    return int(value)


def _outcome(
    request_id: str | None, reply: Reply, outputs: Mapping[str, bool], again: str | None
) -> Outcome:
    pairs = [
        written(_tensor(reply, name, OUTPUTS[reply.task][name]), binary=binary)
        for name, binary in outputs.items()
    ]
    took = msgspec.structs.asdict(reply.timing_ms)
    response = InferResponse(
        model_name=reply.variant,
        model_version=reply.digest,
        id=request_id,
        parameters={f"{stage}_ms": milliseconds for stage, milliseconds in took.items()},
        outputs=[output for output, _ in pairs],
    )
    said = msgspec.json.encode(response)
    after = b"".join(binary for _, binary in pairs)
    if not after:
        return Outcome(200, said, answer_headers(reply, JSON, again))
    headers = answer_headers(reply, BINARY, again)
    headers.append((HEADER_LENGTH.encode(), b"%d" % len(said)))
    return Outcome(200, said + after, headers)


def _tensor(reply: Reply, name: str, datatype: Datatype) -> Tensor:
    """One of `OUTPUTS`. A text whose labels were all below min_score has the label "", score 0."""
    results = reply.results
    values: list[Any]
    match name:
        case "label":
            values = [each.labels[0].label if each.labels else "" for each in results]
        case "score":
            values = [each.labels[0].score if each.labels else 0.0 for each in results]
        case _:
            values = [msgspec.json.encode(getattr(each, name)).decode() for each in results]
    return Tensor(name, datatype, values)


_index_decoder = msgspec.json.Decoder(IndexRequest)
_change_decoder = msgspec.json.Decoder(ChangeRequest)


def _index_request(body: bytes) -> IndexRequest:
    """Nothing at all asks for everything, as Triton has it."""
    if not body:
        return IndexRequest()
    try:
        return decoded(body, _index_decoder)
    except msgspec.ValidationError:
        raise FieldsInvalid(FieldError("", 'it is {} or {"ready": true}')) from None


def _check_change(body: bytes) -> None:
    """Triton's clients may send files and settings with it; ours come from the catalog alone."""
    if not body:
        return
    try:
        decoded(body, _change_decoder)
    except msgspec.ValidationError:
        raise FieldsInvalid(
            FieldError("", "a variant is what its folder in the catalog holds: send nothing else")
        ) from None


def _not_yet(request: Request, error: KadogoError) -> Response:
    """A probe told "not yet" is no request refused: it is not counted as one."""
    request_id = request_id_of(request.scope["headers"])
    return as_response(error_alone(problem_of(error, request_id)), request_id)

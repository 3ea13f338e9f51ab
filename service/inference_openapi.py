"""
Open Inference Protocol v2 described: the part of the API's description below `/v2`.

Knows nothing of what answers.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from service.inference_schemas import (
    ChangeRequest,
    IndexEntry,
    IndexRequest,
    Live,
    ModelConfig,
    ModelMetadata,
    ModelReady,
    Ready,
    ServerMetadata,
)
from service.schemas import Error, NerReply
from service.statistics import ModelStatsList
from service.tensors import InferRequest, InferResponse, OutputTensor

TAG = {
    "name": "Open Inference Protocol",
    "description": "A variant is a model, its digest the model's only version. An error is "
    '`{"error": "..."}`.',
}
SHAPES: tuple[Any, ...] = (
    *(ServerMetadata, Live, Ready, ModelMetadata, ModelReady, ModelConfig, ModelStatsList),
    *(InferRequest, InferResponse, IndexRequest, list[IndexEntry], ChangeRequest),
)

_MODELS = ("/v2/models/{name}", "/v2/models/{name}/versions/{version}")
_REFUSALS = {
    400: "The body is not JSON in UTF-8, or its tensors, outputs or parameters will not do.",
    404: "No such variant, or not in this version; the answer says what there is.",
    409: "It cannot be done; what served before serves on.",
    413: "Too many texts, too long a text, too large a body, or more than the queue holds.",
    415: "Neither JSON nor `application/octet-stream`, or an encoding we do not read.",
    429: "The queue is full. Retry-After comes from the measured rate of work.",
    500: "A mistake of ours; the log has it under the request's id.",
    503: "Not ready, or the variant is quarantined.",
    504: "The deadline or `timeout` passed; the work was dropped.",
}
_HEADER_LENGTH = "Inference-Header-Content-Length"
_LENGTH = {
    "description": "Bytes of JSON before the binary tensors.",
    "schema": {"type": "integer", "minimum": 1},
}


def paths(ref: dict[Any, Any], headers: list[Any], example: tuple[str, NerReply]) -> dict[str, Any]:
    """
    ref      where the `SHAPES` and `Error` are described
    headers  that a request for an answer may have
    example  a text and the reply to it
    """
    found = {
        "/v2": _get("server", "The server and its extensions", ref, ServerMetadata),
        "/v2/health/live": _get("live", "The process answers", ref, Live),
        "/v2/health/ready": _get("ready", "As /readyz", ref, Ready, 503),
        "/v2/models/stats": _get("all_stats", "Every variant's counts", ref, ModelStatsList, 503),
        "/v2/repository/index": _index(ref),
        "/v2/repository/models/{name}/load": _change(
            "load_model", "Serve the variant as its folder in the catalog is now", ref
        ),
        "/v2/repository/models/{name}/unload": _change(
            "unload_model", "Serve the variant no longer", ref
        ),
    }
    for path in _MODELS:
        end = "_version" if "version" in path else ""
        found |= {
            path: _get(f"model{end}", "Inputs and outputs", ref, ModelMetadata, 404, 503),
            f"{path}/ready": _get(
                f"model_ready{end}", "Whether the variant answers", ref, ModelReady, 404, 503
            ),
            f"{path}/config": _get(
                f"model_config{end}", "As Triton configures it", ref, ModelConfig, 404, 503
            ),
            f"{path}/stats": _get(
                f"model_stats{end}", "The variant's counts", ref, ModelStatsList, 404, 503
            ),
            f"{path}/infer": _infer(f"infer{end}", ref, headers, example),
        }
    for path, methods in found.items():
        for operation in methods.values():
            operation["parameters"] = [*_in_path(path), *operation.get("parameters", ())]
    return found


def _infer(
    operation: str, ref: dict[Any, Any], headers: list[Any], example: tuple[str, NerReply]
) -> dict[str, Any]:
    text, reply = example
    tensor = {"name": "text", "datatype": "BYTES", "shape": [1], "data": [text]}
    asked = {"id": "1", "inputs": [tensor], "outputs": [{"name": "entities"}]}
    binary: dict[str, Any] = {"application/octet-stream": {}}
    answered = {
        "description": "A row for each text, in their order; in binary where that was asked for.",
        "headers": {
            **_headers("X-Request-ID", "X-Variant", "Server-Timing"),
            _HEADER_LENGTH: _LENGTH,
        },
        "content": {**_json(ref[InferResponse], example=_answered(reply)), **binary},
    }
    body = {"required": True, "content": {**_json(ref[InferRequest], example=asked), **binary}}
    post = {
        **_about(operation, "Find entities or topics"),
        "parameters": [*headers, {"name": _HEADER_LENGTH, "in": "header", **_LENGTH}],
        "requestBody": body,
        "responses": {"200": answered, **_refusals(ref, *_REFUSALS)},
    }
    return {"post": post}


def _answered(reply: NerReply) -> Any:
    """The example's answer, as this surface gives it."""
    entities = msgspec.json.encode(reply.results[0].entities).decode()
    took = msgspec.structs.asdict(reply.timing_ms)
    return msgspec.to_builtins(
        InferResponse(
            model_name=reply.variant,
            model_version=reply.digest,
            id="1",
            parameters={f"{stage}_ms": milliseconds for stage, milliseconds in took.items()},
            outputs=[OutputTensor(name="entities", datatype="BYTES", shape=[1], data=[entities])],
        )
    )


def _index(ref: dict[Any, Any]) -> dict[str, Any]:
    post = {
        **_about("index", "Every variant and its state"),
        "requestBody": {"content": _json(ref[IndexRequest])},
        "responses": {
            "200": _found("Every variant and its state", ref[list[IndexEntry]]),
            **_refusals(ref, 400, 413, 415, 503),
        },
    }
    return {"post": post}


def _change(operation: str, summary: str, ref: dict[Any, Any]) -> dict[str, Any]:
    done = {"description": "Every worker has done it.", "headers": _headers("X-Request-ID")}
    post = {
        **_about(operation, summary),
        "parameters": [
            {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
        ],
        "requestBody": {"content": _json(ref[ChangeRequest])},
        "responses": {"200": done, **_refusals(ref, 400, 404, 409, 413, 415, 503, 504)},
    }
    return {"post": post}


def _get(
    operation: str, summary: str, ref: dict[Any, Any], kind: type[msgspec.Struct], *statuses: int
) -> dict[str, Any]:
    """`statuses`: of its refusals."""
    responses = {"200": _found(summary, ref[kind]), **_refusals(ref, *statuses)}
    return {"get": {**_about(operation, summary), "responses": responses}}


def _about(operation: str, summary: str) -> dict[str, Any]:
    return {"operationId": f"v2_{operation}", "summary": summary, "tags": [TAG["name"]]}


def _in_path(path: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", path)
    ]


def _found(summary: str, schema: Any) -> dict[str, Any]:
    return {
        "description": f"{summary}.",
        "headers": _headers("X-Request-ID"),
        "content": _json(schema),
    }


def _refusals(ref: dict[Any, Any], *statuses: int) -> dict[str, Any]:
    return {
        str(status): {
            "description": _REFUSALS[status],
            "headers": _headers("X-Request-ID", *(["Retry-After"] if status in (429, 503) else [])),
            "content": _json(ref[Error]),
        }
        for status in statuses
    }


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _json(schema: Any, **more: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema, **more}}

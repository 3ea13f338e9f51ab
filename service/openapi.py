"""
The API described: one OpenAPI 3.1 document from the schemas, and the page that shows it.

Knows nothing of what answers; the page loads nothing from elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import bentoml
import msgspec

from models.spec import (
    ClassificationAnswer,
    Entity,
    LabelScore,
    NerAnswer,
    Task,
)
from service import inference_openapi
from service.compare import entities_compared
from service.forms import FieldError
from service.guard import scope_of
from service.huggingface import (
    TextClassificationInput,
    TokenClassificationInput,
    TokenGroup,
    TokenPiece,
)
from service.policy import Rejected
from service.schemas import (
    PARAMETERS,
    VERSION,
    Changed,
    ClassificationAsk,
    ClassificationReply,
    Error,
    History,
    KeyLimit,
    KeysNow,
    NerAsk,
    NerReply,
    Problem,
    RoutesNow,
    Status,
    Timing,
    VariantDetail,
    VariantList,
)
from service.side_by_side import (
    ClassificationCompareReply,
    CompareAsk,
    Compared,
    NerCompareReply,
    Tally,
)

TITLE = "Kadogo"
SUMMARY = "Named entities and topics of texts in African languages, from small models."
DESCRIPTION = """\
Offsets are into the caller's own string: `text[start:end]` is the entity. Long texts are read in
overlapping windows, never cut. Errors are problems as RFC 9457 has them and repeat no text.
`bentoml.SyncHTTPClient(url).ner(inputs="...")` and `.classify(...)` give the same answers; what
they send is in `/docs.json`. Below `/v2` is the Open Inference Protocol with Triton's extensions,
as `tritonclient.http` speaks it."""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Kadogo API</title>
<link rel="icon" href="page/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="docs/assets/swagger-ui.css">
</head>
<body>
<noscript>The same as JSON: <a href="openapi.json">openapi.json</a></noscript>
<div id="swagger-ui"></div>
<script src="docs/assets/swagger-ui-bundle.js" charset="utf-8"></script>
<script>
window.ui = SwaggerUIBundle({url: "openapi.json", dom_id: "#swagger-ui", validatorUrl: null});
</script>
</body>
</html>
"""

_PROBLEM = "application/problem+json"
_TIMING = Timing(queue=0.05, encode=0.21, model=3.4, total=3.9)
_DIGEST = "0123456789abcdef"

# What the embedded variants really answer: tests/test_openapi.py asks them.
_NER_ASK = {
    "inputs": "Shugaba Bola Tinubu ya gana da gwamnan Kano a Abuja ranar Litinin.",
    "variant": "ner-int8",
}
_NER_REPLY = NerReply(
    task=Task.NER,
    variant="ner-int8",
    digest=_DIGEST,
    reason="named",
    rejected=(),
    results=[
        NerAnswer(
            entities=(
                Entity(label="PER", start=8, end=19, text="Bola Tinubu", score=0.958),
                Entity(label="LOC", start=39, end=43, text="Kano", score=0.924),
                Entity(label="LOC", start=46, end=51, text="Abuja", score=0.944),
                Entity(label="DATE", start=52, end=65, text="ranar Litinin", score=0.949),
            ),
            tokens=14,
            windows=1,
            unknown=0.0,
        )
    ],
    timing_ms=_TIMING,
)
_NEWS_ASK = {
    "inputs": ["Yan wasan Kano Pillars sun doke Enyimba da ci biyu da nema a gasar firimiya."],
    "policy": {"prefer": "smallest", "max_f1_drop": 0.01, "language": "hau"},
    "parameters": {"top_k": 2},
}
_NEWS_REPLY = ClassificationReply(
    task=Task.CLASSIFICATION,
    variant="news-distilled-int8",
    digest=_DIGEST,
    reason="smallest of 3 that satisfy max_f1_drop 0.01 for hau",
    rejected=(
        Rejected(
            variant="news-tiny", reason="F1 for hau may be 0.022 below the baseline, not under 0.01"
        ),
    ),
    results=[
        ClassificationAnswer(
            labels=(
                LabelScore(label="sports", score=0.995),
                LabelScore(label="entertainment", score=0.002),
            ),
            tokens=23,
            windows=1,
            unknown=0.0,
        )
    ],
    timing_ms=_TIMING,
)
_COMPARE_ASK = {
    "inputs": "Waziri Juma Mwakyusa alikutana na viongozi wa kaunti ya Mombasa siku ya Jumatatu.",
    "variants": ["ner-base", "ner-tiny"],
}


def _side(*found: tuple[str, str, float]) -> NerAnswer:
    text = str(_COMPARE_ASK["inputs"])
    entities = tuple(
        Entity(
            label=label,
            start=text.index(name),
            end=text.index(name) + len(name),
            text=name,
            score=score,
        )
        for label, name, score in found
    )
    return NerAnswer(entities=entities, tokens=21, windows=1, unknown=0.0)


def _beside(variant: str, *alike: int, share: float, model_ms: float) -> Compared:
    return Compared(
        variant=variant,
        digest=_DIGEST,
        agreement=Tally(both=alike[0], reference=alike[1], variant=alike[2], share=share),
        timing_ms=Timing(queue=0.05, encode=0.21, model=model_ms, total=model_ms + 0.5),
    )


_COMPARE_REPLY = NerCompareReply(
    task=Task.NER,
    reference="ner-base",
    variants=[
        _beside("ner-base", 3, 0, 0, share=1.0, model_ms=6.4),
        _beside("ner-tiny", 2, 1, 1, share=0.6666666666666666, model_ms=0.5),
    ],
    results=[
        entities_compared(
            {
                "ner-base": _side(
                    ("PER", "Juma Mwakyusa", 0.848),
                    ("LOC", "Mombasa", 0.873),
                    ("DATE", "Jumatatu", 0.939),
                ),
                "ner-tiny": _side(
                    ("DATE", "Juma", 0.549),
                    ("LOC", "Mombasa", 0.827),
                    ("DATE", "Jumatatu", 0.818),
                ),
            }
        )
    ],
)
_HUB_ASK = {
    "inputs": "Shugaba Bola Tinubu ya gana da gwamnan Kano a Abuja ranar Litinin.",
    "parameters": {"aggregation_strategy": "simple"},
}
_HUB_REPLY = [
    TokenGroup(entity_group="PER", score=0.958, word="Bola Tinubu", start=8, end=19),
    TokenGroup(entity_group="LOC", score=0.924, word="Kano", start=39, end=43),
    TokenGroup(entity_group="LOC", score=0.944, word="Abuja", start=46, end=51),
    TokenGroup(entity_group="DATE", score=0.95, word="ranar Litinin", start=52, end=65),
]
_INVALID = Problem(
    type="urn:kadogo:problem:invalid_request",
    title="Invalid request",
    status=422,
    detail="/inputs/1: the text is empty",
    request_id="6f1c0b6a2f3d4e58",
    errors=[FieldError("/inputs/1", "the text is empty")],
)

_REFUSALS = {
    400: "The body is not JSON in UTF-8.",
    404: "No such variant, or it serves another task; the answer names those that do.",
    408: "The body was not all here within `KADOGO_BODY_S`.",
    409: "No variant satisfies the policy; `nearest` come first that miss by least.",
    413: "Too many inputs, too long a text, too large a body, or more than the queue holds.",
    415: "Not `application/json`, or with a Content-Encoding.",
    422: "A field is missing, unknown, empty or of the wrong type; the answer says which.",
    429: "The key is over its limit; or what waits fills the queue or outlasts the deadline.",
    500: "A mistake of ours; the log has it under the request's id.",
    503: "Not ready, or the variant asked for is quarantined.",
    504: "The deadline passed; the work was dropped.",
}


def assets() -> Path:
    """The folder of Swagger UI's own files, which BentoML brings along."""
    return Path(bentoml.__file__).parent / "_internal" / "server" / "static_content"


def document() -> bytes:
    """The OpenAPI document as JSON."""
    shapes = (
        *(NerAsk, NerReply, ClassificationAsk, ClassificationReply),
        *(CompareAsk, NerCompareReply, ClassificationCompareReply),
        *(TokenClassificationInput, TextClassificationInput, TokenGroup, TokenPiece, LabelScore),
        *(Problem, Error, VariantList, VariantDetail, Status),
        *(Changed, RoutesNow, History, KeyLimit, KeysNow),
        *inference_openapi.SHAPES,
    )
    schemas, components = msgspec.json.schema_components(
        shapes, ref_template="#/components/schemas/{name}"
    )
    ref = dict(zip(shapes, schemas, strict=True))
    components["Problem"]["examples"] = [msgspec.to_builtins(_INVALID)]
    components["CompareAsk"]["anyOf"] = list(_asks_of_comparing())
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": TITLE,
                "version": VERSION,
                "summary": SUMMARY,
                "description": DESCRIPTION,
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "tags": [
                *({"name": "answers"}, {"name": "variants"}, {"name": "operations"}),
                inference_openapi.TAG,
            ],
            "paths": _guarded(
                {
                    **_paths(ref),
                    **inference_openapi.paths(ref, _ASKED, (_NER_ASK["inputs"], _NER_REPLY)),
                },
                ref[Problem],
            ),
            "components": {
                "schemas": components,
                "headers": _HEADERS,
                "securitySchemes": _SCHEMES,
            },
        }
    )


def _asks_of_comparing() -> Iterator[dict[str, Any]]:
    """What the types do not tell: either variants are named, or a task is, with its parameters."""
    nothing = {"type": "null"}
    known = {
        task: {"$ref": f"#/components/schemas/{kind.__name__}"} for task, kind in PARAMETERS.items()
    }
    names = {"type": "array", "items": {"type": "string"}, "minItems": 1, "uniqueItems": True}
    either = _any(nothing, *known.values())
    yield {"required": ["variants"], "properties": {"variants": names, "parameters": either}}
    for task, parameters in known.items():
        properties = {
            "variants": nothing,
            "task": {"const": task},
            "parameters": _any(nothing, parameters),
        }
        yield {"required": ["task"], "properties": properties}


def _paths(ref: dict[Any, Any]) -> dict[str, Any]:
    return {
        "/v1/ner": _post(
            "ner",
            "Find people, places, organisations and dates",
            ref[Problem],
            asked=(ref[NerAsk], _NER_ASK),
            answered=(ref[NerReply], _NER_REPLY),
        ),
        "/v1/classify": _post(
            "classify",
            "Find the topic",
            ref[Problem],
            asked=(ref[ClassificationAsk], _NEWS_ASK),
            answered=(ref[ClassificationReply], _NEWS_REPLY),
        ),
        "/v1/compare": _post(
            "compare",
            "Ask several variants of one task and show where they disagree",
            ref[Problem],
            asked=(ref[CompareAsk], _COMPARE_ASK),
            answered=(_any(ref[NerCompareReply], ref[ClassificationCompareReply]), _COMPARE_REPLY),
            headers=("X-Request-ID",),
        ),
        "/models/{variant}": _models(ref),
        "/v1/variants": _get(
            "variants",
            "Every variant: evidence, licence, state",
            ref[VariantList],
            problem=ref[Problem],
        ),
        "/v1/variants/{name}": _get(
            "variant",
            "One variant with its whole manifest",
            ref[VariantDetail],
            parameter="name",
            problem=ref[Problem],
        ),
        "/v1/variants/{name}/load": _change(
            "load",
            "Serve the variant as its folder is now: new, again, or in place of what serves",
            ref,
            parameters=_in_path("name"),
        ),
        "/v1/variants/{name}/unload": _change(
            "unload",
            "Serve the variant no longer; who asked before is answered",
            ref,
            parameters=_in_path("name"),
        ),
        "/v1/routes": {
            **_got("routes", "The routes in force", ref, ref[RoutesNow]),
            "put": {
                **_change("route", "Route as this TOML says from now on", ref)["post"],
                "requestBody": {"required": True, "content": {"application/toml": _ROUTES}},
            },
        },
        "/v1/generations": _got(
            "generations", "What was changed while it served, the newest first", ref, ref[History]
        ),
        "/v1/generations/{number}/restore": _change(
            "restore",
            "Go back to what that generation was",
            ref,
            parameters=_in_path("number", {"type": "integer", "minimum": 0}),
        ),
        "/v1/check": _change(
            "check", "Every variant proves itself again; /v1/status tells which does not", ref
        ),
        "/v1/keys": _got("keys", "The keys, what they may and whether so still", ref, ref[KeysNow]),
        "/v1/keys/{name}": {
            "put": {
                **_changed_key("limit", "What the key may send from now on", ref),
                "requestBody": {"required": True, "content": _json(ref[KeyLimit], example=_LIMIT)},
            },
            "delete": _changed_key("revoke", "The key opens nothing from now on", ref, _SURE),
        },
        "/v1/status": _get("status", "This process now", ref[Status], tag="operations"),
        "/livez": _plain("livez", "The process answers"),
        "/healthz": _plain("healthz", "As /livez"),
        "/readyz": _plain("readyz", "Models are loaded and not draining", problem=ref[Problem]),
        "/metrics": _plain("metrics", "Metrics in Prometheus' text format"),
    }


def _guarded(paths: dict[str, Any], problem: Any) -> dict[str, Any]:
    """With what `guard.py` says in front of them, by its own table."""
    for path, methods in paths.items():
        for method, operation in methods.items():
            scope = scope_of(method.upper(), path)
            if scope is None:
                operation["security"] = []
                continue
            # {}: a server without keys asks for none.
            operation["security"] = [{}, *({scheme: [scope]} for scheme in _SCHEMES)]
            responses = operation["responses"]
            responses["401"] = _problem(problem, "No key came with the request, or a wrong one.")
            responses["401"]["headers"] |= _headers("WWW-Authenticate")
            responses["403"] = _problem(problem, f"The key lacks the scope {scope}.")
            over = _problem(problem, "The key is over its limit.", retry=True)
            # Where a surface has errors of its own shape: this one is a problem all the same.
            responses.setdefault("429", over)["content"] |= over["content"]
            for status in ("200", "429"):
                responses[status]["headers"] |= _headers("RateLimit", "RateLimit-Policy")
    return paths


_SCHEMES = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "A key, where the server asks for one.",
    },
    "header": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "The same, for callers that cannot send the other.",
    },
}

_ROUTES = {
    "schema": {"type": "string"},
    "example": """\
[[route]]
name = "trial"
task = "ner"
split = { ner-distilled-int8 = 90, ner-small = 10 }
sticky = "X-Client"
""",
}

_LIMIT = {"rate": {"requests": 600, "seconds": 60, "burst": 100}}

_SURE = {
    "in": "query",
    "name": "sure",
    "description": "Also the key that asks, and the last one that may change the server.",
    "schema": {"type": "boolean", "default": False},
}

_ASKED = [
    {
        "in": "header",
        "name": "X-Request-Timeout-Ms",
        "description": "Less time than the server gives: what is not begun by then is not run.",
        "schema": {"type": "integer", "minimum": 1},
    },
    {
        "in": "header",
        "name": "X-Route",
        "description": "An answer's, sent back: the same variant of the split again.",
        "schema": {"type": "string"},
    },
    {
        "in": "header",
        "name": "X-Priority",
        "description": "`batch` takes an eighth of the share that a person's request has.",
        "schema": {"type": "string", "enum": ["interactive", "batch"], "default": "interactive"},
    },
]

_HEADERS = {
    "X-Request-ID": {
        "description": "The caller's own where it is at most 128 of A-Z a-z 0-9 . _ -, else ours.",
        "schema": {"type": "string"},
    },
    "X-Variant": {"description": "The variant that answered.", "schema": {"type": "string"}},
    "X-Variant-Reason": {
        "description": "Why that variant: named, or what it satisfied.",
        "schema": {"type": "string"},
    },
    "X-Route": {
        "description": "Of a split: what asks for the same variant again.",
        "schema": {"type": "string"},
    },
    "Server-Timing": {
        "description": "queue, encode, model and total in milliseconds.",
        "schema": {"type": "string"},
    },
    "Retry-After": {
        "description": "Whole seconds to wait, at least 1.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "WWW-Authenticate": {"description": "Always Bearer.", "schema": {"type": "string"}},
    "RateLimit-Policy": {
        "description": "Requests (`q`) the key may send in so many seconds (`w`), if not all.",
        "schema": {"type": "string"},
    },
    "RateLimit": {
        "description": "Requests (`r`) it may send within the next seconds (`t`).",
        "schema": {"type": "string"},
    },
}


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _json(schema: Any, **more: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema, **more}}


def _any(*schemas: Any) -> dict[str, Any]:
    return {"anyOf": list(schemas)}


def _list(schema: Any) -> dict[str, Any]:
    return {"type": "array", "items": schema}


def _in_path(name: str, schema: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    return [{"name": name, "in": "path", "required": True, "schema": schema or {"type": "string"}}]


def _post(
    operation: str,
    summary: str,
    error: Any,
    *,
    asked: tuple[Any, Any],
    answered: tuple[Any, Any],
    headers: tuple[str, ...] = (
        "X-Request-ID",
        "X-Variant",
        "X-Variant-Reason",
        "X-Route",
        "Server-Timing",
    ),
    errors_as: str = _PROBLEM,
) -> dict[str, Any]:
    """`asked`, `answered`: the schema of the body and an example of it."""
    ask, sample_ask = asked
    reply, sample_reply = answered
    found = {
        "description": "Answers in the order of the inputs.",
        "headers": _headers(*headers),
        "content": _json(reply, example=msgspec.to_builtins(sample_reply)),
    }
    refusals = {
        str(status): _problem(error, said, retry=status in (429, 503), media_type=errors_as)
        for status, said in _REFUSALS.items()
    }
    body = {"required": True, "content": _json(ask, example=sample_ask)}
    return {
        "post": {
            "operationId": operation,
            "summary": summary,
            "tags": ["answers"],
            "parameters": _ASKED,
            "requestBody": body,
            "responses": {"200": found, **refusals},
        }
    }


def _models(ref: dict[Any, Any]) -> dict[str, Any]:
    """What is asked and answered depends on the variant's task."""
    tokens = _list(_any(ref[TokenGroup], ref[TokenPiece]))
    described = _post(
        "models",
        "The Hugging Face inference schema, for huggingface_hub's InferenceClient",
        ref[Error],
        asked=(_any(ref[TokenClassificationInput], ref[TextClassificationInput]), _HUB_ASK),
        answered=(_any(tokens, _list(tokens), _list(_list(ref[LabelScore]))), _HUB_REPLY),
        errors_as="application/json",
    )
    described["post"]["parameters"] = _in_path("variant")
    return described


def _problem(
    schema: Any, description: str, *, retry: bool = False, media_type: str = _PROBLEM
) -> dict[str, Any]:
    names = ("X-Request-ID", "Retry-After") if retry else ("X-Request-ID",)
    return {
        "description": description,
        "headers": _headers(*names),
        "content": {media_type: {"schema": schema}},
    }


def _get(
    operation: str,
    summary: str,
    schema: Any,
    *,
    tag: str = "variants",
    parameter: str | None = None,
    problem: Any = None,
) -> dict[str, Any]:
    found = {
        "description": summary + ".",
        "headers": _headers("X-Request-ID"),
        "content": _json(schema),
    }
    got: dict[str, Any] = {
        "operationId": operation,
        "summary": summary,
        "tags": [tag],
        "responses": {"200": found},
    }
    if parameter:
        got["parameters"] = _in_path(parameter)
        got["responses"]["404"] = _problem(problem, "No variant of that name.")
    if problem:
        got["responses"]["503"] = _problem(problem, "The models are still loading.", retry=True)
    return {"get": got}


def _got(operation: str, summary: str, ref: dict[Any, Any], schema: Any) -> dict[str, Any]:
    """What those who run the server read."""
    got = _get(operation, summary, schema, tag="operations")
    nothing = _problem(ref[Problem], "Nothing can be changed yet.", retry=True)
    got["get"]["responses"]["503"] = nothing
    return got


def _change(
    operation: str,
    summary: str,
    ref: dict[Any, Any],
    *,
    parameters: Sequence[dict[str, Any]] = (),
    otherwise: Mapping[int, str] | None = None,
) -> dict[str, Any]:
    """
    A change at run time, which takes a key also where nothing else does.

    otherwise  what statuses mean that mean something else here
    """
    done = {
        "description": "Every worker has taken it over.",
        "headers": _headers("X-Request-ID"),
        "content": _json(ref[Changed]),
    }
    refusals = {
        400: "The body is not UTF-8.",
        404: "No such variant in the catalog, or no such generation.",
        409: "It cannot be made; what served before serves on.",
        413: "The routes are larger than 1 MiB.",
        422: "The routes cannot be what was meant; the answer says in which line.",
        503: "Nothing can be changed yet, or not kept.",
        504: "A worker has not taken it over yet.",
        **(otherwise or {}),
    }
    return {
        "post": {
            "operationId": operation,
            "summary": summary,
            "tags": ["operations"],
            **({"parameters": list(parameters)} if parameters else {}),
            "responses": {
                "200": done,
                **{
                    str(status): _problem(ref[Problem], said, retry=status == 503)
                    for status, said in refusals.items()
                },
            },
        }
    }


def _changed_key(
    operation: str, summary: str, ref: dict[Any, Any], *more: dict[str, Any]
) -> dict[str, Any]:
    """A change of one key of the server's file; `more` parameters than its name."""
    otherwise = {
        400: "The body is not JSON in UTF-8.",
        404: "The server's file has no such key, or it was revoked; the answer names the others.",
        409: "The key is the last that may change the server, or the one that asks.",
        413: "The body is larger than 1 MiB.",
        415: "Not `application/json`, or with a Content-Encoding.",
        422: "The body is not what it must be, or the query string is not.",
    }
    parameters = [*_in_path("name"), *more]
    changed = _change(operation, summary, ref, parameters=parameters, otherwise=otherwise)
    described: dict[str, Any] = changed["post"]
    return described


def _plain(operation: str, summary: str, *, problem: Any = None) -> dict[str, Any]:
    text = {"text/plain": {"schema": {"type": "string"}}}
    responses: dict[str, Any] = {"200": {"description": summary + ".", "content": text}}
    if problem:
        responses["503"] = _problem(problem, "Not yet, or no longer.", retry=True)
    return {
        "get": {
            "operationId": operation,
            "summary": summary,
            "tags": ["operations"],
            "responses": responses,
        }
    }

"""The API's description: valid, complete, and true to what the server says."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from httpx import Response
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from models.catalog import SCORE_TOLERANCE
from models.spec import Task
from service import openapi
from service.api import Answers, build
from service.guard import scope_of
from service.lanes import Lanes
from service.settings import Settings
from tests.tiny import write_variant

DOCUMENT: dict[str, Any] = json.loads(openapi.document())


@pytest.fixture(scope="module")
def client() -> TestClient:
    settings = Settings()
    return TestClient(build(Answers(Lanes(settings), settings)))  # nothing loaded


@pytest.fixture(scope="module")
def embedded() -> Iterator[TestClient]:
    with loaded(Settings()) as client:
        yield client


def loaded(settings: Settings) -> TestClient:
    lanes = Lanes(settings)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with lanes.open():
            yield

    return TestClient(build(Answers(lanes, settings), lifespan=lifespan))


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def refs(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from refs(value)
    elif isinstance(node, list):
        for value in node:
            yield from refs(value)


def valid(value: Any, schema: dict[str, Any]) -> None:
    whole = {**schema, "components": DOCUMENT["components"]}
    jsonschema.Draft202012Validator(whole).validate(value)


def test_it_is_openapi_3_1() -> None:
    assert DOCUMENT["openapi"] == "3.1.0"


def test_every_reference_leads_somewhere() -> None:
    for ref in refs(DOCUMENT):
        node: Any = DOCUMENT
        for step in ref.removeprefix("#/").split("/"):
            node = node[step]


def test_every_schema_is_a_json_schema() -> None:
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_every_operation_has_its_own_id() -> None:
    ids = [operation["operationId"] for _, _, operation in operations()]
    assert len(ids) == len(set(ids))


def test_every_route_is_described() -> None:
    settings = Settings()
    app = build(Answers(Lanes(settings), settings))
    routes = {route.path_format for route in app.routes if isinstance(route, Route)}
    assert routes - {"/", "/page/{name}", "/docs", "/openapi.json"} == DOCUMENT["paths"].keys()


def test_every_example_fits_its_schema() -> None:
    seen = 0
    for _, _, operation in operations():
        bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
        for body in bodies:
            for content in body.get("content", {}).values():
                if "example" in content:
                    valid(content["example"], content["schema"])
                    seen += 1
    assert seen == 14
    for example in DOCUMENT["components"]["schemas"]["Problem"]["examples"]:
        valid(example, {"$ref": "#/components/schemas/Problem"})


@pytest.mark.parametrize("path", ["/v1/ner", "/v1/classify"])
def test_the_examples_are_what_the_embedded_variants_answer(
    embedded: TestClient, path: str
) -> None:
    """A new variant may answer otherwise: then the example, docs/api.md and the README follow."""
    asked, shown, schema = exemplified(path)
    said = embedded.post(path, json=asked).json()
    valid(said, schema)
    assert said["variant"] == shown["variant"]
    near(said["results"], shown["results"])


def test_the_example_of_a_comparison_is_what_the_embedded_variants_answer(
    embedded: TestClient,
) -> None:
    asked, shown, schema = exemplified("/v1/compare")
    said = embedded.post("/v1/compare", json=asked).json()
    valid(said, schema)
    assert [each["agreement"] for each in said["variants"]] == [
        each["agreement"] for each in shown["variants"]
    ]
    [one], [other] = said["results"], shown["results"]
    assert one["answers"].keys() == other["answers"].keys()
    for name, answer in other["answers"].items():
        near([one["answers"][name]], [answer])
    for stretch, expected in zip(one["disagreements"], other["disagreements"], strict=True):
        assert (stretch["start"], stretch["end"]) == (expected["start"], expected["end"])


def test_the_example_of_a_model_is_what_the_embedded_variant_answers(embedded: TestClient) -> None:
    asked, shown, schema = exemplified("/models/{variant}")
    said = embedded.post("/models/ner-int8", json=asked).json()
    near([{"entities": said}], [{"entities": shown}])
    bodies = (
        ("ner-int8", {"inputs": ["Kano", "Abuja"], "parameters": {"aggregation_strategy": "none"}}),
        ("news-int8", {"inputs": "kwallo"}),
        ("news-int8", {"inputs": ["kwallo"], "parameters": {"top_k": 1}}),
        ("ner-int8", asked),
    )
    for variant, body in bodies:
        valid(embedded.post(f"/models/{variant}", json=body).json(), schema)
    refused = embedded.post("/models/ner-large", json=asked)
    responses = DOCUMENT["paths"]["/models/{variant}"]["post"]["responses"]
    valid(refused.json(), responses["404"]["content"]["application/json"]["schema"])


def exemplified(path: str) -> tuple[Any, Any, dict[str, Any]]:
    """What is asked in the example of a path, what is answered, and the answer's schema."""
    post = DOCUMENT["paths"][path]["post"]
    answered = post["responses"]["200"]["content"]["application/json"]
    asked = post["requestBody"]["content"]["application/json"]["example"]
    return asked, answered["example"], answered["schema"]


def near(said: list[dict[str, Any]], shown: list[dict[str, Any]]) -> None:
    assert unscored(said) == unscored(shown)
    assert scores(said) == pytest.approx(scores(shown), abs=SCORE_TOLERANCE)


def test_the_example_of_the_inference_protocol_is_answered_so_too(embedded: TestClient) -> None:
    post = DOCUMENT["paths"]["/v2/models/{name}/infer"]["post"]
    asked = post["requestBody"]["content"]["application/json"]["example"]
    shown = post["responses"]["200"]["content"]["application/json"]["example"]
    said = embedded.post("/v2/models/ner-int8/infer", json=asked).json()
    valid(said, {"$ref": "#/components/schemas/InferResponse"})
    assert said.keys() == shown.keys() and said["id"] == shown["id"]
    assert said["model_name"] == shown["model_name"]
    [mine], [theirs] = said["outputs"], shown["outputs"]
    assert {**mine, "data": None} == {**theirs, "data": None}
    results = [[{"entities": json.loads(e)} for e in each["data"]] for each in (mine, theirs)]
    assert unscored(results[0]) == unscored(results[1])
    assert scores(results[0]) == pytest.approx(scores(results[1]), abs=SCORE_TOLERANCE)


def found(results: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Every entity or label of the results."""
    return (each for result in results for each in result.get("entities") or result["labels"])


def unscored(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**each, "score": None} for each in found(results)]


def scores(results: list[dict[str, Any]]) -> list[float]:
    return [each["score"] for each in found(results)]


def test_every_refusal_is_described_as_a_problem() -> None:
    for path in ("/v1/ner", "/v1/classify", "/v1/compare", "/models/{variant}"):
        responses = DOCUMENT["paths"][path]["post"]["responses"]
        assert responses.keys() == {
            "200", "400", "401", "403", "404", "408", "409", "413", "415", "422", "429", "500",
            "503", "504",
        }  # fmt: skip
        assert "Retry-After" in responses["429"]["headers"]


def test_what_needs_a_key_is_described_so_and_nothing_else() -> None:
    assert DOCUMENT["components"]["securitySchemes"].keys() == {"bearer", "header"}
    for path, method, operation in operations():
        scope = scope_of(method.upper(), path)
        refusals = {"401", "403"} & operation["responses"].keys()
        if scope is None:
            assert operation["security"] == [] and not refusals
        else:
            assert operation["security"] == [{}, {"bearer": [scope]}, {"header": [scope]}]
            assert refusals and "RateLimit" in operation["responses"]["429"]["headers"]


def test_every_refusal_of_the_inference_protocol_is_described_as_its_error() -> None:
    for path, _, operation in operations():
        for status, response in operation["responses"].items():
            content = response.get("content", {})
            # What the guard refuses is a problem everywhere.
            guards = status in ("401", "403", "429") and "application/json" not in content
            if path.startswith("/v2") and status != "200" and not guards:
                schema = content["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/Error"}


MODELS = ("/v2/models/ner-int8", "/v2/models/ner-int8/versions/{version}")
PATHS = (
    *("/v1/variants", "/v1/variants/ner-int8", "/v1/status", "/readyz"),
    *("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/stats"),
    *(model + what for model in MODELS for what in ("", "/ready", "/config", "/stats")),
)


def test_what_the_server_says_fits_what_is_described(client: TestClient) -> None:
    said = {path: described(client.get(path), path) for path in PATHS}
    answered = [path for path, status in said.items() if status == 200]
    assert answered == ["/v1/status", "/v2", "/v2/health/live"]


def test_what_a_loaded_server_says_fits_too(tmp_path: Path) -> None:
    write_variant(tmp_path, "ner-int8", Task.NER)
    with loaded(Settings(catalog=tmp_path)) as client:
        version = client.get("/v1/variants/ner-int8").json()["digest"]
        for path in PATHS:
            assert described(client.get(path.format(version=version)), path) == 200
        for path in PATHS[-4:]:
            assert described(client.get(path), path) == 404  # of no such version
        index = DOCUMENT["paths"]["/v2/repository/index"]["post"]["responses"]["200"]
        said = client.post("/v2/repository/index").json()
        valid(said, index["content"]["application/json"]["schema"])


def described(response: Response, path: str) -> int:
    """The status, once what was said of `path` was found to be as described."""
    template = path.replace("ner-int8", "{name}")
    responses = DOCUMENT["paths"][template]["get"]["responses"]
    [(kind, content)] = responses[str(response.status_code)]["content"].items()
    assert response.headers["content-type"].startswith(kind)
    if "json" in kind:
        valid(response.json(), content["schema"])
    return response.status_code


def test_the_document_is_served(client: TestClient) -> None:
    assert client.get("/openapi.json").json() == DOCUMENT


def test_the_docs_page_loads_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "http" not in re.sub(r"<!doctype html>", "", page.text)
    assets = re.findall(r"(?:src|href)=\"((?:docs|page)/[^\"]+)\"", page.text)
    assert "page/icon.svg" in assets  # else browsers ask for /favicon.ico
    for asset in assets:
        assert client.get(f"/{asset}").status_code == 200, asset


def test_bentoml_still_brings_swagger_uis_files() -> None:
    assert Path(openapi.assets(), "swagger-ui-bundle.js").is_file()

"""Every path with whatever fits or does not fit its description: a real server, a key for all."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from models.spec import Task
from service import keys, openapi
from service.keys import Scope
from tests.test_serve import Server, serving
from tests.tiny import write_variant

load_all_checks()


@schemathesis.serializer("application/toml")
def as_toml(_: schemathesis.SerializationContext, value: object) -> bytes:
    return str(value).encode("utf-8", "surrogatepass")


DESCRIBED = [
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    folder = tmp_path_factory.mktemp("schema")
    for name in ("ner-base", "ner-int8"):
        write_variant(folder / "zoo", name, Task.NER)
    write_variant(folder / "zoo", "news-base", Task.CLASSIFICATION)
    token, lines = keys.new("operator", [Scope.ADMIN], None)
    file = folder / "keys.toml"
    file.write_text(lines)
    with serving(folder / "zoo", folder, KADOGO_KEYS=str(file)) as server:
        yield server, token


schema = schemathesis.openapi.from_dict(json.loads(openapi.document()))


@schema.parametrize()
@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_as_described_and_none_is_a_mistake_of_ours(
    case: Case, server: tuple[Server, str]
) -> None:
    response = case.call(base_url=server[0].url, headers={"Authorization": f"Bearer {server[1]}"})
    assert response.status_code != 500
    case.validate_response(response, checks=DESCRIBED)

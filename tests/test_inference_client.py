"""`huggingface_hub`'s own clients, as they are, against `bentoml serve` with two workers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from huggingface_hub import (
    AsyncInferenceClient,
    InferenceClient,
    TextClassificationOutputElement,
    TokenClassificationOutputElement,
)
from huggingface_hub.errors import HfHubHTTPError

from models.spec import Task
from tests.test_serve import Server, serving
from tests.tiny import write_variant

SENTENCE = "Sani Bello ya je Kano ranar Litinin."
ENTITIES = [("PER", "Sani Bello"), ("LOC", "Kano"), ("DATE", "Litinin")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    catalog = tmp_path_factory.mktemp("zoo")
    write_variant(catalog, "ner-base", Task.NER)
    write_variant(catalog, "ner-int8", Task.NER)
    write_variant(catalog, "news-int8", Task.CLASSIFICATION)
    home = tmp_path_factory.mktemp("two-workers")
    with serving(catalog, home, KADOGO_WORKERS="2") as server:
        until_both_are_ready(server)
        yield server


def until_both_are_ready(server: Server) -> None:
    """A server is called ready as soon as one worker is; this client takes a 503 for an error."""

    def status(_: int) -> dict[str, Any]:
        told: dict[str, Any] = httpx.get(f"{server.url}/v1/status").json()
        return told

    ready: set[int] = set()
    with ThreadPoolExecutor(8) as callers:
        for _ in range(600):
            told = callers.map(status, range(8))
            ready |= {each["process"] for each in told if each["state"] == "ready"}
            if len(ready) == 2:
                return
            time.sleep(0.1)
    raise AssertionError(f"not both ready in a minute:\n{server.log}")


def groups(found: list[TokenClassificationOutputElement]) -> list[tuple[str | None, str]]:
    assert all(SENTENCE[each.start : each.end] == each.word for each in found)
    return [(each.entity_group, each.word) for each in found]


def labels(found: list[TextClassificationOutputElement]) -> list[str]:
    return [each.label for each in found]


@pytest.mark.parametrize(
    "settings",
    [
        {"model": "{url}/models/ner-int8"},
        {"base_url": "{url}/models/ner-int8"},
        {"base_url": "{url}/models/ner-int8/", "api_key": "anything"},
        {"model": "{url}/models/ner-int8", "provider": "hf-inference", "token": "anything"},
    ],
)
def test_a_client_that_is_given_the_address_finds_entities(
    server: Server, settings: dict[str, str]
) -> None:
    given: dict[str, Any] = {name: text.format(url=server.url) for name, text in settings.items()}
    assert groups(InferenceClient(**given).token_classification(SENTENCE)) == ENTITIES


def test_the_address_may_come_with_the_call(server: Server) -> None:
    client = InferenceClient()
    models = f"{server.url}/models"
    assert groups(client.token_classification(SENTENCE, model=f"{models}/ner-base")) == ENTITIES
    topics = client.text_classification("kwallo kwallo", model=f"{models}/news-int8")
    assert labels(topics) == ["sports", "business", "health"]


def test_every_parameter_of_token_classification_is_heeded(server: Server) -> None:
    client = InferenceClient(model=f"{server.url}/models/ner-int8")
    pieces = client.token_classification(SENTENCE, aggregation_strategy="none")
    assert [(each.entity, each.word, each["index"]) for each in pieces] == [
        ("B-PER", "▁Sani", 1),
        ("I-PER", "▁Bello", 2),
        ("B-LOC", "▁Kano", 5),
        ("B-DATE", "▁Litinin", 7),
    ]
    for how in ("simple", "first", "average", "max"):
        found = client.token_classification(
            SENTENCE, aggregation_strategy=how, ignore_labels=["O", "PER"], stride=16
        )
        assert groups(found) == ENTITIES[1:]
    everything = client.token_classification(SENTENCE, ignore_labels=[])
    assert groups(everything) == [
        *(("PER", "Sani Bello"), ("O", "ya je"), ("LOC", "Kano"), ("O", "ranar")),
        *(("DATE", "Litinin"), ("O", ".")),
    ]


def test_every_parameter_of_text_classification_is_heeded(server: Server) -> None:
    client = InferenceClient(model=f"{server.url}/models/news-int8")
    assert labels(client.text_classification("banki", top_k=1)) == ["business"]
    for function in ("softmax", "sigmoid", "none"):
        [best] = client.text_classification("banki", top_k=1, function_to_apply=function)
        assert best.label == "business"
    assert best.score > 1  # a bare logit


def test_the_asynchronous_client_is_answered_too(server: Server) -> None:
    async def asked() -> list[list[TokenClassificationOutputElement]]:
        async with AsyncInferenceClient(model=f"{server.url}/models/ner-int8") as client:
            return await asyncio.gather(*(client.token_classification(SENTENCE) for _ in range(20)))

    assert [groups(found) for found in asyncio.run(asked())] == [ENTITIES] * 20


@pytest.mark.parametrize(
    ("variant", "text", "status", "said"),
    [
        ("ner-large", "Kano", 404, "known are ner-base, ner-int8, news-int8"),
        ("ner-int8", "", 422, "/inputs: the text is empty"),
        ("ner-int8", "a" * 100_001, 413, "split it"),
    ],
)
def test_the_client_shows_what_is_wrong(
    server: Server, variant: str, text: str, status: int, said: str
) -> None:
    client = InferenceClient(model=f"{server.url}/models/{variant}")
    with pytest.raises(HfHubHTTPError, match=said) as error:
        client.token_classification(text)
    assert error.value.response.status_code == status
    assert error.value.request_id == error.value.response.headers["x-request-id"]


def test_a_parameter_of_the_other_task_is_shown_as_one(server: Server) -> None:
    client = InferenceClient(model=f"{server.url}/models/ner-int8")
    with pytest.raises(HfHubHTTPError, match="top_k is a parameter of text classification"):
        client.text_classification("Kano", top_k=1)


def test_variants_are_compared_by_any_worker(server: Server) -> None:
    with httpx.Client() as client:
        reply = client.post(f"{server.url}/v1/compare", json={"inputs": SENTENCE, "task": "ner"})
    assert reply.status_code == 200
    assert [each["agreement"]["share"] for each in reply.json()["variants"]] == [1, 1]
    assert server.metric("kadogo_request_seconds_count", task="compare", status_class="2xx") >= 1

"""Triton's own Python client, unmodified, against the server as people run it: two workers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from models.spec import Task
from tests.test_api import ENTITIES, SENTENCE, spoil
from tests.test_inference_protocol import asked
from tests.test_serve import Server, serving
from tests.tiny import write_variant

TEXTS = [SENTENCE, "Lagos"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    catalog = tmp_path_factory.mktemp("zoo")
    write_variant(catalog, "ner-int8", Task.NER)
    write_variant(catalog, "news-int8", Task.CLASSIFICATION)
    spoil(write_variant(catalog, "ner-spoilt", Task.NER))
    home = tmp_path_factory.mktemp("two-workers")
    with serving(catalog, home, KADOGO_WORKERS="2", KADOGO_MAX_BODY="10000") as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as client:
        yield client


def texts(*given: str, shape: tuple[int, ...] = (-1,), **how: Any) -> list[triton.InferInput]:
    tensor = np.array([text.encode() for text in given], np.object_).reshape(shape)
    given_input = triton.InferInput("text", tensor.shape, "BYTES")
    given_input.set_data_from_numpy(tensor, **how)
    return [given_input]


def entities(result: triton.InferResult) -> list[list[tuple[str, str]]]:
    found = [json.loads(each) for each in result.as_numpy("entities")]
    return [[(entity["label"], entity["text"]) for entity in each] for each in found]


ANSWER = [ENTITIES, [("LOC", "Lagos")]]


# --- infer -----------------------------------------------------------------------------------


def test_entities_are_found_with_the_clients_defaults(client: triton.InferenceServerClient) -> None:
    result = client.infer("ner-int8", texts(*TEXTS))
    assert result.as_numpy("entities").shape == (2,)
    assert "binary_data_size" in result.get_output("entities")["parameters"]
    assert entities(result) == ANSWER


def test_topics_are_found_with_the_clients_defaults(client: triton.InferenceServerClient) -> None:
    result = client.infer("news-int8", texts("kwallo kwallo", "banki"))
    assert result.as_numpy("label").tolist() == [b"sports", b"business"]
    assert result.as_numpy("score").dtype == np.float32
    best = [json.loads(each)[0]["score"] for each in result.as_numpy("labels")]
    assert result.as_numpy("score") == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize("sent", [True, False])
@pytest.mark.parametrize("returned", [True, False])
def test_tensors_go_either_way_in_binary_or_json(
    client: triton.InferenceServerClient, sent: bool, returned: bool
) -> None:
    wanted = [triton.InferRequestedOutput("entities", binary_data=returned)]
    result = client.infer("ner-int8", texts(*TEXTS, binary_data=sent), outputs=wanted)
    assert entities(result) == ANSWER
    assert ("data" in result.get_output("entities")) is not returned


def test_a_column_of_texts_is_read_as_batching_clients_send_it(
    client: triton.InferenceServerClient,
) -> None:
    for binary in (True, False):
        column = texts(*TEXTS, shape=(-1, 1), binary_data=binary)
        assert entities(client.infer("ner-int8", column)) == ANSWER


def test_every_script_comes_back_as_it_went(client: triton.InferenceServerClient) -> None:
    for binary in (True, False):
        text = "በአዲስ አበባ 😀 Ọ̀ṣun Kano"
        wanted = [triton.InferRequestedOutput("entities", binary_data=binary)]
        result = client.infer("ner-int8", texts(text, binary_data=binary), outputs=wanted)
        [[entity]] = [json.loads(each) for each in result.as_numpy("entities")]
        assert text[entity["start"] : entity["end"]] == entity["text"] == "Kano"


def test_id_version_and_parameters_are_heard(client: triton.InferenceServerClient) -> None:
    version = client.get_model_metadata("ner-int8")["versions"][0]
    result = client.infer(
        "ner-int8",
        texts(SENTENCE),
        model_version=version,
        request_id="7",
        timeout=10_000_000,
        parameters={"aggregation_strategy": "none", "min_score": 0.1},
    )
    said = result.get_response()
    assert (said["id"], said["model_name"], said["model_version"]) == ("7", "ner-int8", version)
    assert ("B-PER", "Sani") in entities(result)[0]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests_are_read(client: triton.InferenceServerClient, algorithm: str) -> None:
    result = client.infer(
        "ner-int8",
        texts(*TEXTS),
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,  # a wish, which a server need not grant
    )
    assert entities(result) == ANSWER
    with pytest.raises(InferenceServerException, match="the body is larger than 10000 bytes"):
        client.infer("ner-int8", texts("a" * 99_999), request_compression_algorithm=algorithm)


def test_many_requests_at_once_are_answered_each_with_its_own(server: Server) -> None:
    url = server.url.removeprefix("http://")
    with triton.InferenceServerClient(url, concurrency=8) as client:
        names = [f"Sani {'Bello ' * (n % 5)}" for n in range(40)]
        sent = [client.async_infer("ner-int8", texts(name)) for name in names]
        for name, each in zip(names, sent, strict=True):
            assert entities(each.get_result()) == [[("PER", name.strip())]]


def test_the_asyncio_client_works_too(server: Server) -> None:
    async def scenario() -> None:
        async with triton_aio.InferenceServerClient(server.url.removeprefix("http://")) as client:
            assert await client.is_server_ready()
            for binary in (True, False):
                result = await client.infer("ner-int8", texts(*TEXTS, binary_data=binary))
                assert entities(result) == ANSWER
            assert len(await client.get_model_repository_index()) == 3
            with pytest.raises(InferenceServerException, match="known are ner-int8, news-int8"):
                await client.infer("ner-large", texts("a"))

    asyncio.run(scenario())


# --- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "said", "how"),
    [
        ("404", "there is no variant ner-large; known are", {"model_name": "ner-large"}),
        ("404", "ner-int8 is here in version ", {"model_version": "1"}),
        ("503", "variant ner-spoilt is quarantined: ", {"model_name": "ner-spoilt"}),
        ("400", "known are min_score, aggregation", {"parameters": {"temperature": 1}}),
        ("400", "known are min_score, aggregation", {"sequence_id": 1, "sequence_start": True}),
        ("400", "ner has entities", {"outputs": [triton.InferRequestedOutput("label")]}),
        (
            *("400", "known are binary_data"),
            {"outputs": [triton.InferRequestedOutput("entities", class_count=2)]},
        ),
        ("400", "the text is empty", {"inputs": texts("Kano", "")}),
        ("413", "65 inputs; at most 64 go in one request", {"inputs": texts(*["a"] * 65)}),
        ("413", "the body is larger than 10000 bytes", {"inputs": texts("a" * 20_000)}),
        ("504", "the answer did not come within the deadline", {"timeout": 1}),
    ],
)
def test_an_error_is_raised_as_the_clients_own_with_our_words(
    client: triton.InferenceServerClient, status: str, said: str, how: dict[str, Any]
) -> None:
    with pytest.raises(InferenceServerException) as raised:
        client.infer(**{"model_name": "ner-int8", "inputs": texts("Kano"), **how})
    assert raised.value.status() == status
    assert said in raised.value.message()
    assert "decoding the response" not in raised.value.message()


def test_what_is_not_offered_is_said_readably(client: triton.InferenceServerClient) -> None:
    for ask in (client.get_trace_settings, client.get_log_settings):
        with pytest.raises(InferenceServerException) as raised:
            ask()
        assert raised.value.status() == "404"
        assert raised.value.message().startswith("there is nothing here")


# --- what is shown ---------------------------------------------------------------------------


def test_the_server_and_its_models_are_live_and_ready(
    client: triton.InferenceServerClient,
) -> None:
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("ner-int8")
    assert not client.is_model_ready("ner-spoilt")
    assert not client.is_model_ready("ner-large")
    assert not client.is_model_ready("ner-int8", "1")
    assert client.get_server_metadata()["name"] == "kadogo"


def test_metadata_say_what_to_send_and_what_comes(client: triton.InferenceServerClient) -> None:
    said = client.get_model_metadata("news-int8")
    assert said["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    result = client.infer("news-int8", texts("banki"))
    for output in said["outputs"]:
        answered = result.get_output(output["name"])
        assert answered["datatype"] == output["datatype"]
        assert len(answered["shape"]) == len(output["shape"])
    assert client.get_model_config("news-int8")["input"][0]["data_type"] == "TYPE_STRING"


def test_the_index_has_the_quarantined_with_their_reason(
    client: triton.InferenceServerClient,
) -> None:
    index = {each["name"]: each for each in client.get_model_repository_index()}
    states = {name: each["state"] for name, each in index.items()}
    assert states == {"ner-int8": "READY", "ner-spoilt": "UNAVAILABLE", "news-int8": "READY"}
    assert "model.onnx is not the file" in index["ner-spoilt"]["reason"]


def test_the_statistics_of_two_workers_add_up(server: Server) -> None:
    url = server.url.removeprefix("http://")

    def success() -> int:
        with triton.InferenceServerClient(url) as client:
            [said] = client.get_inference_statistics("news-int8")["model_stats"]
        return int(said["inference_stats"]["success"]["count"])

    def ask(_: int) -> int:
        with httpx.Client() as client:  # a connection of its own, so either worker may take it
            for _ in range(5):
                path = f"{server.url}/v2/models/news-int8/infer"
                assert client.post(path, json=asked("banki")).is_success
            return int(client.get(f"{server.url}/v1/status").json()["process"])

    before = success()
    workers: set[int] = set()
    rounds = 0
    with ThreadPoolExecutor(8) as callers:
        while len(workers) < 2 and rounds < 50:
            workers |= set(callers.map(ask, range(8)))
            rounds += 1
    assert len(workers) == 2
    assert {success() for _ in range(6)} == {before + rounds * 40}  # whichever worker answers


def test_nothing_of_all_this_is_logged(
    client: triton.InferenceServerClient, server: Server
) -> None:
    client.infer("ner-int8", texts("SECRET"))
    for how in ({"parameters": {"SECRET": 1}}, {"inputs": texts("SECRET", "")}):
        with pytest.raises(InferenceServerException) as raised:
            client.infer(**{"model_name": "ner-int8", "inputs": texts("SECRET"), **how})
        assert "SECRET" not in raised.value.message()
    assert "SECRET" not in server.log
    assert "Traceback" not in server.log

"""Open Inference Protocol v2 over HTTP, on tiny real variants: what is read, answered, refused."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.samples import Sample
from starlette.testclient import TestClient
from tritonclient.utils import deserialize_bytes_tensor

from models.spec import Task
from service.api import Answers, build
from service.changes import Changes
from service.lanes import Lanes
from service.settings import Settings
from service.statistics import Duration, statistics
from service.tensors import packed
from tests.test_api import SENTENCE, app_of, held, over, spoil, until_waiting
from tests.test_tensors import REQUESTS, SCALARS
from tests.tiny import write_variant

NER = "/v2/models/ner-int8"
NEWS = "/v2/models/news-int8"


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zoo")
    write_variant(folder, "ner-int8", Task.NER)
    write_variant(folder, "news-int8", Task.CLASSIFICATION)
    spoil(write_variant(folder, "ner-spoilt", Task.NER))
    return folder


@pytest.fixture(scope="module")
def client(catalog: Path) -> Iterator[TestClient]:
    limits = Settings(catalog=catalog, max_inputs=3, max_text=1000, max_body=5000)
    with TestClient(app_of(Lanes(limits), limits)) as client:
        yield client


def asked(*texts: str, **more: Any) -> dict[str, Any]:
    tensor = {"name": "text", "datatype": "BYTES", "shape": [len(texts)], "data": texts}
    return {"inputs": [tensor], **more}


def infer(client: TestClient, model: str, *texts: str, **more: Any) -> dict[str, Any]:
    response = client.post(f"{model}/infer", json=asked(*texts, **more))
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    said: dict[str, Any] = response.json()
    return said


def outputs(said: dict[str, Any]) -> dict[str, list[Any]]:
    return {output["name"]: output["data"] for output in said["outputs"]}


def in_binary(*texts: str, **more: Any) -> tuple[bytes, dict[str, str]]:
    """A body and the header that says where its JSON ends."""
    binary = packed([text.encode() for text in texts])
    said = asked(*texts, **more)
    del said["inputs"][0]["data"]
    said["inputs"][0]["parameters"] = {"binary_data_size": len(binary)}
    header = json.dumps(said).encode()
    return header + binary, {"Inference-Header-Content-Length": str(len(header))}


# --- answers ---------------------------------------------------------------------------------


def test_entities_are_what_the_own_surface_says(client: TestClient) -> None:
    said = infer(client, NER, SENTENCE, "Kano")
    own = client.post("/v1/ner", json={"inputs": [SENTENCE, "Kano"]}).json()
    [output] = said["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("entities", "BYTES", [2])
    results = [result["entities"] for result in own["results"]]
    assert [json.loads(each) for each in output["data"]] == results
    assert said["model_name"] == "ner-int8"
    assert said["model_version"] == own["digest"]
    assert said["parameters"].keys() == {"queue_ms", "encode_ms", "model_ms", "total_ms"}
    assert "id" not in said


def test_topics_are_answered_whole_and_as_the_best_label_with_its_score(client: TestClient) -> None:
    said = infer(client, NEWS, "kwallo kwallo", "banki", parameters={"top_k": 2})
    found = outputs(said)
    assert found.keys() == {"labels", "label", "score"}
    assert found["label"] == ["sports", "business"]
    labels = [json.loads(each) for each in found["labels"]]
    assert [len(each) for each in labels] == [2, 2]
    assert found["score"] == [each[0]["score"] for each in labels]
    assert [output["datatype"] for output in said["outputs"]] == ["BYTES", "BYTES", "FP32"]


def test_a_topic_of_which_min_score_leaves_nothing_has_no_label(client: TestClient) -> None:
    found = outputs(infer(client, NEWS, "kudi asibiti", parameters={"min_score": 0.9}))
    assert found == {"labels": ["[]"], "label": [""], "score": [0.0]}


def test_outputs_come_as_they_were_asked_for(client: TestClient) -> None:
    wanted = [{"name": "score"}, {"name": "label"}]
    assert list(outputs(infer(client, NEWS, "banki", outputs=wanted))) == ["score", "label"]
    assert len(outputs(infer(client, NEWS, "banki", outputs=[]))) == 3


def test_the_id_is_echoed_in_the_body_and_the_request_id_in_a_header(client: TestClient) -> None:
    assert infer(client, NER, "Kano", id="7")["id"] == "7"
    headers = {"X-Request-ID": "abc"}
    response = client.post(f"{NER}/infer", json=asked("Kano"), headers=headers)
    assert response.headers["x-request-id"] == "abc"
    assert response.headers["x-variant"] == "ner-int8"
    assert response.headers["server-timing"].startswith("queue;dur=")


def test_tensors_come_and_go_in_binary(client: TestClient) -> None:
    body, headers = in_binary("kwallo kwallo", "banki", parameters={"binary_data_output": True})
    response = client.post(f"{NEWS}/infer", content=body, headers=headers)
    assert response.headers["content-type"] == "application/octet-stream"
    length = int(response.headers["inference-header-content-length"])
    said, rest = json.loads(response.content[:length]), response.content[length:]
    found = {}
    for output in said["outputs"]:
        assert "data" not in output
        size = output["parameters"]["binary_data_size"]
        found[output["name"]], rest = rest[:size], rest[size:]
    assert rest == b""
    assert deserialize_bytes_tensor(found["label"]).tolist() == [b"sports", b"business"]
    labels = [json.loads(each) for each in deserialize_bytes_tensor(found["labels"])]
    scores = np.frombuffer(found["score"], "<f4")
    assert scores == pytest.approx([each[0]["score"] for each in labels], rel=1e-6)


def test_an_output_decides_for_itself_whether_it_is_binary(client: TestClient) -> None:
    wanted = [{"name": "label", "parameters": {"binary_data": False}}, {"name": "score"}]
    said = asked("banki", outputs=wanted, parameters={"binary_data_output": True})
    response = client.post(f"{NEWS}/infer", json=said)
    length = int(response.headers["inference-header-content-length"])
    label, score = json.loads(response.content[:length])["outputs"]
    assert label["data"] == ["business"]
    assert "data" not in score and len(response.content) - length == 4


def test_parameters_shape_the_answer(client: TestClient) -> None:
    def found(**parameters: Any) -> Any:
        [text] = outputs(infer(client, NER, "😀 Sani Bello", parameters=parameters))["entities"]
        return json.loads(text)

    assert [entity["label"] for entity in found(aggregation="simple")] == ["PER"]
    assert found(aggregation_strategy="none")[0]["label"] == "B-PER"
    assert found(offset_unit="utf16")[0]["start"] == 3
    assert found(min_score=1) == found(min_score="1") == []
    assert found(timeout=0) == found(timeout=2**62) == found()


def test_a_version_may_be_named(client: TestClient) -> None:
    version = client.get(NER).json()["versions"][0]
    said = infer(client, f"{NER}/versions/{version}", "Kano")
    assert said["model_version"] == version
    for what in ("", "/ready", "/config", "/stats"):
        assert client.get(f"{NER}/versions/{version}{what}").status_code == 200


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "deflate", "identity"])
def test_a_compressed_body_is_read(client: TestClient, encoding: str) -> None:
    body, headers = in_binary(SENTENCE)
    packs = {"gzip": gzip.compress, "deflate": zlib.compress, "identity": bytes}
    packed = packs[encoding.lower()](body)
    headers["Content-Encoding"] = encoding
    response = client.post(f"{NER}/infer", content=packed, headers=headers)
    assert response.status_code == 200, response.text


# --- refusals --------------------------------------------------------------------------------


def refused(client: TestClient, path: str, body: bytes | str = "", **headers: str) -> str:
    """Its status and what it says."""
    response = client.post(path, content=body, headers=headers)
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    said = response.json()
    assert said.keys() == {"error"}
    return f"{response.status_code} {said['error']}"


@pytest.mark.parametrize(
    ("model", "more", "said"),
    [
        (NER, {"outputs": [{"name": "SECRET"}]}, "400 /outputs/0/name: no such output; ner has en"),
        (
            NEWS,
            {"outputs": [{"name": "label"}, {"name": "entities"}]},
            "400 /outputs/1/name: no such output; classification has labels, label, score",
        ),
        (NEWS, {"outputs": [{"name": "label"}] * 2}, "400 /outputs/1/name: label is asked for tw"),
        (NER, {"parameters": {"SECRET": 1}}, "400 /parameters: unknown field; known are min_score"),
        (NER, {"parameters": {"sequence_id": 1}}, "400 /parameters: unknown field; known are min"),
        (NER, {"parameters": {"top_k": 1}}, "400 /parameters/top_k: top_k is a parameter of clas"),
        (NEWS, {"parameters": {"top_k": 0}}, "400 /parameters/top_k: Expected `int` >= 1"),
        (NER, {"parameters": {"min_score": "SECRET"}}, "400 /parameters/min_score: Expected `flo"),
        (NER, {"parameters": {"min_score": "nan"}}, "400 /parameters/min_score: Expected `float"),
        (NER, {"parameters": {"min_score": True}}, "400 /parameters/min_score: Expected `float`"),
        (NER, {"parameters": {"aggregation": "SECRET"}}, "400 /parameters/aggregation: it is one"),
        (
            NER,
            {"parameters": {"aggregation": "first", "aggregation_strategy": "first"}},
            "400 /parameters: unknown field",
        ),
        (NER, {"parameters": {"binary_data_output": 1}}, "400 /parameters/binary_data_output: it"),
        (NER, {"parameters": {"timeout": -1}}, "400 /parameters/timeout: it is in microseconds"),
        (NER, {"parameters": {"timeout": True}}, "400 /parameters/timeout: it is a int"),
        (NER, {"parameters": {"timeout": 1}}, "504 the answer did not come within the deadline"),
    ],
)
def test_what_will_not_do_is_said_and_nothing_is_repeated(
    client: TestClient, model: str, more: dict[str, Any], said: str
) -> None:
    answer = refused(client, f"{model}/infer", json.dumps(asked("Kano SECRET", **more)))
    assert answer.startswith(said)
    assert "SECRET" not in answer


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ([], "400 /inputs/0/data: give at least one text"),
        (["a", " "], "400 /inputs/0/data/1: the text is empty"),
        (["a"] * 4, "413 4 inputs; at most 3 go in one request"),
        (["a", "b" * 1001], "413 /inputs/0/data/1 has 1001 characters; at most 1000 are taken in"),
        (["a" * 999] * 3, "200"),
        (["a" * 1000] * 3 + ["b" * 5000], "413 the body is larger than 5000 bytes"),
    ],
)
def test_the_limits_hold_here_too(client: TestClient, texts: list[str], said: str) -> None:
    body, headers = in_binary(*texts)
    for content, more in ((json.dumps(asked(*texts)), {}), (body, headers)):
        response = client.post(f"{NER}/infer", content=content, headers=more)
        assert f"{response.status_code} {response.json().get('error')}".startswith(said)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/v2/models/ner-large", "there is no variant ner-large; known are ner-int8, news-int8"),
        ("/v2/models/SECRET TEXT", "there is no variant of that name; known are"),
        (f"{NER}/versions/1", "ner-int8 is here in version "),
    ],
)
def test_an_unknown_model_or_version_is_a_404_that_names_the_known(
    client: TestClient, path: str, said: str
) -> None:
    for what in ("", "/ready", "/config", "/stats"):
        response = client.get(f"{path}{what}")
        assert response.status_code == 404
        assert response.json()["error"].startswith(said)
    assert refused(client, f"{path}/infer", json.dumps(asked("a"))).startswith(f"404 {said}")


def test_a_quarantined_model_is_a_503_with_its_reason(client: TestClient) -> None:
    for what in ("", "/ready", "/config", "/stats"):
        response = client.get(f"/v2/models/ner-spoilt{what}")
        assert response.status_code == 503
        assert "model.onnx is not the file" in response.json()["error"]
    answer = refused(client, "/v2/models/ner-spoilt/infer", json.dumps(asked("a")))
    assert answer.startswith("503 variant ner-spoilt is quarantined: ")


LENGTH = "Inference-Header-Content-Length"


@pytest.mark.parametrize(
    ("body", "headers", "said"),
    [
        (b"", {}, "400 the body is empty"),
        (b"{SECRET", {}, "400 the body is not JSON"),
        (b"{}", {LENGTH: "3"}, "400 Inference-Header-Content-Length says 3 bytes of JSON, and the"),
        (b"{}", {LENGTH: "-1"}, "400 Inference-Header-Content-Length is a number of bytes"),
        (b"{}", {LENGTH: "SECRET"}, "400 Inference-Header-Content-Length is a number of bytes"),
        (b"{}", {LENGTH: "9" * 5000}, "400 Inference-Header-Content-Length is a number of bytes"),
        (b"{}", {LENGTH: "0"}, "400 the body is empty"),
        (b"{}", {LENGTH: "1"}, "400 the body is not JSON"),
        (b"{}", {"content-type": "text/plain"}, "415 send JSON in UTF-8, as Content-Type: applica"),
        (b"{}", {"content-encoding": "br"}, "415 send the body as it is, without a Content-Encodi"),
        (b"{}", {"content-encoding": "gzip, gzip"}, "415 send the body as it is"),
        (b"SECRET", {"content-encoding": "gzip"}, "400 the body is not gzip"),
        (gzip.compress(b"{}")[:-1], {"content-encoding": "gzip"}, "400 the body is not one whole"),
        (gzip.compress(bytes(10**6)), {"content-encoding": "gzip"}, "413 the body is larger than "),
        (zlib.compress(bytes(5001)), {"content-encoding": "deflate"}, "413 the body is larger tha"),
        (zlib.compress(bytes(5000)), {"content-encoding": "deflate"}, "400 the body is not JSON"),
    ],
)
def test_a_malformed_body_is_refused(
    client: TestClient, body: bytes, headers: dict[str, str], said: str
) -> None:
    answer = refused(client, f"{NER}/infer", body, **headers)
    assert answer.startswith(said)
    assert "SECRET" not in answer


def test_a_query_string_is_not_ignored_in_silence(client: TestClient) -> None:
    said = refused(client, f"{NER}/infer?top_k=2", json.dumps(asked("a")))
    assert said.startswith("400 a query string is not read here")


def test_what_is_not_there_is_an_error_of_this_surface_too(client: TestClient) -> None:
    response = client.get("/v2/trace/setting")
    assert (response.status_code, list(response.json())) == (404, ["error"])
    response = client.get(f"{NER}/infer")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert response.json() == {"error": "this path answers POST"}
    assert client.get("/v22").json()["title"] == "Not Found"


VALUES = SCALARS.filter(lambda value: value is not None)
PARAMETERS = st.dictionaries(
    st.sampled_from(
        ["min_score", "top_k", "aggregation", "offset_unit", "timeout", "binary_data_output"]
    ),
    VALUES | st.integers(-(10**400), 10**400) | st.sampled_from(["none", "utf16", "0.5", "1"]),
)
WANTED = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(["entities", "labels", "label", "score", "x"])},
        optional={"parameters": st.fixed_dictionaries({}, optional={"binary_data": VALUES})},
    ),
    max_size=3,
)
FITTING = st.builds(
    asked,
    st.sampled_from(["Kano", "kudi", "", "\0", "\ufeff"]),
    id=st.text(max_size=3),
    outputs=WANTED,
    parameters=PARAMETERS,
)


@settings(deadline=None)
@given(st.sampled_from([NER, NEWS]), FITTING | REQUESTS, st.binary(max_size=20), st.booleans())
def test_whatever_is_asked_is_answered_or_refused(
    client: TestClient, model: str, said: Any, binary: bytes, separate: bool
) -> None:
    header = json.dumps(said).encode()
    headers = {LENGTH: str(len(header))} if separate else {}
    response = client.post(f"{model}/infer", content=header + binary, headers=headers)
    assert response.status_code in (200, 400, 413, 504)
    if response.status_code != 200:
        assert response.json()["error"]


# --- load ------------------------------------------------------------------------------------


def test_a_full_queue_is_a_429_with_the_time_to_come_back(catalog: Path) -> None:
    small = Settings(catalog=catalog, threads=1, queue_texts=1)
    lanes = Lanes(small)

    async def scenario() -> None:
        async with lanes.open(), over(build(Answers(lanes, small))) as client:

            def ask() -> asyncio.Future[httpx.Response]:
                return asyncio.ensure_future(client.post(f"{NER}/infer", json=asked("Kano")))

            async with held(lanes):
                running = ask()
                await asyncio.sleep(0.05)
                waiting = ask()
                await until_waiting(lanes, 1)
                full = await ask()
            assert full.status_code == 429
            assert int(full.headers["retry-after"]) >= 1
            assert full.json().keys() == {"error"}
            assert (await running).status_code == (await waiting).status_code == 200

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_an_answer_later_than_the_callers_own_timeout_is_a_504(catalog: Path) -> None:
    lanes = Lanes(Settings(catalog=catalog, threads=1))

    async def scenario() -> None:
        async with lanes.open(), over(build(Answers(lanes, Settings()))) as client:
            async with held(lanes):
                body = asked("Kano", parameters={"timeout": 10_000})
                late = await client.post(f"{NER}/infer", json=body)
            assert late.status_code == 504

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_while_loading_nothing_is_ready_and_all_say_when_to_come_back() -> None:
    nothing = Settings()
    client = TestClient(build(Answers(Lanes(nothing), nothing)))  # never started
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2").status_code == 200
    paths = ["/v2/health/ready", "/v2/models/stats"]
    paths += [f"{NER}{what}" for what in ("", "/ready", "/config", "/stats")]
    responses = [client.get(path) for path in paths]
    responses.append(client.post("/v2/repository/index"))
    responses.append(client.post(f"{NER}/infer", json=asked("a")))
    for response in responses:
        assert response.status_code == 503
        assert response.json().keys() == {"error"}
        assert response.headers["retry-after"] == "1"


# --- what is shown ---------------------------------------------------------------------------


def test_the_server_says_which_extensions_it_has(client: TestClient) -> None:
    said = client.get("/v2").json()
    assert said["name"] == "kadogo"
    assert "binary_tensor_data" in said["extensions"] and "statistics" in said["extensions"]
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get(f"{NER}/ready").json() == {"name": "ner-int8", "ready": True}


def test_the_configuration_names_the_tensors_as_the_metadata_do(client: TestClient) -> None:
    kinds = {"BYTES": "TYPE_STRING", "FP32": "TYPE_FP32"}
    for model in (NER, NEWS):
        told, configured = client.get(model).json(), client.get(f"{model}/config").json()
        assert told["versions"] and told["platform"] == configured["platform"]
        for many, one in (("inputs", "input"), ("outputs", "output")):
            tensors = [(t["name"], kinds[t["datatype"]], t["shape"]) for t in told[many]]
            assert tensors == [(t["name"], t["data_type"], t["dims"]) for t in configured[one]]
        assert configured["max_batch_size"] == 0
        assert configured["parameters"]["max_inputs"] == {"string_value": "3"}


def test_the_index_has_every_variant_and_why_one_does_not_answer(client: TestClient) -> None:
    index = client.post("/v2/repository/index").json()
    assert [(each["name"], each["state"]) for each in index] == [
        ("ner-int8", "READY"),
        ("ner-spoilt", "UNAVAILABLE"),
        ("news-int8", "READY"),
    ]
    assert "model.onnx" in index[1]["reason"] and index[0]["reason"] == ""
    assert all(len(each["version"]) == 16 for each in index)
    ready = client.post("/v2/repository/index", json={"ready": True}).json()
    assert [each["name"] for each in ready] == ["ner-int8", "news-int8"]
    for body in ('{"SECRET": true}', '{"ready": "SECRET"}', "[]"):
        said = refused(client, "/v2/repository/index", body)
        assert said == '400 the body: it is {} or {"ready": true}'


def test_an_unloaded_variant_is_in_the_index_and_nowhere_else(
    catalog: Path, tmp_path: Path
) -> None:
    changing = Settings(catalog=catalog, state=tmp_path)
    lanes = Lanes(changing)

    async def scenario() -> None:
        async with lanes.open(), over(build(Answers(lanes, changing))) as client:
            await Changes(lanes).unload("ner-int8", who="amina")
            index = (await client.post("/v2/repository/index")).json()
            [entry] = [each for each in index if each["name"] == "ner-int8"]
            assert (entry["state"], entry["reason"]) == ("UNAVAILABLE", "unloaded")
            said = [await client.get(f"{NER}{what}") for what in ("", "/ready", "/stats")]
            said.append(await client.post(f"{NER}/infer", json=asked("Kano")))
            for response in said:
                assert response.status_code == 404
                assert response.json()["error"] == "ner-int8 is unloaded; known are news-int8"
            everything = (await client.get("/v2/models/stats")).json()["model_stats"]
            assert [each["name"] for each in everything] == ["news-int8"]

    asyncio.run(asyncio.wait_for(scenario(), 30))


def stats(client: TestClient, model: str = NER) -> dict[str, Any]:
    [found] = client.get(f"{model}/stats").json()["model_stats"]
    said: dict[str, Any] = found
    return said


def test_the_statistics_count_every_surface(client: TestClient) -> None:
    before = stats(client)
    infer(client, NER, SENTENCE, "Kano")
    client.post("/v1/ner", json={"inputs": "Kano", "variant": "ner-int8"})
    client.post(f"{NER}/infer", json=asked(""))
    after = stats(client)

    def grown(what: str, unit: str) -> int:
        was, now = (each["inference_stats"][what][unit] for each in (before, after))
        return int(now - was)

    assert after["inference_count"] - before["inference_count"] == 3
    assert grown("success", "count") == grown("queue", "count") == grown("compute_input", "count")
    assert grown("success", "count") == 2
    assert grown("fail", "count") == 1
    runs = after["execution_count"] - before["execution_count"]
    assert 2 <= runs <= 3 and grown("compute_infer", "count") == runs
    for what in ("success", "fail", "queue", "compute_input", "compute_infer"):
        assert grown(what, "ns") > 0
    assert after["last_inference"] >= before["last_inference"]
    assert after["last_inference"] > 0
    everything = client.get("/v2/models/stats").json()["model_stats"]
    assert [each["name"] for each in everything] == ["ner-int8", "news-int8"]
    assert everything[0] == after


def test_statistics_are_of_one_variant_and_never_counted_is_zero() -> None:
    def sample(name: str, value: float, variant: str, **labels: str) -> Sample:
        return Sample(name, {"variant": variant, **labels}, value)

    samples = [
        sample("kadogo_request_seconds_sum", 1.5, "a", status_class="2xx", task="ner"),
        sample("kadogo_request_seconds_count", 3, "a", status_class="2xx", task="ner"),
        sample("kadogo_request_seconds_sum", 0.25, "a", status_class="4xx", task="ner"),
        sample("kadogo_request_seconds_count", 1, "a", status_class="4xx", task="ner"),
        sample("kadogo_request_seconds_count", 2, "a", status_class="5xx", task="ner"),
        sample("kadogo_request_seconds_count", 9, "b", status_class="2xx", task="ner"),
        sample("kadogo_model_seconds_count", 2, "a"),
        sample("kadogo_model_seconds_sum", 0.5, "a"),
        sample("kadogo_texts_total", 5, "a"),
        Sample("python_info", {"version": "3"}, 1),
    ]
    found = statistics("a", "digest", samples)
    assert (found.inference_count, found.execution_count, found.last_inference) == (5, 2, 0)
    assert found.inference_stats.success == Duration(3, 1_500_000_000)
    assert found.inference_stats.fail == Duration(3, 250_000_000)
    assert found.inference_stats.compute_infer == Duration(2, 500_000_000)
    assert found.inference_stats.queue == found.inference_stats.cache_hit == Duration()

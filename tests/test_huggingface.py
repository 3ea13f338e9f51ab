"""`POST /models/{variant}`: the wire of Hugging Face's inference, and answers as transformers'."""

from __future__ import annotations

import asyncio
import json
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from prometheus_client import REGISTRY
from starlette.testclient import TestClient
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    TextClassificationPipeline,
    TokenClassificationPipeline,
)

from build import tokenizer
from build.checkpoint import Checkpoint, Purpose, write_purpose
from build.export import export
from build.publish import Title, publish
from build.steps import Export
from models.spec import Aggregation, Licence, Squash, Task, Windows
from service.api import Answers, build
from service.lanes import Lanes
from service.settings import Settings
from tests.test_api import app_of, held, over, spoil, until_waiting
from tests.tiny import write_variant
from tests.tiny_checkpoint import labels_of, network

GOLDEN = Path(__file__).parent.parent / "build" / "golden.json"
TEXTS = [each["text"] for each in json.loads(GOLDEN.read_text(encoding="utf-8"))]
SENTENCE = "Sani Bello ya je Kano ranar Litinin."
AT_ONCE = 64

Found = dict[str, Any]


# --- the same as transformers ----------------------------------------------------------------


def write_original(folder: Path, task: Task) -> Path:
    """Random weights whose answers differ from piece to piece, and a tokenizer of real texts."""
    trained = tokenizer.train(TEXTS, 800)
    original = network(task, vocab_size=trained.get_vocab_size())
    with torch.no_grad():
        for name, weight in original.named_parameters():
            if "LayerNorm.weight" in name:
                weight.fill_(1.0)
            elif name.endswith("bias"):
                weight.zero_()
    original.save_pretrained(folder)
    tokenizer.save(trained, folder)
    windows = Windows(tokens=128, overlap=32 if task is Task.NER else 0)
    purpose = Purpose(task=task, labels=labels_of(task), languages=("hau",), windows=windows)
    write_purpose(folder, purpose)
    return folder


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[Task, Path]:
    room = tmp_path_factory.mktemp("originals")
    return {task: write_original(room / task, task) for task in Task}


@pytest.fixture(scope="module")
def exported(
    originals: dict[Task, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TestClient]:
    """The originals' variants, `ner` and `classification`, served."""
    room = tmp_path_factory.mktemp("exported")
    for task, original in originals.items():
        (room / task).mkdir()
        export(Export(), original, room / task)
        title = Title(
            name=task,
            description="Random weights for tests",
            licence=Licence(name="Apache-2.0", sources=()),
            command="",
        )
        publish(Checkpoint(room / task, ("Random()",)), room / "zoo", title)
    settings = Settings(catalog=room / "zoo", max_inputs=AT_ONCE)
    with TestClient(app_of(Lanes(settings), settings)) as client:
        yield client


class ToldOfWords(TokenClassificationPipeline):
    """
    transformers' pipeline, but for its guess of where words begin.

    A tokenizer that does not mark what goes on within a word makes it look for spaces: then
    "Kano." is one word, and a word that begins with a bare "▁" is two.
    """

    def gather_pre_entities(self, sentence: str, *args: Any, **kwargs: Any) -> list[Found]:
        words = self.tokenizer(sentence).word_ids()
        pieces = super().gather_pre_entities(sentence, *args, **kwargs)
        for piece in pieces:
            piece["is_subword"] = words[piece["index"]] == words[piece["index"] - 1]
        return pieces


@pytest.fixture(scope="module")
def taggers(originals: dict[Task, Path]) -> dict[str, TokenClassificationPipeline]:
    folder = originals[Task.NER]
    model = AutoModelForTokenClassification.from_pretrained(folder)
    own = AutoTokenizer.from_pretrained(folder)
    plain = TokenClassificationPipeline(model=model, tokenizer=own)
    return {"plain": plain, "told of words": ToldOfWords(model=model, tokenizer=own)}


# What ours does otherwise, one correction of theirs each. All else is the same.


def whole_letters(text: str, theirs: list[Found]) -> list[Found]:
    """A piece may end between a letter and its marks; ours are of whole letters."""
    return [
        {**each, "start": _begin(text, each["start"]), "end": _end(text, each["end"])}
        for each in theirs
    ]


def no_letter_twice(text: str, theirs: list[Found]) -> list[Found]:
    """
    Two pieces may stand for one letter: halves of it, or a bare "▁" and the letter after it. Where
    they are not of one entity theirs overlap; of ours the first has the letter.
    """
    apart: list[Found] = []
    for each in theirs:
        reached = apart[-1]["end"] if apart else 0
        if each["end"] > reached:
            apart.append({**each, "start": max(each["start"], reached)})
    return apart


def the_text_itself(text: str, theirs: list[Found]) -> list[Found]:
    """
    Their words are spelt from pieces: composed, with a space before every word and sign, and empty
    for a bare "▁". Ours are the caller's text.
    """
    return [{**each, "word": text[each["start"] : each["end"]]} for each in theirs]


_BY_WORDS = (whole_letters, the_text_itself)
KNOWN: dict[Aggregation, tuple[Callable[[str, list[Found]], list[Found]], ...]] = {
    Aggregation.NONE: (whole_letters,),
    Aggregation.SIMPLE: (whole_letters, no_letter_twice, the_text_itself),
    Aggregation.FIRST: _BY_WORDS,
    Aggregation.AVERAGE: _BY_WORDS,
    Aggregation.MAX: _BY_WORDS,
}


def _begin(text: str, at: int) -> int:
    while 0 < at < len(text) and unicodedata.combining(text[at]):
        at -= 1
    return at


def _end(text: str, at: int) -> int:
    while at < len(text) and unicodedata.combining(text[at]):
        at += 1
    return at


def asked(client: TestClient, variant: str, texts: list[str], **parameters: Any) -> list[Any]:
    """The answers to any number of texts."""
    answers: list[Any] = []
    for first in range(0, len(texts), AT_ONCE):
        body = {"inputs": texts[first : first + AT_ONCE], "parameters": parameters}
        response = client.post(f"/models/{variant}", json=body)
        assert response.status_code == 200, response.text
        answers += response.json()
    return answers


def unscored(answer: list[Found]) -> list[Found]:
    return [{name: each[name] for name in each if name != "score"} for each in answer]


def scores(answer: list[Found]) -> list[float]:
    return [float(each["score"]) for each in answer]


@pytest.mark.parametrize("ignored", [["O"], ["LOC", "B-PER"]])
@pytest.mark.parametrize("how", Aggregation)
def test_entities_are_those_of_transformers_but_for_what_is_known(
    exported: TestClient,
    taggers: dict[str, TokenClassificationPipeline],
    how: Aggregation,
    ignored: list[str],
) -> None:
    texts = [*TEXTS, *(unicodedata.normalize("NFD", text) for text in TEXTS)]
    theirs = taggers["told of words" if KNOWN[how] is _BY_WORDS else "plain"]
    ours = asked(exported, "ner", texts, aggregation_strategy=how, ignore_labels=ignored)
    needed = set()
    for text, found in zip(texts, ours, strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that words are guessed
            expected = theirs(text, aggregation_strategy=how.value, ignore_labels=ignored)
        for correct in KNOWN[how]:
            before, expected = expected, correct(text, expected)
            if before != expected:
                needed.add(correct)
        assert unscored(found) == unscored(expected)
        assert scores(found) == pytest.approx(scores(expected), abs=1e-4)
        assert all(list(each) == list(other) for each, other in zip(found, expected, strict=True))
    assert needed == set(KNOWN[how])
    label = "entity" if how is Aggregation.NONE else "entity_group"
    assert len({each[label] for found in ours for each in found}) > 3  # the test tells labels apart


@pytest.mark.parametrize("function", [None, *Squash])
@pytest.mark.parametrize("top_k", [None, 2])
def test_labels_are_those_of_transformers(
    exported: TestClient,
    originals: dict[Task, Path],
    function: Squash | None,
    top_k: int | None,
) -> None:
    folder = originals[Task.CLASSIFICATION]
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    own = AutoTokenizer.from_pretrained(folder)
    theirs = TextClassificationPipeline(model=model, tokenizer=own)
    limits = {"function_to_apply": function, "top_k": top_k}
    ours = asked(exported, "classification", TEXTS, **limits)
    for text, found in zip(TEXTS, ours, strict=True):
        # Theirs keeps the best label alone unless told; what is left out here is every label.
        expected = theirs(text, **limits)
        assert unscored(found) == unscored(expected)
        assert scores(found) == pytest.approx(scores(expected), abs=1e-4)
    assert len({found[0]["label"] for found in ours}) > 1


# --- the wire --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zoo")
    write_variant(folder, "ner-base", Task.NER, windows=Windows(tokens=16, overlap=4))
    write_variant(folder, "ner-int8", Task.NER)
    write_variant(folder, "news-int8", Task.CLASSIFICATION)
    spoil(write_variant(folder, "ner-spoilt", Task.NER))
    return folder


@pytest.fixture(scope="module")
def client(catalog: Path) -> Iterator[TestClient]:
    settings = Settings(catalog=catalog, max_inputs=3, max_text=1000, max_body=5000)
    with TestClient(app_of(Lanes(settings), settings)) as client:
        yield client


def ask(client: TestClient, variant: str, **body: Any) -> Any:
    response = client.post(f"/models/{variant}", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def test_one_text_has_its_entities_bare_and_several_a_list_each(client: TestClient) -> None:
    found = ask(client, "ner-int8", inputs="Sani Bello ya je Kano")
    assert unscored(found) == [
        {"entity_group": "PER", "word": "Sani Bello", "start": 0, "end": 10},
        {"entity_group": "LOC", "word": "Kano", "start": 17, "end": 21},
    ]
    assert ask(client, "ner-int8", inputs=["Sani Bello ya je Kano"]) == [found]
    assert ask(client, "ner-int8", inputs=["ya", "Sani Bello ya je Kano"]) == [[], found]


def test_one_text_has_its_labels_in_a_list_once_more(client: TestClient) -> None:
    """The official client takes the first of what it gets, and that is a list."""
    text = "kwallo kwallo"
    found = ask(client, "news-int8", inputs=text, parameters={"top_k": 2})
    [labels] = found
    assert [each["label"] for each in labels] == ["sports", "business"]
    assert ask(client, "news-int8", inputs=[text], parameters={"top_k": 2}) == found
    assert [len(each) for each in ask(client, "news-int8", inputs=["kwallo", "banki"])] == [3, 3]


def test_what_is_left_out_is_as_the_hosted_service_has_it(client: TestClient) -> None:
    simple = ask(client, "ner-int8", inputs=SENTENCE, parameters={"aggregation_strategy": "simple"})
    for parameters in (None, {}, {"aggregation_strategy": None, "ignore_labels": None}):
        assert ask(client, "ner-int8", inputs=SENTENCE, parameters=parameters) == simple
    assert ask(client, "ner-int8", inputs=SENTENCE) == simple
    pieces = ask(client, "ner-int8", inputs=SENTENCE, parameters={"aggregation_strategy": "none"})
    assert list(pieces[0]) == ["entity", "score", "index", "word", "start", "end"]


def test_an_unknown_letter_is_spelt_as_the_text(client: TestClient) -> None:
    everything = {"aggregation_strategy": "none", "ignore_labels": []}
    found = ask(client, "ner-int8", inputs="Kano \u1275", parameters=everything)
    assert [(each["word"], each["index"]) for each in found] == [
        ("▁Kano", 1),
        ("▁", 2),
        ("\u1275", 3),
    ]


def test_the_services_switches_change_nothing(client: TestClient) -> None:
    switches = {"use_cache": False, "wait_for_model": True}
    assert ask(client, "ner-int8", inputs=SENTENCE, options=switches) == ask(
        client, "ner-int8", inputs=SENTENCE
    )


def test_a_stride_that_the_windows_keep_is_taken(client: TestClient) -> None:
    text = "Sani Bello ya je Kano . " * 20
    found = ask(client, "ner-base", inputs=text, parameters={"stride": 4})
    assert [each["word"] for each in found] == ["Sani Bello", "Kano"] * 20
    error = refused(client, "ner-base", {"inputs": text, "parameters": {"stride": 5}}, 422)
    assert error == (
        "/parameters/stride: ner-base reads long texts in windows that share 4 pieces, so stride "
        "is at most 4; leave it out: nothing is cut off without it"
    )


def test_an_answer_says_what_answered_and_for_which_request(client: TestClient) -> None:
    headers = {"X-Request-ID": "abc-1", "Authorization": "Bearer hf_x"}
    response = client.post("/models/ner-base", json={"inputs": "Kano"}, headers=headers)
    assert response.headers["x-request-id"] == "abc-1"
    assert response.headers["x-variant"] == "ner-base"
    assert "model;dur=" in response.headers["server-timing"]


# --- refusals --------------------------------------------------------------------------------


def refused(client: TestClient, variant: str, body: Any, status: int) -> str:
    response = client.post(f"/models/{variant}", content=json.dumps(body))
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    assert list(response.json()) == ["error"]
    error: str = response.json()["error"]
    assert "SECRET" not in error
    return error


@pytest.mark.parametrize(
    ("variant", "body", "status", "error"),
    [
        (
            *("ner-large", {"inputs": "a"}, 404),
            "there is no variant ner-large; known are ner-base, ner-int8, news-int8",
        ),
        (
            *("SECRET", {"inputs": "a"}, 404),
            "there is no variant of that name; known are ner-base, ner-int8, news-int8",
        ),
        (
            *("somebody/ner-int8", {"inputs": "a"}, 404),
            "there is no variant of that name; known are ner-base, ner-int8, news-int8",
        ),
        ("ner-int8", {"inputs": "a" * 1001}, 413, "/inputs has 1001 characters"),
        ("ner-int8", {"inputs": ["a"] * 4}, 413, "4 inputs; at most 3"),
        ("ner-int8", {"inputs": ""}, 422, "/inputs: the text is empty"),
        ("ner-int8", {"SECRET": 1}, 422, "known are inputs, parameters, options; the body: Object"),
        ("ner-int8", {"inputs": {"text": "SECRET"}}, 422, "/inputs: Expected `str | array`"),
        (
            *("ner-int8", {"inputs": "a", "parameters": {"aggregation_strategy": "SECRET"}}, 422),
            "/parameters/aggregation_strategy: it is one of none, simple, first, average, max",
        ),
        (
            *("ner-int8", {"inputs": "a", "parameters": {"SECRET": 1}}, 422),
            "known are aggregation_strategy, ignore_labels, stride",
        ),
        (
            *("ner-int8", {"inputs": "a", "parameters": {"top_k": 1}}, 422),
            "/parameters/top_k: top_k is a parameter of text classification",
        ),
        (
            *("news-int8", {"inputs": "a", "parameters": {"stride": 1}}, 422),
            "/parameters/stride: stride is a parameter of token classification",
        ),
        ("news-int8", {"inputs": "a", "parameters": {"top_k": 0}}, 422, "/parameters/top_k"),
        (
            *("news-int8", {"inputs": "a", "parameters": {"function_to_apply": "SECRET"}}, 422),
            "/parameters/function_to_apply: it is one of sigmoid, softmax, none",
        ),
        (
            *("ner-int8", {"inputs": "a", "options": {"SECRET": 1}}, 422),
            "/options: unknown field; known are use_cache, wait_for_model",
        ),
        ("ner-spoilt", {"inputs": "a"}, 503, "variant ner-spoilt is quarantined: model.onnx"),
    ],
)
def test_what_cannot_be_done_is_said_in_the_services_own_shape(
    client: TestClient, variant: str, body: Any, status: int, error: str
) -> None:
    assert error in refused(client, variant, body, status)


def test_a_body_that_is_no_json_is_a_400(client: TestClient) -> None:
    response = client.post("/models/ner-int8", content=b"{SECRET")
    assert response.status_code == 400
    assert "not JSON" in response.json()["error"] and "SECRET" not in response.text


def test_a_query_string_and_other_content_are_refused(client: TestClient) -> None:
    query = client.post("/models/ner-int8?aggregation_strategy=none", json={"inputs": "a"})
    assert query.status_code == 422 and "query string" in query.json()["error"]
    audio = client.post("/models/ner-int8", content=b"a", headers={"content-type": "audio/wav"})
    assert audio.status_code == 415 and "send JSON" in audio.json()["error"]


def test_another_method_is_told_the_right_one(client: TestClient) -> None:
    response = client.get("/models/ner-int8")
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"


def test_while_loading_the_caller_is_told_when_to_come_back(catalog: Path) -> None:
    settings = Settings(catalog=catalog)
    client = TestClient(build(Answers(Lanes(settings), settings)))  # never started
    response = client.post("/models/ner-int8", json={"inputs": "a"})
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert response.json() == {"error": "the models are still loading"}


def test_where_nothing_serves_no_variant_is_called_unknown(tmp_path: Path) -> None:
    settings = Settings(catalog=tmp_path)
    with TestClient(app_of(Lanes(settings), settings)) as client:
        assert "nothing serves" in refused(client, "ner-int8", {"inputs": "a"}, 503)


def test_a_full_queue_tells_when_to_come_back(catalog: Path) -> None:
    settings = Settings(catalog=catalog, threads=1, queue_texts=1)
    lanes = Lanes(settings)

    async def scenario() -> None:
        async with lanes.open(), over(build(Answers(lanes, settings))) as client:
            body = {"inputs": "Kano"}
            async with held(lanes):
                running = asyncio.ensure_future(client.post("/models/ner-int8", json=body))
                await asyncio.sleep(0.05)
                waiting = asyncio.ensure_future(client.post("/models/ner-int8", json=body))
                await until_waiting(lanes, 1)
                refused = await client.post("/models/ner-int8", json=body)
            assert refused.status_code == 429
            assert int(refused.headers["retry-after"]) >= 1
            assert list(refused.json()) == ["error"]
            assert (await running).status_code == (await waiting).status_code == 200

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_requests_are_counted_by_the_variant_and_its_task(client: TestClient) -> None:
    def counted(task: str, variant: str, status_class: str) -> float:
        labels = {"task": task, "variant": variant, "status_class": status_class}
        return REGISTRY.get_sample_value("kadogo_request_seconds_count", labels) or 0.0

    answered = "classification", "news-int8", "2xx"
    unknown = "none", "none", "4xx"
    before = counted(*answered), counted(*unknown)
    ask(client, "news-int8", inputs="banki")
    refused(client, "ner-large", {"inputs": "a"}, 404)
    assert (counted(*answered), counted(*unknown)) == (before[0] + 1, before[1] + 1)

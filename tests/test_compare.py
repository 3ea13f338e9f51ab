"""Variants side by side: the laws of comparing, and `POST /v1/compare`."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from starlette.testclient import TestClient

from models.spec import ClassificationAnswer, Entity, LabelScore, NerAnswer, Task
from service import metrics
from service.api import Answers, build
from service.compare import (
    Agreement,
    ClassificationComparison,
    NerComparison,
    agreement,
    compared,
    stretches,
)
from service.ladder import Standing
from service.lane import INLINE
from service.lanes import Lanes
from service.settings import Settings
from tests.test_api import app_of, held, over, spoil, until_waiting
from tests.tiny import NER_WORDS, judged, write_variant

TEXT = "abcdefghijklmnopqrst"


def entity(label: str, start: int, end: int, score: float = 0.5) -> Entity:
    return Entity(label=label, start=start, end=end, text=TEXT[start:end], score=score)


def ner(*found: Entity) -> NerAnswer:
    return NerAnswer(entities=found, tokens=len(TEXT), windows=1, unknown=0.0)


def ranked(**scores: float) -> ClassificationAnswer:
    best = sorted(scores.items(), key=lambda each: -each[1])
    labels = tuple(LabelScore(label=label, score=score) for label, score in best)
    return ClassificationAnswer(labels=labels, tokens=1, windows=1, unknown=0.0)


@st.composite
def found(draw: st.DrawFn) -> NerAnswer:
    """Entities as decoding gives them: in the text's order, none within another."""
    cuts = sorted(draw(st.sets(st.integers(0, len(TEXT)), max_size=8)))
    spans = list(zip(cuts[::2], cuts[1::2], strict=False))
    labels = draw(st.lists(st.sampled_from(["PER", "LOC"]), min_size=4, max_size=4))
    return ner(*(entity(label, *span) for label, span in zip(labels, spans, strict=False)))


several = st.lists(found(), min_size=1, max_size=4).map(
    lambda answers: {f"ner-{index}": answer for index, answer in enumerate(answers)}
)


def spans(entities: Sequence[Entity]) -> Counter[tuple[str, int, int]]:
    return Counter((each.label, each.start, each.end) for each in entities)


def side_by_side(answers: Mapping[str, NerAnswer]) -> NerComparison:
    comparison = compared(answers, next(iter(answers)))
    assert isinstance(comparison, NerComparison)
    return comparison


# --- laws ------------------------------------------------------------------------------------


@given(several)
def test_every_entity_of_every_variant_is_agreed_or_disagreed_once(
    answers: dict[str, NerAnswer],
) -> None:
    comparison = side_by_side(answers)
    for name, answer in answers.items():
        alike = Counter((each.label, each.start, each.end) for each in comparison.agreed)
        apart = [each for one in comparison.disagreements for each in one.said[name]]
        assert alike + spans(apart) == spans(answer.entities)
        assert all(name in each.scores for each in comparison.agreed)


@given(several)
def test_what_variants_disagree_on_does_not_overlap_and_is_in_the_texts_order(
    answers: dict[str, NerAnswer],
) -> None:
    comparison = side_by_side(answers)
    apart = [(each.start, each.end) for each in comparison.disagreements]
    alike = [(each.start, each.end) for each in comparison.agreed]
    assert apart == sorted(apart) and alike == sorted(alike)
    every = sorted(apart + alike)
    assert all(one[1] <= other[0] for one, other in pairwise(every))
    for each in comparison.disagreements:
        everyone = [one for said in each.said.values() for one in said]
        assert each.said.keys() == answers.keys()
        assert (each.start, each.end) == (
            min(one.start for one in everyone),
            max(one.end for one in everyone),
        )
        assert len({tuple(spans(said).items()) for said in each.said.values()}) > 1


@given(found(), st.integers(1, 3))
def test_a_variant_agrees_with_itself(answer: NerAnswer, times: int) -> None:
    comparison = side_by_side({f"ner-{index}": answer for index in range(times)})
    assert comparison.disagreements == ()
    assert [each.text for each in comparison.agreed] == [each.text for each in answer.entities]
    assert agreement(answer, answer) == Agreement(len(answer.entities), 0, 0)
    assert agreement(answer, answer).share == 1


@given(found(), found())
def test_who_is_compared_with_whom_is_the_same_either_way(one: NerAnswer, other: NerAnswer) -> None:
    forth, back = agreement(one, other), agreement(other, one)
    assert forth == Agreement(back.both, back.other, back.reference)
    assert forth.share == back.share and 0 <= forth.share <= 1
    here, there = side_by_side({"a": one, "b": other}), side_by_side({"b": other, "a": one})
    assert here.agreed == there.agreed
    assert here.disagreements == there.disagreements


@given(found(), found())
def test_agreement_counts_what_the_comparison_shows(one: NerAnswer, other: NerAnswer) -> None:
    counts, comparison = agreement(one, other), side_by_side({"a": one, "b": other})
    alone = [one.said for one in comparison.disagreements]
    # In a stretch that is read differently some of it may be read alike: two of three, say.
    alike = sum((spans(said["a"]) & spans(said["b"])).total() for said in alone)
    assert counts.both == len(comparison.agreed) + alike
    assert counts.reference == sum(len(said["a"]) for said in alone) - alike
    assert counts.other == sum(len(said["b"]) for said in alone) - alike
    assert (counts.share == 1) == (comparison.disagreements == ())


@given(st.lists(st.tuples(found(), found()), min_size=1, max_size=4))
def test_agreements_of_several_texts_add_up(pairs: list[tuple[NerAnswer, NerAnswer]]) -> None:
    total = Agreement(0, 0, 0)
    for one, other in pairs:
        total = total.plus(agreement(one, other))
    assert total.both + total.reference == sum(len(one.entities) for one, _ in pairs)
    assert total.both + total.other == sum(len(other.entities) for _, other in pairs)


# --- examples --------------------------------------------------------------------------------


def test_overlaps_and_other_labels_are_one_disagreement() -> None:
    base = ner(entity("PER", 0, 4), entity("LOC", 6, 9), entity("ORG", 12, 15))
    tiny = ner(entity("PER", 0, 4), entity("LOC", 5, 7), entity("PER", 8, 9), entity("LOC", 12, 15))
    comparison = side_by_side({"base": base, "tiny": tiny})
    assert [(each.label, each.scores) for each in comparison.agreed] == [
        ("PER", {"base": 0.5, "tiny": 0.5})
    ]
    overlap, relabelled = comparison.disagreements
    assert (overlap.start, overlap.end) == (5, 9)
    assert overlap.said == {"base": base.entities[1:2], "tiny": tiny.entities[1:3]}
    assert relabelled.said == {"base": base.entities[2:], "tiny": tiny.entities[3:]}
    assert agreement(base, tiny) == Agreement(1, 2, 3)
    assert agreement(base, tiny).share == pytest.approx(2 / 7)


def test_what_one_alone_found_is_a_disagreement_with_nothing() -> None:
    [apart] = side_by_side({"a": ner(), "b": ner(entity("LOC", 2, 5))}).disagreements
    assert apart.said == {"a": (), "b": (entity("LOC", 2, 5),)}


def test_neighbours_do_not_overlap() -> None:
    found = {"a": [entity("PER", 0, 3)], "b": [entity("PER", 3, 6)]}
    assert [[*each["a"], *each["b"]] for each in stretches(found)] == [[*found["a"]], [*found["b"]]]


def test_pieces_of_one_letter_are_compared_too() -> None:
    twice = ner(entity("B-PER", 0, 1), entity("I-PER", 0, 1))
    assert len(side_by_side({"a": twice, "b": twice}).agreed) == 2
    once = ner(entity("B-PER", 0, 1))
    assert agreement(twice, once) == Agreement(1, 1, 0)
    assert len(side_by_side({"a": twice, "b": once}).disagreements) == 1


def test_saying_nothing_is_agreeing_with_nothing() -> None:
    assert agreement(ner(), ner()).share == 1
    assert agreement(ranked(), ranked()).share == 1
    assert agreement(ranked(a=1.0), ranked()).share == 0


def test_labels_are_compared_with_the_references() -> None:
    answers = {
        "base": ranked(a=0.5, b=0.25),
        "int8": ranked(a=0.75, c=0.125),
        "tiny": ranked(b=1.0),
    }
    comparison = compared(answers, "int8")
    assert isinstance(comparison, ClassificationComparison)
    assert comparison.top == {"base": "a", "int8": "a", "tiny": "b"}
    assert not comparison.agreed
    assert comparison.differences == {"base": {"a": -0.25}, "tiny": {}}
    assert agreement(answers["base"], answers["int8"]) == Agreement(1, 0, 0)
    assert agreement(answers["base"], answers["tiny"]) == Agreement(0, 1, 1)
    same = compared({"a": ranked(a=1.0), "b": ranked(a=0.5)}, "a")
    assert isinstance(same, ClassificationComparison) and same.agreed


# --- over HTTP -------------------------------------------------------------------------------

SENTENCE = "Sani Bello ya je Kano ranar Litinin."
# One that knows fewer words.
FEWER = {word: label for word, label in NER_WORDS.items() if word not in ("Bello", "Litinin")}


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zoo")
    adopted(write_variant(folder, "ner-tiny", Task.NER, words=FEWER), parent="ner-whole")
    write_variant(folder, "ner-whole", Task.NER)
    adopted(write_variant(folder, "ner-int8", Task.NER), parent="ner-whole")
    write_variant(folder, "news-int8", Task.CLASSIFICATION)
    write_variant(folder, "news-tiny", Task.CLASSIFICATION)
    moods = write_variant(folder, "mood-base", Task.CLASSIFICATION)
    adopted(moods, labels=["bad", "good", "so-so"])
    spoil(write_variant(folder, "ner-spoilt", Task.NER))
    return folder


def adopted(folder: Path, **changes: Any) -> None:
    manifest = folder / "variant.json"
    manifest.write_bytes(
        msgspec.json.encode({**msgspec.json.decode(manifest.read_bytes()), **changes})
    )


@pytest.fixture(scope="module")
def client(catalog: Path) -> Iterator[TestClient]:
    settings = Settings(catalog=catalog, max_inputs=6, max_text=1000)
    with TestClient(app_of(Lanes(settings), settings)) as client:
        yield client


def ask(client: TestClient, **body: Any) -> Any:
    response = client.post("/v1/compare", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def test_variants_are_compared_with_the_baseline_among_them(client: TestClient) -> None:
    reply = ask(client, inputs=SENTENCE, variants=["ner-tiny", "ner-whole"])
    assert (reply["task"], reply["reference"]) == ("ner", "ner-whole")
    tiny, whole = reply["variants"]
    assert (tiny["variant"], whole["variant"]) == ("ner-tiny", "ner-whole")
    assert whole["agreement"] == {"both": 3, "reference": 0, "variant": 0, "share": 1.0}
    assert tiny["agreement"] == {"both": 1, "reference": 2, "variant": 1, "share": 0.4}
    assert tiny["timing_ms"].keys() == {"queue", "encode", "model", "total"}
    assert len(tiny["digest"]) == 16
    [result] = reply["results"]
    assert [each["text"] for each in result["agreed"]] == ["Kano"]
    person, day = result["disagreements"]
    assert [each["text"] for each in person["said"]["ner-tiny"]] == ["Sani"]
    assert [each["text"] for each in person["said"]["ner-whole"]] == ["Sani Bello"]
    assert day["said"]["ner-tiny"] == []
    for name in ("ner-tiny", "ner-whole"):
        alone = client.post("/v1/ner", json={"inputs": SENTENCE, "variant": name}).json()
        assert result["answers"][name] == alone["results"][0]


def test_without_a_baseline_among_them_the_first_is_compared_with(client: TestClient) -> None:
    assert ask(client, inputs="Kano", variants=["ner-tiny", "ner-int8"])["reference"] == "ner-tiny"


def test_a_task_alone_compares_all_that_serve_it_alike(client: TestClient) -> None:
    reply = ask(client, inputs=["Kano", "Sani"], task="ner")
    assert [each["variant"] for each in reply["variants"]] == ["ner-int8", "ner-tiny", "ner-whole"]
    assert len(reply["results"]) == 2
    news = ask(client, inputs="banki", task="classification")
    assert [each["variant"] for each in news["variants"]] == ["news-int8", "news-tiny"]


def test_parameters_are_those_of_the_task(client: TestClient) -> None:
    one = ask(client, inputs="banki", variants=["news-tiny"], parameters={"top_k": 1})
    assert [len(answer["labels"]) for answer in one["results"][0]["answers"].values()] == [1]
    utf16 = ask(client, inputs="😀 Kano", task="ner", parameters={"offset_unit": "utf16"})
    assert [each["start"] for each in utf16["results"][0]["agreed"]] == [3]


def test_a_comparison_has_the_requests_id_and_is_counted_as_one(client: TestClient) -> None:
    def counted(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(name, labels) or 0.0

    request = {"task": "compare", "variant": "none", "status_class": "2xx"}
    before = (
        counted("kadogo_request_seconds_count", **request),
        counted("kadogo_texts_total", variant="ner-tiny"),
    )
    body = {"inputs": ["Kano", "Sani"], "variants": ["ner-tiny", "ner-whole"]}
    response = client.post("/v1/compare", json=body, headers={"X-Request-ID": "abc-1"})
    assert response.headers["x-request-id"] == "abc-1"
    assert (
        counted("kadogo_request_seconds_count", **request),
        counted("kadogo_texts_total", variant="ner-tiny"),
    ) == (before[0] + 1, before[1] + 2)


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ({"inputs": "a"}, 422, "the body: give variants, or a task to compare all that serve it"),
        ({"inputs": "a", "variants": []}, 422, "/variants: name at least one, or give a task"),
        (
            {"inputs": "a", "variants": ["ner-tiny", "ner-tiny"]},
            *(422, "/variants/1: ner-tiny is named twice"),
        ),
        (
            {"inputs": "a", "variants": ["ner-tiny", "news-int8"]},
            *(422, "/variants/1: news-int8 serves classification, ner-tiny ner"),
        ),
        (
            {"inputs": "a", "variants": ["mood-base", "news-int8"]},
            *(422, "/variants/1: news-int8 and mood-base tell different labels apart"),
        ),
        (
            {"inputs": "a", "variants": ["ner-tiny"], "task": "classification"},
            *(422, "/task: ner-tiny serves ner: leave it out"),
        ),
        ({"inputs": "a", "task": "SECRET"}, 422, "/task: it is one of ner, classification"),
        ({"inputs": "", "task": "ner"}, 422, "/inputs: the text is empty"),
        ({"inputs": ["a", 1], "task": "ner"}, 422, "/inputs/1: Expected `str`"),
        ({"inputs": "a", "variants": [1]}, 422, "/variants/0: Expected `str`"),
        (
            {"inputs": "a", "SECRET": 1},
            *(422, "the body: unknown field; known are inputs, variants, task, parameters"),
        ),
        (
            {"inputs": "a", "task": "ner", "parameters": {"top_k": 1}},
            *(422, "/parameters/top_k: top_k is a parameter of classification"),
        ),
        (
            {"inputs": "a", "task": "ner", "parameters": {"SECRET": 1}},
            *(422, "/parameters: unknown field; known are min_score"),
        ),
        ({"inputs": "a", "task": "ner", "parameters": 1}, 422, "/parameters: Expected `object"),
        (
            {"inputs": "a", "variants": ["ner-tiny", "ner-large"]},
            *(404, "there is no variant ner-large; known are mood-base, ner-int8, ner-tiny"),
        ),
        (
            {"inputs": "a", "variants": ["ner-spoilt"]},
            *(503, "variant ner-spoilt is quarantined: model.onnx"),
        ),
        ({"inputs": "a" * 1001, "task": "ner"}, 413, "/inputs has 1001 characters"),
        ({"inputs": ["a"] * 7, "task": "ner"}, 413, "7 inputs; at most 6"),
        (
            {"inputs": ["a"] * 3, "task": "ner"},
            *(413, "3 inputs through 3 variants are 9 answers; at most 6 go in one request"),
        ),
    ],
)
def test_what_cannot_be_compared_is_said(
    client: TestClient, body: Any, status: int, detail: str
) -> None:
    response = client.post("/v1/compare", content=json.dumps(body))
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert detail in response.json()["detail"]
    assert "SECRET" not in response.text


def test_a_task_nobody_serves_is_said(tmp_path: Path) -> None:
    write_variant(tmp_path, "ner-int8", Task.NER)
    settings = Settings(catalog=tmp_path)
    with TestClient(app_of(Lanes(settings), settings)) as client:
        body = {"inputs": "a", "task": "classification"}
        problem = client.post("/v1/compare", json=body)
    assert problem.status_code == 404
    assert problem.json()["detail"] == "no variant in the catalog serves classification"


def test_variants_run_one_after_another(catalog: Path) -> None:
    settings = Settings(catalog=catalog, threads=1)
    lanes = Lanes(settings)

    async def scenario() -> None:
        async with lanes.open(), over(build(Answers(lanes, settings))) as client:
            async with held(lanes):
                body = {"inputs": "Kano", "task": "ner"}
                asked = asyncio.ensure_future(client.post("/v1/compare", json=body))
                await asyncio.sleep(0.05)  # its first variant is taken up, and held
                body = {"inputs": "Kano", "variant": "ner-whole"}
                other = asyncio.ensure_future(client.post("/v1/ner", json=body))
                await until_waiting(lanes, 1)
                assert sum(each.waiting_windows for each in lanes.status().variants.values()) == 1
            assert (await asked).status_code == (await other).status_code == 200

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_a_variant_that_is_unloaded_meanwhile_is_compared_all_the_same(
    catalog: Path, tmp_path: Path
) -> None:
    settings = Settings(catalog=catalog, threads=1, state=tmp_path)
    lanes = Lanes(settings)

    async def scenario() -> None:
        answers = Answers(lanes, settings)
        async with lanes.open(), over(build(answers)) as client:
            async with held(lanes):
                body = {"inputs": "Kano", "variants": ["ner-whole", "ner-tiny"]}
                asked = asyncio.ensure_future(client.post("/v1/compare", json=body))
                await asyncio.sleep(0.05)  # its first variant is taken up, and held
                await answers.changes.unload("ner-tiny", who="amina")
            assert (await asked).status_code == 200
            assert lanes.lane("ner-tiny") is None

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_a_comparison_by_task_counts_no_rung_of_the_ladder(tmp_path: Path) -> None:
    """Who compares has no policy: nobody smaller answers for another."""
    words = {**NER_WORDS, "Dodoma": "B-LOC"}  # larger than the other
    write_variant(tmp_path / "zoo", "ner-base", Task.NER, words=words, evidence=judged(0.9))
    small = judged(0.7, -0.2)
    write_variant(tmp_path / "zoo", "ner-tiny", Task.NER, parent="ner-base", evidence=small)
    routes = tmp_path / "routes.toml"
    policy = 'policy = { prefer = "best", min_f1 = 0.1 }'
    routes.write_text(f'[[route]]\nname = "all"\ntask = "ner"\n{policy}\n')
    settings = Settings(catalog=tmp_path / "zoo", routes=routes, threads=1)
    lanes = Lanes(settings)

    def degraded() -> float:
        samples = metrics.counted()
        return sum(each.value for each in samples if each.name == "kadogo_degraded_total")

    async def scenario() -> None:
        async with lanes.open(), over(build(Answers(lanes, settings))) as client:
            lanes._standing = Standing(rung=3, since=monotonic())  # as under pressure
            before = degraded()
            body = {"inputs": "Kano", "task": "ner"}
            assert (await client.post("/v1/compare", json=body)).status_code == 200
            assert degraded() == before
            await client.post("/v1/ner", json={"inputs": "Kano"})
            assert degraded() == before + 1

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_a_comparison_that_is_late_is_a_504_that_names_the_variant(catalog: Path) -> None:
    settings = Settings(catalog=catalog, threads=1, deadline_ms=50)
    lanes = Lanes(settings)

    async def scenario() -> None:
        async with lanes.open(), over(build(Answers(lanes, settings))) as client:
            async with held(lanes):
                late = await client.post("/v1/compare", json={"inputs": "Kano", "task": "ner"})
            assert late.status_code == 504
            assert late.json()["variant"] == "ner-int8"

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_long_texts_are_compared_aside_with_the_same_answer(client: TestClient) -> None:
    long = "Sani Bello ya je Kano . " * 40
    body = {"inputs": [long] * 3, "variants": ["ner-tiny", "ner-whole"]}
    aside = ask(client, **body)
    assert sum(map(len, body["inputs"])) > INLINE
    assert len(aside["results"][0]["agreed"]) == len(aside["results"][0]["disagreements"]) == 40
    inline = ask(client, inputs=long, variants=body["variants"])
    assert aside["results"] == inline["results"] * 3

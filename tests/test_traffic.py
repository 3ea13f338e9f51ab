"""Laws of what a load test sends: its mixes, its repeats, its bytes, and how answers are read."""

from __future__ import annotations

import argparse
import itertools
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from loadtest.record import Call
from loadtest.texts import LENGTHS, BadTraffic
from loadtest.traffic import (
    POOL,
    Traffic,
    add_arguments,
    body,
    calls,
    from_arguments,
    path,
    pool,
    read_answer,
)

ANY = [
    Traffic(),
    Traffic(duplicates=1.1),
    Traffic(languages={"hau": 2, "swa": 1}),
    Traffic(inputs=3),
]


def asked(*words: str) -> Traffic:
    parser = argparse.ArgumentParser()
    add_arguments(parser, mixes=True)
    return from_arguments(parser.parse_args(words))


# --- the same again --------------------------------------------------------------------------


@pytest.mark.parametrize("traffic", ANY)
def test_the_same_seed_gives_the_same_calls_and_another_seed_others(traffic: Traffic) -> None:
    def of(seed: int) -> list[Call]:
        return calls(Traffic(**{**vars(traffic), "seed": seed}), count=60)

    assert of(1) == of(1) != of(2)


@pytest.mark.parametrize("traffic", ANY)
@pytest.mark.parametrize("task", [None, "ner", "classification"])
def test_fewer_calls_are_the_beginning_of_more(traffic: Traffic, task: str | None) -> None:
    assert calls(traffic, task=task, count=40) == calls(traffic, task=task, count=90)[:40]


@pytest.mark.parametrize("traffic", ANY)
def test_a_tasks_calls_are_the_same_alone_and_in_a_mix(traffic: Traffic) -> None:
    mixed = [each for each in calls(traffic, count=100) if each.task == "ner"]
    assert mixed == calls(traffic, task="ner", count=len(mixed))


# --- mixes -----------------------------------------------------------------------------------


def near(counted: Counter[str], weights: dict[str, float]) -> None:
    """Within four standard deviations of a multinomial."""
    total, whole = counted.total(), sum(weights.values())
    assert counted.keys() == weights.keys()
    for name, weight in weights.items():
        share = weight / whole
        assert abs(counted[name] / total - share) < 4 * np.sqrt(share * (1 - share) / total)


@pytest.mark.parametrize("duplicates", [0, 1.1])
@pytest.mark.parametrize("task", ["ner", "classification"])
def test_languages_come_as_often_as_their_weights(task: str, duplicates: float) -> None:
    weights = {"hau": 6.0, "swa": 3.0, "amh": 1.0}
    found = calls(Traffic(languages=weights, duplicates=duplicates), task=task, count=20_000)
    near(Counter(each.languages[0] for each in found), weights)


def test_tasks_come_as_often_as_their_weights() -> None:
    found = calls(Traffic(tasks={"ner": 3, "classification": 1}), count=20_000)
    near(Counter(each.task for each in found), {"ner": 3, "classification": 1})


def test_without_a_mix_every_language_comes_alike() -> None:
    found = Counter(each.languages[0] for each in calls(Traffic(), task="ner", count=POOL))
    assert len(found) == 10 and max(found.values()) - min(found.values()) <= 1


@pytest.mark.parametrize(("task", "kind"), [("ner", "sentences"), ("classification", "articles")])
@pytest.mark.parametrize("languages", [None, {"hau": 9.0, "amh": 1.0}])
def test_a_task_is_sent_texts_of_its_length(
    task: str, kind: str, languages: dict[str, float] | None
) -> None:
    found = calls(Traffic(languages=languages), task=task, count=20 * POOL)
    words = [len(each.texts[0].split()) for each in found]
    for share, expected in LENGTHS[kind][1:3]:
        assert np.quantile(words, share) == pytest.approx(expected, rel=0.05)


# --- repeats ---------------------------------------------------------------------------------


def numbered(tmp_path: Path, count: int) -> str:
    file = tmp_path / "numbered.txt"
    file.write_text("\n".join(f"text {number}" for number in range(count)))
    return str(file)


def test_every_text_comes_once_before_any_comes_again(tmp_path: Path) -> None:
    found = [each.texts[0] for each in calls(Traffic(texts=numbered(tmp_path, 50)), count=100)]
    ner = [
        each.texts[0] for each in calls(Traffic(texts=numbered(tmp_path, 50)), task="ner", count=99)
    ]
    assert len(found) == 100
    assert len(set(ner[:50])) == 50 and ner[50:] == ner[:49]
    assert ner[:50] != sorted(ner[:50], key=lambda text: int(text.split()[1]))


def repeated(found: list[Call]) -> float:
    """The share of the texts that were sent before: what a server with a cache could answer so."""
    sent = [text for call in found for text in call.texts]
    return 1 - len(set(sent)) / len(sent)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.1, 2.0])
@pytest.mark.parametrize("count", [100, 1000, 10_000])
def test_repeats_are_as_many_as_zipfs_law_has(tmp_path: Path, exponent: float, count: int) -> None:
    """A text of probability p is among n with 1 - (1 - p)^n; the rest of the n are repeats."""
    source = numbered(tmp_path, 1000)
    often = np.arange(1, 1001) ** -exponent
    expected = 1 - (1 - (1 - often / often.sum()) ** count).sum() / count
    shares = [
        repeated(
            calls(Traffic(texts=source, duplicates=exponent, seed=seed), task="ner", count=count)
        )
        for seed in range(8)
    ]
    assert np.mean(shares) == pytest.approx(expected, abs=0.015)


def test_ranks_come_as_zipf_says() -> None:
    traffic = Traffic(duplicates=1.0)
    found = Counter(each.texts[0] for each in calls(traffic, task="ner", count=50_000))
    first, second, *_ = (found[each.text] for each in pool(traffic, "ner"))
    assert first / second == pytest.approx(2, rel=0.08)


def test_a_million_calls_are_no_million_objects() -> None:
    found = calls(Traffic(duplicates=1.1), task="ner", count=100_000)
    assert len(set(map(id, found))) <= POOL


def test_a_request_has_as_many_texts_as_asked_for() -> None:
    one = [text for each in calls(Traffic(), task="ner", count=12) for text in each.texts]
    found = calls(Traffic(inputs=4), task="ner", count=3)
    assert all(len(each.texts) == len(each.languages) == 4 for each in found)
    assert list(itertools.chain(*(each.texts for each in found))) == one


# --- a user's texts --------------------------------------------------------------------------

SANI = {"start": 0, "end": 4, "label": "PER"}
GOLD = [
    {"text": "Sani ya je.", "language": "hau", "entities": [SANI]},
    {"text": "An fara gasar.", "language": "hau", "label": "sports"},
    {"text": "Habari.", "language": "swa"},
]


def written(tmp_path: Path, rows: list[dict[str, object]]) -> str:
    file = tmp_path / "texts.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    return str(file)


def test_a_task_is_sent_what_is_labelled_for_it_and_what_is_not_labelled(tmp_path: Path) -> None:
    traffic = Traffic(texts=written(tmp_path, GOLD))
    ner = {each.texts[0]: each.gold for each in calls(traffic, task="ner", count=9)}
    assert ner == {"Sani ya je.": (frozenset({(0, 4, "PER")}),), "Habari.": None}
    news = {each.texts[0]: each.gold for each in calls(traffic, task="classification", count=9)}
    assert news == {"An fara gasar.": ("sports",), "Habari.": None}


def test_what_is_labelled_for_the_other_task_is_sent_where_there_is_nothing_else(
    tmp_path: Path,
) -> None:
    traffic = Traffic(texts=written(tmp_path, GOLD[1:2]))
    [call] = calls(traffic, task="ner", count=1)
    assert call.texts == ("An fara gasar.",) and call.gold is None


def test_of_texts_in_company_each_keeps_what_is_right_for_it(tmp_path: Path) -> None:
    [call] = calls(Traffic(texts=written(tmp_path, GOLD), inputs=2), task="ner", count=1)
    gold = dict(zip(call.texts, call.gold or (), strict=True))
    assert gold == {"Sani ya je.": frozenset({(0, 4, "PER")}), "Habari.": None}


# --- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--languages hau:2,xyz:1", "sentences has no texts in xyz: there are amh, hau, ibo"),
        ("--languages run", "sentences has no texts in run"),
        ("--languages hau:0", "numbers above 0"),
        ("--languages hau:nan", "numbers above 0"),
        ("--languages hau:-1", "numbers above 0"),
        ("--languages hau:inf", "numbers above 0"),
        ("--languages hau:much", "'hau:much' is no name and weight, as in hau:2"),
        ("--languages hau:1,hau:2", "names something twice"),
        ("--languages :1", "or nothing"),
        ("--tasks ner:1,pos:1", "there is no task pos: there are ner, classification"),
        ("--duplicates -1", "duplicates is -1: it is 0 or more"),
        ("--duplicates nan", "duplicates is nan"),
        ("--inputs 0", "inputs is 0: a request has 1 or more"),
        ("--seed -1", "seed is -1: give 0 or more"),
        ("--texts nowhere", "nowhere is neither a file nor a folder, nor one of sentences"),
    ],
)
def test_what_cannot_be_sent_is_refused_in_one_line(flags: str, said: str) -> None:
    with pytest.raises(BadTraffic) as error:
        calls(asked(*flags.split()), task="ner", count=1)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_language_that_a_file_lacks_is_refused_with_those_it_has(tmp_path: Path) -> None:
    source = written(tmp_path, GOLD)
    with pytest.raises(BadTraffic, match="no texts in yor: there are hau, swa"):
        calls(Traffic(texts=source, languages={"yor": 1}), task="ner", count=1)
    with pytest.raises(BadTraffic, match="says of no text in what language it is"):
        calls(Traffic(texts=numbered(tmp_path, 3), languages={"yor": 1}), task="ner", count=1)


# --- flags -----------------------------------------------------------------------------------


def test_flags_left_out_are_the_defaults() -> None:
    assert asked() == Traffic()


def test_flags_say_everything() -> None:
    flags = "--texts articles --languages hau:2,swa --tasks ner:3,classification:1 "
    flags += "--duplicates 1.1 --inputs 2 --seed 7"
    assert asked(*flags.split()) == Traffic(
        texts="articles",
        languages={"hau": 2, "swa": 1},
        tasks={"ner": 3, "classification": 1},
        duplicates=1.1,
        inputs=2,
        seed=7,
    )


def test_a_mix_of_tasks_is_refused_where_one_variant_is_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert from_arguments(parser.parse_args([])) == Traffic()
    with pytest.raises(SystemExit):
        parser.parse_args(["--tasks", "ner:1"])
    assert "argument --tasks: a variant has one task: `locust -f" in capsys.readouterr().err


def test_each_flag_has_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOADTEST_INPUTS", "3")
    monkeypatch.setenv("LOADTEST_LANGUAGES", "swa")
    assert asked() == Traffic(inputs=3, languages={"swa": 1})
    assert asked("--inputs", "2").inputs == 2


# --- on the wire -----------------------------------------------------------------------------

ONE = Call(task="ner", texts=("Èkó",), languages=("yor",))
TWO = Call(task="classification", texts=("a", "b"), languages=("", ""))


def test_a_call_is_asked_on_its_tasks_path_of_the_variant() -> None:
    assert (path(ONE), path(TWO)) == ("/v1/ner", "/v1/classify")
    assert json.loads(body(ONE, "ner-int8")) == {"inputs": "Èkó", "variant": "ner-int8"}
    assert json.loads(body(TWO, "")) == {"inputs": ["a", "b"]}


def test_an_answer_is_spans_or_the_best_label() -> None:
    entity = {"label": "LOC", "start": 0, "end": 3, "text": "Èkó", "score": 0.9}
    said = json.dumps({"results": [{"entities": [entity]}]}).encode()
    assert read_answer(ONE, 200, said) == ((frozenset({(0, 3, "LOC")}),), None)
    labels = [{"label": "sports", "score": 0.7}, {"label": "health", "score": 0.3}]
    said = json.dumps({"results": [{"labels": labels}, {"labels": labels[::-1]}]}).encode()
    assert read_answer(TWO, 200, said) == (("sports", "health"), None)


@pytest.mark.parametrize(
    ("status", "said", "error"),
    [
        (0, b"", "no answer"),
        (429, b'{"results": [{"entities": []}]}', "HTTP 429"),
        (200, b"<html>", "no results in the answer"),
        (200, b"[]", "no results in the answer"),
        (200, b'{"results": null}', "no results in the answer"),
        (200, b'{"results": [{"labels": []}]}', "no results in the answer"),
        (
            200,
            b'{"results": [{"entities": [{"start": [], "end": 1, "label": "PER"}]}]}',
            "no results",
        ),
        (200, b'{"results": []}', "not one result for each text"),
        (200, b"\xff", "no results in the answer"),
    ],
)
def test_what_is_no_right_answer_says_why(status: int, said: bytes, error: str) -> None:
    answer, why = read_answer(ONE, status, said)
    assert answer is None and why is not None and why.startswith(error)

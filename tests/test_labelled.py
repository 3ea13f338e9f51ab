"""Scores of a run's answers: those that `python -m build evaluate` finds on the same texts."""

from __future__ import annotations

import itertools
import json
import math
import re
from pathlib import Path

import msgspec
import numpy as np
import pytest

from build.__main__ import main as build
from build.evaluate import evaluate
from loadtest.labelled import LEAST, differences, few, scores, strangers, told
from loadtest.record import Call, Request, Result, Run
from loadtest.traffic import Traffic, calls, pool, read_answer
from models import catalog
from models.pipeline import Pipeline
from models.spec import Input, Task
from tests.tiny import NER_LABELS, NEWS_WORDS, write_variant

# Beside what the tiny variant knows are names it does not, and one it takes for another kind.
NAMES = {
    "Sani Bello": "PER",
    "Sani": "PER",
    "Kano": "LOC",
    "Abuja": "LOC",
    "NNPC": "ORG",
    "Amina": "PER",
    "Lagos": "ORG",
}
TOPICS = {**NEWS_WORDS, "waka": "sports", "wata": "health"}


def run_of(
    task: str, answers: list[tuple[int, tuple[Result, ...] | None]], variant: str = "any"
) -> Run:
    requests = tuple(
        Request(call=number, due_s=0, sent_s=0, done_s=1, status=200, answer=answer)
        for number, answer in answers
    )
    return Run(
        variant=variant,
        task=task,
        arrivals="closed:1",
        seconds=1,
        requests=requests,
        dropped=0,
        cores=0,
    )


# --- as the evaluation -----------------------------------------------------------------------


def corpus(root: Path) -> Path:
    """Texts that are all different: the evaluation counts one that stands there twice twice."""
    for place, language in enumerate(("hau", "swa")):
        pairs = list(itertools.permutations(NAMES, 2))[place:]
        tagged = [
            f"{_tagged(one)}\nya O\nje O\n{_tagged(two)}\n{'. O' if place else 'ranar O'}"
            for one, two in pairs
        ]
        topics = list(itertools.permutations(TOPICS, 3))[place::3]
        articles = [
            json.dumps(
                {"headline": " ".join(words), "text": 8 * f"{words[0]} ", "label": TOPICS[words[0]]}
            )
            for words in topics
        ]
        for folder, name, rows in (
            ("ner", "test.txt", "\n\n".join(tagged)),
            ("news", "test.jsonl", "\n".join(articles)),
        ):
            file = root / folder / language / name
            file.parent.mkdir(parents=True)
            file.write_text(f"{rows}\n")
    return root


def _tagged(name: str) -> str:
    first, *rest = name.split()
    return "\n".join([f"{first} B-{NAMES[name]}", *(f"{word} I-{NAMES[name]}" for word in rest)])


def answered(pipeline: Pipeline, call: Call) -> tuple[Result, ...]:
    """Through the bytes that a server would send."""
    said = msgspec.json.encode({"results": pipeline.answer(call.texts)})
    answer, error = read_answer(call, 200, said)
    assert answer is not None, error
    return answer


@pytest.mark.parametrize("inputs", [1, 3])
@pytest.mark.parametrize("task", list(Task))
def test_the_scores_are_those_of_the_evaluation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], task: Task, inputs: int
) -> None:
    data = corpus(tmp_path / "data")
    write_variant(tmp_path / "zoo", "tiny", task)
    found = evaluate(tmp_path / "zoo", ["tiny"], data, languages=("hau", "swa"))
    expected = found["tiny"].quality

    assert build(["labelled", str(task), "--data", str(data)]) == 0
    file = tmp_path / "labelled.jsonl"
    file.write_text(capsys.readouterr().out)
    traffic = Traffic(texts=str(file), inputs=inputs)
    asked = calls(traffic, task=task, count=2 * len(pool(traffic, task)))
    pipeline = catalog.open_variant(tmp_path / "zoo" / "tiny")
    run = run_of(task, [(number, answered(pipeline, call)) for number, call in enumerate(asked)])

    mine = scores(asked, run)
    assert mine.keys() == expected.keys()
    for metric, each in mine.items():
        theirs = expected[metric][Input.RAW]
        assert 0.2 < theirs.macro.mean < 0.95
        assert each.languages.keys() == theirs.languages.keys() == {"hau", "swa"}
        for one, other in [
            (each.macro, theirs.macro),
            *((each.languages[name], theirs.languages[name]) for name in each.languages),
        ]:
            assert (one.n, one.mean) == (other.n, pytest.approx(other.mean, abs=1e-12))
            # The texts come in another order, so other ones are drawn; one of 24 is 0.04.
            assert one.low == pytest.approx(other.low, abs=0.07)
            assert one.high == pytest.approx(other.high, abs=0.07)


def test_a_corpus_that_is_not_there_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build(["labelled", "ner", "--data", str(tmp_path)]) == 2
    assert "has no languages; see docs/data.md" in capsys.readouterr().err


# --- by hand ---------------------------------------------------------------------------------

PER, LOC = frozenset({(0, 4, "PER")}), frozenset({(0, 4, "LOC")})
NOBODY: Result = frozenset()


def ner(text: str, gold: Result | None, language: str = "hau") -> Call:
    right = None if gold is None else (gold,)
    return Call(task="ner", texts=(text,), languages=(language,), gold=right)


def news(text: str, gold: str) -> Call:
    return Call(task="classification", texts=(text,), languages=("hau",), gold=(gold,))


def test_a_text_counts_once_however_often_it_was_sent() -> None:
    asked = [ner("Sani", PER), ner("Kano", LOC), ner("Sani", PER)]
    often = run_of("ner", [(0, (PER,)), (1, (NOBODY,)), (2, (PER,)), (3, (PER,)), (5, (PER,))])
    found = scores(asked, often)["f1"]
    assert (found.macro.n, found.macro.mean) == (2, pytest.approx(2 / 3))


def test_answers_that_differ_count_in_parts() -> None:
    found = scores([ner("Sani", PER)], run_of("ner", [(0, (PER,)), (0, (LOC,))]))
    assert found["f1"].macro.mean == 0.5


def test_what_is_not_labelled_or_not_answered_is_not_scored() -> None:
    asked = [ner("Sani", PER), ner("Kano", None), ner("Bello", PER)]
    run = run_of("ner", [(0, (PER,)), (1, (LOC,)), (2, None)])
    assert scores(asked, run)["f1"].macro.n == 1
    assert scores(asked[1:2], run_of("ner", [(0, (PER,))])) == {}
    assert scores(asked, run_of("ner", [])) == {}


def test_of_texts_in_company_those_that_are_labelled_are_scored() -> None:
    both = Call(task="ner", texts=("Sani", "Jos"), languages=("hau", "swa"), gold=(PER, None))
    found = scores([both], run_of("ner", [(0, (PER, PER))]))
    assert list(found["f1"].languages) == ["hau"] and found["f1"].macro.mean == 1
    assert strangers([both], ["O", "B-LOC"]) == ["PER"]


def test_the_macro_is_the_mean_of_the_languages() -> None:
    asked = [ner("Sani", PER), ner("Juma", PER, "swa"), ner("Kito", PER, "swa"), ner("x", PER, "")]
    run = run_of("ner", [(0, (PER,)), (1, (PER,)), (2, (NOBODY,)), (3, (NOBODY,))])
    found = scores(asked, run)["f1"]
    means = {name: round(each.mean, 3) for name, each in found.languages.items()}
    assert means == {"hau": 1.0, "swa": 0.667, "": 0.0}
    assert found.macro.mean == pytest.approx((1 + 2 / 3) / 3)


def test_a_label_nobody_knows_is_wrong_and_no_mistake_of_ours() -> None:
    asked = [news("a", "sports"), news("b", "opinion")]
    found = scores(asked, run_of("classification", [(0, ("sports",)), (1, ("health",))]))
    assert found["accuracy"].macro.mean == 0.5
    assert found["f1"].macro.mean == pytest.approx(1 / 3)


def test_labels_that_a_variant_lacks_are_named() -> None:
    asked = [ner("Sani", PER), ner("Kano", frozenset({(0, 4, "EVENT")})), news("a", "opinion")]
    assert strangers(asked, NER_LABELS) == ["EVENT", "opinion"]
    assert strangers(asked[:1], NER_LABELS) == []


def test_scores_are_told_with_their_texts_and_what_cannot_be_found() -> None:
    asked = [ner("Sani", PER), ner("Kano", frozenset({(0, 4, "EVENT")})), ner("Jos", None)]
    run = run_of("ner", [(0, (PER,)), (1, (NOBODY,)), (2, (NOBODY,))])
    assert told(asked, run, NER_LABELS) == [
        ("f1", "0.6667 (no interval: fewer than 30 texts in hau), of 2 texts"),
        ("cannot find", "EVENT: it has no such label"),
    ]
    assert told(asked[2:], run_of("ner", [(0, (NOBODY,))]), NER_LABELS) == []
    many = [ner(f"Sani {number}", PER) for number in range(LEAST)]
    right = run_of("ner", [(n, (PER if n % 3 else NOBODY,)) for n in range(LEAST)])
    [(name, said)] = told(many, right, NER_LABELS)
    assert name == "f1" and re.fullmatch(r"0\.8000 \(0\.6\d+ to 0\.9\d+\), of 30 texts", said)


def test_a_handful_of_texts_has_no_interval() -> None:
    """Each is all of its language: resampled, it is always itself."""
    asked = [ner("Sani", PER), ner("Juma", PER, "swa"), ner("Kito", PER, "")]
    run = run_of("ner", [(0, (PER,)), (1, (PER,)), (2, (NOBODY,))])
    mine, apart = scores(asked, run)["f1"], differences(asked, run, run)["f1"]
    for found in (mine, apart):
        for each in (found.macro, *found.languages.values()):
            assert not each.known and math.isnan(each.low) and math.isnan(each.high)
    assert mine.macro.mean == pytest.approx(2 / 3) and mine.macro.n == 3
    assert few(mine, apart) == "fewer than 30 texts in an unknown language, hau, swa"


def test_one_language_of_a_handful_leaves_the_mean_of_all_without_an_interval() -> None:
    asked = [*(ner(f"Sani {n}", PER) for n in range(LEAST)), ner("Juma", PER, "swa")]
    run = run_of("ner", [(n, (PER if n % 3 else NOBODY,)) for n in range(LEAST + 1)])
    found = scores(asked, run)["f1"]
    assert found.languages["hau"].known and not found.languages["swa"].known
    assert not found.macro.known and few(found) == "fewer than 30 texts in swa"
    assert few(scores(asked[:LEAST], run)["f1"]) == ""


def test_an_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """Coins that are right with 0.7: 95 % intervals of 60 runs miss it in about three."""
    chance = np.random.default_rng(5)
    missed = 0
    for _ in range(60):
        asked = [news(str(number), "sports") for number in range(200)]
        said = np.where(chance.random(200) < 0.7, "sports", "health")
        answers = [(n, (str(label),)) for n, label in enumerate(said)]
        found = scores(asked, run_of("classification", answers))["accuracy"].macro
        missed += not found.low <= 0.7 <= found.high
    assert missed <= 8


def test_a_run_differs_from_itself_by_nothing() -> None:
    asked = [ner(f"Sani {number}", PER) for number in range(40)]
    run = run_of("ner", [(n, (PER if n % 3 else NOBODY,)) for n in range(40)])
    found = differences(asked, run, run)["f1"].macro
    assert (found.n, found.mean, found.low, found.high) == (40, 0, 0, 0)


def test_differences_are_of_texts_that_both_answered() -> None:
    asked = [ner("Sani", PER), ner("Bello", PER), ner("Amina", PER, "swa")]
    one = run_of("ner", [(0, (PER,)), (1, (PER,)), (2, (PER,))])
    other = run_of("ner", [(0, (NOBODY,)), (1, None)])
    found = differences(asked, one, other)["f1"]
    assert (found.macro.n, found.macro.mean, found.languages.keys()) == (1, 1.0, {"hau"})
    assert differences(asked, one, run_of("ner", [])) == {}

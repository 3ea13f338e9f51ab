from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics import f1_score as seqeval_f1
from sklearn.metrics import accuracy_score
from sklearn.metrics import f1_score as sklearn_f1

from build import data, evaluate, measure, provenance, publish, scoring
from build.data import Article, DataError, Sentence, Span
from build.errors import BuildError
from build.scoring import accuracy, entity_counts, entity_f1, macro_f1, resampled, topic_counts
from models import catalog
from models.spec import (
    ClassificationAnswer,
    Entity,
    Evidence,
    Input,
    Interval,
    LabelScore,
    NerAnswer,
    Speed,
    Task,
)
from tests.tiny import NER_WORDS, write_variant
from tests.tiny_corpus import write_corpus

TAGS = st.sampled_from(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"])
TAGGED = st.lists(st.lists(st.tuples(TAGS, TAGS), min_size=1, max_size=12), min_size=1, max_size=8)
LABELS = ("business", "health", "sports")


def spans(tags: list[str]) -> tuple[Span, ...]:
    """Of words that are one character each, with a space between."""
    return data.spans(tags, [(2 * i, 2 * i + 1) for i in range(len(tags))])


def ner_answer(found: tuple[Span, ...]) -> NerAnswer:
    entities = tuple(
        Entity(label=span.label, start=span.start, end=span.end, text="", score=1.0)
        for span in found
    )
    return NerAnswer(entities=entities, tokens=1, windows=1, unknown=0.0)


def topic_answer(label: str) -> ClassificationAnswer:
    ranked = (LabelScore(label=label, score=1.0),)
    return ClassificationAnswer(labels=ranked, tokens=1, windows=1, unknown=0.0)


@pytest.mark.filterwarnings("ignore")
@given(TAGGED)
def test_entity_f1_is_seqevals(tagged: list[list[tuple[str, str]]]) -> None:
    gold = [[tag for tag, _ in sentence] for sentence in tagged]
    found = [[tag for _, tag in sentence] for sentence in tagged]
    counts = entity_counts(
        [Sentence("", spans(tags), "hau") for tags in gold],
        [ner_answer(spans(tags)) for tags in found],
    )
    expected = seqeval_f1(gold, found, zero_division=0)
    assert entity_f1(counts.sum(axis=0, keepdims=True))[0] == pytest.approx(expected)


@given(st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1))
def test_class_metrics_are_scikit_learns(pairs: list[tuple[str, str]]) -> None:
    gold, found = map(list, zip(*pairs, strict=True))
    articles = [Article("", label, "hau") for label in gold]
    counts = topic_counts(articles, [topic_answer(label) for label in found], LABELS)
    sums = counts.sum(axis=0, keepdims=True)
    assert accuracy(sums)[0] == pytest.approx(accuracy_score(gold, found))
    expected = sklearn_f1(gold, found, average="macro", zero_division=0)
    assert macro_f1(sums)[0] == pytest.approx(expected)


COUNTS = {
    "hau": np.array([[1, 1, 1], [0, 1, 1], [2, 2, 3], [1, 2, 1]] * 10, float),
    "swa": np.array([[1, 1, 1], [0, 0, 1], [1, 1, 1]] * 20, float),
}


def test_an_interval_holds_the_mean_and_narrows_with_more_texts() -> None:
    few = scoring.scores(COUNTS, entity_f1)
    many = scoring.scores({k: np.tile(v, (9, 1)) for k, v in COUNTS.items()}, entity_f1)
    for found in (few, many):
        for each in (found.macro, *found.languages.values()):
            assert 0 <= each.low <= each.mean <= each.high <= 1
    assert many.macro.high - many.macro.low < (few.macro.high - few.macro.low) / 2
    assert few.macro.mean == pytest.approx(np.mean([each.mean for each in few.languages.values()]))
    assert few.macro.n == 100 and few.languages["hau"].n == 40


def test_the_interval_of_a_metric_that_resampling_moves_holds_its_mean() -> None:
    """Confidence 0.75, right three times in four: a resample is nearly always off by more."""
    rows = np.zeros((60, 3 * scoring.BINS))
    rows[:, 21] = 0.75
    rows[:45, 22] = 1
    rows[:, 23] = 1
    found = scoring.scores({"hau": rows}, scoring.calibration_error).macro
    assert found.low == 0 <= found.mean < found.high < 0.15


def test_the_same_scores_come_out_every_time() -> None:
    assert scoring.scores(COUNTS, entity_f1) == scoring.scores(COUNTS, entity_f1)


def test_a_variant_differs_from_itself_by_nothing() -> None:
    found = scoring.differences(COUNTS, COUNTS, entity_f1).macro
    assert (found.mean, found.low, found.high) == (0, 0, 0)


def test_paired_differences_are_tighter_than_the_scores() -> None:
    # One text in forty differs: the texts' own spread must not enter the difference.
    worse = {language: rows.copy() for language, rows in COUNTS.items()}
    worse["hau"][0, 0] = 0
    apart = scoring.differences(worse, COUNTS, entity_f1)
    alone = scoring.scores(COUNTS, entity_f1)
    assert apart.languages["hau"].mean < 0 and apart.languages["swa"].high == 0
    assert apart.macro.high - apart.macro.low < (alone.macro.high - alone.macro.low) / 2


@settings(max_examples=20)
@given(st.integers(1, 50))
def test_every_resample_draws_as_many_texts_as_there_are(texts: int) -> None:
    ones = {"hau": np.ones((texts, 1))}
    values = resampled(ones, lambda sums: sums[:, 0])["hau"]
    assert (values == texts).all() and len(values) == 1 + scoring.RESAMPLES


def sure(found: tuple[Span, ...], score: float) -> NerAnswer:
    answer = ner_answer(found)
    entities = tuple(msgspec.structs.replace(each, score=score) for each in answer.entities)
    return msgspec.structs.replace(answer, entities=entities)


def test_confidence_that_comes_true_is_calibrated() -> None:
    one, other = Span("PER", 0, 1), Span("LOC", 2, 3)
    texts = [Sentence("a b", (one,), "hau")] * 4
    # Sure to 0.75 and right three times of four; then always sure and right half the time.
    told = [sure((one,), 0.75)] * 3 + [sure((other,), 0.75)]
    boasts = [sure((one, other), 1.0)] * 4
    for answers, error in ((told, 0.0), (boasts, 0.5)):
        sums = scoring.confidences(texts, answers).sum(axis=0, keepdims=True)
        assert scoring.calibration_error(sums)[0] == pytest.approx(error)
    topics = [Article("a", "sports", "hau"), Article("b", "health", "hau")]
    sums = scoring.confidences(topics, [topic_answer("sports")] * 2).sum(axis=0, keepdims=True)
    assert scoring.calibration_error(sums)[0] == pytest.approx(0.5)


def test_disagreement_is_what_one_says_and_the_other_does_not() -> None:
    one, other = Span("PER", 0, 1), Span("LOC", 2, 3)
    pairs = [((one, other), (one,)), ((), ()), ((one,), (one,))]
    mine, theirs = ([ner_answer(pair[side]) for pair in pairs] for side in (0, 1))
    counts = scoring.unlike(mine, theirs)
    assert scoring.disagreement(counts).tolist() == pytest.approx([1 / 3, 0, 0])
    assert scoring.disagreement(scoring.unlike(mine, mine)).tolist() == [0, 0, 0]
    topics = scoring.unlike(
        [topic_answer("sports"), topic_answer("health")], [topic_answer("sports")] * 2
    )
    assert scoring.disagreement(topics.sum(axis=0, keepdims=True))[0] == 0.5


# --- on variants ------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two taggers of the toy corpus's Hausa: one that knows its words, one that knows fewer."""
    knows = {"Amina": "B-PER", "Yusuf": "I-PER", "Otieno": "I-PER", "Neema": "B-PER"}
    more = {**NER_WORDS, **knows, "Juma": "B-PER", "Mushi": "I-PER", "Mombasa": "B-LOC"}
    write_variant(tmp_path, "ner-base", Task.NER, words={**more, "Dodoma": "B-LOC"})
    folder = write_variant(tmp_path, "ner-int8", Task.NER, words={**more, "Dodoma": "O"})
    variant = msgspec.structs.replace(catalog.read(folder), parent="ner-base")
    (folder / "variant.json").write_bytes(msgspec.json.encode(variant))
    return tmp_path


def evidence(root: Path, name: str) -> Evidence:
    found = catalog.open_variant(root / name).variant.evidence
    assert found is not None
    return found


def test_evaluating_writes_scores_and_paired_differences(root: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    evaluate.evaluate(root, ["ner-base", "ner-int8"], corpus, called="toy split")
    base, int8 = evidence(root, "ner-base"), evidence(root, "ner-int8")
    for form in (Input.RAW, Input.TOKENISED):
        assert base.quality["f1"][form].macro.mean == 1
        apart = int8.difference["f1"][form].macro
        assert apart.mean == pytest.approx(int8.quality["f1"][form].macro.mean - 1)
        assert apart.low < 0
        assert int8.disagreement[form].macro.mean > 0
        assert int8.calibration[form].languages.keys() == {"hau"}
    assert base.difference == {} and base.disagreement == {}
    assert base.split == "toy split" and "evaluate ner-base" in base.command
    assert base.commit and base.host and base.date.count("-") == 2
    assert str(tmp_path) not in (root / "ner-base" / "variant.json").read_text()


def test_a_variant_is_compared_in_its_own_languages(root: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    base = msgspec.structs.replace(catalog.read(root / "ner-base"), languages=("swa", "hau"))
    (root / "ner-base" / "variant.json").write_bytes(msgspec.json.encode(base))
    evaluate.evaluate(root, ["ner-base", "ner-int8"], corpus)
    assert evidence(root, "ner-base").quality["f1"][Input.RAW].languages.keys() == {"hau", "swa"}
    int8 = evidence(root, "ner-int8")
    for table in (int8.quality["f1"], int8.difference["f1"], int8.disagreement):
        assert table[Input.RAW].languages.keys() == {"hau"}


def test_a_variant_may_be_for_languages_that_its_baseline_is_not_for(
    root: Path, tmp_path: Path
) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    int8 = msgspec.structs.replace(catalog.read(root / "ner-int8"), languages=("hau", "swa"))
    publish.write(root / "ner-int8", int8)
    found = evaluate.evaluate(root, ["ner-base", "ner-int8"], corpus)["ner-int8"]
    for table in (found.quality["f1"], found.difference["f1"], found.disagreement):
        assert table[Input.RAW].languages.keys() == {"hau", "swa"}
    assert evidence(root, "ner-base").quality["f1"][Input.RAW].languages.keys() == {"hau"}


def test_a_topic_that_only_the_baseline_knows_is_none_of_the_variants() -> None:
    articles = [Article("", "health", "hau"), Article("", "sports", "hau")]
    answers = [topic_answer("business"), topic_answer("sports")]
    counts = scoring.topic_counts(articles, answers, ("health", "sports"))
    assert counts.tolist() == [[0, 0, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]]


def test_a_variant_is_scored_in_languages_it_is_not_for(root: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    evaluate.evaluate(root, ["ner-int8"], corpus, languages=("hau", "swa"))
    int8 = catalog.open_variant(root / "ner-int8")
    assert int8.variant.languages == ("hau",)
    found = evidence(root, "ner-int8")
    for table in (found.quality["f1"], found.difference["f1"], found.disagreement):
        assert table[Input.RAW].languages.keys() == {"hau", "swa"}
    assert evaluate.check(int8.variant, int8.answer, corpus, "test") == ([], 9)


def test_evaluating_again_keeps_what_else_was_measured(root: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    measure.measure(root, ["ner-base"], rounds=2)
    evaluate.evaluate(root, ["ner-base"], corpus)
    assert evidence(root, "ner-base").speed is not None


@pytest.mark.parametrize("called", ["test", "dev"])
def test_scores_by_seed_are_of_the_same_texts(root: Path, tmp_path: Path, called: str) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    evaluate.evaluate(root, ["ner-base"], corpus)
    base = catalog.read(root / "ner-base")
    seeded = msgspec.structs.replace(evidence(root, "ner-base"), seeds={1: 0.5, 2: 0.6})
    publish.write(root / "ner-base", msgspec.structs.replace(base, evidence=seeded))
    evaluate.evaluate(root, ["ner-base"], corpus, split=called, called=called)
    assert evidence(root, "ner-base").seeds == (seeded.seeds if called == "test" else {})
    file = corpus / "ner" / "hau" / "test.txt"
    file.write_text(file.read_text() + "\nKano B-LOC\n")
    evaluate.evaluate(root, ["ner-base"], corpus)
    assert evidence(root, "ner-base").seeds == {}


def test_checking_finds_the_figures_that_moved(root: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    evaluate.evaluate(root, ["ner-base", "ner-int8"], corpus)
    base, int8 = (catalog.open_variant(root / name) for name in ("ner-base", "ner-int8"))
    assert evaluate.check(int8.variant, int8.answer, corpus, "test") == ([], 6)
    outside, count = evaluate.check(base.variant, int8.answer, corpus, "test")
    assert count == len(outside) == 6
    assert "was 1.000 [1.000, 1.000]" in outside[0]


def test_texts_written_in_one_way_are_checked_in_that_way_alone(root: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    evaluate.evaluate(root, ["ner-base"], corpus, inputs=(Input.RAW,))
    assert evidence(root, "ner-base").quality["f1"].keys() == {Input.RAW}
    base = catalog.open_variant(root / "ner-base")
    assert evaluate.check(base.variant, base.answer, corpus, "test") == ([], 2)


def test_topics_are_scored_on_headlines_where_that_is_asked(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    texts = {"headline": "Kai Kai", "text": "kudi banki", "label": "business"}
    (corpus / "news" / "hau" / "test.jsonl").write_text(json.dumps(texts) + "\n")
    write_variant(
        tmp_path, "news-base", Task.CLASSIFICATION, words={"kudi": "business", "Kai": "sports"}
    )
    evaluate.evaluate(tmp_path, ["news-base"], corpus)
    assert evidence(tmp_path, "news-base").quality["accuracy"].keys() == {Input.RAW}
    evaluate.evaluate(tmp_path, ["news-base"], corpus, inputs=(Input.RAW, Input.HEADLINE))
    found = evidence(tmp_path, "news-base").quality["accuracy"]
    assert found[Input.RAW].macro.mean == 1 and found[Input.HEADLINE].macro.mean == 0


def test_who_has_answered_is_not_asked_again(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    said: evaluate.Said = {}
    first = evaluate.evaluate(root, ["ner-int8"], corpus, said=said)
    both = [catalog.read(root / name) for name in ("ner-base", "ner-int8")]
    assert said.keys() == {(each.digest, "hau") for each in both}
    monkeypatch.setattr(catalog, "open_variant", None)
    again = evaluate.evaluate(root, ["ner-int8"], corpus, said=said)
    assert again["ner-int8"].quality == first["ner-int8"].quality


def test_the_same_weights_for_other_languages_are_asked_anew(root: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    said: evaluate.Said = {}
    evaluate.evaluate(root, ["ner-base"], corpus, said=said)
    shutil.copytree(root / "ner-base", root / "ner-more")
    here = catalog.read(root / "ner-base")
    more = msgspec.structs.replace(here, name="ner-more", languages=("hau", "swa"))
    publish.write(root / "ner-more", more)
    found = evaluate.evaluate(root, ["ner-more"], corpus, said=said)["ner-more"]
    assert found.quality["f1"][Input.RAW].languages.keys() == {"hau", "swa"} > set(here.languages)


def test_checking_wants_scores(root: Path, tmp_path: Path) -> None:
    base = catalog.open_variant(root / "ner-base")
    with pytest.raises(BuildError, match="no scores to compare with: evaluate it first"):
        evaluate.check(base.variant, base.answer, tmp_path, "test")


def test_unknown_labels_in_the_data_are_named(root: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    file = corpus / "ner" / "hau" / "test.txt"
    file.write_text(file.read_text() + "\nNaira B-MONEY\n")
    with pytest.raises(BuildError, match="hau data has MONEY, which ner-base does not know"):
        evaluate.evaluate(root, ["ner-base"], corpus)


def test_a_variant_that_is_not_there_is_named_before_anything_is_scored(root: Path) -> None:
    with pytest.raises(BuildError, match="no variant ner-tiny; it holds ner-base, ner-int8"):
        evaluate.evaluate(root, ["ner-base", "ner-tiny"], root)


def test_missing_texts_are_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no test\.txt or test\.txt\.xz in"):
        evaluate.evaluate(root, ["ner-base"], tmp_path / "nowhere")


def test_a_split_without_texts_is_named(root: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    (corpus / "ner" / "hau" / "test.txt").write_text("\n")
    with pytest.raises(DataError, match="no test texts for hau in"):
        evaluate.evaluate(root, ["ner-base"], corpus)


def test_measuring_compares_with_the_baseline_of_the_same_run(root: Path) -> None:
    found = measure.measure(root, ["ner-base", "ner-int8"], rounds=3)
    base = found["ner-base"].ratio_to_baseline
    assert (base.mean, base.low, base.high) == (1, 1, 1)
    speed = evidence(root, "ner-int8").speed
    assert speed == found["ner-int8"]
    assert speed.host == provenance.host()
    assert speed.tokens_per_second.mean > 0 and speed.tokens_per_second.n == 3
    assert speed.load_seconds.mean > 0 and speed.ratio_to_baseline.mean > 0


def test_intervals_of_few_rounds_hold_what_is_right_as_often_as_they_say() -> None:
    chance = np.random.default_rng(1)
    worlds = [measure._spread(chance.normal(10, 1, 3)) for _ in range(400)]
    held = sum(each.low <= 10 <= each.high for each in worlds) / len(worlds)
    assert 0.92 < held < 0.98  # 0.76 where three rounds are resampled


def test_what_nobody_could_read_is_not_written(root: Path) -> None:
    variant = catalog.read(root / "ner-base")
    nothing = Interval(n=0, mean=math.nan, low=math.nan, high=math.nan)
    speed = Speed(
        tokens_per_second=nothing,
        ratio_to_baseline=nothing,
        load_seconds=nothing,
        resident_bytes=1,
        host="",
    )
    bad = msgspec.structs.replace(measure._bare_evidence(variant), speed=speed)
    with pytest.raises(msgspec.ValidationError):
        publish.write(root / "ner-base", msgspec.structs.replace(variant, evidence=bad))
    assert catalog.read(root / "ner-base") == variant


def test_each_is_measured_against_its_own_parent(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(root / "ner-int8", root / "ner-third")
    int8 = catalog.read(root / "ner-int8")
    publish.write(
        root / "ner-third", msgspec.structs.replace(int8, name="ner-third", parent="ner-int8")
    )
    groups: list[tuple[str, tuple[str, ...]]] = []
    measured = measure._group

    def group(root: Path, base: str, names: list[str], rounds: int) -> dict[str, Speed]:
        groups.append((base, tuple(names)))
        if base == "ner-int8":
            raise KeyboardInterrupt
        return measured(root, base, names, rounds)

    monkeypatch.setattr(measure, "_group", group)
    with pytest.raises(KeyboardInterrupt):
        measure.measure(root, ["ner-int8", "ner-third"], rounds=2)
    assert groups == [("ner-base", ("ner-int8",)), ("ner-int8", ("ner-third",))]
    assert evidence(root, "ner-int8").speed is not None  # what was measured is written


def test_agreement_counts_texts_answered_alike(root: Path) -> None:
    same, texts = evaluate.agreement(root, "ner-int8", "ner-base")
    assert texts > 0 and same <= texts
    assert evaluate.agreement(root, "ner-base", "ner-base") == (texts, texts)


def test_what_was_found_reads_as_a_line() -> None:
    table = {"f1": {Input.RAW: scoring.scores(COUNTS, entity_f1)}}
    facts = {name: "" for name in ("data", "split", "command", "commit", "date", "host")}
    (line,) = evaluate.lines(Evidence(**facts, quality=table))
    assert line.startswith("f1 (raw) 0.7") and "least hau" in line

"""Logits to answers: seams, BIO, aggregation as Hugging Face has it, offsets, label scores."""

from __future__ import annotations

import copy
import unicodedata
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForTokenClassification, AutoTokenizer
from transformers import pipeline as transformers_pipeline

from models.catalog import open_variant
from models.decode import entities, label_scores, merge, sigmoid, softmax
from models.encode import BLANK, Encoded, Encoder, Window, window_starts
from models.pipeline import Pipeline
from models.spec import Aggregation, OffsetUnit, Options, Squash, Windows
from tests.tiny import NER_LABELS, NER_WORDS, tokenizer
from tests.tiny_torch import write_torch_variant

BY_WORDS = (Aggregation.FIRST, Aggregation.AVERAGE, Aggregation.MAX)
FRAGMENTS = (
    *NER_WORDS,
    unicodedata.normalize("NFD", "Ọ̀ṣun"),
    "Ọ̀ṣun",
    "አዲስ አበባ፣",
    "👩\u200d👩\u200d👧",
    "\U0001f1f3\U0001f1ec",
    "\ufeff",
    "\u200b",
    "\u0301",
    " ",
    "\t",
    "\n",
    "\u2028",
)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Encoder:
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer(NER_WORDS).save(str(file))
    return Encoder(file, Windows(tokens=16, overlap=4))


def encoded_pieces(pieces: str, *, words: list[int] | None = None) -> Encoded:
    """One window; each letter of `pieces` is a piece, and a word unless `words` says otherwise."""
    count = len(pieces)
    starts = np.arange(count)
    return Encoded(
        text=pieces,
        ids=np.zeros(count, np.int64),
        offsets=np.stack([starts, starts + 1], axis=1),
        words=np.array(words if words is not None else range(count), np.int64),
        unknown=0.0,
        windows=(Window(np.zeros(count + 2, np.int64), 0),),
    )


def logits_of(tags: str, labels: tuple[str, ...], *, strength: float = 9.0) -> list[np.ndarray]:
    """One window's logits that say `tags`, with rows for the specials."""
    rows = np.zeros((len(tags.split()) + 2, len(labels)), np.float32)
    for row, tag in enumerate(tags.split(), start=1):
        rows[row, labels.index(tag)] = strength
    return [rows]


def tagged(tags: str, options: Options, labels: tuple[str, ...] = NER_LABELS) -> list[str]:
    """What the letters a b c ... tagged so become, as "PER:ab"."""
    encoded = encoded_pieces("abcdefgh"[: len(tags.split())])
    found = entities(encoded, logits_of(tags, labels), labels, options)
    return [f"{entity.label}:{entity.text}" for entity in found]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O B-PER I-PER O", ["PER:bc"]),
        ("B-PER B-PER I-PER", ["PER:a", "PER:bc"]),
        ("I-PER I-PER O I-LOC", ["PER:ab", "LOC:d"]),
        ("B-PER I-LOC I-LOC", ["PER:a", "LOC:bc"]),
        ("B-PER I-LOC I-PER", ["PER:a", "LOC:b", "PER:c"]),
        ("O O", []),
    ],
)
@pytest.mark.parametrize("how", [each for each in Aggregation if each is not Aggregation.NONE])
def test_an_inside_after_nothing_of_its_kind_begins_an_entity(tags, expected, how):
    assert tagged(tags, Options(aggregation=how)) == expected


def test_without_aggregation_each_piece_keeps_its_full_label():
    found = tagged("O B-PER I-PER O", Options(aggregation=Aggregation.NONE))
    assert found == ["B-PER:b", "I-PER:c"]


def test_what_is_ignored_is_a_kind_or_a_label_of_one_piece():
    def ignoring(how: Aggregation, *labels: str) -> list[str]:
        return tagged("O B-PER I-PER O", Options(aggregation=how, ignore=frozenset(labels)))

    assert ignoring(Aggregation.FIRST) == ["O:a", "PER:bc", "O:d"]
    assert ignoring(Aggregation.FIRST, "PER", "B-PER") == ["O:a", "O:d"]
    assert ignoring(Aggregation.NONE, "PER", "B-PER") == ["O:a", "I-PER:c", "O:d"]


def test_only_a_piece_alone_says_its_number_and_spelling():
    encoded, logits = encoded_pieces("abc"), logits_of("O B-PER I-PER", NER_LABELS)
    alone = Options(aggregation=Aggregation.NONE)
    found = entities(encoded, logits, NER_LABELS, alone, ["▁a", "▁b", "c"])
    assert [(each.index, each.piece) for each in found] == [(2, "▁b"), (3, "c")]
    [group] = entities(encoded, logits, NER_LABELS, Options(), ["▁a", "▁b", "c"])
    assert (group.index, group.piece) == (None, None)


def test_labels_without_a_prefix_join_their_neighbours():
    labels = ("O", "PER", "NEWS-ORG")
    assert tagged("PER PER O NEWS-ORG", Options(), labels) == ["PER:ab", "ORG:d"]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (Aggregation.FIRST, ["PER:abc"]),
        (Aggregation.AVERAGE, ["LOC:abc"]),
        (Aggregation.MAX, ["ORG:abc"]),
        (Aggregation.SIMPLE, ["PER:a", "ORG:b", "LOC:c"]),
    ],
)
def test_a_word_is_labelled_by_its_first_mean_or_surest_piece(how, expected):
    rows = np.full((5, len(NER_LABELS)), -9, np.float32)
    probabilities = {"B-PER": (0.6, 0.0, 0.0), "B-LOC": (0.4, 0.3, 0.6), "B-ORG": (0.0, 0.7, 0.4)}
    for label, column in probabilities.items():
        rows[1:4, NER_LABELS.index(label)] = np.log(np.array(column) + 1e-6)
    encoded = encoded_pieces("abc", words=[0, 0, 0])
    found = entities(encoded, [rows], NER_LABELS, Options(aggregation=how))
    assert [f"{entity.label}:{entity.text}" for entity in found] == expected


def test_an_entity_below_the_smallest_score_is_left_out():
    labels = ("O", "B-PER")
    encoded = encoded_pieces("ab")
    logits = [np.array([[0, 0], [0, 2], [0, 5], [0, 0]], np.float32)]
    sure, surer = entities(encoded, logits, labels, Options())
    assert sure.score == pytest.approx(0.8808, abs=1e-4)
    assert entities(encoded, logits, labels, Options(min_score=0.9)) == (surer,)


@given(
    room=st.integers(6, 20),
    share=st.floats(0, 0.99),
    pieces=st.integers(0, 90),
)
def test_each_piece_is_read_where_it_is_farthest_from_an_edge(room, share, pieces):
    starts = window_starts(pieces, room, int(share * (room - 1)))
    sizes = [min(room, pieces)] * len(starts)
    windows = tuple(
        Window(np.zeros(size + 2, np.int64), start)
        for start, size in zip(starts, sizes, strict=True)
    )
    logits = [  # every row tells its window and its piece; the specials' rows tell neither
        np.array([(-1, -1), *((w, start + i) for i in range(size)), (-1, -1)], np.float32)
        for w, (start, size) in enumerate(zip(starts, sizes, strict=True))
    ]
    empty = np.zeros(0, np.int64)
    encoded = Encoded("", np.zeros(pieces, np.int64), empty.reshape(0, 2), empty, 0.0, windows)
    merged = merge(encoded, logits)
    assert merged[:, 1].tolist() == list(range(pieces))
    for piece, window in enumerate(merged[:, 0].astype(int).tolist()):
        depths = [min(piece - s, s + z - 1 - piece) for s, z in zip(starts, sizes, strict=True)]
        assert depths[window] == max(depths)


@example(fragments=["አዲስ አበባ፣", "\u0301"], how=Aggregation.FIRST, seed=0)
@given(
    fragments=st.lists(st.sampled_from(FRAGMENTS), max_size=30),
    how=st.sampled_from(Aggregation),
    seed=st.integers(0, 2**16),
)
@settings(deadline=None)
def test_an_entity_is_the_callers_own_text(encoder, fragments, how, seed):
    text = "".join(fragments)
    encoded = encoder.encode(text)
    random = np.random.default_rng(seed)
    logits = [
        random.normal(size=(len(window.ids), len(NER_LABELS))).astype(np.float32)
        for window in encoded.windows
    ]
    found = entities(encoded, logits, NER_LABELS, Options(aggregation=how))
    in_utf16 = Options(aggregation=how, offset_unit=OffsetUnit.UTF16)
    units = text.encode("utf-16-le")
    for entity, other in zip(found, entities(encoded, logits, NER_LABELS, in_utf16), strict=True):
        assert text[entity.start : entity.end] == entity.text != ""
        assert not {entity.text[0], entity.text[-1]} & BLANK
        assert not text[entity.end :][:1] or not unicodedata.combining(text[entity.end])
        assert units[2 * other.start : 2 * other.end].decode("utf-16-le") == other.text
    if how in BY_WORDS:
        assert all(one.end <= other.start for one, other in pairwise(found))


# --- the same as transformers -----------------------------------------------------------------

# Words that begin with a piece of letters: theirs takes a lone "▁" for a word of its own.
WORD = st.builds(
    str.__add__, st.sampled_from([*NER_WORDS]), st.text("abcdefghij", max_size=4)
).filter(lambda word: not word.startswith("."))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_torch_variant(tmp_path_factory.mktemp("catalog"), "ner-torch")


@pytest.fixture(scope="module")
def ours(folder) -> Pipeline:
    return open_variant(folder)


@pytest.fixture(scope="module")
def theirs(folder):
    model = AutoModelForTokenClassification.from_pretrained(folder)
    own = AutoTokenizer.from_pretrained(folder)
    return transformers_pipeline("token-classification", model=model, tokenizer=own)


def their_answer(theirs, text: str, how: Aggregation) -> list[tuple[str, int, int, float]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that its words are guessed: see models/decode.py
        found = theirs(text, aggregation_strategy=how.value)
    label = "entity" if how is Aggregation.NONE else "entity_group"
    return [(each[label], each["start"], each["end"], float(each["score"])) for each in found]


def our_answer(ours: Pipeline, text: str, how: Aggregation) -> list[tuple[str, int, int, float]]:
    (answer,) = ours.answer([text], Options(aggregation=how))
    return [(each.label, each.start, each.end, each.score) for each in answer.entities]


@pytest.mark.parametrize("how", Aggregation)
@given(words=st.lists(WORD, min_size=1, max_size=12))
@settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_entities_are_those_of_transformers_where_words_are_parted_by_spaces(
    ours, theirs, how, words
):
    text = " ".join(words)
    assume(len(ours.encode(text).windows) == 1)
    expected, found = their_answer(theirs, text, how), our_answer(ours, text, how)
    assert [each[:3] for each in found] == [each[:3] for each in expected]
    assert [each[3] for each in found] == pytest.approx([each[3] for each in expected], abs=1e-5)


def test_transformers_takes_punctuation_for_part_of_the_word_before_it(theirs, ours):
    """Where the two differ: all pieces begin a person, so every word is an entity."""
    text = "Sani ya je Kano."
    person = NER_LABELS.index("B-PER")
    sure = copy.deepcopy(theirs)
    with torch.no_grad():
        sure.model.classifier.bias[person] = 99.0
    spans = [(start, end) for _, start, end, _ in their_answer(sure, text, Aggregation.FIRST)]
    assert [text[start:end] for start, end in spans] == ["Sani", "ya", "je", "Kano."]

    logits = logits_of("B-PER B-PER B-PER B-PER B-PER", NER_LABELS)
    found = entities(ours.encode(text), logits, NER_LABELS, Options())
    assert [entity.text for entity in found] == ["Sani", "ya", "je", "Kano", "."]


# --- classification ---------------------------------------------------------------------------


def ranked(logits: list[list[float]], options: Options, *, many: bool = False) -> list[tuple]:
    rows = [np.array(row, np.float32) for row in logits]
    found = label_scores(rows, ("a", "b", "c"), multi_label=many, options=options)
    return [(each.label, round(each.score, 3)) for each in found]


def test_labels_come_best_first_and_sum_to_one():
    found = ranked([[0.0, 2.0, 1.0]], Options())
    assert found == [("b", 0.665), ("c", 0.245), ("a", 0.09)]


def test_windows_have_equal_say():
    assert ranked([[9.0, 0.0, 0.0], [0.0, 9.0, 0.0]], Options(top_k=2)) == [("a", 0.5), ("b", 0.5)]


def test_many_labels_may_hold_at_once():
    assert ranked([[4.0, 2.0, -200.0]], Options(min_score=0.5), many=True) == [
        ("a", 0.982),
        ("b", 0.881),
    ]


def test_labels_are_scored_as_asked():
    logits = [[-2.0, -1.0, -3.0], [0.0, -1.0, -1.0]]
    assert ranked(logits, Options(squash=Squash.NONE)) == [("a", -1.0), ("b", -1.0), ("c", -2.0)]
    sure = Options(squash=Squash.SOFTMAX, min_score=0.5)
    assert ranked(logits, sure, many=True) == ranked(logits, Options(min_score=0.5))
    assert ranked(logits, Options(squash=Squash.SIGMOID)) == ranked(logits, Options(), many=True)


def test_no_label_is_sure_enough():
    assert ranked([[0.0, 0.0, 0.0]], Options(min_score=0.9)) == []


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=9))
def test_squashed_logits_are_probabilities(logits):
    row = np.array(logits, np.float32)
    with np.errstate(over="raise", invalid="raise"):
        assert softmax(row).sum() == pytest.approx(1, abs=1e-5)
        assert ((sigmoid(row) >= 0) & (sigmoid(row) <= 1)).all()

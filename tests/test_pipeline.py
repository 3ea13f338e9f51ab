"""The one path: the same answer alone, in company, and under any padding."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.catalog import open_variant
from models.encode import Window
from models.pipeline import Pipeline, padded
from models.spec import Aggregation, ClassificationAnswer, NerAnswer, Options, Task, Windows
from tests.tiny import NER_WORDS, NEWS_WORDS, write_variant
from tests.tiny_torch import write_torch_variant

WINDOWS = Windows(tokens=16, overlap=4)
TEXT = st.lists(st.sampled_from([*NER_WORDS, *NEWS_WORDS, "é", "አዲስ"]), max_size=40).map(" ".join)
TEXTS = st.lists(TEXT, min_size=1, max_size=8)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("catalog")


@pytest.fixture(scope="module")
def ner(catalog) -> Pipeline:
    return open_variant(write_variant(catalog, "ner-tiny", Task.NER, windows=WINDOWS))


@pytest.fixture(scope="module")
def news(catalog) -> Pipeline:
    return open_variant(write_variant(catalog, "news-tiny", Task.CLASSIFICATION, windows=WINDOWS))


@pytest.fixture(scope="module", params=Task)
def attentive(request, catalog) -> Pipeline:
    """Real attention: its pieces do see each other, so padding and company could show."""
    task = request.param
    return open_variant(write_torch_variant(catalog, f"{task}-torch", task, windows=WINDOWS))


def test_a_sentence_gets_its_entities(ner):
    (answer,) = ner.answer(["Sani Bello ya je Kano."])
    assert isinstance(answer, NerAnswer)
    assert [(e.label, e.start, e.end, e.text) for e in answer.entities] == [
        ("PER", 0, 10, "Sani Bello"),
        ("LOC", 17, 21, "Kano"),
    ]
    assert (answer.tokens, answer.windows, answer.unknown) == (6, 1, 0.0)


def test_an_article_gets_its_topic(news):
    (answer,) = news.answer(["kudi banki asibiti"], Options(top_k=2))
    assert isinstance(answer, ClassificationAnswer)
    assert [each.label for each in answer.labels] == ["business", "health"]


def test_no_texts_get_no_answers(ner):
    assert ner.answer([]) == []


@pytest.mark.parametrize("text", ["", " \n"])
def test_a_blank_text_has_no_entities(ner, text):
    assert ner.answer([text]) == [NerAnswer(entities=(), tokens=0, windows=1, unknown=0.0)]


def check_company(pipeline: Pipeline, texts: list[str], **closeness: float) -> None:
    encoded = [pipeline.encode(text) for text in texts]
    windows = [window for each in encoded for window in each.windows]
    together = pipeline.run(windows)
    assert len(together) == len(windows)
    for window, logits in zip(windows, together, strict=True):
        (alone,) = pipeline.run([window])
        assert alone.shape == logits.shape
        np.testing.assert_allclose(logits, alone, **closeness)


@given(texts=TEXTS)
@settings(deadline=None, max_examples=30)
def test_a_text_has_the_same_logits_alone_and_in_company(attentive, texts):
    check_company(attentive, texts, rtol=0, atol=1e-4)


@given(texts=TEXTS)
@settings(deadline=None, max_examples=30)
def test_company_changes_no_bit_of_a_lookup_table(ner, texts):
    check_company(ner, texts, rtol=0, atol=0)


@given(text=TEXT, padding=st.integers(0, 40))
@settings(deadline=None, max_examples=30)
def test_padding_does_not_show(attentive, text, padding):
    window, *_ = attentive.encode(text).windows
    longer = Window(np.zeros(len(window.ids) + padding, np.int64), 0)
    (alone,), (padded, _) = attentive.run([window]), attentive.run([window, longer])
    np.testing.assert_allclose(padded, alone, rtol=0, atol=1e-4)


@given(texts=TEXTS, budget=st.integers(1, 200))
@settings(deadline=None, max_examples=30)
def test_answers_come_in_the_order_of_the_texts_whatever_the_batches(news, texts, budget):
    expected = [news.answer([text])[0] for text in texts]
    for answer, alone in zip(news.answer(texts, batch_tokens=budget), expected, strict=True):
        assert isinstance(answer, ClassificationAnswer) and isinstance(alone, ClassificationAnswer)
        found = {each.label: each.score for each in answer.labels}
        assert found == pytest.approx({each.label: each.score for each in alone.labels}, abs=1e-6)


@given(before=st.integers(0, 40), after=st.integers(0, 40))
@settings(deadline=None)
@pytest.mark.parametrize("how", [Aggregation.SIMPLE, Aggregation.FIRST])
def test_an_entity_at_a_seam_is_found_once_and_whole(ner, how, before, after):
    text = f"{'ya ' * before}Sani Bello{' je' * after}"
    (answer,) = ner.answer([text], Options(aggregation=how))
    assert isinstance(answer, NerAnswer)
    assert [entity.text for entity in answer.entities] == ["Sani Bello"]
    assert answer.windows == len(ner.encode(text).windows)


def test_threads_may_share_a_pipeline(ner):
    texts = [f"{'ya ' * count}Sani Bello je Kano" for count in range(40)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda text: ner.answer([text])[0], texts))
    assert answers == ner.answer(texts)


def test_a_long_article_is_read_to_its_end(news):
    (answer,) = news.answer(["a " * 200 + "kwallo " * 60])
    assert isinstance(answer, ClassificationAnswer)
    assert answer.windows > 10
    assert {each.label for each in answer.labels[:2]} == {"business", "sports"}


def test_a_batch_is_as_wide_as_its_longest_window_or_the_next_multiple() -> None:
    windows = [Window(np.array([0, 5, 2]), 0), Window(np.array([0, 5, 6, 7, 2]), 0)]
    ids, mask = padded(windows, 1)
    assert ids.tolist() == [[0, 5, 2, 1, 1], [0, 5, 6, 7, 2]]
    wide, wide_mask = padded(windows, 1, 4)
    assert wide.shape == (2, 8) and np.array_equal(wide[:, :5], ids)
    assert (wide[:, 5:] == 1).all() and wide_mask.sum() == mask.sum() == 8
    assert padded(windows, 1, 5)[0].shape == (2, 5)

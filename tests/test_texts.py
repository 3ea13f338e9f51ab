"""Laws of the texts that may be sent: composed to real lengths, or read from a user's files."""

from __future__ import annotations

import json
import lzma
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from loadtest.texts import (
    LENGTHS,
    WRITTEN,
    NoTexts,
    Text,
    compose,
    languages_of,
    read,
    words_at,
)

LANGUAGES = {"amh", "hau", "ibo", "kin", "luo", "orm", "pcm", "swa", "wol", "yor"}
NEWS = {"amh", "hau", "ibo", "orm", "pcm", "run", "som", "swa", "tir", "yor"}

# --- composed --------------------------------------------------------------------------------


def test_ten_languages_have_twelve_sentences_or_more() -> None:
    sentences = json.loads(WRITTEN.read_text(encoding="utf-8"))["sentences"]
    assert {name for name, found in sentences.items() if len(set(found)) >= 12} == LANGUAGES
    assert set(languages_of("sentences")) == LANGUAGES


def test_ten_languages_have_news_of_seven_topics() -> None:
    news = json.loads(WRITTEN.read_text(encoding="utf-8"))["news"]
    assert set(news) == NEWS == set(languages_of("articles")) == set(languages_of("headlines"))
    assert all(len(set(topics.values())) == 7 for topics in news.values())


def words(texts: list[Text]) -> list[int]:
    return [len(each.text.split()) for each in texts]


@pytest.mark.parametrize("kind", LENGTHS)
@pytest.mark.parametrize("seed", [1, 2])
def test_composed_texts_have_the_lengths_of_real_ones(kind: str, seed: int) -> None:
    found = words(compose(kind, count=400, seed=seed))
    for share, expected in LENGTHS[kind][1:-1]:
        assert np.quantile(found, share) == pytest.approx(expected, rel=0.05)
    assert max(found) <= LENGTHS[kind][-1][1]


@pytest.mark.parametrize("kind", LENGTHS)
def test_every_language_has_as_many_texts_and_the_same_lengths(kind: str) -> None:
    texts = compose(kind, count=500, seed=1)
    assert Counter(each.language for each in texts) == dict.fromkeys(languages_of(kind), 50)
    for language in languages_of(kind):
        found = words([each for each in texts if each.language == language])
        for share, expected in LENGTHS[kind][1:3]:
            assert np.quantile(found, share) == pytest.approx(expected, rel=0.12, abs=1)


@pytest.mark.parametrize("kind", LENGTHS)
def test_the_same_seed_gives_the_same_texts_and_another_seed_others(kind: str) -> None:
    assert compose(kind, count=40, seed=3) == compose(kind, count=40, seed=3)
    assert compose(kind, count=40, seed=3) != compose(kind, count=40, seed=4)


@pytest.mark.parametrize("share, words", [(0, 5), (0.25, 11), (0.5, 25), (1, 104)])
def test_lengths_between_two_quantiles_lie_on_a_straight_line_of_logarithms(
    share: float, words: int
) -> None:
    assert words_at(share, ((0, 5), (0.5, 25), (1, 104))) == words


def test_a_text_is_of_the_language_it_says() -> None:
    written = json.loads(WRITTEN.read_text(encoding="utf-8"))["sentences"]
    for each in compose("sentences", count=64, seed=1):
        openings = {sentence.split()[0].rstrip(".።,") for sentence in written[each.language]}
        assert each.text.split()[0].rstrip(".።,") in openings


def test_languages_can_be_chosen() -> None:
    texts = compose("articles", count=21, seed=1, languages={"hau", "swa"})
    assert sorted(Counter(each.language for each in texts).values()) == [10, 11]


# --- a user's --------------------------------------------------------------------------------


def test_a_users_folder_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Abuja ta yi sanyi.\n\nKano\u2028birni ne.\n", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text('{"text": "Èkó", "source": 1}\n', encoding="utf-8")
    (tmp_path / "c.jsonl.xz").write_bytes(lzma.compress(b'{"text": "Nairobi"}\n'))
    (tmp_path / "notes.md").write_text("not sent")
    (tmp_path / "empty.txt").write_text("")
    expected = ["Abuja ta yi sanyi.", "Kano\u2028birni ne.", "Èkó", "Nairobi"]
    assert read(tmp_path) == [Text(each) for each in expected]


def test_a_name_with_dots_in_it_is_of_the_kind_that_it_ends_in(tmp_path: Path) -> None:
    (tmp_path / "hau.dev.jsonl").write_text('{"text": "Kano"}\n')
    (tmp_path / "swa.v1.txt.xz").write_bytes(lzma.compress(b"Nairobi\n"))
    (tmp_path / "yor.txt.md").write_text("not sent")
    assert read(tmp_path) == [Text("Kano"), Text("Nairobi")]
    assert read(tmp_path / "hau.dev.jsonl") == [Text("Kano")]


def test_a_line_may_say_its_language_and_what_is_right(tmp_path: Path) -> None:
    rows = [
        {
            "text": "Sani ya je Kano.",
            "language": "hau",
            "entities": [
                {"start": 0, "end": 4, "label": "PER"},
                {"start": 11, "end": 15, "label": "LOC"},
            ],
        },
        {"headline": "Gasar kofi", "text": "An fara wasa.", "label": "sports", "language": "hau"},
        {"text": "Babu kowa.", "entities": []},
    ]
    file = tmp_path / "gold.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    assert read(file) == [
        Text("Sani ya je Kano.", "hau", frozenset({(0, 4, "PER"), (11, 15, "LOC")})),
        Text("Gasar kofi\nAn fara wasa.", "hau", label="sports"),
        Text("Babu kowa.", entities=frozenset()),
    ]


@pytest.mark.parametrize(
    "name, content",
    [
        ("a.md", b"x"),
        ("a.txt", b"\n \n"),
        ("a.txt", b"\xff\xfe"),
        ("a.txt", b"Sani B-PER\nya O\n\nKano B-LOC\n"),
        ("a.txt.xz", b"not packed"),
        ("a.jsonl", b'{"title": "x"}'),
        ("a.jsonl", b"[1]"),
        ("a.jsonl", b'{"text": 1}'),
        ("a.jsonl", b'{"text": "\\ud83d"}'),
        ("a.jsonl", b'{"text": "x", "label": 1}'),
        ("a.jsonl", b'{"text": "x", "language": ["hau"]}'),
        ("a.jsonl", b'{"text": "x", "entities": [[0, 1, "PER"]]}'),
        ("a.jsonl", b'{"text": "x", "entities": [{"start": 0, "end": 2, "label": "PER"}]}'),
        ("a.jsonl", b'{"text": "x", "entities": [{"start": 0, "end": true, "label": "PER"}]}'),
        ("a.jsonl", b'{"text": "x", "entities": [{"start": 0, "end": [], "label": "PER"}]}'),
    ],
)
def test_a_file_that_cannot_be_sent_is_named_in_one_line(
    tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(NoTexts, match=str(tmp_path)) as error:
        read(tmp_path / name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.txt.xz"])
@pytest.mark.parametrize("content", ["", "\n \n"])
def test_a_file_without_a_text_is_called_empty(tmp_path: Path, name: str, content: str) -> None:
    packed = lzma.compress(content.encode()) if name.endswith(".xz") else content.encode()
    (tmp_path / name).write_bytes(packed)
    with pytest.raises(NoTexts, match=f"{name} is empty: no line of it has a text"):
        read(tmp_path / name)
    (tmp_path / "other").mkdir()
    with pytest.raises(NoTexts, match=r"other holds no \.txt"):
        read(tmp_path / "other")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(NoTexts, match="nowhere"):
        read(tmp_path / "nowhere")

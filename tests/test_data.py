from __future__ import annotations

import json
import lzma
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from build import data
from build.data import DataError, Span
from tests.tiny_corpus import write_corpus

PAIRS = [
    (["A", "Abuja", ",", '"', "ya", "zo", '"', "."], 'A Abuja, "ya zo".'),
    (["Abuja", "."], "Abuja."),
    (["(", "FIFA", ")", "ta", "ce"], "(FIFA) ta ce"),
    (["አበበ", "ተናገረ", "።"], "አበበ ተናገረ።"),
    (["ƙasar", "’", "yan"], "ƙasar’ yan"),
    (['""', "eh", '""'], '"eh"'),
    (["kashi", "50", "%"], "kashi 50%"),
    (["e", "-", "mail"], "e - mail"),
    (["Wetin", "?", "!"], "Wetin?!"),
    ([], ""),
]


@pytest.mark.parametrize(("words", "text"), PAIRS)
def test_words_are_joined_as_a_person_writes_them(words: list[str], text: str) -> None:
    assert data.detokenise(words)[0] == text


WORDS = st.lists(st.text(st.characters(exclude_categories=("Cs", "Z", "Cc")), min_size=1))


@given(WORDS)
def test_every_word_is_found_where_its_offsets_say(words: list[str]) -> None:
    text, offsets = data.detokenise(words)
    for word, (start, end) in zip(words, offsets, strict=True):
        assert text[start:end] == ('"' if set(word) == {'"'} else word)


def test_spans_follow_seqevals_rules() -> None:
    tags = ["B-PER", "I-PER", "O", "I-LOC", "I-LOC", "B-LOC", "I-ORG"]
    offsets = [(i * 2, i * 2 + 1) for i in range(len(tags))]
    assert data.spans(tags, offsets) == (
        Span("PER", 0, 3),
        Span("LOC", 6, 9),
        Span("LOC", 10, 11),
        Span("ORG", 12, 13),
    )


def test_raw_and_tokenised_sentences_mark_the_same_entities(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path)
    raw = data.sentences(corpus, "hau", "train", raw=True)
    tokenised = data.sentences(corpus, "hau", "train", raw=False)
    assert [s.text for s in raw] != [s.text for s in tokenised]
    for one, other in zip(raw, tokenised, strict=True):
        marked = [one.text[span.start : span.end] for span in one.spans]
        assert marked == [other.text[span.start : span.end] for span in other.spans]
        assert marked and one.language == "hau"


def test_packed_files_are_read_alike(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path)
    plain = data.sentences(corpus, "swa", "test", raw=True)
    file = corpus / "ner" / "swa" / "test.txt"
    (file.parent / "test.txt.xz").write_bytes(lzma.compress(file.read_bytes()))
    file.unlink()
    assert data.sentences(corpus, "swa", "test", raw=True) == plain


def test_articles_keep_their_own_line_separators(tmp_path: Path) -> None:
    folder = tmp_path / "news" / "hau"
    folder.mkdir(parents=True)
    row = {"headline": "Kai", "text": "daya\u2028biyu\x85uku", "label": "sports"}
    bare = {"headline": "Kawai", "text": "", "label": "health"}
    lines = "\n".join(json.dumps(each, ensure_ascii=False) for each in (row, bare))
    (folder / "train.jsonl").write_text(lines, encoding="utf-8")
    first, second = data.articles(tmp_path, "hau", "train")
    assert first.text == "Kai\ndaya\u2028biyu\x85uku" and first.label == "sports"
    assert second.text == "Kawai"
    headlines = data.articles(tmp_path, "hau", "train", headlines=True)
    assert [each.text for each in headlines] == ["Kai", "Kawai"]


@pytest.mark.parametrize("line", ["Kano", "Kano LOC", "Kano\tB-LOC", " B-LOC"])
def test_a_wrong_tagged_line_is_named(tmp_path: Path, line: str) -> None:
    folder = tmp_path / "ner" / "hau"
    folder.mkdir(parents=True)
    (folder / "train.txt").write_text(f"ya O\n{line}\n")
    with pytest.raises(DataError, match=r"train\.txt, line 2: wants 'word TAG'"):
        data.sentences(tmp_path, "hau", "train", raw=True)


LABEL = '{"headline": "a", "text": "b", "label": %s}'


@pytest.mark.parametrize(
    "line",
    ['{"headline": "a"}', "[]", "not json", '"text"', LABEL % 3, LABEL % "null", LABEL % '["c"]'],
)
def test_a_wrong_article_is_named(tmp_path: Path, line: str) -> None:
    folder = tmp_path / "news" / "hau"
    folder.mkdir(parents=True)
    good = json.dumps({"headline": "a", "text": "b", "label": "c"})
    (folder / "dev.jsonl").write_text(f"{good}\n{line}\n")
    with pytest.raises(DataError, match=r"dev\.jsonl, line 2: wants an object with headline"):
        data.articles(tmp_path, "hau", "dev")


@pytest.mark.parametrize("packed", [False, True])
def test_what_is_no_utf8_is_named(tmp_path: Path, packed: bool) -> None:
    corpus = write_corpus(tmp_path)
    content = b"Kano\nAbuja\n\xff\xfe Zaria\n"
    for file in (corpus / "text" / "hau.txt", corpus / "ner" / "hau" / "train.txt"):
        file.unlink()
        target = file.with_name(f"{file.name}.xz") if packed else file
        target.write_bytes(lzma.compress(content) if packed else content)
    for read in (
        lambda: data.plain_sentences(corpus),
        lambda: data.sentences(corpus, "hau", "train", raw=True),
    ):
        with pytest.raises(DataError, match=r"hau.*\.txt(\.xz)?, line 3: wants UTF-8"):
            read()


WHOLE = lzma.compress(b"ya O\n" * 999)


@pytest.mark.parametrize(
    "content",
    [b"", b"ya O\n", WHOLE[:-20], b"\0" + WHOLE],
    ids=["empty", "plain", "cut off", "spoilt"],
)
def test_a_packed_file_that_cannot_be_unpacked_is_named(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "ner" / "hau"
    folder.mkdir(parents=True)
    (folder / "train.txt.xz").write_bytes(content)
    with pytest.raises(DataError, match=r"train\.txt\.xz: wants one whole xz file"):
        data.sentences(tmp_path, "hau", "train", raw=True)


def test_missing_files_are_named_with_where_they_belong(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no train\.txt or train\.txt\.xz in .*ner/hau"):
        data.sentences(tmp_path, "hau", "train", raw=True)
    with pytest.raises(DataError, match=r"no pretraining text"):
        data.plain_text(tmp_path)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("hau.txt.bak", r"hau\.txt\.bak: wants LANGUAGE\.txt"),
        ("hau.web.txt", r"hau\.web\.txt: wants LANGUAGE\.txt"),
        ("hau.txt.xz", r"hau\.txt\.xz: there is hau\.txt too"),
    ],
)
def test_no_plain_text_is_passed_over(tmp_path: Path, name: str, line: str) -> None:
    (write_corpus(tmp_path) / "text" / name).write_text("Old.\n")
    with pytest.raises(DataError, match=line):
        data.plain_text(tmp_path)


def test_plain_text_is_found_by_language(tmp_path: Path) -> None:
    files = data.plain_text(write_corpus(tmp_path))
    assert sorted(files) == ["hau", "swa"]
    assert sum(1 for _ in data.read_plain(files["hau"])) == 400

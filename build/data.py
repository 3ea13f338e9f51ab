"""
Reading corpora: CoNLL sentences, news articles and plain text, each with its gold answers.

Knows nothing of tokenizers or models. The folder's layout is described in docs/data.md.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


class DataError(Exception):
    """The data folder lacks something, or something in it is not what it should be."""


@dataclass(frozen=True, slots=True)
class Span:
    """Code points `start` to `end` of a text are a `label`."""

    label: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Sentence:
    """A text with its gold entities."""

    text: str
    spans: tuple[Span, ...]
    language: str


@dataclass(frozen=True, slots=True)
class Article:
    """A text (headline, newline, body) with its gold topic."""

    text: str
    label: str
    language: str


# --- reading ---------------------------------------------------------------------------------


def sentences(data: Path, language: str, split: str, *, raw: bool) -> list[Sentence]:
    """
    The named-entity sentences of one language and split.

    raw=True writes them as callers do ("Abuja."), raw=False as the corpus does ("Abuja .").
    Raises DataError naming the file and line that is wrong.
    """
    found = []
    for words, tags in _conll(_find(data / "ner" / language, split, ("txt",))):
        text, offsets = detokenise(words) if raw else _spaced(words)
        found.append(Sentence(text, spans(tags, offsets), language))
    return found


def joined(sentences: Sequence[Sentence], count: int) -> list[Sentence]:
    """So many in a row as one text, with a space between them; the last has what is left."""
    found = []
    for begin in range(0, len(sentences), count):
        text, gold = "", []
        for each in sentences[begin : begin + count]:
            text += " " if text else ""
            place = len(text)
            text += each.text
            gold += [Span(s.label, s.start + place, s.end + place) for s in each.spans]
        found.append(Sentence(text, tuple(gold), sentences[begin].language))
    return found


def articles(data: Path, language: str, split: str, *, headlines: bool = False) -> list[Article]:
    """
    The news articles of one language and split: headline and body joined by a newline.

    headlines=True leaves the body out. Raises DataError naming the file and line that is wrong.
    """
    file = _find(data / "news" / language, split, ("jsonl",))
    found = []
    for number, line in enumerate(_lines(file), 1):
        try:
            row = json.loads(line)
            parts = (row["headline"], "" if headlines else row["text"])
            text = "\n".join(part for part in parts if part)
            if not isinstance(row["label"], str):
                raise TypeError(f"label is {row['label']!r}")
            found.append(Article(text, row["label"], language))
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise DataError(
                f"{file}, line {number}: wants an object with headline, text and label, all "
                f"of them strings ({error})"
            ) from error
    return found


def plain_text(data: Path) -> dict[str, Path]:
    """
    Language -> file of one clean sentence a line.

    Raises DataError where there is none, or more than one of a language.
    """
    files: dict[str, Path] = {}
    for file in sorted((data / "text").glob("*.txt*")):
        language, _, ending = file.name.partition(".")
        if ending not in ("txt", "txt.xz"):
            raise DataError(f"{file}: wants LANGUAGE.txt or LANGUAGE.txt.xz: move it away")
        if language in files:
            raise DataError(f"{file}: there is {files[language].name} too, and {language} has one")
        files[language] = file
    if not files:
        raise DataError(f"no pretraining text: {data / 'text'} holds no LANGUAGE.txt or .txt.xz")
    return files


def read_plain(file: Path) -> Iterator[str]:
    """The sentences of one file, in its order."""
    return iter(_lines(file))


def plain_sentences(data: Path) -> dict[str, list[str]]:
    """Language -> its clean sentences."""
    return {language: list(read_plain(file)) for language, file in plain_text(data).items()}


def running_text(data: Path) -> dict[str, list[str]]:
    """Language -> blocks of running text: plain sentences joined by twenties, and training news."""
    found = {
        language: [" ".join(lines[i : i + 20]) for i in range(0, len(lines), 20)]
        for language, lines in plain_sentences(data).items()
    }
    for folder in sorted((data / "news").glob("*/")):
        news = [article.text for article in articles(data, folder.name, "train")]
        found.setdefault(folder.name, []).extend(news)
    return found


# --- from tagged words to text with spans -----------------------------------------------------

_CLOSING = set(".,;:!?%)]}»”’…") | set("።፣፤፥፦፧፨")
_OPENING = set("([{«“‘")


def detokenise(words: list[str]) -> tuple[str, list[tuple[int, int]]]:
    """
    Join corpus words as a person would write them; the offsets of each word come along.

    ["A", "Abuja", ",", "\\"", "ya", "zo", "\\"", "."]  ->  'A Abuja, "ya zo".'

    Straight double quotes open and close in turn; a run of them is one (some corpora ship the
    quote as its CSV escape). Apostrophes and dashes are left as they are.
    """
    text = ""
    offsets = []
    glue = True  # nothing before the first word
    quoted = False
    for word in ('"' if set(word) == {'"'} else word for word in words):
        closes = set(word) <= _CLOSING or (word == '"' and quoted)
        if not (glue or closes):
            text += " "
        offsets.append((len(text), len(text) + len(word)))
        text += word
        glue = set(word) <= _OPENING or (word == '"' and not quoted)
        if word == '"':
            quoted = not quoted
    return text, offsets


def spans(tags: list[str], offsets: list[tuple[int, int]]) -> tuple[Span, ...]:
    """
    Entities of BIO tags, as seqeval: an I- that follows nothing of its kind begins one.

    tags     B-PER   I-PER    O         I-LOC
    offsets  (0, 4)  (5, 10)  (11, 13)  (14, 18)
    ->       Span("PER", 0, 10), Span("LOC", 14, 18)
    """
    found: list[Span] = []
    previous = "O"
    for tag, (start, end) in zip(tags, offsets, strict=True):
        if tag != "O":
            label = tag[2:]
            if tag.startswith("I-") and previous[2:] == label:
                found[-1] = Span(label, found[-1].start, end)
            else:
                found.append(Span(label, start, end))
        previous = tag
    return tuple(found)


def _spaced(words: list[str]) -> tuple[str, list[tuple[int, int]]]:
    offsets = []
    start = 0
    for word in words:
        offsets.append((start, start + len(word)))
        start += len(word) + 1
    return " ".join(words), offsets


# --- files ------------------------------------------------------------------------------------


def _conll(file: Path) -> Iterator[tuple[list[str], list[str]]]:
    words: list[str] = []
    tags: list[str] = []
    for number, line in enumerate([*_lines(file), ""], 1):
        if not line.strip():
            if words:
                yield words, tags
            words, tags = [], []
            continue
        word, _, tag = line.rpartition(" ")
        if not word or not (tag == "O" or tag[:2] in ("B-", "I-")):
            raise DataError(f"{file}, line {number}: wants 'word TAG' with TAG O, B-X or I-X")
        words.append(word)
        tags.append(tag)


def _find(folder: Path, stem: str, endings: tuple[str, ...]) -> Path:
    names = [f"{stem}.{ending}{packed}" for ending in endings for packed in ("", ".xz")]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"no {' or '.join(names)} in {folder}; see docs/data.md for the layout")


def _lines(file: Path) -> list[str]:
    # Split on "\n" alone: articles hold other line separators.
    content = _unpacked(file) if file.suffix == ".xz" else file.read_bytes()
    try:
        lines = content.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{file}, line {number}: wants UTF-8 ({error.reason})") from error
    return lines[:-1] if lines[-1] == "" else lines


def _unpacked(file: Path) -> bytes:
    try:
        return lzma.decompress(file.read_bytes())
    except (lzma.LZMAError, EOFError) as error:
        raise DataError(f"{file}: wants one whole xz file ({error})") from error

"""
The texts that may be sent: sentences written for the project, or what a user's files hold.

A composed text is as many sentences of one language as its length asks for, the last one cut;
lengths follow the word counts of MasakhaNER sentences and MasakhaNEWS articles and headlines. Same
seed, same texts. Also `python -m loadtest.texts --kind articles --count 8`: one JSON object a line.
Knows nothing of HTTP or of the variants.
"""

from __future__ import annotations

import argparse
import json
import lzma
import math
import random
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from loadtest.record import Result

WRITTEN = Path(__file__).with_name("texts.json")
KINDS = {".txt", ".jsonl"}

Quantiles = Sequence[tuple[float, int]]
"""(share of texts, words at most), shares rising from 0 to 1."""

LENGTHS: dict[str, Quantiles] = {
    "sentences": ((0, 5), (0.5, 25), (0.9, 47), (0.99, 67), (1, 104)),
    "articles": ((0, 60), (0.5, 378), (0.9, 880), (0.99, 1573), (1, 4098)),
    "headlines": ((0, 4), (0.5, 11), (0.9, 17), (0.99, 23), (1, 33)),
}

# Sentences go to NER: languages with too few are there for articles only.
SENTENCES_OF_A_LANGUAGE = 12


# A corpus' line of a word and its tag: nobody means to send those.
TAGGED = re.compile(r"\S+ (O|[BI]-\S+)")


class BadTraffic(Exception):
    """What was asked to be sent cannot be; the message is one line that says what can."""


class NoTexts(BadTraffic):
    """The folder or file a user gave holds nothing to send, or something that is wrong."""


@dataclass(frozen=True, slots=True)
class Text:
    """
    Something to send; `language` "" where it is not known, gold None where it is not.

    entities  what is right for NER, in code points of the text
    label     what is right for classification
    """

    text: str
    language: str = ""
    entities: frozenset[tuple[int, int, str]] | None = None
    label: str | None = None

    def gold(self, task: str) -> Result | None:
        return self.entities if task == "ner" else self.label


@dataclass(frozen=True)
class Topic:
    """What one text is made from: how it opens, and the sentences that may follow."""

    language: str
    opening: tuple[str, ...]
    sentences: tuple[str, ...]


def languages_of(kind: str) -> list[str]:
    """Those a kind can be composed in."""
    return sorted({topic.language for topic in _topics(kind)})


def compose(kind: str, *, count: int, seed: int, languages: Collection[str] = ()) -> list[Text]:
    """
    `count` texts in random order, as many of each language (all where none is named).

    Their lengths have the kind's quantiles whatever the seed, and so have those of each language.
    """
    rng = random.Random(f"{kind} {seed}")
    topics: dict[str, list[Topic]] = {}
    for topic in _topics(kind):
        if not languages or topic.language in languages:
            topics.setdefault(topic.language, []).append(topic)
    for some in topics.values():
        rng.shuffle(some)
    texts: list[Text] = []
    while len(texts) < count:
        # Neighbours in length go to different languages, each time in another order.
        turn = len(texts) // len(topics)
        for language in rng.sample(list(topics), min(len(topics), count - len(texts))):
            words = words_at((len(texts) + 0.5) / count, LENGTHS[kind])
            topic = topics[language][turn % len(topics[language])]
            texts.append(Text(join(topic, words, rng), language))
    rng.shuffle(texts)
    return texts


def words_at(share: float, quantiles: Quantiles) -> int:
    """
    The length that `share` of the texts do not pass: straight lines through log lengths.

    quantiles (0, 5) (0.5, 25) (1, 104)   share 0 0.25 0.5 1   -> 5 11 25 104
    """
    for (left, shorter), (right, longer) in pairwise(quantiles):
        if share <= right:
            way = (share - left) / (right - left)
            return round(math.exp(math.log(shorter) * (1 - way) + math.log(longer) * way))
    raise ValueError(f"share {share} is not in 0..1")


def join(topic: Topic, words: int, rng: random.Random) -> str:
    """The opening, then sentences in random order, each once before any comes again; cut to fit."""
    taken = [word for sentence in topic.opening for word in sentence.split()]
    while len(taken) < words:
        for sentence in rng.sample(topic.sentences, len(topic.sentences)):
            taken += sentence.split()
    stop = taken[-1][-1]
    return " ".join(taken[:words]).rstrip(" ,;:.።") + stop


def read(path: Path) -> list[Text]:
    """
    Every line of .txt, every object of .jsonl, each also as .xz; a folder with all it holds.

    {"text": "Sani ya je Kano.", "language": "hau", "entities": [{"start": 0, ...}]}: only the text
    is required, `label` may stand instead of `entities`, and a `headline` goes before the text.
    """
    if not path.exists():
        raise NoTexts(f"{path} is neither a file nor a folder, nor one of {', '.join(LENGTHS)}")
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    texts = [text for file in files if file.is_file() for text in _texts(file) if text.text]
    if not texts and path.is_file() and _kind(path) in KINDS:
        raise NoTexts(f"{path} is empty: no line of it has a text")
    if not texts:
        raise NoTexts(f'{path} holds no .txt (a text a line) and no .jsonl (objects with "text")')
    return texts


def _kind(file: Path) -> str:
    """hau.dev.jsonl.xz -> .jsonl"""
    return (file.with_suffix("") if file.suffix == ".xz" else file).suffix


def _texts(file: Path) -> Iterator[Text]:
    kind = _kind(file)
    if kind not in KINDS:
        return
    # Not splitlines: articles hold other line separators within a line.
    try:
        packed = file.read_bytes()
        content = lzma.decompress(packed) if file.suffix == ".xz" else packed
        lines = content.decode("utf-8").split("\n")
    except UnicodeDecodeError:
        raise NoTexts(f"{file} is not UTF-8") from None
    except (OSError, lzma.LZMAError) as error:
        raise NoTexts(f"{file} cannot be read ({error})") from None
    head = [line for line in lines if line.strip()][:9]
    if kind == ".txt" and head and all(map(TAGGED.fullmatch, head)):
        raise NoTexts(f"{file} has a word and its tag a line: `python -m build labelled` reads it")
    for number, line in enumerate(lines, 1):
        if line.strip():
            place = f"{file}:{number}"
            yield Text(line.strip()) if kind == ".txt" else _row(line, place)


def _row(line: str, place: str) -> Text:
    try:
        row = json.loads(line)
        parts = (row.get("headline") or "", row["text"])
        text = "\n".join(part for part in parts if part.strip())
        text.encode()  # half of a surrogate pair cannot be sent
    except (ValueError, TypeError, KeyError, AttributeError):
        raise NoTexts(f'{place} is not a JSON object with a "text"') from None
    language, label = row.get("language") or "", row.get("label")
    if not isinstance(language, str) or not (label is None or isinstance(label, str)):
        raise NoTexts(f'{place}: "language" and "label" are words where they are given')
    entities = row.get("entities")
    return Text(text, language, None if entities is None else _spans(entities, text, place), label)


def _spans(entities: Any, text: str, place: str) -> frozenset[tuple[int, int, str]]:
    try:
        found = frozenset((each["start"], each["end"], each["label"]) for each in entities)
        good = all(
            type(start) is type(end) is int and 0 <= start < end <= len(text) and type(label) is str
            for start, end, label in found
        )
    except (TypeError, KeyError):
        good = False
    if not good:
        raise NoTexts(
            f'{place}: "entities" is a list of {{"start", "end", "label"}}, '
            "start and end in characters within the text"
        )
    return found


def _topics(kind: str) -> list[Topic]:
    written = json.loads(WRITTEN.read_text(encoding="utf-8"))
    sentences: dict[str, list[str]] = written["sentences"]
    if kind == "sentences":
        return [
            Topic(language, (), tuple(some))
            for language, some in sentences.items()
            if len(some) >= SENTENCES_OF_A_LANGUAGE
        ]
    return [
        Topic(language, (text,), (text, *sentences[language]))
        for language, topics in written["news"].items()
        for text in topics.values()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtest.texts", description=__doc__)
    parser.add_argument("--kind", choices=sorted(LENGTHS), default="sentences")
    parser.add_argument("--count", type=int, default=512, help="texts (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="default %(default)s")
    args = parser.parse_args()
    for each in compose(args.kind, count=args.count, seed=args.seed):
        print(json.dumps({"text": each.text, "language": each.language}, ensure_ascii=False))


if __name__ == "__main__":
    main()

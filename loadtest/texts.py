"""
The texts that are sent: sentences written for the project, composed to the lengths newsrooms have.

A text is as many sentences as its length asks for, the last one cut; lengths follow the word
counts of MasakhaNER sentences and MasakhaNEWS articles and headlines. Same seed, same texts.
Also `python -m loadtest.texts --kind articles --count 8`: one JSON object a line.
Knows nothing of HTTP or of the variants.
"""

from __future__ import annotations

import argparse
import json
import lzma
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

WRITTEN = Path(__file__).with_name("texts.json")

Quantiles = Sequence[tuple[float, int]]
"""(share of texts, words at most), shares rising from 0 to 1."""

LENGTHS: dict[str, Quantiles] = {
    "sentences": ((0, 5), (0.5, 25), (0.9, 47), (0.99, 67), (1, 104)),
    "articles": ((0, 60), (0.5, 378), (0.9, 880), (0.99, 1573), (1, 4098)),
    "headlines": ((0, 4), (0.5, 11), (0.9, 17), (0.99, 23), (1, 33)),
}

# Sentences go to NER: languages with too few are there for articles only.
SENTENCES_OF_A_LANGUAGE = 12


class NoTexts(Exception):
    """The folder or file a user gave holds nothing to send."""


@dataclass(frozen=True)
class Topic:
    """What one text is made from: how it opens, and the sentences that may follow."""

    opening: tuple[str, ...]
    sentences: tuple[str, ...]


def traffic(source: str, *, count: int, seed: int) -> list[str]:
    """
    `count` texts of a kind ("sentences", "articles", "headlines"), or those of a file or folder.

    Raises NoTexts where the file or folder has none.
    """
    return compose(source, count=count, seed=seed) if source in LENGTHS else read(Path(source))


def compose(kind: str, *, count: int, seed: int) -> list[str]:
    """`count` texts whose lengths have the kind's quantiles, whatever the seed, in random order."""
    rng = random.Random(f"{kind} {seed}")
    topics = _topics(kind)
    lengths = [words_at((i + 0.5) / count, LENGTHS[kind]) for i in range(count)]
    rng.shuffle(lengths)
    rng.shuffle(topics)
    return [join(topics[i % len(topics)], words, rng) for i, words in enumerate(lengths)]


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


def read(path: Path) -> list[str]:
    """Every line of .txt, every "text" of .jsonl, each also as .xz; a folder with all it holds."""
    if not path.exists():
        raise NoTexts(f"{path} is neither a file nor a folder, nor one of {', '.join(LENGTHS)}")
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    texts = [text for file in files if file.is_file() for text in _lines(file) if text.strip()]
    if not texts:
        raise NoTexts(f'{path} holds no .txt (a text a line) and no .jsonl (objects with "text")')
    return texts


def _lines(file: Path) -> Iterator[str]:
    kind = file.suffixes[0] if file.suffixes else ""
    if kind not in {".txt", ".jsonl"}:
        return
    content = lzma.decompress(file.read_bytes()) if file.suffix == ".xz" else file.read_bytes()
    # Not splitlines: articles hold other line separators within a line.
    try:
        lines = content.decode("utf-8").split("\n")
    except UnicodeDecodeError:
        raise NoTexts(f"{file} is not UTF-8") from None
    for number, line in enumerate(lines, 1):
        yield line.strip() if kind == ".txt" else _text(line, f"{file}:{number}")


def _text(line: str, place: str) -> str:
    try:
        return str(json.loads(line)["text"]) if line.strip() else ""
    except (ValueError, TypeError, KeyError):
        raise NoTexts(f'{place} is not a JSON object with a "text"') from None


def _topics(kind: str) -> list[Topic]:
    written = json.loads(WRITTEN.read_text(encoding="utf-8"))
    sentences: dict[str, list[str]] = written["sentences"]
    if kind == "sentences":
        enough = (s for s in sentences.values() if len(s) >= SENTENCES_OF_A_LANGUAGE)
        return [Topic((), tuple(s)) for s in enough]
    return [
        Topic((text,), (text, *sentences[language]))
        for language, topics in written["news"].items()
        for text in topics.values()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtest.texts", description=__doc__)
    parser.add_argument("--kind", choices=sorted(LENGTHS), default="sentences")
    parser.add_argument("--count", type=int, default=512, help="texts (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="default %(default)s")
    args = parser.parse_args()
    for text in compose(args.kind, count=args.count, seed=args.seed):
        print(json.dumps({"text": text}, ensure_ascii=False))


if __name__ == "__main__":
    main()

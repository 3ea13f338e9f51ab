"""
All text of all languages, in the order networks and tokenizers learn from it. Knows no networks.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tqdm import tqdm

from build import data


def pieces(tokenizer: Tokenizer, corpus: Path, tokens: int, *, seed: int) -> NDArray[np.int32]:
    """Running text of all languages as pieces without specials, at most `tokens` of them."""
    bar = tqdm(total=tokens, desc="encode text", unit="token", mininterval=5)
    lines = mixed(data.running_text(corpus), seed=seed)
    found: list[NDArray[np.int32]] = []
    while bar.n < tokens and (block := list(islice(lines, 2048))):
        for encoding in tokenizer.encode_batch(block, add_special_tokens=False):
            found.append(np.array(encoding.ids, np.int32))
            bar.update(len(encoding.ids))
    bar.close()
    return np.concatenate(found)[:tokens] if found else np.zeros(0, np.int32)


def mixed(blocks: dict[str, list[str]], *, seed: int, power: float = 0.5) -> Iterator[str]:
    """
    Blocks of all languages, each drawn with its size to the `power`; a language that runs out
    begins again. Ends when the largest has been read once. A language without text has no turn.
    """
    chance = random.Random(seed)
    pools = {name: chance.sample(lines, len(lines)) for name, lines in blocks.items() if lines}
    sizes = {language: sum(map(len, lines)) for language, lines in pools.items()}
    names = sorted(pools)
    weights = [sizes[name] ** power / max(1, sizes[name] // len(pools[name])) for name in names]
    places = dict.fromkeys(names, 0)
    largest = max(names, key=lambda name: sizes[name])
    while places[largest] < len(pools[largest]):
        name = chance.choices(names, weights)[0]
        yield pools[name][places[name] % len(pools[name])]
        places[name] += 1


def sentences(corpus: Path) -> dict[str, Iterable[str]]:
    """Language -> sentences a tokenizer is trained on: the same text, and tagged training text."""
    found = data.plain_sentences(corpus)
    for folder in sorted((corpus / "news").glob("*/")):
        lines = found.setdefault(folder.name, [])
        for article in data.articles(corpus, folder.name, "train"):
            lines.extend(article.text.split("\n"))
    for folder in sorted((corpus / "ner").glob("*/")):
        lines = found.setdefault(folder.name, [])
        lines.extend(s.text for s in data.sentences(corpus, folder.name, "train", raw=True))
    return dict(found)

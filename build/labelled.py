"""
A corpus as lines that load tests and users' own tools read: texts with what is right for each.

Reads the layout of docs/data.md; knows nothing of variants.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from build import data
from build.data import Article, DataError, Sentence
from models.spec import Task

FOLDERS = {Task.NER: "ner", Task.CLASSIFICATION: "news"}


def lines(corpus: Path, task: Task, languages: Sequence[str], split: str) -> Iterator[str]:
    """
    A JSON object a text, written as callers write; every language there is where none is named.

    Raises DataError.
    """
    folder = corpus / FOLDERS[task]
    names = languages or sorted(each.name for each in folder.glob("*/"))
    if not names:
        raise DataError(f"{folder} has no languages; see docs/data.md for the layout")
    for language in names:
        texts: Sequence[Sentence | Article]
        if task is Task.NER:
            texts = data.sentences(corpus, language, split, raw=True)
        else:
            texts = data.articles(corpus, language, split)
        yield from map(_line, texts)


def _line(text: Sentence | Article) -> str:
    gold: dict[str, object]
    if isinstance(text, Sentence):
        spans = [{"start": s.start, "end": s.end, "label": s.label} for s in text.spans]
        gold = {"entities": spans}
    else:
        gold = {"label": text.label}
    row = {"text": text.text, "language": text.language, **gold}
    return json.dumps(row, ensure_ascii=False)

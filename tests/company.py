"""The law of company: a text gets the same logits alone and beside strangers, bit by bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from build.graph import runner
from models.encode import Window
from models.pipeline import Pipeline
from models.spec import Task

LENGTHS = (2, 9, 17, 33, 64, 41)
PAD = 1


def same_alone_and_in_company(folder: Path, task: Task) -> bool:
    """Whether texts of several lengths, odd ones too, keep their logits in one padded batch."""
    run = runner(folder)
    chance = np.random.default_rng(2)
    texts = [chance.integers(4, 100, length) for length in LENGTHS]
    width = max(LENGTHS)
    ids = np.array([[*text, *[PAD] * (width - len(text))] for text in texts])
    mask = np.array([[1] * len(text) + [0] * (width - len(text)) for text in texts])
    together = run({"input_ids": ids, "attention_mask": mask})
    for text, row in zip(texts, together, strict=True):
        alone = run({"input_ids": text[None], "attention_mask": np.ones_like(text[None])})[0]
        if not np.array_equal(alone, row[: len(text)] if task is Task.NER else row):
            return False
    return True


def served_the_same(pipeline: Pipeline) -> bool:
    """As above, through the pipeline: batches are as wide as its session wants them."""
    chance = np.random.default_rng(2)
    texts = [Window(chance.integers(4, 100, length), 0) for length in LENGTHS]
    together = pipeline.run(texts)
    return all(
        np.array_equal(pipeline.run([text])[0], rows)
        for text, rows in zip(texts, together, strict=True)
    )

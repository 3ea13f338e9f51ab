"""
The one path from a text to its answer: encode, run, decode. Serves texts and scores variants.

Knows nothing of HTTP, queues or gold labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.batches import cut
from models.decode import entities, label_scores
from models.encode import Encoded, Encoder, Ints, Window
from models.runtime import open_session
from models.session import Halt, Session, SessionOptions
from models.spec import (
    Aggregation,
    Answer,
    ClassificationAnswer,
    NerAnswer,
    Options,
    Task,
    Variant,
)

Floats = NDArray[np.floating[Any]]

TOKENIZER = "tokenizer.json"
BATCH_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A variant that can answer. Safe to share between threads."""

    variant: Variant
    encoder: Encoder
    session: Session

    @classmethod
    def open(cls, variant: Variant, folder: Path, options: SessionOptions) -> Pipeline:
        """Load a folder without checking it against the manifest: `catalog.open_variant` does."""
        encoder = Encoder(folder / TOKENIZER, variant.windows)
        return cls(variant, encoder, open_session(variant, folder, options))

    def encode(self, text: str) -> Encoded:
        return self.encoder.encode(text)

    def run(self, windows: Sequence[Window], halt: Halt | None = None) -> list[Floats]:
        """
        One padded batch through the model; the logits of each window, padding cut off.

        NER: (tokens, labels) with the specials' rows. Classification: (labels,). Raises `Halted`
        where `halt` ended it.
        """
        batch = padded(windows, self.encoder.pad_id, self.session.multiple)
        logits = self.session.run(*batch, halt)
        if self.variant.task is Task.NER:
            return [rows[: len(window.ids)] for rows, window in zip(logits, windows, strict=True)]
        return list(logits)

    def decode(self, encoded: Encoded, logits: Sequence[Floats], options: Options) -> Answer:
        """The answer to a text; `logits` in the order of `encoded.windows`."""
        tokens, windows = len(encoded.ids), len(encoded.windows)
        labels = self.variant.labels
        if self.variant.task is Task.NER:
            alone = options.aggregation is Aggregation.NONE
            pieces = self.encoder.spelt(encoded) if alone else ()
            return NerAnswer(
                entities=entities(encoded, logits, labels, options, pieces),
                tokens=tokens,
                windows=windows,
                unknown=encoded.unknown,
            )
        many = self.variant.multi_label
        return ClassificationAnswer(
            labels=label_scores(logits, labels, multi_label=many, options=options),
            tokens=tokens,
            windows=windows,
            unknown=encoded.unknown,
        )

    def answer(
        self,
        texts: Sequence[str],
        options: Options | None = None,
        *,
        batch_tokens: int = BATCH_TOKENS,
    ) -> list[Answer]:
        """Answer texts in their order, in batches of windows of like length."""
        encoded = [self.encode(text) for text in texts]
        windows = [window for each in encoded for window in each.windows]
        logits = iter(self._run_all(windows, batch_tokens))
        return [
            self.decode(each, [next(logits) for _ in each.windows], options or Options())
            for each in encoded
        ]

    def _run_all(self, windows: Sequence[Window], batch_tokens: int) -> list[Floats]:
        lengths = [len(window.ids) for window in windows]
        groups = cut(lengths, max_items=len(windows), max_padded_tokens=batch_tokens)
        found: dict[int, Floats] = {}
        for group in groups:
            found.update(zip(group, self.run([windows[i] for i in group]), strict=True))
        return [found[index] for index in range(len(windows))]


def padded(windows: Sequence[Window], pad_id: int, multiple: int = 1) -> tuple[Ints, Ints]:
    """
    Windows as one batch: ids and mask, (windows, tokens), filled up on the right.

    Tokens are those of the longest, rounded up to a `multiple`.
    """
    longest = max(len(window.ids) for window in windows)
    ids = np.full((len(windows), longest + -longest % multiple), pad_id, np.int64)
    mask = np.zeros_like(ids)
    for row, window in enumerate(windows):
        ids[row, : len(window.ids)] = window.ids
        mask[row, : len(window.ids)] = 1
    return ids, mask

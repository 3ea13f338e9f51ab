"""
Entities of texts by onnxruntime, short and plain: what anyone would write. Shared by the peers.

One batch is padded to its longest text; a text longer than the model reads at once is cut off.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

Entities = list[dict[str, Any]]


class Ner:
    """The model in a folder with model.onnx, tokenizer.json and labels.json."""

    def __init__(self, folder: Path, threads: int) -> None:
        told = json.loads((folder / "labels.json").read_bytes())
        self.labels: list[str] = told["labels"]
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(told["tokens"])
        pad = self.tokenizer.token_to_id("<pad>")
        self.tokenizer.enable_padding(pad_id=pad, pad_token="<pad>")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # More threads than cores would wait in loops for each other, Kadogo's finding too.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = ort.InferenceSession(
            folder / "model.onnx",
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=["SkipLayerNormFusion"],  # slower on a CPU: Kadogo's finding too
        )

    def __call__(self, texts: Sequence[str]) -> list[Entities]:
        encodings = self.tokenizer.encode_batch(list(texts))
        ids = np.array([each.ids for each in encodings], np.int64)
        mask = np.array([each.attention_mask for each in encodings], np.int64)
        (logits,) = self.session.run(["logits"], {"input_ids": ids, "attention_mask": mask})
        best = logits.argmax(-1)
        powers = np.exp(logits - logits.max(-1, keepdims=True))
        scores = 1 / powers.sum(-1)
        return [
            list(grouped(text, encoding, [self.labels[each] for each in row], row_scores.tolist()))
            for text, encoding, row, row_scores in zip(texts, encodings, best, scores, strict=True)
        ]


def grouped(
    text: str, encoding: Any, labels: Sequence[str], scores: Sequence[float]
) -> Iterator[dict[str, Any]]:
    """Neighbouring pieces of one kind; a B- begins anew."""
    kind, start, end, found = "O", 0, 0, list[float]()

    def entity() -> dict[str, Any]:
        shift = len(text[start:end]) - len(text[start:end].lstrip())
        score = sum(found) / len(found)
        return {"label": kind, "start": start + shift, "end": end, "score": score}

    pieces = zip(encoding.offsets, encoding.special_tokens_mask, labels, scores, strict=True)
    for (first, last), special, label, score in pieces:
        if special:
            continue
        prefix, _, now = label.rpartition("-")
        if now != kind or prefix == "B":
            if kind != "O":
                yield entity()
            kind, start, found = now, first, []
        end = last
        found.append(score)
    if kind != "O":
        yield entity()

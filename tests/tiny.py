"""
Tiny real variants for tests: one lookup table as the whole network, so every answer is known.

Each piece's logits are a row of a table; classification takes the mean over the real tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models

from build.tokenizer import MASK, SPECIALS, dressed
from models.catalog import describe
from models.spec import (
    Evidence,
    Golden,
    Input,
    Interval,
    Licence,
    Runtime,
    Scores,
    Task,
    Variant,
    Windows,
)

NER_LABELS = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-DATE", "I-DATE")
NEWS_LABELS = ("business", "health", "sports")

NER_WORDS = {
    "Sani": "B-PER", "Bello": "I-PER", "Kano": "B-LOC", "Abuja": "B-LOC", "Lagos": "B-LOC",
    "NNPC": "B-ORG", "Litinin": "B-DATE", "ya": "O", "je": "O", "a": "O", "ranar": "O", ".": "O",
}  # fmt: skip
NEWS_WORDS = {"kudi": "business", "banki": "business", "asibiti": "health", "kwallo": "sports"}


def tokenizer(words: Mapping[str, str]) -> Tokenizer:
    """Whole words, single characters as a fallback, XLM-R's specials in XLM-R's order."""
    letters = [chr(c) for c in range(33, 127)] + ["▁"]
    pieces = [*SPECIALS, *dict.fromkeys([f"▁{word}" for word in words] + letters), MASK]
    scores = [0.0] * len(SPECIALS) + [-1.0 if len(p) > 1 else -9.0 for p in pieces[4:]]
    return dressed(Tokenizer(models.Unigram(list(zip(pieces, scores, strict=True)), unk_id=3)))


def table(built: Tokenizer, words: Mapping[str, str], labels: tuple[str, ...]) -> np.ndarray:
    """(vocabulary, labels) float32: known words score 6 for their label, others 3 for the first."""
    logits = np.zeros((built.get_vocab_size(), len(labels)), np.float32)
    logits[:, 0] = 3.0
    for word, label in words.items():
        row = built.token_to_id(f"▁{word}")
        logits[row] = 0.0
        logits[row, labels.index(label)] = 6.0
    return logits


def graph(logits: np.ndarray, task: Task) -> onnx.ModelProto:
    """input_ids, attention_mask (batch, tokens) int64 -> logits, as every exported variant has."""
    weights = [numpy_helper.from_array(logits, "table")]
    if task is Task.NER:
        nodes = [helper.make_node("Gather", ["table", "input_ids"], ["logits"])]
        shape = ["batch", "tokens", logits.shape[1]]
    else:
        weights.append(numpy_helper.from_array(np.array([1], np.int64), "tokens_axis"))
        weights.append(numpy_helper.from_array(np.array([2], np.int64), "last_axis"))
        nodes = [
            helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
            helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["mask", "last_axis"], ["column"]),
            helper.make_node("Mul", ["rows", "column"], ["kept"]),
            helper.make_node("ReduceSum", ["kept", "tokens_axis"], ["total"], keepdims=0),
            helper.make_node("ReduceSum", ["column", "tokens_axis"], ["count"], keepdims=0),
            helper.make_node("Div", ["total", "count"], ["logits"]),
        ]
        shape = ["batch", logits.shape[1]]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
        for name in ("input_ids", "attention_mask")
    ]
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)
    body = helper.make_graph(nodes, "tiny", inputs, [output], initializer=weights)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def judged(f1: float, difference: float = 0.0, *, width: float = 0.005) -> Evidence:
    """Evidence of a macro F1 and a difference to the baseline, the same in Hausa and Yoruba."""
    return Evidence(
        data="tiny",
        split="test",
        command="",
        commit="",
        date="",
        host="",
        quality={"f1": {Input.RAW: _scores(f1, width)}},
        difference={"f1": {Input.RAW: _scores(difference, width)}},
    )


def _scores(mean: float, width: float) -> Scores:
    interval = Interval(n=100, mean=mean, low=mean - width, high=mean + width)
    return Scores(macro=interval, languages={"hau": interval, "yor": interval})


def write_variant(
    catalog: Path,
    name: str,
    task: Task,
    *,
    words: Mapping[str, str] | None = None,
    windows: Windows | None = None,
    golden: tuple[Golden, ...] = (),
    parent: str | None = None,
    evidence: Evidence | None = None,
) -> Path:
    """Write a whole, valid variant folder and give back its path."""
    words = words or (NER_WORDS if task is Task.NER else NEWS_WORDS)
    labels = NER_LABELS if task is Task.NER else NEWS_LABELS
    folder = catalog / name
    folder.mkdir(parents=True)
    built = tokenizer(words)
    logits = table(built, words, labels)
    built.save(str(folder / "tokenizer.json"))
    onnx.save(graph(logits, task), folder / "model.onnx")
    variant = Variant(
        name=name,
        task=task,
        runtime=Runtime.ONNX,
        labels=labels,
        languages=("hau",),
        windows=windows or Windows(tokens=128, overlap=32 if task is Task.NER else 0),
        lineage=("Tiny()",),
        description="A lookup table for tests",
        licence=Licence(name="Apache-2.0", sources=()),
        files=describe(folder),
        weights={"float32": int(logits.size)},
        parameters=int(logits.size),
        sparsity=float((logits == 0).mean()),
        golden=golden,
        parent=parent,
        evidence=evidence,
    )
    manifest = msgspec.json.format(msgspec.json.encode(variant), indent=1)
    (folder / "variant.json").write_bytes(manifest)
    return folder

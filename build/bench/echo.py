"""
A variant whose model costs next to nothing: one table, a row of logits a word.

What a request still takes is encoding, decoding and serving. Knows nothing of servers.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec
import numpy as np
import onnx
from onnx import helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from models import catalog
from models.spec import Licence, Runtime, Task, Variant, Windows

Table = np.ndarray[tuple[int, int], np.dtype[np.float32]]

NAME = "ner-echo"
SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
LABELS = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-DATE", "I-DATE")

# One word in six is an entity, about as in news.
ENTITY_EVERY = 6


def write(root: Path, texts: Iterable[str]) -> Path:
    """Write the variant that knows every word of `texts` into the catalog `root`."""
    folder = root / NAME
    folder.mkdir(parents=True)
    tokenizer = _tokenizer(texts)
    tokenizer.save(str(folder / "tokenizer.json"))
    table = _table(tokenizer.get_vocab_size())
    onnx.save(_graph(table), str(folder / "model.onnx"))
    variant = Variant(
        name=NAME,
        task=Task.NER,
        runtime=Runtime.ONNX,
        labels=LABELS,
        languages=("hau",),
        windows=Windows(tokens=256, overlap=64),
        lineage=("Echo()",),
        description="A lookup table, to measure what serving itself costs",
        licence=Licence(name="Apache-2.0", sources=()),
        files=catalog.describe(folder),
        weights={"float32": table.size},
        parameters=table.size,
        sparsity=float((table == 0).mean()),
        golden=(),
    )
    (folder / catalog.MANIFEST).write_bytes(msgspec.json.encode(variant))
    return folder


def _tokenizer(texts: Iterable[str]) -> Tokenizer:
    split = pre_tokenizers.Whitespace()
    words = dict.fromkeys(word for text in texts for word, _ in split.pre_tokenize_str(text))
    vocabulary = {word: index for index, word in enumerate((*SPECIALS, *words))}
    built = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    built.pre_tokenizer = split
    built.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return built


def _table(vocabulary: int) -> Table:
    """(vocabulary, labels) float32: most words score for O, every sixth for the start of one."""
    logits = np.zeros((vocabulary, len(LABELS)), np.float32)
    for row in range(vocabulary):
        entity = row > len(SPECIALS) and row % ENTITY_EVERY == 0
        logits[row, 1 + row // ENTITY_EVERY * 2 % (len(LABELS) - 1) if entity else 0] = 6.0
    return logits


def _graph(table: Table) -> onnx.ModelProto:
    ids, mask = (
        helper.make_tensor_value_info(name, onnx.TensorProto.INT64, ["batch", "tokens"])
        for name in ("input_ids", "attention_mask")
    )
    shape = ["batch", "tokens", table.shape[1]]
    logits = helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, shape)
    gather = helper.make_node("Gather", ["table", "input_ids"], ["logits"])
    weights = [numpy_helper.from_array(table, "table")]
    body = helper.make_graph([gather], "echo", [ids, mask], [logits], initializer=weights)
    opset = helper.make_opsetid("", 21)
    return helper.make_model(body, opset_imports=[opset], ir_version=10)

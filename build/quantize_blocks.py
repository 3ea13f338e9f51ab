"""
An exported graph to blocks: weights of 8 or 4 bits, a scale and a zero point for every few of them.

Weights alone: activations stay float32. onnxruntime can take int8 ones (accuracy_level=4), but its
kernels for blocks of 64 and more then add the last odd row of a batch in another order, so that a
stranger's text would move an answer. Products of float32 rows do not, from two rows on, and every
text has two: its specials. (On one thread a run, as is served. Threads that share a run cut its
rows by their number, and 8-bit products then differ in the last bit.) The head of a classifier sees
one row a text, so it stays as it is.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import onnx
from onnx import ModelProto, NodeProto

from build.blocks import Writer, looks_words_up
from build.checkpoint import copy_files
from build.errors import BuildError
from build.graph import (
    CARRIED,
    MODEL,
    PARITY,
    constant_matrix,
    constants,
    declare,
    head,
    quantized_parity,
    replace,
    save,
)
from build.steps import QuantizeBlocks


def quantize_blocks(step: QuantizeBlocks, source: Path, target: Path) -> None:
    """
    Rewrite `source/model.onnx` into `target`; all after the last norm stays as it is.

    Raises BuildError where no float layers are left to quantize.
    """
    writer = Writer(step.bits, step.block)
    model = onnx.load(source / MODEL)
    rewrite(model, writer, embedding=step.embedding)
    save(model, target)
    copy_files(source, target, CARRIED)
    (target / PARITY).write_bytes(msgspec.json.encode(quantized_parity(source, target)))


def rewrite(model: ModelProto, writer: Writer, *, embedding: bool) -> None:
    """Replace linear layers, and if asked the word embedding, by ones in blocks, in place."""
    weights, kept = constants(model.graph), head(model.graph)

    def rewritten(node: NodeProto) -> NodeProto:
        weight = constant_matrix(node, weights)
        if weight is None or node.output[0] in kept:
            return node
        if node.op_type == "Gather" and embedding and looks_words_up(node):
            return writer.embedding(node, weight)
        return writer.product(node, weight) if node.op_type == "MatMul" else node

    nodes = [rewritten(node) for node in model.graph.node]
    if not writer.stored:
        raise BuildError(f"{MODEL} has no float layers left: quantize once, after exporting")
    replace(model.graph, [*writer.casts, *nodes], writer.stored)
    declare(model)

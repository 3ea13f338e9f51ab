"""
An exported graph to blocks: weights of 8 or 4 bits, a scale and a zero point for every few of them.

Blocks keep a large weight from widening the steps of all others (Dettmers et al. 2022, "8-bit
Optimizers via Block-wise Quantization"; Dettmers and Zettlemoyer 2023, "The case for 4-bit
precision"). Zero points cost a code a block and bring the weights of ner-base a tenth nearer at
4 bits, a sixth at 8, than symmetric blocks would.

Weights alone: activations stay float32. onnxruntime can take int8 ones (accuracy_level=4), but its
kernels for blocks of 64 and more then add the last odd row of a batch in another order, so that a
stranger's text would move an answer. Products of float32 rows do not, from two rows on, and every
text has two: its specials. (On one thread a run, as is served. Threads that share a run cut its
rows by their number, and 8-bit products then differ in the last bit.) The head of a classifier sees
one row a text, so it stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from build.checkpoint import copy_files
from build.errors import BuildError
from build.graph import (
    CARRIED,
    MODEL,
    PARITY,
    Floats,
    constant_matrix,
    constants,
    drop_unused,
    head,
    quantized_parity,
    save,
)
from build.quantize import SCALE
from build.steps import QuantizeBlocks

BITS = (8, 4)
BLOCKS = (32, 64, 128)
DOMAIN = "com.microsoft"  # of onnxruntime's own operators
FLOAT_PRODUCTS = 1  # accuracy_level: what activations are rounded to, here to nothing

Codes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Blocks:
    """
    Rows cut into blocks, the last filled up with zeros: weight = (code - zero) * scale.

    codes   (rows, blocks, block) uint8, whatever the bits
    scales  (rows, blocks) float16
    zeros   (rows, blocks) uint8: the codes that mean 0
    """

    codes: Codes
    scales: NDArray[np.float16]
    zeros: Codes


def quantize_blocks(step: QuantizeBlocks, source: Path, target: Path) -> None:
    """
    Rewrite `source/model.onnx` into `target`; all after the last norm stays as it is.

    Raises BuildError for other bits or blocks, and where no float layers are left to quantize.
    """
    if step.bits not in BITS:
        raise BuildError(f"blocks hold weights of {_either(BITS)} bits, not {step.bits}")
    if step.block not in BLOCKS:
        raise BuildError(f"a block has {_either(BLOCKS)} weights, not {step.block}")
    model = onnx.load(source / MODEL)
    rewrite(model, step)
    save(model, target)
    copy_files(source, target, CARRIED)
    (target / PARITY).write_bytes(msgspec.json.encode(quantized_parity(source, target)))


def rewrite(model: ModelProto, step: QuantizeBlocks) -> None:
    """Replace linear layers, and if asked the word embedding, by ones in blocks, in place."""
    graph = model.graph
    scribe = _Scribe(graph, step)
    nodes = [new for node in graph.node for new in scribe.rewritten(node)]
    if not scribe.stored:
        raise BuildError(f"{MODEL} has no float layers left: quantize once, after exporting")
    del graph.node[:]
    graph.node.extend([*scribe.casts, *nodes])
    graph.initializer.extend(scribe.stored)
    drop_unused(graph)
    model.opset_import.append(helper.make_opsetid(DOMAIN, 1))


def in_blocks(weight: Floats, bits: int, block: int) -> Blocks:
    """
    (rows, columns) float -> the nearest codes; 0 is always among what a block can say.

    The scale is rounded up to 16 bits first, so that no weight is more than half a step away.
    """
    rows, columns = weight.shape
    filled = np.pad(weight, ((0, 0), (0, -columns % block))).reshape(rows, -1, block)
    top = 2**bits - 1
    low, high = filled.min(axis=2).clip(max=0), filled.max(axis=2).clip(min=0)
    scales = _rounded_up((high - low) / top)
    scales[scales == 0] = 1
    steps = scales.astype(np.float32)
    zeros = np.rint(-low / steps)
    codes = (np.rint(filled / steps[:, :, None]) + zeros[:, :, None]).clip(0, top)
    return Blocks(codes.astype(np.uint8), scales, zeros.astype(np.uint8))


def pack(codes: Codes, bits: int) -> Codes:
    """
    Along the last axis as many codes a byte as it holds, the first in the low bits.

    codes=[1, 2, 3] bits=4  ->  [0x21, 0x03]
    """
    if bits == 8:
        return codes
    even = np.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, codes.shape[-1] % 2)])
    return (even[..., ::2] | even[..., 1::2] << 4).astype(np.uint8)


def unpack(packed: Codes, bits: int) -> Codes:
    """What `pack` packed; an odd last code has a zero after it."""
    if bits == 8:
        return packed
    pairs = np.stack([packed & 15, packed >> 4], axis=-1)
    return pairs.reshape(*packed.shape[:-1], -1)


class _Scribe:
    """Writes the node that replaces one; remembers what it stored, and the scales' casts."""

    def __init__(self, graph: GraphProto, step: QuantizeBlocks) -> None:
        self.stored: list[TensorProto] = []
        self.casts: list[NodeProto] = []
        self._weights = constants(graph)
        self._head = head(graph)
        self._step = step

    def rewritten(self, node: NodeProto) -> Iterator[NodeProto]:
        weight = constant_matrix(node, self._weights)
        if weight is None or node.output[0] in self._head:
            yield node
        elif node.op_type == "Gather" and self._step.embedding and _looks_words_up(node):
            yield self._embedding(node, weight)
        elif node.op_type == "MatMul":
            yield self._product(node, weight)
        else:
            yield node

    def _product(self, node: NodeProto, weight: Floats) -> NodeProto:
        """MatMulNBits keeps a row of blocks for every column of the weight."""
        rows, matrix = node.input
        bits, block = self._step.bits, self._step.block
        found = in_blocks(np.ascontiguousarray(weight.T), bits, block)
        self._store(f"{matrix}.blocks", pack(found.codes, bits))
        self._store(f"{matrix}.zero", pack(found.zeros, bits))
        inputs = [rows, f"{matrix}.blocks", self._scales(matrix, found), f"{matrix}.zero"]
        return helper.make_node(
            "MatMulNBits",
            inputs,
            [node.output[0]],
            name=node.name,
            domain=DOMAIN,
            K=weight.shape[0],
            N=weight.shape[1],
            bits=bits,
            block_size=block,
            accuracy_level=FLOAT_PRODUCTS,
        )

    def _embedding(self, node: NodeProto, weight: Floats) -> NodeProto:
        """GatherBlockQuantized takes codes of 4 bits as such, so the file says what they are."""
        table, ids = node.input
        bits, block = self._step.bits, self._step.block
        found = in_blocks(weight, bits, block)
        kind = TensorProto.UINT8 if bits == 8 else TensorProto.UINT4
        dtype = helper.tensor_dtype_to_np_dtype(kind)
        codes = found.codes.reshape(len(weight), -1)[:, : weight.shape[1]]
        self._store(f"{table}.blocks", codes.astype(dtype))
        self._store(f"{table}.zero", found.zeros.astype(dtype))
        inputs = [f"{table}.blocks", ids, self._scales(table, found), f"{table}.zero"]
        return helper.make_node(
            "GatherBlockQuantized",
            inputs,
            [node.output[0]],
            name=node.name,
            domain=DOMAIN,
            gather_axis=0,
            quantize_axis=1,
            bits=bits,
            block_size=block,
        )

    def _scales(self, matrix: str, found: Blocks) -> str:
        """Stored in 16 bits and widened when the file is loaded, as exported weights are."""
        stored, wide = f"{matrix}{SCALE}", f"{matrix}.step"
        self._store(stored, found.scales)
        cast = helper.make_node("Cast", [stored], [wide], name=wide, to=TensorProto.FLOAT)
        self.casts.append(cast)
        return wide

    def _store(self, name: str, values: NDArray[Any]) -> None:
        self.stored.append(numpy_helper.from_array(values, name))


def _looks_words_up(gather: NodeProto) -> bool:
    """Not positions; nor the scales of a word embedding that is int8 already."""
    table, ids = gather.input
    return ids == "input_ids" and not table.endswith(SCALE)


def _rounded_up(exact: Floats) -> NDArray[np.float16]:
    """To 16 bits, never down: a smaller scale could not reach a block's ends."""
    near: NDArray[np.float16] = exact.astype(np.float16)
    return np.where(near < exact, np.nextafter(near, np.float16(np.inf)), near)


def _either(choices: tuple[int, ...]) -> str:
    return f"{', '.join(map(str, choices[:-1]))} or {choices[-1]}"

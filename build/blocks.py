"""
Weights in blocks of 8 or 4 bits, a scale and a zero point for every few of them, and the nodes of
onnxruntime that read them.

Blocks keep a large weight from widening the steps of all others (Dettmers et al. 2022, "8-bit
Optimizers via Block-wise Quantization"; Dettmers and Zettlemoyer 2023, "The case for 4-bit
precision"). Zero points cost a code a block and bring the weights of ner-base a tenth nearer at
4 bits, a sixth at 8, than symmetric blocks would.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from build.graph import ONNXRUNTIME, SCALE, Floats
from build.steps import Bits, Block

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


def in_blocks(weight: Floats, bits: int, block: int) -> Blocks:
    """
    (rows, columns) float -> the nearest codes; 0 is always among what a block can say.

    The scale is rounded up to 16 bits first, so that no weight is more than half a step away.
    """
    rows, columns = weight.shape
    filled = np.pad(weight, ((0, 0), (0, -columns % block))).reshape(rows, -1, block)
    top = 2**bits - 1
    low, high = filled.min(axis=2).clip(max=0), filled.max(axis=2).clip(min=0)
    scales = rounded_up((high - low) / top)
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


class Writer:
    """Writes the node that replaces one; remembers what it stored, and the scales' casts."""

    def __init__(self, bits: Bits, block: Block) -> None:
        self.stored: list[TensorProto] = []
        self.casts: list[NodeProto] = []
        self._bits = bits
        self._block = block

    def product(self, node: NodeProto, weight: Floats) -> NodeProto:
        """MatMulNBits keeps a row of blocks for every column of the weight."""
        rows, matrix = node.input
        found = in_blocks(np.ascontiguousarray(weight.T), self._bits, self._block)
        self._store(f"{matrix}.blocks", pack(found.codes, self._bits))
        self._store(f"{matrix}.zero", pack(found.zeros, self._bits))
        inputs = [rows, f"{matrix}.blocks", self._scales(matrix, found), f"{matrix}.zero"]
        return helper.make_node(
            "MatMulNBits",
            inputs,
            [node.output[0]],
            name=node.name,
            domain=ONNXRUNTIME,
            K=weight.shape[0],
            N=weight.shape[1],
            bits=self._bits,
            block_size=self._block,
            accuracy_level=FLOAT_PRODUCTS,
        )

    def embedding(self, node: NodeProto, weight: Floats) -> NodeProto:
        """GatherBlockQuantized takes codes of 4 bits as such, so the file says what they are."""
        table, ids = node.input
        found = in_blocks(weight, self._bits, self._block)
        kind = TensorProto.UINT8 if self._bits == 8 else TensorProto.UINT4
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
            domain=ONNXRUNTIME,
            gather_axis=0,
            quantize_axis=1,
            bits=self._bits,
            block_size=self._block,
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


def looks_words_up(gather: NodeProto) -> bool:
    """Not positions; nor the scales of a word embedding that is int8 already."""
    table, ids = gather.input
    return ids == "input_ids" and not table.endswith(SCALE)


def rounded_up(exact: Floats) -> NDArray[np.float16]:
    """To 16 bits, never down: a smaller scale could not reach a block's ends."""
    near: NDArray[np.float16] = exact.astype(np.float16)
    return np.where(near < exact, np.nextafter(near, np.float16(np.inf)), near)

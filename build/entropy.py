"""
How many bits a stored weight is worth: the entropy of its codes (Shannon 1948).

What an ideal code of single symbols would need, tensor by tensor: the yardstick of lossless packing
(Mao et al. 2024, arXiv 2403.01384). A packer that sees more than single symbols, as zstd sees runs
and neighbourhoods, can go below it. Knows nothing of packers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, TensorProto, numpy_helper

from build.errors import BuildError
from build.graph import load

# Bits of the codes whose entropy is counted.
WIDTHS = {
    TensorProto.INT4: 4,
    TensorProto.UINT4: 4,
    TensorProto.INT8: 8,
    TensorProto.UINT8: 8,
    TensorProto.FLOAT16: 16,
    TensorProto.BFLOAT16: 16,
}
BYTE = 8

Codes = NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entropy:
    """
    codes    how many there are: of weights, their scales and zero points
    stored   bits they take
    ideal    bits they would take in an ideal code of single symbols; its own table is not counted
    """

    codes: int
    stored: int
    ideal: float

    @property
    def per_code(self) -> float:
        """Bits of entropy a code; 0 where there is none."""
        return self.ideal / self.codes if self.codes else 0.0

    @property
    def ratio(self) -> float:
        """The share of the stored bits that an ideal code needs, 0 to 1."""
        return self.ideal / self.stored if self.stored else 1.0


def entropy(codes: Codes) -> float:
    """
    H = -sum p log2 p in bits a code, p being how often each code is there; 0 where there are none.

    codes  0 0 1 1  ->  1.0        codes  5 5 5 5  ->  0.0

    n codes show at most log2(n) bits. Of 16-bit codes, 65,536 of them, a tensor of fewer than some
    hundred thousand weights therefore seems emptier than it is: every weight has a code of its own.
    """
    counts = np.bincount(codes.ravel())
    shares = counts[counts > 0] / max(1, codes.size)
    return float(np.abs(shares * np.log2(shares)).sum())


def unpacked(octets: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """
    Codes of 1, 2, 4 or 8 bits out of bytes, the lowest bits first.

    octets  0x21 0xf0  bits 4  ->  1 2 0 15
    """
    if bits not in (1, 2, 4, BYTE):
        raise BuildError(f"codes of 1, 2, 4 or 8 bits fill a byte, not of {bits}")
    shifts = np.arange(0, BYTE, bits, dtype=np.uint8)
    return ((octets.reshape(-1, 1) >> shifts) & np.uint8(2**bits - 1)).ravel()


def of_tensor(tensor: TensorProto, bits: int | None = None) -> Entropy:
    """
    The entropy of a tensor's codes. Of 32 bits and more nothing is claimed: ideal is stored.

    bits  of a code, where a byte of the tensor holds several
    """
    array = numpy_helper.to_array(tensor)
    width = WIDTHS.get(tensor.data_type)
    if width is None:
        return Entropy(codes=array.size, stored=array.nbytes * BYTE, ideal=array.nbytes * BYTE)
    if width == BYTE and bits is not None:
        codes: Codes = unpacked(array.view(np.uint8), bits)
        width = bits
    elif width < BYTE:  # numpy has these one a byte, their sign carried on
        codes = array.astype(np.int8).view(np.uint8) & np.uint8(2**width - 1)
    else:
        codes = array.view(np.uint16 if width > BYTE else np.uint8)
    return Entropy(codes=codes.size, stored=codes.size * width, ideal=codes.size * entropy(codes))


def of_graph(graph: GraphProto) -> dict[str, Entropy]:
    """Each stored tensor by its name. Bytes that a node reads as narrower codes count as those."""
    narrow = _narrow(graph)
    return {each.name: of_tensor(each, narrow.get(each.name)) for each in graph.initializer}


def of_folder(folder: Path) -> Entropy:
    """All that `folder/model.onnx`, packed or not, stores."""
    return total(of_graph(load(folder).graph).values())


def total(parts: Iterable[Entropy]) -> Entropy:
    """Of tensors together, each coded by itself."""
    parts = tuple(parts)
    return Entropy(
        codes=sum(each.codes for each in parts),
        stored=sum(each.stored for each in parts),
        ideal=sum(each.ideal for each in parts),
    )


def _narrow(graph: GraphProto) -> dict[str, int]:
    """onnxruntime's block-quantized operators say in `bits` how wide the codes they read are."""
    stored = {each.name for each in graph.initializer if each.data_type == TensorProto.UINT8}
    return {
        name: attribute.i
        for node in graph.node
        for attribute in node.attribute
        if attribute.name == "bits" and attribute.i in (2, 4)
        for name in node.input
        if name in stored
    }

"""
The weights of a graph as they are stored, whatever packs them: float or whole numbers.

In whole numbers 0 is always the weight 0, zero points are taken off; scales and zero points are no
weights. Knows nothing of how a graph was quantized.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from build.blocks import unpack
from build.graph import SCALE

Numbers = NDArray[Any]
# Where a node reads its scales and zero points.
STEPS = {
    "QuantizeLinear": (1, 2),
    "DequantizeLinear": (1, 2),
    "MatMulNBits": (2, 3),
    "GatherBlockQuantized": (2, 3),
}


def of_graph(graph: GraphProto) -> Iterator[Numbers]:
    """Every weight once, in its own shape; shapes, axes and single numbers are no weights."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    steps = {name for node in graph.node for name in _steps(node)}
    whole = {node.input[place]: node for node in graph.node for place in _whole(node)}
    for name, tensor in stored.items():
        is_weight = tensor.dims and tensor.data_type != TensorProto.INT64
        if not is_weight or name in steps or name.endswith(SCALE):
            continue
        numbers = numpy_helper.to_array(tensor)
        yield _around_zero(whole[name], numbers, stored) if name in whole else numbers


def _steps(node: NodeProto) -> list[str]:
    return [node.input[place] for place in STEPS.get(node.op_type, ()) if place < len(node.input)]


def _whole(node: NodeProto) -> tuple[int, ...]:
    """Where a node reads whole numbers that are weights, if they are constant."""
    return {"DequantizeLinear": (0,), "MatMulNBits": (1,), "GatherBlockQuantized": (0,)}.get(
        node.op_type, ()
    )


def _around_zero(node: NodeProto, numbers: Numbers, stored: Mapping[str, TensorProto]) -> Numbers:
    """The whole numbers a node reads, less their zero points."""
    told = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    point = numpy_helper.to_array(stored[_steps(node)[1]])
    match node.op_type:
        case "MatMulNBits":
            columns, blocks, _ = numbers.shape
            bits = told["bits"]
            codes = unpack(numbers, bits).astype(np.int16)
            zeros = unpack(point, bits)[:, :blocks, None].astype(np.int16)
            return (codes - zeros).reshape(columns, -1)[:, : told["K"]]
        case "GatherBlockQuantized":
            zeros = np.repeat(point.astype(np.int16), told["block_size"], axis=1)
            return numbers.astype(np.int16) - zeros[:, : numbers.shape[1]]
        case _:
            shape = [1] * numbers.ndim
            if point.ndim:
                shape[told.get("axis", 1)] = -1
            whole: Numbers = numbers.astype(np.int64) - point.astype(np.int64).reshape(shape)
            return whole

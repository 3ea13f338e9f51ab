"""
An exported graph to dynamic int8: whole numbers in the large products, floats everywhere else.

A scale per weight column, per activation row and per embedding row. A text's rows never see
another's, so its answer is the same alone and in company; onnxruntime's own quantizer takes one
scale for a whole batch, and strangers then move each other's answers.

Rows become whole numbers in one pass (`QuantizeLinear` in blocks as long as a row), and products
come out of their kernel as scaled floats: onnxruntime's own operator, which no other runtime has.
Said with standard operators alone a network takes a tenth more time.

The embedding, most of a small network's bytes and little of its time, may be stored in blocks of 4
bits instead: onnxruntime widens it to floats once, when it loads, for looking up floats is fast.
(GatherBlockQuantized would keep it narrow in memory, and take a quarter of a small network's time.)

Processors without VNNI add pairs of uint8 x int8 products in 16 bits, which can overflow
(microsoft/onnxruntime#14642): models/runtime_onnx.py asks for the exact way there, and the golden
answers, checked on every host at load, would show it.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import gcd
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from build.blocks import looks_words_up, rounded_up
from build.checkpoint import copy_files
from build.graph import (
    CARRIED,
    MODEL,
    ONNXRUNTIME,
    PARITY,
    SCALE,
    Floats,
    constant_matrix,
    constants,
    declare,
    makers_of_output,
    quantized_parity,
    replace,
    save,
)
from build.steps import Quantize

LARGEST = 127  # -128 is left out: the range is symmetric
LARGEST_NARROW = 7
BLOCK = 32  # weights of 4 bits that share a scale, or as many as divide a row evenly
INT4 = helper.tensor_dtype_to_np_dtype(TensorProto.INT4)
ZERO_POINT = 128  # of activations, which are stored as uint8
# A row of zeros must not divide by zero; no activation that matters is smaller.
SMALLEST_ROW = 1e-12


def quantize(step: Quantize, source: Path, target: Path) -> None:
    """Rewrite `source/model.onnx` into `target`; the layer that makes the logits stays as it is."""
    model = onnx.load(source / MODEL)
    rewrite(model, narrow=step.embedding is not None)
    save(model, target)
    copy_files(source, target, CARRIED)
    (target / PARITY).write_bytes(msgspec.json.encode(quantized_parity(source, target)))


def rewrite(model: ModelProto, *, narrow: bool = False) -> None:
    """
    Replace every linear layer but the last, and the word embedding, by int8 ones, in place.

    narrow  the word embedding by one of 4 bits instead
    """
    scribe = _Scribe(model.graph, narrow=narrow)
    nodes = [new for node in model.graph.node for new in scribe.rewritten(node)]
    replace(model.graph, nodes, scribe.stored)
    declare(model)


def by_column(weight: Floats) -> tuple[NDArray[np.int8], Floats]:
    """(rows, columns) float -> int8 of the same shape and (columns,) scales."""
    scales = np.abs(weight).max(axis=0) / LARGEST
    scales[scales == 0] = 1
    return np.rint(weight / scales).astype(np.int8), scales.astype(np.float32)


def by_row(weight: Floats) -> tuple[NDArray[np.int8], Floats]:
    """(rows, columns) float -> int8 of the same shape and (rows, 1) scales."""
    columns, scales = by_column(weight.T)
    return np.ascontiguousarray(columns.T), scales[:, None]


def in_narrow_blocks(weight: Floats, block: int) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    """
    (rows, columns) float -> (rows, blocks, block) whole numbers of 4 bits and (rows, blocks, 1)
    scales, for blocks that fill a row.

    The scale is rounded up to 16 bits first, so that no weight is more than half a step away.
    """
    blocks = weight.reshape(len(weight), -1, block)
    scales = rounded_up(np.abs(blocks).max(axis=2, keepdims=True) / LARGEST_NARROW)
    scales[scales == 0] = 1
    return np.rint(blocks / scales.astype(np.float32)).astype(np.int8), scales


class _Scribe:
    """Writes the nodes that replace one; remembers what it stored and which rows it scaled."""

    def __init__(self, graph: GraphProto, *, narrow: bool) -> None:
        self.stored: list[TensorProto] = []
        self._narrow = narrow
        self._weights = constants(graph)
        self._last = makers_of_output(graph)
        self._scaled: dict[str, tuple[str, str]] = {}
        self._known: set[str] = set()

    def rewritten(self, node: NodeProto) -> Iterator[NodeProto]:
        weight = constant_matrix(node, self._weights)
        if weight is None or node.output[0] in self._last:
            yield node
        elif node.op_type == "Gather" and looks_words_up(node):
            write = self._narrow_embedding if self._narrow else self._embedding
            yield from write(node, weight)
        elif node.op_type == "MatMul":
            yield from self._product(node.input[0], node.input[1], weight, node.output[0])
        elif node.op_type == "Gemm":
            rows, matrix, *bias = node.input
            name = node.output[0]
            bare = f"{name}.product" if bias else name
            yield from self._product(rows, matrix, weight, bare)
            if bias:
                yield helper.make_node("Add", [bare, *bias], [name], name=f"{name}.bias")
        else:
            yield node

    def _embedding(self, node: NodeProto, weight: Floats) -> Iterator[NodeProto]:
        table, ids = node.input
        name = node.output[0]
        numbers, scales = by_row(weight)
        self._store(f"{table}.int8", numbers)
        self._store(f"{table}{SCALE}", scales)
        whole, cast, scale = f"{name}.int8", f"{name}.float", f"{name}{SCALE}"
        yield helper.make_node("Gather", [f"{table}.int8", ids], [whole], name=whole)
        yield helper.make_node("Gather", [f"{table}{SCALE}", ids], [scale], name=scale)
        yield helper.make_node("Cast", [whole], [cast], name=cast, to=TensorProto.FLOAT)
        yield helper.make_node("Mul", [cast, scale], [name], name=name)

    def _narrow_embedding(self, node: NodeProto, weight: Floats) -> Iterator[NodeProto]:
        """All but the last node works on constants: onnxruntime does it when it loads."""
        table, ids = node.input
        numbers, scales = in_narrow_blocks(weight, gcd(weight.shape[1], BLOCK))
        self._store(f"{table}.int4", numbers.astype(INT4))
        self._store(f"{table}{SCALE}", scales)
        self._store(f"{table}.shape", np.array(weight.shape, np.int64))
        cast, scale, blocks, whole = (
            f"{table}.{part}" for part in ("float", "step", "blocks", "table")
        )
        yield helper.make_node("Cast", [f"{table}.int4"], [cast], name=cast, to=TensorProto.FLOAT)
        yield helper.make_node(
            "Cast", [f"{table}{SCALE}"], [scale], name=scale, to=TensorProto.FLOAT
        )
        yield helper.make_node("Mul", [cast, scale], [blocks], name=blocks)
        yield helper.make_node("Reshape", [blocks, f"{table}.shape"], [whole], name=whole)
        yield helper.make_node("Gather", [whole, ids], [node.output[0]], name=node.name)

    def _product(self, rows: str, matrix: str, weight: Floats, name: str) -> Iterator[NodeProto]:
        """
        rows @ weight = (uint8 - 128) @ int8, times the column scale, times the row's largest value.

        The column scale carries the row scale's 1/127, so that the row's largest value serves.
        """
        if rows not in self._scaled:
            yield from self._scale(rows, len(weight))
        numbers, largest = self._scaled[rows]
        weights, scales = by_column(weight)
        self._store(f"{matrix}.int8", weights)
        self._store(f"{matrix}{SCALE}", scales / LARGEST)
        # The operator takes one scale for all rows: theirs are multiplied in after it.
        self._store("activation.unscaled", np.array(1, np.float32))
        self._store("activation.zero", np.array(ZERO_POINT, np.uint8))
        product = f"{name}.columns"
        inputs = [numbers, f"{matrix}.int8", "activation.unscaled", f"{matrix}{SCALE}"]
        yield helper.make_node(
            "MatMulIntegerToFloat",
            [*inputs, "activation.zero"],
            [product],
            name=product,
            domain=ONNXRUNTIME,
        )
        yield helper.make_node("Mul", [product, largest], [name], name=name)

    def _scale(self, rows: str, width: int) -> Iterator[NodeProto]:
        """
        Rows as uint8 around 128, once for all the layers that read them.

        Blocks as long as a row give each row its own scale. They want a zero point each too;
        without any (int8 around 0) the products are eight times slower.
        """
        self._store("activation.axis", np.array([-1], np.int64))
        self._store("activation.smallest", np.array(SMALLEST_ROW, np.float32))
        self._store("activation.range", np.array(LARGEST, np.float32))
        size, peak, largest, step, shape, zeros, numbers = (
            f"{rows}.{part}"
            for part in ("abs", "peak", "largest", "step", "shape", "zeros", "uint8")
        )
        yield helper.make_node("Abs", [rows], [size], name=size)
        inputs = [size, "activation.axis"]
        yield helper.make_node("ReduceMax", inputs, [peak], name=peak, keepdims=1)
        yield helper.make_node("Max", [peak, "activation.smallest"], [largest], name=largest)
        yield helper.make_node("Div", [largest, "activation.range"], [step], name=step)
        yield helper.make_node("Shape", [step], [shape], name=shape)
        value = helper.make_tensor("value", TensorProto.UINT8, [1], [ZERO_POINT])
        yield helper.make_node("ConstantOfShape", [shape], [zeros], name=zeros, value=value)
        inputs = [rows, step, zeros]
        yield helper.make_node(
            "QuantizeLinear", inputs, [numbers], name=numbers, axis=-1, block_size=width
        )
        self._scaled[rows] = numbers, largest

    def _store(self, name: str, values: NDArray[Any]) -> None:
        if name not in self._known:
            self._known.add(name)
            self.stored.append(numpy_helper.from_array(values, name))

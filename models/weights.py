"""
Counts the weights of a model file by the dtype they are stored in, without loading the model.

Reads just enough of ONNX's protobuf and of safetensors to do that; knows nothing of layers.
"""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from models import stored
from models.errors import BrokenVariant
from models.spec import Runtime

# https://github.com/onnx/onnx/blob/main/onnx/onnx.proto, TensorProto.DataType
ONNX_DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64",
    8: "string", 9: "bool", 10: "float16", 11: "float64", 12: "uint32", 13: "uint64",
    16: "bfloat16", 17: "float8_e4m3fn", 19: "float8_e5m2", 21: "uint4", 22: "int4",
}  # fmt: skip
SAFETENSORS_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
_NOT_WEIGHTS = {"int64", "bool", "string"}  # shapes, axes, positions

_GRAPH, _INITIALIZER, _DIMS, _DATA_TYPE = 7, 5, 1, 2


def census(folder: Path, runtime: Runtime) -> dict[str, int]:
    """
    Elements by stored dtype, of every weight in the folder's model file.

    An element is what the file calls one: a uint8 of onnxruntime's MatMulNBits may hold two weights
    of 4 bits. The manifest's `parameters` counts weights; scales and zero points are in here only.

    A packed file is unpacked and let go. Raises `BrokenVariant` where the file is missing or not
    what its name says.
    """
    file = folder / ("model.safetensors" if runtime is Runtime.TORCH else "model.onnx")
    tensors = _safetensors_tensors if runtime is Runtime.TORCH else _onnx_tensors
    counted: Counter[str] = Counter()
    try:
        for dtype, elements in tensors(file):
            counted[dtype] += elements
    except (OSError, ValueError, IndexError, KeyError, TypeError, struct.error) as error:
        raise BrokenVariant(f"{file.name} cannot be read: {error}") from error
    return {dtype: counted[dtype] for dtype in sorted(counted.keys() - _NOT_WEIGHTS)}


def _onnx_tensors(file: Path) -> Iterator[tuple[str, int]]:
    for graph in _submessages(stored.view(file), _GRAPH):
        for tensor in _submessages(graph, _INITIALIZER):
            elements, dtype = 1, 0
            for number, value in _fields(tensor):
                if number == _DIMS:  # one by one, or packed
                    sizes = [value] if isinstance(value, int) else _varints(value)
                    elements *= math.prod(sizes)
                elif number == _DATA_TYPE and isinstance(value, int):
                    dtype = value
            yield ONNX_DTYPES.get(dtype, f"onnx type {dtype}"), elements


def _safetensors_tensors(file: Path) -> Iterator[tuple[str, int]]:
    with file.open("rb") as opened:
        (size,) = struct.unpack("<Q", opened.read(8))
        if size > file.stat().st_size:
            raise ValueError("its header is longer than the file")
        header = json.loads(opened.read(size))
    for name, tensor in header.items():
        if name != "__metadata__":
            dtype = SAFETENSORS_DTYPES.get(tensor["dtype"], tensor["dtype"])
            yield dtype, math.prod(tensor["shape"])


def _submessages(message: memoryview, wanted: int) -> Iterator[memoryview]:
    for number, value in _fields(message):
        if number == wanted and isinstance(value, memoryview):
            yield value


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Field numbers and values of one protobuf message; bytes are views, nothing is copied."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        match key & 7:
            case 0:
                value, at = _varint(message, at)
                yield key >> 3, value
                continue
            case 1:
                size = 8
            case 2:
                size, at = _varint(message, at)
            case 5:
                size = 4
            case wire:
                raise ValueError(f"protobuf wire type {wire} at byte {at}")
        if at + size > len(message):
            raise ValueError(f"cut off at byte {len(message)}")
        yield key >> 3, message[at : at + size]
        at += size


def _varints(packed: memoryview) -> Iterator[int]:
    at = 0
    while at < len(packed):
        value, at = _varint(packed, at)
        yield value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Seven bits a byte, low bits first, the top bit says there is more."""
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
    raise ValueError(f"a number longer than 64 bits before byte {at}")

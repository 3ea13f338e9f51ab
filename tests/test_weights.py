"""Counting weights by dtype, against the libraries that write the files."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file

from models.errors import BrokenVariant
from models.spec import Runtime
from models.weights import ONNX_DTYPES, census


def save(folder, tensors):
    graph = helper.make_graph([], "weights", [], [], initializer=tensors)
    onnx.save(helper.make_model(graph), folder / "model.onnx")


def test_dtype_names_are_onnxs_own():
    names = {number: helper.tensor_dtype_to_np_dtype(number).name for number in ONNX_DTYPES}
    assert names == ONNX_DTYPES | {TensorProto.STRING: "object"}


def test_onnx_weights_are_counted_by_stored_dtype(tmp_path):
    save(
        tmp_path,
        [
            numpy_helper.from_array(np.ones((300, 7), np.float32), "a"),
            numpy_helper.from_array(np.ones((2, 2), np.float16), "b"),
            numpy_helper.from_array(np.ones((50, 20), np.int8), "c"),
            numpy_helper.from_array(np.float32(1.0), "scalar"),
            numpy_helper.from_array(np.ones(0, np.float32), "none"),
            helper.make_tensor("unpacked", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0]),
            helper.make_tensor("half_a_byte", TensorProto.INT4, [5], [1, 2, 3, 4, 5]),
            numpy_helper.from_array(np.arange(9), "axes"),
            numpy_helper.from_array(np.array([True]), "flag"),
        ],
    )
    assert census(tmp_path, Runtime.ONNX) == {
        "float16": 4,
        "float32": 300 * 7 + 1 + 3,
        "int4": 5,
        "int8": 1000,
    }


def test_packed_dimensions_are_read_too(tmp_path):
    tensor = bytes([0x0A, 3, 4, 0x80, 1, 0x10, 3])  # dims packed: 4, 128; data_type int8
    graph = bytes([0x2A, len(tensor)]) + tensor
    (tmp_path / "model.onnx").write_bytes(bytes([0x08, 10, 0x3A, len(graph)]) + graph)
    assert census(tmp_path, Runtime.ONNX) == {"int8": 512}


def test_safetensors_weights_are_counted_by_stored_dtype(tmp_path):
    save_file(
        {
            "a": torch.zeros(3, 5),
            "b": torch.zeros(4, dtype=torch.bfloat16),
            "position_ids": torch.arange(9),
        },
        tmp_path / "model.safetensors",
        metadata={"format": "pt"},
    )
    assert census(tmp_path, Runtime.TORCH) == {"bfloat16": 4, "float32": 15}


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b"\x3a\x7f", b"\x3b\x00"], ids=range(4))
@pytest.mark.parametrize("runtime", Runtime)
def test_a_file_that_is_no_model_is_refused(tmp_path, content, runtime):
    name = "model.safetensors" if runtime is Runtime.TORCH else "model.onnx"
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BrokenVariant, match=f"{name} cannot be read"):
        census(tmp_path, runtime)


@pytest.mark.parametrize("runtime", Runtime)
def test_a_missing_file_is_refused(tmp_path, runtime):
    with pytest.raises(BrokenVariant, match="cannot be read"):
        census(tmp_path, runtime)

"""Entropy against arithmetic by hand."""

from __future__ import annotations

from math import log2
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper, numpy_helper
from scipy.stats import entropy as shannon

from build.entropy import entropy, of_folder, of_graph, of_tensor, total, unpacked
from build.errors import BuildError
from build.graph import MODEL
from models import stored


def codes(*values: int) -> np.ndarray:
    return np.array(values, np.uint8)


def test_worked_examples() -> None:
    assert entropy(codes(5, 5, 5, 5)) == 0
    assert entropy(codes(0, 0, 1, 1)) == 1
    assert entropy(np.arange(256, dtype=np.uint8)) == 8
    assert entropy(codes(*range(16))) == 4
    assert entropy(codes()) == 0
    # Three quarters and a quarter: 0.75 * 0.415 + 0.25 * 2.
    assert entropy(codes(1, 1, 1, 2)) == pytest.approx(0.75 * log2(4 / 3) + 0.5)
    assert entropy(codes(1, 1, 1, 2)) == pytest.approx(0.811278, abs=1e-6)


@given(arrays(np.uint8, st.integers(1, 300)))
def test_entropy_is_scipys_and_within_its_bounds(values: np.ndarray) -> None:
    found = entropy(values)
    assert found == pytest.approx(shannon(np.unique(values, return_counts=True)[1], base=2))
    assert -1e-9 <= found <= min(8, log2(len(values))) + 1e-9


@given(arrays(np.uint8, st.integers(1, 100)))
def test_entropy_does_not_see_which_code_is_which_or_where(values: np.ndarray) -> None:
    assert entropy(values[::-1] ^ np.uint8(0xA5)) == pytest.approx(entropy(values))


def test_bytes_are_taken_apart_lowest_bits_first() -> None:
    octets = codes(0x21, 0xF0)
    assert unpacked(octets, 4).tolist() == [1, 2, 0, 15]
    assert unpacked(octets, 2).tolist() == [1, 0, 2, 0, 0, 0, 3, 3]
    assert unpacked(octets, 8).tolist() == octets.tolist()
    with pytest.raises(BuildError, match="1, 2, 4 or 8 bits fill a byte, not of 3"):
        unpacked(octets, 3)


@pytest.mark.parametrize(
    ("values", "per_code", "width"),
    [
        (np.arange(-128, 128, dtype=np.int8), 8, 8),
        (np.array([-1, -1, 1, 1], np.int8), 1, 8),
        (np.zeros((4, 4), np.uint8), 0, 8),
        (np.array([0.5, 0.5, -0.5, 1.5], np.float16), 1.5, 16),
    ],
)
def test_a_tensors_codes_are_its_stored_symbols(
    values: np.ndarray, per_code: float, width: int
) -> None:
    found = of_tensor(numpy_helper.from_array(values, "weight"))
    assert found.codes == values.size
    assert found.stored == values.size * width
    assert found.per_code == per_code
    assert found.ratio == per_code / width


@pytest.mark.parametrize("kind", [TensorProto.INT4, TensorProto.UINT4])
def test_four_bit_tensors_are_counted_without_their_padding(kind: int) -> None:
    values = [1, 1, 2, 2, 3] if kind == TensorProto.UINT4 else [-8, -8, 7, 7, 0]
    found = of_tensor(helper.make_tensor("weight", kind, [5], values))
    assert (found.codes, found.stored) == (5, 20)
    assert found.per_code == pytest.approx(2 * 0.4 * log2(2.5) + 0.2 * log2(5))


def test_wide_numbers_are_counted_as_they_are_stored() -> None:
    scales = of_tensor(numpy_helper.from_array(np.ones(3, np.float32), "scale"))
    assert (scales.codes, scales.stored, scales.ideal, scales.ratio) == (3, 96, 96, 1)
    none = of_tensor(numpy_helper.from_array(np.ones(0, np.int8), "none"))
    assert (none.codes, none.per_code, none.ratio) == (0, 0, 1)


def model() -> onnx.ModelProto:
    """int8 halves of two values, packed nibbles, and a scale."""
    weights = [
        numpy_helper.from_array(np.array([[0, 0], [1, 1]], np.int8), "eight"),
        numpy_helper.from_array(codes(0x10, 0x10), "four"),
        numpy_helper.from_array(codes(0x10, 0x10), "bytes"),
        numpy_helper.from_array(np.ones(2, np.float32), "scale"),
    ]
    product = helper.make_node(
        "MatMulNBits", ["rows", "four", "scale"], ["logits"], domain="com.microsoft", bits=4
    )
    return helper.make_model(helper.make_graph([product], "toy", [], [], initializer=weights))


def test_nodes_say_which_bytes_hold_two_codes() -> None:
    found = of_graph(model().graph)
    assert found["eight"].per_code == found["four"].per_code == 1
    assert (found["four"].codes, found["four"].stored, found["four"].ratio) == (4, 16, 0.25)
    assert (found["bytes"].codes, found["bytes"].ratio) == (2, 0)


def test_a_folder_is_the_sum_of_its_tensors(tmp_path: Path) -> None:
    onnx.save(model(), tmp_path / MODEL)
    found = of_folder(tmp_path)
    assert found == total(of_graph(model().graph).values())
    assert (found.codes, found.stored, found.ideal) == (12, 32 + 16 + 16 + 64, 4 + 4 + 0 + 64)
    content = (tmp_path / MODEL).read_bytes()
    (tmp_path / MODEL).rename(tmp_path / "away")
    (tmp_path / f"{MODEL}{stored.PACKED}").write_bytes(stored.pack(content, 3))
    assert of_folder(tmp_path) == found


def test_few_weights_of_many_codes_seem_emptier_than_they_are() -> None:
    """The limit that the docstring tells of: 64 numbers cannot show more than 6 bits."""
    few = np.random.default_rng(1).normal(size=64).astype(np.float16)
    assert of_tensor(numpy_helper.from_array(few, "norm")).per_code <= 6

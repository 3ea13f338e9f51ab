from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper, numpy_helper

from build.graph import MODEL, operators, runner
from build.publish import onnx_weights
from build.quantize import by_column, by_row, in_narrow_blocks, quantize, rewrite
from build.steps import Quantize
from models.spec import Runtime, Task
from models.weights import census
from tests.company import same_alone_and_in_company
from tests.tiny_checkpoint import HIDDEN, LAYERS, exported, network, quantized

TASKS = list(Task)
MATRICES = arrays(
    np.float32, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.floats(-9, 9, width=32)
)


@given(MATRICES)
def test_weights_are_within_half_a_step_of_what_they_were(weight: np.ndarray) -> None:
    whole, scales = by_column(weight)
    assert whole.dtype == np.int8 and whole.min() >= -127
    assert (np.abs(whole * scales - weight) <= scales * 0.5001 + 1e-12).all()


@given(MATRICES)
def test_rows_are_columns_turned(weight: np.ndarray) -> None:
    whole, scales = by_row(weight)
    turned, turned_scales = by_column(weight.T)
    assert np.array_equal(whole, turned.T) and np.array_equal(scales[:, 0], turned_scales)


def linear(weight: np.ndarray) -> onnx.ModelProto:
    """A layer that is rewritten, and the last one, which is not."""
    nodes = [
        helper.make_node("MatMul", ["rows", "weight"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "last"], ["logits"]),
    ]
    stored = [
        numpy_helper.from_array(weight, "weight"),
        numpy_helper.from_array(np.eye(weight.shape[1], dtype=np.float32), "last"),
    ]
    rows = helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", weight.shape[0]])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", weight.shape[1]])
    graph = helper.make_graph(nodes, "linear", [rows], [logits], initializer=stored)
    opset = [helper.make_opsetid("", 21)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10)


def run(model: onnx.ModelProto, rows: np.ndarray) -> np.ndarray:
    return ort.InferenceSession(model.SerializeToString()).run(None, {"rows": rows})[0]


@settings(max_examples=20, deadline=None)
@given(arrays(np.float32, (3, 8), elements=st.floats(-50, 50, width=32)))
def test_products_are_near_the_float_ones_row_by_row(rows: np.ndarray) -> None:
    weight = np.random.default_rng(1).normal(size=(8, 5)).astype(np.float32)
    model = linear(weight)
    rewrite(model)
    found = run(model, rows)
    # Half a step of each activation and each weight, over eight of them.
    largest = np.abs(rows).max(axis=1, keepdims=True)
    bound = 8 * largest * np.abs(weight).max() / 127 * 1.01 + 1e-6
    assert (np.abs(found - rows @ weight) <= bound).all()
    assert np.array_equal(found[1:2], run(model, rows[1:2]))


def test_a_row_of_zeros_stays_zero() -> None:
    model = linear(np.ones((4, 3), np.float32))
    rewrite(model)
    assert np.array_equal(run(model, np.zeros((2, 4), np.float32)), np.zeros((2, 3)))


def test_the_largest_and_smallest_values_do_not_wrap_around() -> None:
    model = linear(np.eye(4, dtype=np.float32))
    rewrite(model)
    rows = np.array([[3e4, -3e4, 1e4, 0], [1e-6, -1e-6, 0, 0]], np.float32)
    assert run(model, rows) == pytest.approx(rows, rel=0.01)


@pytest.mark.parametrize("task", TASKS)
def test_a_text_gets_the_same_logits_alone_and_in_company(task: Task) -> None:
    assert same_alone_and_in_company(quantized(task), task)


@pytest.mark.parametrize(
    ("task", "weights"), [(Task.NER, "float16"), (Task.CLASSIFICATION, "float32")]
)
def test_logits_stay_near_the_float_ones(task: Task, weights: str) -> None:
    ids = np.random.default_rng(4).integers(4, 100, (4, 30))
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    floats = runner(exported(task, weights))(feed)
    apart = np.abs(runner(quantized(task, weights))(feed) - floats)
    assert 0 < apart.mean() < 0.05 * floats.std()


def test_layers_that_read_the_same_rows_share_them() -> None:
    kinds = operators(quantized(Task.NER) / MODEL)
    assert kinds["MatMulIntegerToFloat"] == 6 * LAYERS
    assert kinds["Abs"] == kinds["ReduceMax"] == 4 * LAYERS  # query, key and value share theirs


def test_only_products_and_the_word_embedding_become_int8() -> None:
    stored = census(quantized(Task.NER, "float16"), Runtime.ONNX)
    weights = dict(network(Task.NER).named_parameters())
    words = weights["roberta.embeddings.word_embeddings.weight"]
    inside = sum(
        each.numel() for name, each in weights.items() if ".layer." in name and each.ndim == 2
    )
    assert stored["int8"] == inside + words.numel()
    rest = sum(each.numel() for each in weights.values()) - stored["int8"]
    assert stored["float16"] == rest
    scales = len(words) + LAYERS * (5 * HIDDEN + 64)
    assert scales < stored["float32"] < scales + 10


def test_the_word_embedding_has_a_scale_a_row() -> None:
    weights = {t.name: t for t in onnx.load(quantized(Task.NER) / MODEL).graph.initializer}
    (name,) = [each for each in weights if each.endswith("word_embeddings.weight.int8")]
    scales = numpy_helper.to_array(weights[name.replace(".int8", ".scale")])
    table = numpy_helper.to_array(weights[name]) * scales
    expected = network(Task.NER).roberta.embeddings.word_embeddings.weight.detach().numpy()
    assert np.abs(table - expected).max() <= scales.max() / 2 + 1e-6


@given(arrays(np.float32, (3, 64), elements=st.floats(-9, 9, width=32)))
def test_narrow_weights_are_within_half_a_step_of_what_they_were(weight: np.ndarray) -> None:
    whole, scales = in_narrow_blocks(weight, 32)
    assert whole.shape == (3, 2, 32) and np.abs(whole).max() <= 7
    steps = scales.astype(np.float32)
    assert (np.abs(whole * steps - weight.reshape(whole.shape)) <= steps * 0.5001).all()


@pytest.mark.parametrize("task", TASKS)
def test_the_word_embedding_may_have_4_bits(tmp_path: Path, task: Task) -> None:
    quantize(Quantize(embedding=4), exported(task, "float16"), tmp_path)
    assert same_alone_and_in_company(tmp_path, task)
    wide, narrow = operators(quantized(task, "float16") / MODEL), operators(tmp_path / MODEL)
    assert narrow["MatMulIntegerToFloat"] == wide["MatMulIntegerToFloat"]
    assert narrow["Gather"] == wide["Gather"] - 1  # no scales are looked up
    words = network(task).roberta.embeddings.word_embeddings.weight
    stored = census(tmp_path, Runtime.ONNX)
    assert stored["int4"] == words.numel()
    assert sum(each.size for each in onnx_weights(tmp_path)) == sum(
        each.numel() for each in network(task).parameters()
    )
    ids = np.random.default_rng(4).integers(4, 100, (4, 30))
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    floats = runner(exported(task, "float16"))(feed)
    apart = np.abs(runner(tmp_path)(feed) - floats)
    assert 0 < apart.mean() < 0.3 * floats.std()

"""
A fine-tuned checkpoint to one ONNX file, compared with its torch original before it is kept.

Standard operators only (opset 21), so that any runtime reads it; knows nothing of quantization.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import onnx
import torch
from onnx import GraphProto, ModelProto, helper, numpy_helper

from build.checkpoint import copy_files, read_purpose
from build.errors import BuildError
from build.graph import CARRIED, PARITY, Ints, Run, compare, runner, save
from build.networks import load
from build.steps import Export

OPSET = 21
TOLERANCE = 1e-4


class Half(NamedTuple):
    """A 16-bit number, as torch and ONNX name it."""

    torch: torch.dtype
    onnx: int


# bfloat16 keeps float32's range and 8 bits of precision (Kalamkar et al. 2019), float16 keeps 11.
HALVES = {
    "float16": Half(torch.float16, onnx.TensorProto.FLOAT16),
    "bfloat16": Half(torch.bfloat16, onnx.TensorProto.BFLOAT16),
}


def export(step: Export, source: Path, target: Path) -> None:
    """
    Fill `target` with model.onnx, the tokenizer, task.json and parity.json.

    weights="float16" or "bfloat16" rounds the weights first: the rounded network is then the model,
    and what parity is measured against. Raises BuildError where the two differ by more than 1e-4.
    """
    purpose = read_purpose(source)
    network = load(source, purpose)
    half = HALVES.get(step.weights)
    if half:
        round_to_half(network, half)
    model = trace(network)
    if half:
        store_as_half(model.graph, half)
    save(model, target)
    copy_files(source, target, CARRIED)
    parity = compare(torch_runner(network), runner(target), source, purpose)
    if not parity.logits < TOLERANCE:
        raise BuildError(
            f"exported logits differ from torch by {parity.logits:.2g}, more than {TOLERANCE}"
        )
    (target / PARITY).write_bytes(msgspec.json.encode(parity))


def torch_runner(network: Any) -> Run:
    """Runs a torch network as `graph.runner` runs a file."""

    def run(feed: Mapping[str, Ints]) -> Any:
        tensors = {name: torch.from_numpy(array) for name, array in feed.items()}
        with torch.inference_mode():
            return network(**tensors).logits.numpy()

    return run


# --- graph ------------------------------------------------------------------------------------


class _Logits(torch.nn.Module):
    """
    The network as the graph has it: ids and mask in, logits out.

    The mask is widened here because transformers' own way traces to a forest of shape nodes, and
    the only token type there is becomes a constant.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        blocked = torch.finfo(torch.float32).min
        wide = (1.0 - attention_mask[:, None, None, :].to(torch.float32)) * blocked
        types = torch.zeros((1, 1), dtype=torch.int64)
        return self.network(input_ids=input_ids, attention_mask=wide, token_type_ids=types).logits


def trace(network: Any) -> ModelProto:
    """An ONNX model with inputs input_ids, attention_mask (batch, tokens) int64."""
    ids = torch.full((2, 8), 5)
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens")}
    with warnings.catch_warnings(), _quiet("torch.onnx"):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _Logits(network).eval(),
            (ids, torch.ones_like(ids)),
            dynamo=True,
            opset_version=OPSET,
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            dynamic_shapes={"input_ids": axes, "attention_mask": axes},
            verbose=False,
        )
    assert program is not None  # None only where a file was asked for
    model: ModelProto = program.model_proto
    _plain(model.graph)
    return model


def _plain(graph: GraphProto) -> None:
    """
    Drop the torch source of every node.

    Shapes of values stay: onnxruntime fuses only what it knows the shapes of.
    """
    for node in graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*graph.input, *graph.output, *graph.value_info):
        del value.metadata_props[:]
    del graph.metadata_props[:]


# --- 16 bits ----------------------------------------------------------------------------------


def round_to_half(network: Any, half: Half = HALVES["float16"]) -> None:
    """Round every weight to the nearest 16-bit number, in place."""
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(weight.to(half.torch).float())


def store_as_half(graph: GraphProto, half: Half = HALVES["float16"]) -> None:
    """
    Store every weight that 16 bits hold exactly in 16 bits, each with a Cast back to 32.

    onnxruntime folds the casts when it loads, so runs are those of a float32 file.
    """
    dtype = helper.tensor_dtype_to_np_dtype(half.onnx)
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or not tensor.dims:
            continue
        weights = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            halves = weights.astype(dtype)
        if not np.array_equal(halves.astype(np.float32), weights):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(halves, f"{name}.half"))
        casts.append(
            helper.make_node(
                "Cast", [tensor.name], [name], name=f"{name}.cast", to=onnx.TensorProto.FLOAT
            )
        )
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Silence one logger: exporting warns of packages that are not ours to install."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)

"""
The ONNX file of a checkpoint: writing it, counting its nodes, comparing two that should agree.

Knows nothing of torch or of how graphs are made.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from build.checkpoint import PURPOSE, RUNTIME, TOKENIZER_FILES, Purpose, read_purpose
from build.errors import BuildError
from models import stored
from models.spec import Task

MODEL = "model.onnx"
PARITY = "parity.json"
SCALE = ".scale"  # how the names of scales end
ONNXRUNTIME = "com.microsoft"  # the domain of its own operators
CARRIED = ("config.json", PURPOSE, RUNTIME, *TOKENIZER_FILES)  # what steps on graphs do not change
# Protobuf ends at 2 GiB; beyond this the weights lie beside the graph in model.onnx.data.
LARGEST_FILE = 1_900_000_000

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
# input_ids and attention_mask (batch, tokens) -> logits
Run = Callable[[Mapping[str, Ints]], NDArray[np.float32]]


class Parity(msgspec.Struct, frozen=True):
    """Largest difference of a logit to the torch original, over `batches` of (texts, tokens)."""

    logits: float
    batches: tuple[tuple[int, int], ...]


def save(model: ModelProto, folder: Path) -> None:
    """Write model.onnx, with model.onnx.data beside it where one file would be too large."""
    large = sum(len(tensor.raw_data) for tensor in model.graph.initializer) > LARGEST_FILE
    onnx.save(
        model,
        folder / MODEL,
        save_as_external_data=large,
        location=f"{MODEL}.data",
        all_tensors_to_one_file=True,
    )


def declare(model: ModelProto) -> None:
    """Say that the model has nodes of onnxruntime's own."""
    if all(each.domain != ONNXRUNTIME for each in model.opset_import):
        model.opset_import.append(helper.make_opsetid(ONNXRUNTIME, 1))


def load(folder: Path) -> ModelProto:
    """The model of a folder, packed or not. Raises BrokenVariant where it does not unpack."""
    file = folder / MODEL
    if stored.is_packed(file):
        return onnx.load_model_from_string(stored.read(file))
    return onnx.load(file)


def runner(folder: Path) -> Run:
    """Runs `folder/model.onnx` as it is served: on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(folder / MODEL, options, providers=["CPUExecutionProvider"])

    def run(feed: Mapping[str, Ints]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = session.run(["logits"], dict(feed))[0]
        return logits

    return run


def compare(one: Run, other: Run, folder: Path, purpose: Purpose) -> Parity:
    """
    Run both on random pieces: single texts, batches, padding, the longest window.

    Padding's own logits are not compared: nobody reads them. `folder` has the config.json.
    """
    worst = 0.0
    shapes = []
    for ids, mask in _batches(folder, purpose.windows.tokens):
        feed = {"input_ids": ids, "attention_mask": mask}
        apart = np.abs(one(feed) - other(feed))
        if purpose.task is Task.NER:
            apart = apart[mask == 1]
        worst = float(np.maximum(worst, apart.max()))  # not a number stays that
        shapes.append((ids.shape[0], ids.shape[1]))
    return Parity(logits=worst, batches=tuple(shapes))


def _batches(folder: Path, longest: int) -> Iterator[tuple[Ints, Ints]]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_bytes())
    pad = int(config["pad_token_id"])
    chance = np.random.default_rng(1)
    for texts, tokens in ((1, 2), (1, 23), (3, 40), (5, 16), (2, longest)):
        ids = chance.integers(pad + 1, config["vocab_size"], (texts, min(tokens, longest)))
        mask = np.ones_like(ids)
        for row in range(1, texts):
            end = int(chance.integers(2, ids.shape[1] + 1))
            ids[row, end:], mask[row, end:] = pad, 0
        yield ids, mask


def constants(graph: GraphProto) -> dict[str, TensorProto]:
    """Weights by the name nodes read them by, looking through casts from 16 bits."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    casts = [node for node in graph.node if node.op_type == "Cast" and node.input[0] in stored]
    widened = {node.output[0]: stored[node.input[0]] for node in casts}
    narrow = {node.input[0] for node in casts}
    return {name: tensor for name, tensor in stored.items() if name not in narrow} | widened


def constant_matrix(node: NodeProto, weights: Mapping[str, TensorProto]) -> Floats | None:
    """The float matrix a node works with: (in, out), or (vocabulary, hidden) of a Gather."""
    place = {"Gather": 0, "MatMul": 1, "Gemm": 1}.get(node.op_type)
    tensor = None if place is None else weights.get(node.input[place])
    if tensor is None or len(tensor.dims) != 2 or tensor.data_type not in FLOATS:
        return None
    found: Floats = numpy_helper.to_array(tensor).astype(np.float32)
    if node.op_type == "Gemm" and any(each.name == "transB" and each.i for each in node.attribute):
        found = found.T
    return found


def makers_of_output(graph: GraphProto) -> set[str]:
    """What the logits are made of: the last product and its bias."""
    makers = {node.output[0]: node for node in graph.node}
    names = {value.name for value in graph.output}
    return names | {name for output in names for name in makers[output].input}


def head(graph: GraphProto) -> set[str]:
    """The values that come after the last norm: the classifier's, up to the logits."""
    makers = {node.output[0]: node for node in graph.node}
    found: set[str] = set()
    coming = [value.name for value in graph.output]
    while coming:
        name = coming.pop()
        node = makers.get(name)
        if node is None or node.op_type == "LayerNormalization" or name in found:
            continue
        found.add(name)
        coming.extend(node.input)
    return found


def replace(graph: GraphProto, nodes: Iterable[NodeProto], stored: Iterable[TensorProto]) -> None:
    """Give the graph these nodes instead, and what they read; what nobody reads any more goes."""
    coming = list(nodes)
    del graph.node[:]
    graph.node.extend(coming)
    graph.initializer.extend(stored)
    drop_unused(graph)


def drop_unused(graph: GraphProto) -> None:
    """Remove the float weights nobody reads any more, and their casts."""
    stored = {tensor.name for tensor in graph.initializer}
    read = {name for node in graph.node for name in node.input}
    kept = [
        node
        for node in graph.node
        if not (node.op_type == "Cast" and node.input[0] in stored and node.output[0] not in read)
    ]
    read = {name for node in kept for name in node.input}
    weights = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(weights)


def quantized_parity(source: Path, target: Path) -> Parity:
    """What quantizing changed, on top of what exporting did. Raises BuildError."""
    return changed_parity(source, runner(target))


def changed_parity(source: Path, run: Run) -> Parity:
    """What a step after which `run` runs the graph changed, and those before. Raises BuildError."""
    before = msgspec.json.decode((source / PARITY).read_bytes(), type=Parity)
    found = compare(runner(source), run, source, read_purpose(source))
    if not np.isfinite(found.logits):
        raise BuildError("its logits are not finite any more")
    return Parity(logits=before.logits + found.logits, batches=found.batches)


def operators(file: Path) -> Counter[str]:
    """How many nodes of each kind the file has."""
    return Counter(node.op_type for node in onnx.load(file, load_external_data=False).graph.node)

"""
An exported graph to static int8: every scale is set once, on dev text, and stored in the file.

onnxruntime's own quantizer (Jacob et al. 2018's arithmetic; QDQ, MinMax, a scale per weight column)
on batches as they are served, padding and all. No scale depends on what is in a batch, so a text
gets the same answer alone and in company.

With everything in int8 an encoder forgets what it knows: the mask stretches the one scale of the
attention scores until all scores are equal, and norms and sums have outliers that do the same to
the activations (Bondarenko et al. 2021). So groups of operators can be left in float.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import onnx
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
)
from onnxruntime.quantization import quantize_static as write_quantized

from build.calibrate import dev_texts
from build.checkpoint import Purpose, copy_files, read_purpose
from build.errors import BuildError
from build.graph import (
    CARRIED,
    MODEL,
    PARITY,
    Ints,
    constant_matrix,
    constants,
    head,
    quantized_parity,
    save,
)
from build.steps import GROUPS, QuantizeStatic
from models.batches import cut
from models.encode import Encoder
from models.pipeline import BATCH_TOKENS, TOKENIZER, padded

LINEAR = "linear"
KINDS = {"Gather": "embedding", "LayerNormalization": "layernorm", "Gelu": "gelu"}
OPTIONS = {
    # A product is in int8 only where something in int8 reads it.
    "OpTypesToExcludeOutputQuantization": ["MatMul"],
}

Feed = Mapping[str, Ints]


def quantize_static(step: QuantizeStatic, source: Path, target: Path, corpus: Path) -> None:
    """
    Rewrite `source/model.onnx` into `target`; all after the last norm stays as it is.

    Raises DataError where there are no dev texts, BuildError where no float layers are left to
    quantize.
    """
    purpose = read_purpose(source)
    model = onnx.load(source / MODEL)
    found = grouped(model.graph)
    if not found[LINEAR]:
        raise BuildError(f"{MODEL} has no float layers left: quantize once, after exporting")
    feeds = list(batches(step, source, purpose, corpus))
    chosen = [
        node for name in (LINEAR, *GROUPS) if name not in step.exclude for node in found[name]
    ]
    narrow = widen(model.graph)
    with _quiet():
        write_quantized(
            model,
            target / MODEL,
            _Feeds(feeds),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=sorted({node.op_type for node in chosen}),
            nodes_to_quantize=[node.name for node in chosen],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options=OPTIONS,
        )
    written = onnx.load(target / MODEL)
    narrow_again(written.graph, narrow)
    save(written, target)
    copy_files(source, target, CARRIED)
    (target / PARITY).write_bytes(msgspec.json.encode(quantized_parity(source, target)))


# --- groups -----------------------------------------------------------------------------------


def grouped(graph: GraphProto) -> dict[str, list[NodeProto]]:
    """
    Nodes that could be in int8 by what they do; the head's are in no group.

    linear     products with a weight matrix
    embedding  rows looked up in the tables
    attention  products of two activations, and what turns them about
    softmax    from the scores, scaled and masked, to their weights, and the mask itself
    bias       sums of a product and its bias
    residual   sums of two activations, those of the embeddings too
    """
    weights = constants(graph)
    makers = {node.output[0]: node for node in graph.node}
    scores = {
        name for node in graph.node if node.op_type == "Softmax" for name in _up(node, makers)
    }
    last = head(graph)
    found: dict[str, list[NodeProto]] = {name: [] for name in (LINEAR, *GROUPS)}
    for node in graph.node:
        if node.output[0] in last:
            continue
        name = "softmax" if node.output[0] in scores else _group(node, weights)
        if name:
            found[name].append(node)
    return found


def _group(node: NodeProto, weights: Mapping[str, TensorProto]) -> str | None:
    match node.op_type:
        case "MatMul":
            return "attention" if constant_matrix(node, weights) is None else LINEAR
        case "Transpose" | "Reshape":
            return "attention"
        case "Gather":
            return None if constant_matrix(node, weights) is None else "embedding"
        case "Add":
            sizes = [len(weights[name].dims) for name in node.input if name in weights]
            return "bias" if 1 in sizes else "residual"
        case kind:
            return KINDS.get(kind)


def _up(softmax: NodeProto, makers: Mapping[str, NodeProto]) -> Iterator[str]:
    """The values a softmax is made of, up to the product of queries and keys, and the mask's."""
    coming = [softmax.output[0]]
    while coming:
        name = coming.pop()
        node = makers.get(name)
        if node is not None and node.op_type != "MatMul":
            yield name
            coming.extend(node.input)


# --- calibration ------------------------------------------------------------------------------


def batches(
    step: QuantizeStatic, source: Path, purpose: Purpose, corpus: Path
) -> Iterator[dict[str, Ints]]:
    """The dev texts as the pipeline would give them to the model. Raises DataError."""
    encoder = Encoder(source / TOKENIZER, purpose.windows)
    texts = dev_texts(purpose, corpus, step.texts, seed=step.seed)
    windows = [window for text in texts for window in encoder.encode(text.text).windows]
    lengths = [len(window.ids) for window in windows]
    for group in cut(lengths, max_items=len(windows), max_padded_tokens=BATCH_TOKENS):
        ids, mask = padded([windows[index] for index in group], encoder.pad_id)
        yield {"input_ids": ids, "attention_mask": mask}


class _Feeds(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, feeds: Iterable[Feed]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Feed | None:
        return next(self._feeds, None)


# --- 16 bits ----------------------------------------------------------------------------------


def widen(graph: GraphProto) -> dict[str, TensorProto]:
    """Make 16-bit weights plain float32 ones, in place: what was stored, by the wide name."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    found = {name: each for name, each in constants(graph).items() if name not in stored}
    nodes = [node for node in graph.node if node.output[0] not in found]
    wide = [
        numpy_helper.from_array(numpy_helper.to_array(each).astype(np.float32), name)
        for name, each in found.items()
    ]
    narrow = {}
    for name, each in found.items():
        narrow[name] = TensorProto()
        narrow[name].CopyFrom(each)
    names = {each.name for each in found.values()}
    kept = [tensor for tensor in graph.initializer if tensor.name not in names]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*kept, *wide])
    return narrow


def narrow_again(graph: GraphProto, narrow: Mapping[str, TensorProto]) -> None:
    """Store in 16 bits again what is still float, in place."""
    casts = []
    for tensor in graph.initializer:
        if before := narrow.get(tensor.name):
            name = tensor.name
            tensor.CopyFrom(before)
            cast = helper.make_node(
                "Cast", [before.name], [name], name=f"{name}.cast", to=TensorProto.FLOAT
            )
            casts.append(cast)
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


@contextmanager
def _quiet() -> Iterator[None]:
    """onnxruntime advises preparing what our exporter has already folded and shaped."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)

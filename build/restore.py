"""
An exported graph back to the torch network it was traced from, so that training can go on.

Published variants hold graphs alone: this is how a student is taught by one, without the hours that
its teacher took. Knows only the graphs that build/export.py writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, numpy_helper
from transformers import XLMRobertaConfig

from build.checkpoint import (
    TOKENIZER_FILES,
    Checkpoint,
    Purpose,
    copy_files,
    filled,
    read_purpose,
    write_purpose,
)
from build.errors import BuildError
from build.export import TOLERANCE, torch_runner
from build.graph import MODEL, compare, constants, runner
from build.networks import AUTO
from build.steps import Restore
from build.windows import as_trained
from models.catalog import MANIFEST, read
from models.encode import Encoder

ROOT = "network."  # what tracing puts before the names of weights
STORED = (MODEL, "tokenizer.json")
LAYERS = "roberta.encoder.layer."
WORDS = "roberta.embeddings.word_embeddings.weight"
TYPES = "roberta.embeddings.token_type_embeddings.weight"

Arrays = dict[str, NDArray[Any]]


def restore(step: Restore, source: Path, target: Path) -> None:
    """
    Fill `target` with a fine-tuned checkpoint of `source/model.onnx`.

    Raises BuildError where the graph is no plain float one, or answers otherwise.
    """
    purpose = read_purpose(source)
    graph = onnx.load(source / MODEL).graph
    weights = named_weights(graph)
    if WORDS not in weights:
        raise BuildError(f"{MODEL} does not hold a plain network: restore before quantizing")
    config = _config(graph, weights, source, purpose)
    network = AUTO[purpose.task].from_config(config)
    state = {name: torch.from_numpy(array.astype(np.float32)) for name, array in weights.items()}
    try:
        unlike = network.load_state_dict(state, strict=False)
    except RuntimeError as error:  # of other shapes
        raise BuildError(
            f"the weights of {MODEL} are not told apart by their biases, of which two are equal: "
            "restore from weights of more bits"
        ) from error
    if unlike.missing_keys or unlike.unexpected_keys:
        first = [*unlike.missing_keys, *unlike.unexpected_keys][0]
        raise BuildError(f"{MODEL} does not hold a plain network: {first}")
    network.eval().save_pretrained(target)
    copy_files(source, target, TOKENIZER_FILES)
    write_purpose(target, purpose)
    parity = compare(runner(source), torch_runner(network), target, purpose)
    if not parity.logits < TOLERANCE:
        raise BuildError(f"the restored network's logits differ by {parity.logits:.2g}")


def fetch(checkpoint: Checkpoint, catalog: Path) -> bool:
    """
    Fill the checkpoint's folder from the published variant of its lineage, if there is one.

    One that is only read in narrower windows serves too: it is as it was trained then.
    """
    for file in sorted(catalog.glob(f"*/{MANIFEST}")):
        variant = read(file.parent)
        trained, windows = as_trained(variant.lineage)
        if checkpoint.lineage == variant.lineage:
            windows = None
        elif checkpoint.lineage != trained:
            continue
        with filled(checkpoint.folder) as draft:
            if draft:
                copy_files(file.parent, draft, STORED)
                purpose = Purpose.of(variant)
                write_purpose(
                    draft,
                    msgspec.structs.replace(purpose, windows=windows or purpose.windows),
                )
        return True
    return False


def named_weights(graph: GraphProto) -> Arrays:
    """
    The weights by their names in torch.

    Tracing keeps the names of vectors and embeddings; a matrix that was turned for its product is
    named by the bias that is added to it. Norms are told by their order, for those that are equal
    to the last bit, as fresh ones are, became one tensor.
    """
    stored = constants(graph)
    arrays = {name: numpy_helper.to_array(tensor) for name, tensor in stored.items()}
    named = {
        name.removeprefix(ROOT): array for name, array in arrays.items() if name.startswith(ROOT)
    }
    named |= {name: arrays[value].T for name, value in _matrices(graph) if value in arrays}
    named |= {name: arrays[value] for name, value in _norms(graph)}
    (types,) = [array for array in arrays.values() if array.shape[:-1] == (1, 1)]
    return named | {TYPES: types[0]}


def _norms(graph: GraphProto) -> Iterator[tuple[str, str]]:
    """(name in torch, name in the graph) of each norm's weight and bias: a layer has two."""
    nodes = [node for node in graph.node if node.op_type == "LayerNormalization"]
    for number, node in enumerate(nodes):
        place = f"{LAYERS}{(number - 1) // 2}.{'attention.' if number % 2 else ''}output"
        name = f"{place if number else 'roberta.embeddings'}.LayerNorm"
        yield from zip((f"{name}.weight", f"{name}.bias"), node.input[1:], strict=True)


def _matrices(graph: GraphProto) -> Iterator[tuple[str, str]]:
    """(name in torch, name in the graph) of each linear layer's weight."""
    products = {node.output[0]: node for node in graph.node if node.op_type == "MatMul"}
    for node in graph.node:
        biases = [value for value in node.input if value.endswith(".bias")]
        if not biases:
            continue
        name = f"{biases[0].removeprefix(ROOT).removesuffix('bias')}weight"
        if node.op_type == "Add":
            (rows,) = [value for value in node.input if value != biases[0]]
            if rows in products:
                yield name, products[rows].input[1]
        elif node.op_type == "Gemm" and not _turned(node):
            yield name, node.input[1]


def _turned(gemm: NodeProto) -> bool:
    return any(each.name == "transB" and each.i for each in gemm.attribute)


def _config(
    graph: GraphProto, weights: Mapping[str, NDArray[Any]], source: Path, purpose: Purpose
) -> XLMRobertaConfig:
    """The shape, read off the weights; heads and epsilon off the nodes."""
    vocabulary, hidden = weights[WORDS].shape
    encoder = Encoder(source / "tokenizer.json", purpose.windows)
    opening, closing = encoder.encode("").windows[0].ids.tolist()
    depth = len({name.split(".")[3] for name in weights if name.startswith(LAYERS)})
    norm = next(node for node in graph.node if node.op_type == "LayerNormalization")
    (epsilon,) = [each.f for each in norm.attribute if each.name == "epsilon"]
    return XLMRobertaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=depth,
        num_attention_heads=hidden // _head_size(graph),
        intermediate_size=len(weights[f"{LAYERS}0.intermediate.dense.bias"]),
        max_position_embeddings=len(weights["roberta.embeddings.position_embeddings.weight"]),
        type_vocab_size=1,
        layer_norm_eps=float(epsilon),
        bos_token_id=opening,
        pad_token_id=encoder.pad_id,
        eos_token_id=closing,
        id2label=dict(enumerate(purpose.labels)),
        label2id={label: number for number, label in enumerate(purpose.labels)},
    )


def _head_size(graph: GraphProto) -> int:
    """Attention reshapes to (batch, tokens, heads, head size): the last is a constant."""
    stored = constants(graph)
    shapes = (node for node in graph.node if node.op_type == "Concat" and len(node.input) == 4)
    size = numpy_helper.to_array(stored[next(shapes).input[-1]])
    return int(size.item())

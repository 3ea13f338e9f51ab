"""
AfriBERTa's real shapes with random weights, whole or compressed as a recipe compresses: for speed
and size, which do not depend on values.

Knows nothing of training; nobody should read the answers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from shutil import copyfile
from typing import Any

import msgspec
import torch
from transformers import (
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
    XLMRobertaForTokenClassification,
)

from build import factorize, positions, prepare, structure, sublayers
from build.checkpoint import Checkpoint, Purpose, filled, read_purpose, write_purpose
from build.distill import shallower
from build.errors import BuildError
from build.networks import load, save
from build.steps import (
    Calibrate,
    CountEmbeddings,
    Distill,
    Export,
    Factorize,
    Finetune,
    NarrowWindows,
    Pack,
    Pretrain,
    PruneStructure,
    Quantize,
    QuantizeBlocks,
    Restore,
    SkipAttention,
    SkipFeedForward,
    Step,
    TrainTokenizer,
    TrimPositions,
    TrimVocabulary,
)
from models.spec import Licence, Task, Windows

# Ogueji et al. 2021: layers; the other sizes are those of all three.
LAYERS = {"afriberta-small": 4, "afriberta-base": 8, "afriberta-large": 10}
SIZES = {
    "vocab_size": 70_006,
    "hidden_size": 768,
    "num_attention_heads": 6,
    "intermediate_size": 3_072,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
}
LABELS = {
    Task.NER: ("O", *(f"{p}-{kind}" for kind in ("DATE", "LOC", "ORG", "PER") for p in "BI")),
    Task.CLASSIFICATION: (
        *("business", "entertainment", "health", "politics", "religion", "sports", "technology"),
    ),
}
NETWORKS: dict[Task, Any] = {
    Task.NER: XLMRobertaForTokenClassification,
    Task.CLASSIFICATION: XLMRobertaForSequenceClassification,
}
DESCRIPTION = "Random weights: speed and size only. Its answers mean nothing."
LICENCE = Licence(name="Apache-2.0", sources=("random numbers",))


def random_checkpoint(
    shape: str, task: Task, tokenizer: Path, cache: Path, *, sizes: dict[str, Any] | None = None
) -> Checkpoint:
    """A checkpoint of the named shape; the tokenizer's ids must lie below the vocabulary."""
    pieces = hashlib.sha256(tokenizer.read_bytes()).hexdigest()[:12]
    lineage = (f"Random({shape}, task={task}, tokenizer={pieces})",)
    checkpoint = Checkpoint(cache / f"random-{shape}-{task}-{pieces}", lineage)
    with filled(checkpoint.folder) as draft:
        if draft:
            _network(LAYERS[shape], task, sizes or SIZES).save_pretrained(draft)
            copyfile(tokenizer, draft / "tokenizer.json")
            overlap = 128 if task is Task.NER else 0
            windows = Windows(tokens=512, overlap=overlap)
            labels = LABELS[task]
            purpose = Purpose(task=task, labels=labels, languages=("und",), windows=windows)
            write_purpose(draft, purpose)
    return checkpoint


def compressed(checkpoint: Checkpoint, recipe: Iterable[Step]) -> Checkpoint:
    """
    The checkpoint with the fractions of layers, pieces, heads, columns and rank that a recipe
    leaves of its encoder. What its steps would learn is left out.

    Raises BuildError where a step changes a network in another way.
    """
    steps = scaled(recipe, *_sizes(checkpoint.folder))
    made = checkpoint.after(f"Shaped({', '.join(map(str, steps))})")
    with filled(made.folder) as draft:
        if draft:
            purpose = read_purpose(checkpoint.folder)
            network = load(checkpoint.folder, purpose, attention="sdpa")
            torch.manual_seed(1)  # whether the checkpoint was made just now or not
            for step in steps:
                network = _changed(network, step, purpose)
            save(network, checkpoint.folder, draft)
    return made


def scaled(recipe: Iterable[Step], layers: int, hidden: int, vocabulary: int) -> tuple[Step, ...]:
    """
    The steps of a recipe that change its network's form, for one of other sizes, untrained.

    Raises BuildError where one changes a network in another way.
    """
    found: list[Step] = []
    for step in prepare.scaled(recipe, layers, hidden, vocabulary):
        match step:
            case Factorize(bond=None):
                found.append(msgspec.structs.replace(step, epochs=0))
            case SkipAttention() | SkipFeedForward():
                found.append(msgspec.structs.replace(step, epochs=0))
            case Distill(width=None) | TrimVocabulary() | PruneStructure() | TrimPositions():
                found.append(step)
            case TrainTokenizer() | CountEmbeddings() | Pretrain() | Finetune() | Calibrate():
                pass
            case Export() | Restore() | Quantize() | QuantizeBlocks() | Pack() | NarrowWindows():
                pass
            case _:
                raise BuildError(f"a shape cannot be compressed by {step}")
    return tuple(found)


def _sizes(folder: Path) -> tuple[int, int, int]:
    config = XLMRobertaConfig.from_pretrained(folder)
    return config.num_hidden_layers, config.hidden_size, config.vocab_size


def _changed(network: Any, step: Step, purpose: Purpose) -> Any:
    match step:
        case Distill():
            return shallower(network, step.layers)
        case Factorize():
            factorize.replace(step, network)
        case TrimVocabulary():
            network.resize_token_embeddings(step.pieces)
        case TrimPositions():
            positions.trim(network, purpose.windows.tokens)
        case PruneStructure():
            config = network.config
            size = config.hidden_size // config.num_attention_heads
            chance = [
                structure.Importance(*(torch.rand(each) for each in structure.widths(layer, size)))
                for layer in network.base_model.encoder.layer
            ]
            structure.keep(network, chance, step.heads, step.columns, size)
        case SkipAttention():
            sublayers.leave_out_attention(network, step.last)
        case SkipFeedForward():
            sublayers.leave_out_feed_forward(network, step.layers)
    return network


def _network(layers: int, task: Task, sizes: dict[str, Any]) -> Any:
    torch.manual_seed(1)
    labels = LABELS[task]
    config = XLMRobertaConfig(
        num_hidden_layers=layers,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
        **sizes,
    )
    network = NETWORKS[task](config)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name.endswith("bias"):  # fresh ones are zero, and exporting drops zeros
                weight.normal_(std=config.initializer_range)
    return network

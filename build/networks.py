"""
Fine-tuned networks in torch: which class a task's is, and reading one from its checkpoint.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from build.checkpoint import PURPOSE, TOKENIZER_FILES, Purpose, copy_files
from build.errors import BuildError
from build.layers import reshape
from models.spec import Task

AUTO: dict[Task, Any] = {
    Task.NER: AutoModelForTokenClassification,
    Task.CLASSIFICATION: AutoModelForSequenceClassification,
}
# Before the names of an encoder's weights, where it has a head of any kind.
ENCODER = "roberta."


def load(source: Path, purpose: Purpose, *, attention: str = "eager") -> Any:
    """
    The torch network in float32, ready to run, whatever the forms of its layers.

    attention  "sdpa" is faster to train, "eager" is what is exported and shows its maps

    Raises BuildError where windows do not fit.
    """
    config = AutoConfig.from_pretrained(source, local_files_only=True)
    network = built(AUTO[purpose.task], config, weights(source), attention=attention)
    room = longest_window(network.config)
    if purpose.windows.tokens > room:
        raise BuildError(
            f"windows of {purpose.windows.tokens} tokens pass the network's {room} positions"
        )
    return network


def load_encoder(source: Path, *, attention: str = "eager") -> Any:
    """As `load`, of a checkpoint without a task's head; one for masked words is left behind."""
    config = AutoConfig.from_pretrained(source, local_files_only=True)
    names = weights(source)
    if any(name.startswith(ENCODER) for name in names):
        names = {
            n.removeprefix(ENCODER): each for n, each in names.items() if n.startswith(ENCODER)
        }
    pooled = any(name.startswith("pooler.") for name in names)
    return built(AutoModel, config, names, attention=attention, add_pooling_layer=pooled)


def built(
    kind: Any, config: Any, state: dict[str, torch.Tensor], *, attention: str, **options: Any
) -> Any:
    """A network of this config and these weights, its layers in the forms the weights have."""
    network = kind.from_config(
        config, dtype=torch.float32, attn_implementation=attention, **options
    )
    reshape(network, {name: tensor.shape for name, tensor in state.items()})
    network.load_state_dict(state)
    return network.eval()


def save(network: Any, source: Path, target: Path) -> None:
    """Write a network that was made of `source`'s; tokenizer and purpose are carried over."""
    network.save_pretrained(target)
    copy_files(source, target, (*TOKENIZER_FILES, PURPOSE))


def weights(source: Path) -> dict[str, torch.Tensor]:
    """Every weight of a checkpoint by name, in float32. Raises BuildError where there is none."""
    files = sorted(source.glob("*.safetensors"))
    if not files:
        raise BuildError(f"{source.name} is no torch checkpoint: it has no safetensors")
    return {name: tensor.float() for file in files for name, tensor in load_file(file).items()}


def longest_window(config: Any) -> int:
    """XLM-R counts positions from the padding id on: the first two of 514 are never a token's."""
    return int(config.max_position_embeddings) - int(config.pad_token_id) - 1

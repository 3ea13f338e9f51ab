"""
A position table without the rows that no window reaches.

A network made for 512 tokens that is served windows of 256 never looks at half of its positions,
which matter once the word embedding is small.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from build.checkpoint import read_purpose
from build.networks import load, longest_window, save
from build.steps import TrimPositions


def trim_positions(step: TrimPositions, source: Path, target: Path) -> None:
    """Leave the checkpoint in `target` with as many positions as its windows have tokens."""
    purpose = read_purpose(source)
    network = load(source, purpose)
    trim(network, purpose.windows.tokens)
    save(network, source, target)


def trim(network: Any, tokens: int) -> None:
    """In place; the answers to texts of at most `tokens` tokens stay what they are."""
    embeddings = network.base_model.embeddings
    kept = network.config.max_position_embeddings - longest_window(network.config) + tokens
    table = embeddings.position_embeddings
    shorter = nn.Embedding(kept, table.embedding_dim, padding_idx=table.padding_idx)
    with torch.no_grad():
        shorter.weight.copy_(table.weight[:kept])
    embeddings.position_embeddings = shorter
    for name in ("position_ids", "token_type_ids"):
        setattr(embeddings, name, getattr(embeddings, name)[:, :kept])
    network.config.max_position_embeddings = kept

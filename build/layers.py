"""
The forms a network's layers can have beside the usual one: narrower, factored, without attention
or their feed-forward half.

A checkpoint says its forms by the names and shapes of its weights; nothing else does. Knows nothing
of files, nor of how a form was found.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from build.steps import LINEARS, in_attention

WORDS = "embeddings.word_embeddings"

Shapes = Mapping[str, Sequence[int]]


class TensorProduct(nn.Module):
    """
    A linear layer as a matrix product operator of two cores (Tomut et al. 2024).

    weight[(o1 o2), (i1 i2)] = sum over the bond of left[bond, o1, i1] x right[bond, o2, i2]
    """

    def __init__(self, left: Sequence[int], right: Sequence[int]) -> None:
        """`left` (bond, o1, i1) and `right` (bond, o2, i2)."""
        super().__init__()
        self.left = nn.Parameter(torch.zeros(*left))
        self.right = nn.Parameter(torch.zeros(*right))
        self.bias = nn.Parameter(torch.zeros(left[1] * right[1]))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """(..., i1 i2) -> (..., o1 o2), without ever making the matrix."""
        bond, o1, i1 = self.left.shape
        _, o2, i2 = self.right.shape
        around = rows.shape[:-1]
        inner = rows.reshape(*around, i1, i2) @ self.right.reshape(bond * o2, i2).T
        inner = inner.reshape(*around, i1 * bond, o2).transpose(-1, -2)
        outer = inner @ self.left.permute(2, 0, 1).reshape(i1 * bond, o1)
        return outer.transpose(-1, -2).reshape(*around, o1 * o2) + self.bias


class NoAttention(nn.Module):
    """A layer's attention sublayer without the attention: its normalisation alone."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.output = nn.ModuleDict({"LayerNorm": nn.LayerNorm(width, eps=epsilon)})

    def forward(self, hidden_states: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, None]:
        return self.output["LayerNorm"](hidden_states), None


class NoFeedForward(nn.Module):
    """A layer's output without a feed-forward half before it: its normalisation alone."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.LayerNorm = nn.LayerNorm(width, eps=epsilon)

    def forward(self, _: torch.Tensor, attention_output: torch.Tensor) -> torch.Tensor:
        normal: torch.Tensor = self.LayerNorm(attention_output)
        return normal


def take_out_attention(layer: Any) -> None:
    """Take a layer's attention out, in place; its normalisation stays."""
    norm = layer.attention.output.LayerNorm
    layer.attention = NoAttention(len(norm.weight), norm.eps)
    layer.attention.output["LayerNorm"].load_state_dict(norm.state_dict())


def take_out_feed_forward(layer: Any) -> None:
    """Take a layer's feed-forward half out, in place; its normalisation stays."""
    norm = layer.output.LayerNorm
    layer.intermediate = nn.Identity()
    layer.output = NoFeedForward(len(norm.weight), norm.eps)
    layer.output.LayerNorm.load_state_dict(norm.state_dict())


def reshape(network: Any, shapes: Shapes) -> None:
    """Give `network`, as its config makes it, the forms that weights of these shapes have."""
    base = network.base_model
    # A network that is its own base has no prefix to its names.
    prefix = "" if base is network else f"{network.base_model_prefix}."
    if f"{prefix}{WORDS}.0.weight" in shapes:
        base.set_submodule(WORDS, _embedding(f"{prefix}{WORDS}", shapes, base.config.pad_token_id))
    for number, layer in enumerate(base.encoder.layer):
        place = f"{prefix}encoder.layer.{number}."
        if not any(name.startswith(f"{place}attention.self.") for name in shapes):
            take_out_attention(layer)
        if not any(name.startswith(f"{place}output.dense.") for name in shapes):
            take_out_feed_forward(layer)
        for name in linears(layer):
            layer.set_submodule(name, _linear(f"{place}{name}", shapes))


def linears(layer: Any) -> Iterator[str]:
    """The names of the linear layers that a layer has, whatever their form."""
    for name in LINEARS:
        half = layer.attention if in_attention(name) else layer.output
        if not isinstance(half, (NoAttention, NoFeedForward)):
            yield name


def product(first: torch.Tensor, second: torch.Tensor, bias: torch.Tensor) -> nn.Module:
    """x -> second (first x) + bias; first (rank, in), second (out, rank)."""
    rank, inputs = first.shape
    narrow = nn.Linear(inputs, rank, bias=False)
    wide = nn.Linear(rank, len(second))
    with torch.no_grad():
        narrow.weight.copy_(first)
        wide.weight.copy_(second)
        wide.bias.copy_(bias)
    return nn.Sequential(narrow, wide)


def narrow_embedding(table: torch.Tensor, wider: torch.Tensor, pad_id: int) -> nn.Module:
    """ids -> wider (table[id]); table (vocabulary, rank), wider (hidden, rank)."""
    vocabulary, rank = table.shape
    narrow = nn.Embedding(vocabulary, rank, padding_idx=pad_id)
    wide = nn.Linear(rank, len(wider), bias=False)
    with torch.no_grad():
        narrow.weight.copy_(table)
        wide.weight.copy_(wider)
    return nn.Sequential(narrow, wide)


def near_square(size: int) -> tuple[int, int]:
    """The two factors of a size that are nearest to each other: 384 -> 16, 24."""
    small = next(each for each in range(math.isqrt(size), 0, -1) if size % each == 0)
    return small, size // small


def _linear(name: str, shapes: Shapes) -> nn.Module:
    if f"{name}.left" in shapes:
        return TensorProduct(shapes[f"{name}.left"], shapes[f"{name}.right"])
    if f"{name}.0.weight" in shapes:
        first, second = (torch.zeros(*shapes[f"{name}.{part}.weight"]) for part in (0, 1))
        return product(first, second, torch.zeros(len(second)))
    out, inputs = shapes[f"{name}.weight"]
    return nn.Linear(inputs, out)


def _embedding(name: str, shapes: Shapes, pad_id: int) -> nn.Module:
    table, wider = (torch.zeros(*shapes[f"{name}.{part}.weight"]) for part in (0, 1))
    return narrow_embedding(table, wider, pad_id)

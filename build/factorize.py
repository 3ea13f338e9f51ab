"""
Linear layers, and the word embedding, as products of smaller ones.

`svd` keeps the `bond` largest singular values (Eckart and Young 1936): fewer bytes and fewer
products. `mpo` is a matrix product operator of two cores, truncated in the same way after the
matrix is read as a tensor (Tomut et al. 2024, CompactifAI): fewer bytes, seldom fewer products.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from build.checkpoint import read_purpose
from build.errors import BuildError
from build.healing import heal
from build.layers import (
    WORDS,
    TensorProduct,
    linears,
    narrow_embedding,
    near_square,
    product,
)
from build.networks import load, save
from build.steps import Factorize


def factorize(step: Factorize, source: Path, target: Path, corpus: Path, device: str) -> None:
    """Leave the checkpoint in `target` with factored layers. Raises BuildError."""
    network = load(source, read_purpose(source), attention="sdpa")
    replace(step, network)
    heal(step, network, source, target, corpus, device)
    save(network, source, target)


def replace(step: Factorize, network: Any) -> None:
    """Factorize what the step names, in place. Raises BuildError where that is not there."""
    layers = network.base_model.encoder.layer
    if unknown := set(step.layers or ()) - set(range(len(layers))):
        raise BuildError(f"there is no layer {min(unknown)}: they are 0 to {len(layers) - 1}")
    if step.bond is not None:
        for number in range(len(layers)) if step.layers is None else step.layers:
            for name in list(linears(layers[number])):
                if step.parts is None or name in step.parts:
                    dense = _plain(layers[number].get_submodule(name), name)
                    layers[number].set_submodule(name, factored(dense, step.method, step.bond))
    if step.embedding is not None:
        table = _plain(network.base_model.get_submodule(WORDS), WORDS)
        network.base_model.set_submodule(WORDS, _embedding(table, step.embedding))


def factored(dense: Any, method: str, bond: int) -> nn.Module:
    """A layer that computes as `dense` does, as nearly as its bond allows."""
    make = svd if method == "svd" else mpo
    return make(dense.weight.detach(), dense.bias.detach(), bond)


def svd(weight: torch.Tensor, bias: torch.Tensor, rank: int) -> nn.Module:
    """(out, in) as (out, rank) @ (rank, in), the singular values shared between both."""
    second, first = _truncated(weight, rank)
    return product(first, second, bias)


def mpo(weight: torch.Tensor, bias: torch.Tensor, bond: int) -> nn.Module:
    """(o1 o2, i1 i2) read as (o1 i1, o2 i2), whose truncated halves are the two cores."""
    (o1, o2), (i1, i2) = near_square(weight.shape[0]), near_square(weight.shape[1])
    turned = weight.reshape(o1, o2, i1, i2).permute(0, 2, 1, 3).reshape(o1 * i1, o2 * i2)
    left, right = _truncated(turned, bond)
    kept = len(right)
    layer = TensorProduct((kept, o1, i1), (kept, o2, i2))
    with torch.no_grad():
        layer.left.copy_(left.T.reshape(kept, o1, i1))
        layer.right.copy_(right.reshape(kept, o2, i2))
        layer.bias.copy_(bias)
    return layer


def _truncated(matrix: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(m, rank) and (rank, n) whose product is nearest to (m, n); in float64 until the end."""
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    root = values[:rank].sqrt()
    return (left[:, :rank] * root).float(), (root[:, None] * right[:rank]).float()


def _embedding(table: Any, rank: int) -> nn.Module:
    rows, wider = _truncated(table.weight.detach(), rank)
    return narrow_embedding(rows, wider.T, table.padding_idx)


def _plain(module: Any, name: str) -> Any:
    if not isinstance(module, nn.Linear | nn.Embedding):
        raise BuildError(f"{name} is factorized already")
    return module

"""
Unstructured magnitude pruning (Han et al. 2015): the smallest weights become zero and stay so.

Zeros make a packed file smaller and a run no faster: dense products multiply by them all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from build.checkpoint import PURPOSE, read_purpose
from build.errors import BuildError
from build.healing import heal
from build.layers import WORDS
from build.networks import load, load_encoder, save
from build.steps import Prune

# Gradual pruning ends here; what is left of the steps heals (Zhu and Gupta 2017).
ALL_PRUNED = 0.7
# Finding the smallest of millions of weights costs as much as a small step.
EVERY = 20

Weights = Sequence[torch.Tensor]


def prune(step: Prune, source: Path, target: Path, corpus: Path, device: str) -> None:
    """
    Leave the checkpoint in `target` with the step's share of zeros.

    Raises BuildError where an encoder without a head is to heal: there is no gold to heal by.
    """
    if (source / PURPOSE).exists():
        network = load(source, read_purpose(source), attention="sdpa")
    elif step.epochs:
        raise BuildError("an encoder without a head is pruned with epochs=0: Finetune heals it")
    else:
        network = load_encoder(source)

    def gradual(steps: int) -> Gradual:
        return Gradual(step, prunable(network, embeddings=step.embeddings), steps)

    heal(step, network, source, target, corpus, device, gradual=gradual)
    weights = prunable(network, embeddings=step.embeddings)
    apply(weights, masks(weights, step.sparsity, by_layer=step.by_layer))
    save(network, source, target)


def prunable(network: Any, *, embeddings: bool) -> list[torch.Tensor]:
    """The matrices of the encoder's layers, and the word embedding where that is asked for."""
    base = network.base_model
    found = [each for each in base.encoder.layer.parameters() if each.dim() > 1]
    if embeddings:
        found += base.get_submodule(WORDS).parameters()
    return found


def masks(weights: Weights, sparsity: float, *, by_layer: bool) -> list[torch.Tensor]:
    """What is kept of each: all but the smallest magnitudes, exactly `sparsity` of all (or each)"""
    if by_layer:
        return [
            _kept(weight.detach().abs().flatten(), sparsity).view_as(weight) for weight in weights
        ]
    sizes = torch.cat([weight.detach().abs().flatten() for weight in weights])
    kept = torch.split(_kept(sizes, sparsity), [weight.numel() for weight in weights])
    return [mask.view_as(weight) for mask, weight in zip(kept, weights, strict=True)]


def apply(weights: Weights, kept: Sequence[torch.Tensor]) -> None:
    with torch.no_grad():
        for weight, mask in zip(weights, kept, strict=True):
            weight.mul_(mask)


def cubic(done: float) -> float:
    """
    The share of the final sparsity after a share of the pruning: fast at first, slow at the end.

    done  0   0.25   0.5    1
    ->    0   0.578  0.875  1
    """
    return 1 - (1 - min(done, 1.0)) ** 3


class Gradual:
    """Called after each step of training: more zeros as it goes on, all of them before its end."""

    def __init__(self, step: Prune, weights: Weights, steps: int) -> None:
        self._step = step
        self._weights = weights
        self._steps = steps
        self._kept: list[torch.Tensor] = []  # there is something due at the first step

    def hold(self) -> None:
        self._kept = [weight != 0 for weight in self._weights]

    def __call__(self, number: int) -> None:
        wanted = self._wanted(number)
        due = number % EVERY == 0 or wanted == self._step.sparsity
        if due and wanted > self._wanted(number - 1):
            self._kept = masks(self._weights, wanted, by_layer=self._step.by_layer)
        apply(self._weights, self._kept)

    def _wanted(self, number: int) -> float:
        return self._step.sparsity * cubic((number + 1) / (self._steps * ALL_PRUNED))


def _kept(sizes: torch.Tensor, sparsity: float) -> torch.Tensor:
    """(n,) magnitudes -> what is kept; of equal ones the first go, so that the share is exact."""
    gone = round(sparsity * len(sizes))
    if not gone:
        return torch.ones_like(sizes, dtype=torch.bool)
    limit = sizes.kthvalue(gone).values
    smaller, equal = sizes < limit, sizes == limit
    return ~(smaller | (equal & (equal.cumsum(0) <= gone - smaller.sum())))

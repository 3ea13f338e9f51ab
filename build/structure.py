"""
Structured pruning: whole attention heads and feed-forward columns are taken out of the network.

What is left is an ordinary, smaller network: fewer products, fewer bytes, no sparse kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from tqdm import tqdm

from build import losses, training
from build.checkpoint import read_purpose
from build.errors import BuildError
from build.healing import heal, training_text
from build.layers import NoAttention, NoFeedForward, linears
from build.networks import load, save
from build.steps import PruneStructure

# Columns are left in groups of this many: vector units are filled.
GROUP = 8


class Importance(NamedTuple):
    """Of a layer: (heads,) and (columns,); none of a half that it does without."""

    heads: torch.Tensor
    columns: torch.Tensor


def prune_structure(
    step: PruneStructure, source: Path, target: Path, corpus: Path, device: str
) -> None:
    """
    Leave the checkpoint in `target` without its least important heads and columns.

    Raises BuildError where a layer is factorized already: a factor has no heads.
    """
    purpose = read_purpose(source)
    network = load(source, purpose, attention="sdpa")
    for layer in network.base_model.encoder.layer:
        if not all(isinstance(layer.get_submodule(each), nn.Linear) for each in linears(layer)):
            raise BuildError("heads and columns are pruned before layers are factorized")
    batch, batches = training_text(step, purpose, source, corpus, texts=step.texts)
    found = importance(network, batch, batches, device)
    head_size = network.config.hidden_size // network.config.num_attention_heads
    keep(network, found, step.heads, step.columns, head_size)
    heal(step, network, source, target, corpus, device)
    save(network, source, target)


def importance(
    network: Any, batch: Callable[[int], training.Batch], batches: int, device: str
) -> list[Importance]:
    """
    By how much the loss would change, to first order, if each head or column were taken out: the
    mean over batches of its output's |gate's gradient| (Michel et al. 2019). A layer each.
    """
    network.to(device).eval()
    gates = [_Gates(layer, network.config) for layer in network.base_model.encoder.layer]
    for number in tqdm(range(batches), "importance", unit="batch", mininterval=5):
        inputs = {name: tensor.to(device) for name, tensor in batch(number).items()}
        read = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        losses.gold(network(**read).logits, inputs["labels"]).backward()  # type: ignore[no-untyped-call]
        for each in gates:
            each.count()
    network.to("cpu").zero_grad()
    return [each.close() for each in gates]


def keep(
    network: Any, found: list[Importance], heads: float, columns: float, head_size: int
) -> None:
    """
    Take out the least important share of all heads and of all columns, in place.

    Layers are compared after each is scaled to length one (Molchanov et al. 2017); each keeps at
    least one head and one group of columns where it had some.
    """
    kept_heads = chosen([each.heads for each in found], heads, group=1)
    kept_columns = chosen([each.columns for each in found], columns, group=GROUP)
    for layer, mine, theirs in zip(
        network.base_model.encoder.layer, kept_heads, kept_columns, strict=True
    ):
        if len(mine):
            rows = (mine[:, None] * head_size + torch.arange(head_size)).flatten()
            attention = layer.attention
            for name in ("query", "key", "value"):
                setattr(attention.self, name, _rows(getattr(attention.self, name), rows))
            attention.output.dense = _columns(attention.output.dense, rows)
        if len(theirs):
            layer.intermediate.dense = _rows(layer.intermediate.dense, theirs)
            layer.output.dense = _columns(layer.output.dense, theirs)


def chosen(scores: list[torch.Tensor], gone: float, *, group: int) -> list[torch.Tensor]:
    """
    The indexes that each layer keeps, ascending, a multiple of `group` of them where it had one.

    The share `gone` of all layers' scores together goes, the least first.
    """
    if not gone:
        return [torch.arange(len(each)) for each in scores]
    scaled = [each / each.norm().clamp(min=1e-12) for each in scores]
    together = torch.cat(scaled)
    least = together.sort().values[min(round(gone * len(together)), len(together) - 1)]
    found = []
    for each in scaled:
        kept = int((each >= least).sum())
        kept = min(len(each), max(1, -(-kept // group)) * group)
        found.append(each.topk(kept).indices.sort().values)
    return found


def widths(layer: Any, head_size: int) -> tuple[int, int]:
    """How many heads and how many columns a layer has."""
    heads = columns = 0
    if not isinstance(layer.attention, NoAttention):
        heads = layer.attention.output.dense.in_features // head_size
    if not isinstance(layer.output, NoFeedForward):
        columns = layer.output.dense.in_features
    return heads, columns


class _Gates:
    """Ones that a layer's heads and columns are multiplied by: their slopes say what each does."""

    def __init__(self, layer: Any, config: Any) -> None:
        size = config.hidden_size // config.num_attention_heads
        heads, columns = widths(layer, size)
        device = next(layer.parameters()).device
        self._heads = torch.ones(heads, device=device)
        self._columns = torch.ones(columns, device=device)
        self._hooks = []
        if heads:
            self._hooks.append(_gated(layer.attention.output.dense, self._heads, size))
        if columns:
            self._hooks.append(_gated(layer.output.dense, self._columns, 1))
        self._sums = [torch.zeros_like(gate) for gate in (self._heads, self._columns)]

    def count(self) -> None:
        for total, gate in zip(self._sums, (self._heads, self._columns), strict=True):
            if gate.grad is not None:
                total += gate.grad.abs()
                gate.grad = None

    def close(self) -> Importance:
        for hook in self._hooks:
            hook.remove()
        return Importance(*(total.cpu() for total in self._sums))


def _gated(dense: nn.Linear, gate: torch.Tensor, size: int) -> Any:
    gate.requires_grad_()

    def multiply(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (inputs[0] * gate.repeat_interleave(size),)

    return dense.register_forward_pre_hook(multiply)


def _rows(linear: Any, kept: torch.Tensor) -> nn.Linear:
    return _linear(linear.weight[kept], linear.bias[kept])


def _columns(linear: Any, kept: torch.Tensor) -> nn.Linear:
    return _linear(linear.weight[:, kept], linear.bias)


def _linear(weight: torch.Tensor, bias: torch.Tensor) -> nn.Linear:
    built = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        built.weight.copy_(weight)
        built.bias.copy_(bias)
    return built

"""
Skipping sublayers (Tyukin 2024): layers without attention, or without their feed-forward half.

Deep attention adds least; where few heads and columns are left, a feed-forward half more costs
time for what the other one can do too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from build.checkpoint import read_purpose
from build.errors import BuildError
from build.healing import heal
from build.layers import NoAttention, NoFeedForward, take_out_attention, take_out_feed_forward
from build.networks import load, save
from build.steps import SkipAttention, SkipFeedForward


def skip(
    step: SkipAttention | SkipFeedForward, source: Path, target: Path, corpus: Path, device: str
) -> None:
    """Leave the checkpoint in `target` without the halves of layers that the step names."""
    network = load(source, read_purpose(source), attention="sdpa")
    if isinstance(step, SkipAttention):
        leave_out_attention(network, step.last)
    else:
        leave_out_feed_forward(network, step.layers)
    heal(step, network, source, target, corpus, device)
    save(network, source, target)


def leave_out_attention(network: Any, last: int) -> None:
    """In place. The residual stream and its normalisation stay. Raises BuildError."""
    layers = network.base_model.encoder.layer
    if last > len(layers):
        raise BuildError(f"attention of the last {last} layers: there are {len(layers)}")
    for layer in layers[len(layers) - last :]:
        if not isinstance(layer.attention, NoAttention):
            take_out_attention(layer)


def leave_out_feed_forward(network: Any, chosen: tuple[int, ...]) -> None:
    """In place. The residual stream and its normalisation stay. Raises BuildError."""
    layers = network.base_model.encoder.layer
    if max(chosen) >= len(layers):
        raise BuildError(f"the feed-forward half of layer {max(chosen)}: there are {len(layers)}")
    for number in chosen:
        if not isinstance(layers[number].output, NoFeedForward):
            take_out_feed_forward(layers[number])

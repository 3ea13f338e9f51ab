"""
Skipping attention (Tyukin 2024): the last layers keep their feed-forward part alone.

Deep attention sublayers add least; a layer without one needs two thirds of the products.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from build.checkpoint import read_purpose
from build.errors import BuildError
from build.healing import heal
from build.layers import NoAttention
from build.networks import load, save
from build.steps import SkipAttention


def skip_attention(
    step: SkipAttention, source: Path, target: Path, corpus: Path, device: str
) -> None:
    """Leave the checkpoint in `target` without the attention of its last layers."""
    network = load(source, read_purpose(source), attention="sdpa")
    skip(network, step.last)
    heal(step, network, source, target, corpus, device)
    save(network, source, target)


def skip(network: Any, last: int) -> None:
    """In place. The residual stream and its normalisation stay. Raises BuildError."""
    layers = network.base_model.encoder.layer
    if last > len(layers):
        raise BuildError(f"attention of the last {last} layers: there are {len(layers)}")
    for layer in layers[len(layers) - last :]:
        if not isinstance(layer.attention, NoAttention):
            norm = layer.attention.output.LayerNorm
            bare = NoAttention(len(norm.weight), norm.eps)
            bare.output["LayerNorm"].load_state_dict(norm.state_dict())
            layer.attention = bare

"""Layers without one of their halves: what they were to others stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from build.checkpoint import read_purpose
from build.errors import BuildError
from build.networks import load
from build.steps import SkipAttention, SkipFeedForward
from build.sublayers import (
    leave_out_attention,
    leave_out_feed_forward,
    skip,
)
from models.spec import Task
from tests.tiny_checkpoint import HIDDEN, INNER, LAYERS, finetuned, network


def logits(net: nn.Module) -> torch.Tensor:
    ids = torch.randint(5, 40, (3, 11), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        return net.eval()(ids).logits


def silenced(dense: Any) -> None:
    with torch.no_grad():
        dense.weight.zero_()
        dense.bias.zero_()


def parameters(source: Path) -> int:
    return sum(p.numel() for p in load(source, read_purpose(source)).parameters())


def test_attention_that_adds_nothing_is_not_missed() -> None:
    net = network(Task.NER)
    silenced(net.base_model.encoder.layer[-1].attention.output.dense)
    before = logits(net)
    leave_out_attention(net, 1)
    torch.testing.assert_close(logits(net), before, rtol=1e-5, atol=1e-5)


def test_a_feed_forward_half_that_adds_nothing_is_not_missed() -> None:
    net = network(Task.NER)
    silenced(net.base_model.encoder.layer[0].output.dense)
    before = logits(net)
    leave_out_feed_forward(net, (0,))
    torch.testing.assert_close(logits(net), before, rtol=1e-5, atol=1e-5)


def test_the_matrices_and_their_biases_go_with_each_half(tmp_path: Path) -> None:
    source, silent, starved = finetuned(Task.NER), tmp_path / "silent", tmp_path / "starved"
    for each in (silent, starved):
        each.mkdir()
    skip(SkipAttention(last=LAYERS), source, silent, Path("unread"), "cpu")
    skip(SkipFeedForward(layers=(1,)), silent, starved, Path("unread"), "cpu")
    counts = [parameters(each) for each in (source, silent, starved)]
    assert counts[0] - counts[1] == LAYERS * 4 * (HIDDEN * HIDDEN + HIDDEN)
    assert counts[1] - counts[2] == 2 * HIDDEN * INNER + HIDDEN + INNER


def test_no_more_layers_than_there_are() -> None:
    with pytest.raises(BuildError, match=f"there are {LAYERS}"):
        leave_out_attention(network(Task.NER), LAYERS + 1)
    with pytest.raises(BuildError, match=f"of layer {LAYERS}: there are {LAYERS}"):
        leave_out_feed_forward(network(Task.NER), (0, LAYERS))

"""Layers without attention: what they were to others stays."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from build.attention import skip, skip_attention
from build.checkpoint import read_purpose
from build.errors import BuildError
from build.networks import load
from build.steps import SkipAttention
from models.spec import Task
from tests.tiny_checkpoint import HIDDEN, LAYERS, finetuned, network


def logits(net: torch.nn.Module) -> torch.Tensor:
    ids = torch.randint(5, 40, (3, 11), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        return net.eval()(ids).logits


def test_attention_that_adds_nothing_is_not_missed() -> None:
    net = network(Task.NER)
    last = net.base_model.encoder.layer[-1]
    with torch.no_grad():
        last.attention.output.dense.weight.zero_()
        last.attention.output.dense.bias.zero_()
    before = logits(net)
    skip(net, 1)
    torch.testing.assert_close(logits(net), before, rtol=1e-5, atol=1e-5)


def test_four_matrices_and_their_biases_go_with_each(tmp_path: Path) -> None:
    source = finetuned(Task.NER)
    skip_attention(SkipAttention(last=LAYERS), source, tmp_path, Path("unread"), "cpu")
    purpose = read_purpose(tmp_path)
    before, after = (
        sum(p.numel() for p in load(each, purpose).parameters()) for each in (source, tmp_path)
    )
    assert before - after == LAYERS * 4 * (HIDDEN * HIDDEN + HIDDEN)


def test_no_more_layers_than_there_are() -> None:
    with pytest.raises(BuildError, match=f"there are {LAYERS}"):
        skip(network(Task.NER), LAYERS + 1)

"""Positions that no window reaches can go; nothing else changes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from build.checkpoint import read_purpose
from build.export import export
from build.networks import load, longest_window
from build.positions import trim_positions
from build.steps import Export, TrimPositions
from models.spec import Task
from tests.company import same_alone_and_in_company
from tests.tiny_checkpoint import finetuned


@pytest.mark.parametrize("task", list(Task))
def test_answers_up_to_the_window_stay_what_they_were(tmp_path: Path, task: Task) -> None:
    source = finetuned(task)
    purpose = read_purpose(source)
    trim_positions(TrimPositions(), source, tmp_path)
    whole, short = (load(folder, purpose) for folder in (source, tmp_path))
    tokens = purpose.windows.tokens
    assert longest_window(short.config) == tokens < longest_window(whole.config)
    ids = torch.randint(4, 90, (2, tokens), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(whole(ids).logits, short(ids).logits)
    rows = (network.base_model.embeddings.position_embeddings for network in (whole, short))
    gone = next(rows).weight.numel() - next(rows).weight.numel()
    assert sum(each.numel() for each in whole.parameters()) - gone == sum(
        each.numel() for each in short.parameters()
    )
    (tmp_path / "graph").mkdir()
    export(Export(), tmp_path, tmp_path / "graph")
    assert same_alone_and_in_company(tmp_path / "graph", task)


def test_trimming_twice_changes_nothing_more(tmp_path: Path) -> None:
    source = finetuned(Task.NER)
    for name, before in (("once", source), ("twice", tmp_path / "once")):
        (tmp_path / name).mkdir()
        trim_positions(TrimPositions(), before, tmp_path / name)
    once, twice = (tmp_path / name / "model.safetensors" for name in ("once", "twice"))
    assert once.read_bytes() == twice.read_bytes()

"""Calibration changes how sure answers are and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from build.calibrate import SUREST, calibrate, cool, dev_texts, least, log_loss
from build.checkpoint import read_purpose
from build.data import DataError
from build.networks import load
from build.steps import Calibrate
from models.spec import Task
from tests.tiny_checkpoint import network, write_for_corpus
from tests.tiny_corpus import write_corpus


@pytest.mark.parametrize("task", list(Task))
def test_answers_stay_and_scores_come_nearer_to_how_often_they_are_right(
    tmp_path: Path, task: Task
) -> None:
    corpus = write_corpus(tmp_path / "corpus", sentences=12)
    source, target = write_for_corpus(tmp_path / "source", task), tmp_path / "target"
    target.mkdir()
    calibrate(Calibrate(texts=12), source, target, corpus)
    purpose = read_purpose(target)
    assert purpose == read_purpose(source)
    ids = torch.randint(5, 40, (3, 11), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        before, after = (load(each, purpose)(ids).logits for each in (source, target))
    # Where a logit is near zero its quotient is rounding alone.
    factor = before.abs().max() / after.abs().max()
    torch.testing.assert_close(after * factor, before, rtol=1e-4, atol=1e-4)
    # Random weights are far surer than right.
    assert factor > 1.5
    changed = [
        name
        for name, weight in load_file(source / "model.safetensors").items()
        if not torch.equal(weight, load_file(target / "model.safetensors")[name])
    ]
    assert all("classifier" in name for name in changed) and len(changed) == 2


def test_who_finds_nothing_stays_as_it_is(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", sentences=12)
    source, target = write_for_corpus(tmp_path / "source", Task.NER), tmp_path / "target"
    target.mkdir()
    weights = load_file(source / "model.safetensors")
    weights["classifier.bias"][0] += 1_000  # of O
    save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
    calibrate(Calibrate(texts=12), source, target, corpus)
    assert torch.equal(
        load_file(target / "model.safetensors")["classifier.bias"], weights["classifier.bias"]
    )


@pytest.mark.parametrize("task", list(Task))
def test_logits_are_divided(task: Task) -> None:
    net = network(task)
    ids = torch.tensor([[0, 5, 6, 2]])
    with torch.inference_mode():
        before = net(ids).logits
        cool(net, 2.0)
        torch.testing.assert_close(net(ids).logits, before / 2)


def test_the_loss_is_of_scores_that_were_right_or_wrong() -> None:
    wanted = -(np.log(0.8) + np.log(0.4)) / 2
    assert log_loss([(0.8, True), (0.6, False)]) == pytest.approx(wanted)
    assert log_loss([(1.0, False)]) == pytest.approx(-np.log(SUREST))


def test_the_least_is_found() -> None:
    assert least(lambda x: (np.log(x) - 1) ** 2, 0.25, 16) == pytest.approx(np.e, rel=0.02)
    assert least(lambda x: x, 0.25, 16) == pytest.approx(0.25, rel=0.02)


def test_dev_texts_are_shared_out_and_must_be_there(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", sentences=12)
    purpose = read_purpose(write_for_corpus(tmp_path / "source", Task.NER))
    texts = dev_texts(purpose, corpus, 8, seed=1)
    assert [text.language for text in texts] == ["hau"] * 4 + ["swa"] * 4
    assert texts == dev_texts(purpose, corpus, 8, seed=1)
    assert [text.language for text in dev_texts(purpose, corpus, 1, seed=1)] == ["hau", "swa"]
    (corpus / "ner" / "swa" / "dev.txt").unlink()
    with pytest.raises(DataError):
        dev_texts(purpose, corpus, 8, seed=1)

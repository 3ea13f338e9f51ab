"""Structured pruning: a smaller network, without what mattered least."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from build.checkpoint import read_purpose
from build.errors import BuildError
from build.factorize import replace
from build.healing import heal, training_text
from build.losses import IGNORED
from build.networks import load, save
from build.steps import Factorize, PruneStructure
from build.structure import GROUP, Importance, chosen, keep, prune_structure, widths
from build.sublayers import leave_out_attention, leave_out_feed_forward
from models.spec import Task
from tests.tiny_checkpoint import HIDDEN, LAYERS, network, write_for_corpus
from tests.tiny_corpus import write_corpus

HEADS, COLUMNS = 4, 64


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def logits(net: torch.nn.Module) -> torch.Tensor:
    ids = torch.randint(5, 40, (3, 11), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        return net.eval()(ids).logits


def scored(seed: int = 1) -> list[Importance]:
    chance = torch.Generator().manual_seed(seed)
    return [
        Importance(torch.rand(HEADS, generator=chance), torch.rand(COLUMNS, generator=chance))
        for _ in range(LAYERS)
    ]


def test_nothing_taken_out_changes_nothing() -> None:
    net = network(Task.NER)
    before = logits(net)
    keep(net, scored(), 0.0, 0.0, HIDDEN // HEADS)
    assert torch.equal(logits(net), before)


def test_heads_and_columns_that_do_nothing_can_go() -> None:
    net = network(Task.NER)
    found = []
    size = HIDDEN // HEADS
    with torch.no_grad():
        for layer in net.base_model.encoder.layer:
            layer.attention.output.dense.weight[:, :size] = 0
            layer.output.dense.weight[:, :GROUP] = 0
            heads, columns = torch.ones(HEADS), torch.ones(COLUMNS)
            heads[0], columns[:GROUP] = 0, 0
            found.append(Importance(heads, columns))
    before = logits(net)
    keep(net, found, 1 / HEADS, GROUP / COLUMNS, size)
    torch.testing.assert_close(logits(net), before, rtol=1e-5, atol=1e-5)
    for layer in net.base_model.encoder.layer:
        assert layer.attention.self.query.out_features == HIDDEN - size
        assert layer.intermediate.dense.out_features == COLUMNS - GROUP


def test_parameters_fall_by_what_was_taken_out() -> None:
    net = network(Task.NER)
    before = sum(p.numel() for p in net.parameters())
    keep(net, scored(), 0.5, 0.5, HIDDEN // HEADS)
    size = HIDDEN // HEADS
    gone = 0
    for layer in net.base_model.encoder.layer:
        heads = HEADS - layer.attention.self.query.out_features // size
        columns = COLUMNS - layer.intermediate.dense.out_features
        gone += heads * (4 * size * HIDDEN + 3 * size) + columns * (2 * HIDDEN + 1)
    assert sum(p.numel() for p in net.parameters()) == before - gone


def test_layers_are_compared_and_none_loses_everything() -> None:
    one, other = torch.tensor([1.0, 1, 1, 1]), torch.tensor([9.0, 1, 1, 1])
    kept = chosen([one, other], 0.4, group=1)
    assert [each.tolist() for each in kept] == [[0, 1, 2, 3], [0]]
    assert all(len(each) >= 1 for each in chosen([one, other], 0.99, group=1))


def test_columns_are_left_in_whole_groups() -> None:
    scores = [torch.rand(64), torch.rand(64)]
    assert all(len(each) % GROUP == 0 for each in chosen(scores, 0.37, group=GROUP))


def test_halves_that_are_skipped_have_nothing_to_take_out(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", sentences=12)
    source, target = write_for_corpus(tmp_path / "source", Task.NER), tmp_path / "target"
    target.mkdir()
    purpose = read_purpose(source)
    net = load(source, purpose)
    leave_out_attention(net, 1)
    leave_out_feed_forward(net, (0,))
    net.save_pretrained(source)
    prune_structure(PruneStructure(heads=0.5, columns=0.5), source, target, corpus, "cpu")
    layers = load(target, purpose).base_model.encoder.layer
    assert [widths(each, HIDDEN // HEADS) for each in layers] == [
        (HEADS // 2, 0),
        (0, COLUMNS // 2),
    ]


def test_the_least_important_are_found_and_the_rest_heals(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", sentences=12)
    source, target = write_for_corpus(tmp_path / "source", Task.NER), tmp_path / "target"
    target.mkdir()
    purpose = read_purpose(source)
    net = load(source, purpose)
    size = HIDDEN // HEADS
    with torch.no_grad():  # the second head of the first layer does nothing
        net.base_model.encoder.layer[0].attention.output.dense.weight[:, size : 2 * size] = 0
    net.save_pretrained(source)
    step = PruneStructure(heads=1 / (HEADS * LAYERS), texts=20, epochs=1)
    prune_structure(step, source, target, corpus, "cpu")
    first, second = load(target, purpose).base_model.encoder.layer
    assert first.attention.self.query.out_features == HIDDEN - size
    assert second.attention.self.query.out_features == HIDDEN


def test_a_cut_network_is_taught_on_text_without_gold_too(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", sentences=12)
    source = write_for_corpus(tmp_path / "source", Task.NER)
    purpose = read_purpose(source)
    step = PruneStructure(heads=0.5, epochs=1, transfer=30, batch_tokens=64)
    for texts, silent, in_all in ((None, 30, 2 * 12 + 30), (20, 0, 20)):  # importance needs gold
        batch, batches = training_text(step, purpose, source, corpus, texts=texts)
        labels = [row for number in range(batches) for row in batch(number)["labels"]]
        without = sum(bool((row == IGNORED).all()) for row in labels)
        assert (without, len(labels)) == (silent, in_all)


def test_dropout_is_for_the_healing_alone(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", sentences=4)
    source, target = write_for_corpus(tmp_path / "source", Task.NER), tmp_path / "target"
    target.mkdir()
    purpose = read_purpose(source)
    net = load(source, purpose)
    for dropout in (0.0, 0.5):
        step = PruneStructure(heads=0.5, epochs=1, dropout=dropout)
        heal(step, net, source, target, corpus, "cpu")
        assert {each.p for each in net.modules() if isinstance(each, nn.Dropout)} == {dropout}
    save(net, source, target)
    assert load(target, purpose).config.hidden_dropout_prob == net.config.hidden_dropout_prob == 0.1


def test_factors_have_no_heads(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", sentences=12)
    source = write_for_corpus(tmp_path / "source", Task.NER)
    net = load(source, read_purpose(source))
    replace(Factorize(bond=4), net)
    net.save_pretrained(source)
    with pytest.raises(BuildError, match="before layers are factorized"):
        prune_structure(PruneStructure(heads=0.5), source, tmp_path, corpus, "cpu")

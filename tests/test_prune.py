"""Unstructured pruning: exactly so many zeros, the smallest ones, for good."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import XLMRobertaForMaskedLM

from build import training
from build.checkpoint import Checkpoint, read_purpose
from build.errors import BuildError
from build.export import export
from build.finetune import finetune
from build.networks import load, load_encoder
from build.prune import ALL_PRUNED, Gradual, cubic, masks, prunable, prune
from build.publish import Title, publish
from build.steps import Export, Finetune, Prune
from models.spec import Licence, Task
from tests.tiny_checkpoint import finetuned, network, write_for_corpus
from tests.tiny_corpus import write_corpus


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def zeros(net: object, *, embeddings: bool = False) -> tuple[int, int]:
    weights = prunable(net, embeddings=embeddings)
    return sum(int((w == 0).sum()) for w in weights), sum(w.numel() for w in weights)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=40), st.floats(0.01, 0.99))
def test_the_share_of_zeros_is_exact_and_they_are_the_smallest(
    numbers: list[int], sparsity: float
) -> None:
    weight = torch.tensor([numbers], dtype=torch.float32)
    (kept,) = masks([weight], sparsity, by_layer=False)
    assert int((~kept).sum()) == round(sparsity * len(numbers))
    gone, left = weight[~kept].abs(), weight[kept].abs()
    assert not len(gone) or not len(left) or gone.max() <= left.min()


def test_matrices_are_pruned_together_or_each_by_itself() -> None:
    small, large = torch.arange(1.0, 11)[None], torch.arange(101.0, 111)[None]
    together = masks([small, large], 0.5, by_layer=False)
    assert [int(each.sum()) for each in together] == [0, 10]
    apart = masks([small, large], 0.5, by_layer=True)
    assert [int(each.sum()) for each in apart] == [5, 5]


@pytest.mark.parametrize("embeddings", [False, True])
def test_a_pruned_checkpoint_has_its_zeros_and_the_manifest_counts_them(
    tmp_path: Path, embeddings: bool
) -> None:
    step = Prune(sparsity=0.6, embeddings=embeddings)
    pruned, graph = tmp_path / "pruned", tmp_path / "graph"
    pruned.mkdir(), graph.mkdir()
    prune(step, finetuned(Task.NER), pruned, Path("unread"), "cpu")
    net = load(pruned, read_purpose(pruned))
    gone, of = zeros(net, embeddings=embeddings)
    assert gone == round(0.6 * of)
    export(Export(), pruned, graph)
    title = Title(
        name="pruned", description="A toy", licence=Licence(name="none", sources=()), command="none"
    )
    variant, _ = publish(Checkpoint(graph, ("toy",)), tmp_path / "zoo", title, golden=False)
    assert variant.sparsity == pytest.approx(gone / variant.parameters, rel=0.01)


@pytest.mark.parametrize("masked", [False, True])
def test_what_is_pruned_before_fine_tuning_stays_pruned_after(tmp_path: Path, masked: bool) -> None:
    corpus = write_corpus(tmp_path / "corpus", sentences=12)
    encoder, pruned, tuned = (tmp_path / name for name in ("encoder", "pruned", "tuned"))
    for folder in (pruned, tuned):
        folder.mkdir()
    write_for_corpus(encoder, Task.NER)
    bare = network(Task.NER).roberta
    # As it comes from `CountEmbeddings` and `Pretrain`, and from AfriBERTa's authors.
    made = XLMRobertaForMaskedLM(bare.config) if masked else bare
    made.save_pretrained(encoder)
    (encoder / "task.json").unlink()
    prune(Prune(sparsity=0.5), encoder, pruned, corpus, "cpu")
    (pruned / "tokenizer.json").write_bytes((encoder / "tokenizer.json").read_bytes())
    step = Finetune(task=Task.NER, languages=("hau", "swa"), epochs=2, window=64, overlap=8)
    finetune(step, pruned, tuned, corpus, "cpu")
    before, after = load_encoder(pruned), load(tuned, read_purpose(tuned))
    gone, of = zeros(after)
    assert gone == round(0.5 * of)
    one, other = (prunable(each, embeddings=False) for each in (before, after))
    assert all(torch.equal(a == 0, b == 0) for a, b in zip(one, other, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_gradual_pruning_heals_and_ends_with_all_its_zeros(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", sentences=12)
    source, target = write_for_corpus(tmp_path / "source", Task.NER), tmp_path / "target"
    target.mkdir()
    step = Prune(sparsity=0.7, epochs=3, batch_tokens=128)
    prune(step, source, target, corpus, "cpu")
    before, after = (load(each, read_purpose(each)) for each in (source, target))
    gone, of = zeros(after)
    assert gone == round(0.7 * of)
    pairs = zip(prunable(before, embeddings=False), prunable(after, embeddings=False), strict=True)
    assert any(not torch.equal(a[b != 0], b[b != 0]) for a, b in pairs)


def test_zeros_grow_fast_at_first_and_are_all_there_before_the_end() -> None:
    weight = torch.nn.Parameter(torch.randn(40, 50))
    after = Gradual(Prune(sparsity=0.8, epochs=1), [weight], 100)
    seen = []
    for number in range(100):
        after(number)
        seen.append((weight == 0).float().mean().item())
    assert seen == sorted(seen) and seen[-1] == pytest.approx(0.8)
    assert seen[int(100 * ALL_PRUNED)] == pytest.approx(0.8)
    assert cubic(0.25) == pytest.approx(0.578, abs=1e-3) and cubic(0.5) == 0.875


@pytest.mark.parametrize("killed", [30, 41, 90])
def test_a_killed_pruning_ends_as_if_it_had_not_been(
    killed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SAVE_EVERY_S", 0.0)

    def run(resume: Path, batch: Callable[[int], training.Batch]) -> torch.Tensor:
        torch.manual_seed(0)
        net = torch.nn.Linear(30, 30)
        training.fit(
            net,
            batch,
            lambda net, given: ((net(given["x"]).float() - given["x"].flip(1)) ** 2).mean(),
            steps=100,
            peak=0.02,
            warmup=0.1,
            device="cpu",
            resume=resume,
            title="toy",
            prune=Gradual(Prune(sparsity=0.8, epochs=1), [net.weight], 100),
        )
        return net.weight.detach()

    def batch(number: int) -> training.Batch:
        chance = torch.Generator().manual_seed(number)
        return {"x": torch.randn(8, 30, generator=chance), "attention_mask": torch.ones(8, 1)}

    def failing(number: int) -> training.Batch:
        if number == killed:
            raise KeyboardInterrupt
        return batch(number)

    whole = run(tmp_path / "whole.pt", batch)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "resume.pt", failing)
    assert torch.equal(run(tmp_path / "resume.pt", batch), whole)


def test_gradual_pruning_keeps_what_was_pruned_before(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", sentences=12)
    source = write_for_corpus(tmp_path / "source", Task.NER)
    once, twice = tmp_path / "once", tmp_path / "twice"
    once.mkdir(), twice.mkdir()
    prune(Prune(sparsity=0.5, embeddings=True, by_layer=True), source, once, corpus, "cpu")
    prune(Prune(sparsity=0.3, epochs=1, batch_tokens=128), once, twice, corpus, "cpu")
    before, after = (load(each, read_purpose(each)) for each in (once, twice))
    pairs = zip(prunable(before, embeddings=True), prunable(after, embeddings=True), strict=True)
    rows = [(b[a == 0], a) for a, b in pairs if not (a == 0).all(dim=-1).any()]
    assert rows and all((revived == 0).all() for revived, _ in rows)


def test_a_row_of_a_piece_never_met_may_still_learn() -> None:
    table = torch.nn.Embedding(3, 2)
    with torch.no_grad():
        table.weight.copy_(torch.tensor([[0.0, 0.0], [0.0, 2.0], [1.0, 3.0]]))
    keep = training.zeros_kept(table)
    with torch.no_grad():
        table.weight.add_(1)
    keep()
    assert table.weight.tolist() == [[1, 1], [0, 3], [2, 4]]


def test_an_encoder_without_a_head_has_no_gold_to_heal_by(tmp_path: Path) -> None:
    network(Task.NER).roberta.save_pretrained(tmp_path)
    step = Prune(sparsity=0.5)
    with pytest.raises(BuildError, match="pruned with epochs=0"):
        prune(msgspec.structs.replace(step, epochs=1), tmp_path, tmp_path, tmp_path, "cpu")

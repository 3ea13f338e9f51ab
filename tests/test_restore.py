"""An exported graph back to torch, and a recipe that begins at a published variant."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from build.checkpoint import Checkpoint, read_purpose
from build.errors import BuildError
from build.export import HALVES, export, round_to_half
from build.networks import AUTO, save
from build.publish import Title, publish
from build.restore import restore
from build.run import Kitchen, cook
from build.steps import Export, Restore, Step
from models.spec import Licence, Task
from tests.tiny_checkpoint import exported, finetuned, network, quantized

TITLE = Title(
    name="ner-base", description="A toy", licence=Licence(name="none", sources=()), command="none"
)


@pytest.mark.parametrize("weights", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("task", list(Task))
def test_what_was_exported_comes_back_weight_by_weight(
    tmp_path: Path, task: Task, weights: str
) -> None:
    restore(Restore(), exported(task, weights), tmp_path)
    found = AUTO[task].from_pretrained(tmp_path)
    wanted = network(task)
    if weights != "float32":
        round_to_half(wanted, HALVES[weights])
    mine, theirs = found.state_dict(), wanted.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert found.config.num_attention_heads == wanted.config.num_attention_heads
    assert found.config.layer_norm_eps == pytest.approx(wanted.config.layer_norm_eps)
    assert found.config.id2label == wanted.config.id2label
    assert read_purpose(tmp_path) == read_purpose(finetuned(task))


def test_norms_that_are_equal_come_back_each_by_itself(tmp_path: Path) -> None:
    """As in a network that has just begun: exporting keeps one tensor of those that are equal."""
    net, source, graph, target = network(Task.NER), *(tmp_path / name for name in "abc")
    for folder in (source, graph, target):
        folder.mkdir()
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if "LayerNorm" in name:
                weight.fill_(1.0 if "weight" in name else 0.0)
    save(net, finetuned(Task.NER), source)
    export(Export(), source, graph)
    restore(Restore(), graph, target)
    found = AUTO[Task.NER].from_pretrained(target).state_dict()
    assert all(torch.equal(found[name], weight) for name, weight in net.state_dict().items())


def test_biases_that_are_equal_are_one_line(tmp_path: Path) -> None:
    """They become one tensor, as norms do, but name the matrices that they are added to."""
    net, source, graph, target = network(Task.NER), *(tmp_path / name for name in "abc")
    for folder in (source, graph, target):
        folder.mkdir()
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if name.endswith("output.dense.bias"):
                weight.fill_(0.5)
    save(net, finetuned(Task.NER), source)
    export(Export(), source, graph)
    with pytest.raises(BuildError, match=r"are not told apart by their biases"):
        restore(Restore(), graph, target)


def test_a_quantized_graph_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="does not hold a plain network"):
        restore(Restore(), quantized(Task.NER), tmp_path)


def test_what_the_catalog_has_is_not_made_again(tmp_path: Path) -> None:
    steps: tuple[Step, ...] = (Export(),)
    lineage = tuple(map(str, steps))
    publish(Checkpoint(exported(Task.NER), lineage), tmp_path / "catalog", TITLE, golden=False)
    kitchen = Kitchen(tmp_path / "no corpus", "cpu", tmp_path / "cache", tmp_path / "catalog")
    start = Checkpoint(kitchen.cache / "start", ())
    done = cook(start, [*steps, Restore()], kitchen)
    assert done.lineage == (*lineage, str(Restore()))
    assert read_purpose(done.folder) == read_purpose(finetuned(Task.NER))
    made = sorted(path.name.partition("-")[0] for path in kitchen.cache.iterdir())
    assert made == ["export", "restore"]


def test_a_variant_of_another_history_does_not_serve(tmp_path: Path) -> None:
    publish(Checkpoint(exported(Task.NER), ("other",)), tmp_path / "catalog", TITLE, golden=False)
    kitchen = Kitchen(tmp_path / "no corpus", "cpu", tmp_path / "cache", tmp_path / "catalog")
    start = Checkpoint(kitchen.cache / "start", ())
    with pytest.raises(OSError):
        cook(start, [Export(), Restore()], kitchen)

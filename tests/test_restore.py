"""An exported graph back to torch, and a recipe that begins at a published variant."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from build.checkpoint import Checkpoint, read_purpose
from build.errors import BuildError
from build.export import round_to_half
from build.networks import AUTO
from build.publish import Title, publish
from build.restore import restore
from build.run import Kitchen, cook
from build.steps import Export, Restore, Step
from models.spec import Licence, Task
from tests.tiny_checkpoint import exported, finetuned, network, quantized

TITLE = Title(
    name="ner-base", description="A toy", licence=Licence(name="none", sources=()), command="none"
)


@pytest.mark.parametrize("weights", ["float16", "float32"])
@pytest.mark.parametrize("task", list(Task))
def test_what_was_exported_comes_back_weight_by_weight(
    tmp_path: Path, task: Task, weights: str
) -> None:
    restore(Restore(), exported(task, weights), tmp_path)
    found = AUTO[task].from_pretrained(tmp_path)
    wanted = network(task)
    if weights == "float16":
        round_to_half(wanted)
    mine, theirs = found.state_dict(), wanted.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert found.config.num_attention_heads == wanted.config.num_attention_heads
    assert found.config.layer_norm_eps == pytest.approx(wanted.config.layer_norm_eps)
    assert found.config.id2label == wanted.config.id2label
    assert read_purpose(tmp_path) == read_purpose(finetuned(task))


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

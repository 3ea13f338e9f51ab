"""Steps that contradict each other are refused before any work."""

from __future__ import annotations

from pathlib import Path

import pytest

from build.chain import PLACES, check
from build.checkpoint import Checkpoint
from build.errors import BuildError
from build.recipes import RECIPES
from build.run import Kitchen, apply, cook
from build.steps import (
    CountEmbeddings,
    Distill,
    Export,
    Factorize,
    Finetune,
    Pack,
    Prune,
    PruneStructure,
    Quantize,
    Restore,
    RunWith,
    SkipAttention,
    Step,
    TrainTokenizer,
)
from models.spec import Task

TUNED = (
    TrainTokenizer(),
    CountEmbeddings(layers=4),
    Finetune(task=Task.NER, languages=("hau",), epochs=1),
)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_possible(name: str) -> None:
    check(RECIPES[name])


@pytest.mark.parametrize(
    ("steps", "line"),
    [
        ((Export(), Prune(sparsity=0.5)), "Prune cannot follow Export, which leaves an exported"),
        ((Quantize(), Quantize()), "Quantize cannot follow Quantize, which leaves a quantized"),
        ((Quantize(), Restore()), "Restore cannot follow Quantize"),
        ((TrainTokenizer(), Export()), "it takes a fine-tuned network"),
        ((*TUNED, Pack()), "Pack cannot follow Finetune, which leaves a fine-tuned network"),
        ((Pack(), Pack()), "Pack cannot follow Pack, which leaves a packed graph"),
        ((Export(), Pack(), Quantize()), "Quantize cannot follow Pack, which leaves a packed"),
        ((*TUNED, RunWith()), "RunWith cannot follow Finetune, which leaves a fine-tuned network"),
        ((RunWith(), Quantize()), "which leaves a graph for another runtime: it takes an exported"),
        ((Pack(), RunWith()), "RunWith cannot follow Pack, which leaves a packed graph"),
        ((Pack(), Restore()), "Restore cannot follow Pack"),
        ((Export(), Pack(level=0)), "Pack: Expected `int` >= 1 - at `$.level`"),
        ((Export(), Pack(level=23)), "Pack: Expected `int` <= 22 - at `$.level`"),
        ((Prune(sparsity=1.1),), "Prune: Expected `float` < 1.0 - at `$.sparsity`"),
        ((Prune(sparsity=0.5, epochs=-1),), "Prune: Expected `int` >= 0 - at `$.epochs`"),
        ((PruneStructure(),), "give a share of heads, of columns, or both"),
        ((PruneStructure(heads=1.0),), "Expected `float` < 1.0 - at `$.heads`"),
        ((Factorize(bond=0),), "Factorize: Expected `int` >= 1 - at `$.bond`"),
        ((Factorize(),), "give a bond, a rank of the embedding, or both"),
        ((Factorize(bond=2, method="pca"),), "Factorize: Invalid enum value 'pca'"),
        ((*TUNED, Factorize(bond=2, layers=(4,))), "Factorize names layer 4: the network before"),
        ((*TUNED, SkipAttention(last=5)), "SkipAttention names layer 4"),
        ((*TUNED, Distill(layers=(1, 3), epochs=1), SkipAttention(last=3)), "has 2, 0 to 1"),
    ],
)
def test_contradictions_are_said_in_one_line(steps: tuple[Step, ...], line: str) -> None:
    with pytest.raises(BuildError) as caught:
        check(steps)
    assert line in str(caught.value) and "\n" not in str(caught.value)


def test_a_graph_for_another_runtime_can_be_packed() -> None:
    check((*TUNED, Export(weights="bfloat16"), RunWith(), Pack()))


def test_nothing_is_made_of_steps_that_contradict(tmp_path: Path) -> None:
    kitchen = Kitchen(tmp_path / "corpus", "cpu", tmp_path / "cache")
    with pytest.raises(BuildError):
        cook(Checkpoint(tmp_path / "start", ()), (*TUNED, Export(), Prune(sparsity=0.5)), kitchen)
    assert not kitchen.cache.exists()


def test_every_step_has_its_place_and_somebody_who_does_it() -> None:
    for kind in PLACES:
        assert apply.dispatch(kind) is not apply.dispatch(Step)

"""Steps that contradict each other are refused before any work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from build.chain import PLACES, check
from build.checkpoint import Checkpoint
from build.errors import BuildError
from build.form import Form
from build.recipes import RECIPES
from build.run import Kitchen, apply, cook
from build.steps import (
    Calibrate,
    CountEmbeddings,
    Distill,
    Export,
    Factorize,
    Finetune,
    NarrowWindows,
    Pack,
    Pretrain,
    Prune,
    PruneStructure,
    Quantize,
    QuantizeBlocks,
    QuantizeStatic,
    Restore,
    RunWith,
    SkipAttention,
    SkipFeedForward,
    Step,
    TrainTokenizer,
    TrimPositions,
    TrimVocabulary,
)
from models.spec import Task

# Four layers of 256, four heads and 1024 columns.
ENCODER = (TrainTokenizer(), CountEmbeddings(layers=4))
TUNED = (*ENCODER, Finetune(task=Task.NER, languages=("hau", "swa"), epochs=1))
GIVEN = Form(layers=2, width=32, heads=4, inner=64, positions=128)


def tuned(**changes: object) -> Finetune:
    return Finetune(**{"task": Task.NER, "languages": ("hau",), "epochs": 1, **changes})  # type: ignore[arg-type]


def student(*layers: int, **changes: object) -> Distill:
    return Distill(layers=layers, epochs=1, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_possible(name: str) -> None:
    check(RECIPES[name])


@pytest.mark.parametrize(
    ("steps", "line"),
    [
        ((Export(), Prune(sparsity=0.5)), "Prune cannot follow Export, which leaves an exported"),
        ((Quantize(), Quantize()), "Quantize cannot follow Quantize, which leaves a graph that"),
        ((Quantize(), Restore()), "Restore cannot follow Quantize"),
        ((TrainTokenizer(), Export()), "it takes a fine-tuned network"),
        ((*TUNED, Pack()), "Pack cannot follow Finetune, which leaves a fine-tuned network"),
        ((Pack(), Pack()), "Pack cannot follow Pack, which leaves a packed graph"),
        ((Export(), Pack(), Quantize()), "Quantize cannot follow Pack, which leaves a packed"),
        ((*TUNED, RunWith()), "RunWith cannot follow Finetune, which leaves a fine-tuned network"),
        ((RunWith(), Quantize()), "which leaves a graph for another runtime: it takes an exported"),
        (
            (*TUNED, Export(), Quantize(), RunWith()),
            "RunWith cannot follow Quantize, which leaves a graph that onnxruntime alone reads",
        ),
        ((Pack(), RunWith()), "RunWith cannot follow Pack, which leaves a packed graph"),
        ((Pack(), Restore()), "Restore cannot follow Pack"),
        (
            (*TUNED, NarrowWindows(tokens=256)),
            "NarrowWindows: windows of 256 are no narrower than 256: give fewer tokens",
        ),
        (
            (*TUNED, NarrowWindows(tokens=4, overlap=1)),
            "NarrowWindows: tokens must be a whole number, at least 8, not 4",
        ),
        (
            (*TUNED, NarrowWindows(tokens=64, overlap=32)),
            "NarrowWindows: an overlap of 32 is half of 64 tokens or more: give less",
        ),
    ],
)
def test_contradictions_are_said_in_one_line(steps: tuple[Step, ...], line: str) -> None:
    with pytest.raises(BuildError) as caught:
        check(steps)
    assert line in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("step", "line"),
    [
        (Pack(level=0), "Pack: level must be a whole number, at least 1 and at most 22, not 0"),
        (Pack(level=23), "at least 1 and at most 22, not 23"),
        (Prune(sparsity=1.1), "Prune: sparsity must be a number, above 0 and below 1, not 1.1"),
        (Prune(sparsity=0.5, epochs=-1), "epochs must be a whole number, at least 0, not -1"),
        (Prune(sparsity=0.5, by_layer="yes"), "by_layer must be True or False, not 'yes'"),
        (PruneStructure(heads=1.0), "heads must be a number, at least 0 and below 1, not 1.0"),
        (PruneStructure(), "give a share of heads, of columns, or both"),
        (PruneStructure(heads=0.5, transfer=0), "transfer must be a whole number, at least 1"),
        (
            PruneStructure(heads=0.5, transfer=9),
            "PruneStructure: text without gold is read in epochs: give epochs",
        ),
        (Factorize(bond=0), "Factorize: bond must be a whole number, at least 1, not 0"),
        (Factorize(bond=2, method="pca"), "method must be mpo or svd, not 'pca'"),
        (Factorize(bond=2, parts=("attention.queryy",)), "not ('attention.queryy',)"),
        (
            Factorize(bond=2, parts=("pooler",)),
            "parts must be a tuple of one or more, each attention.output",
        ),
        (Factorize(bond=2, layers=()), "one or more, each a whole number, at least 0, not ()"),
        (Factorize(), "give a bond, a rank of the embedding, or both"),
        (student(), "layers must be a tuple of one or more"),
        (
            student(-1),
            "layers must be a tuple of one or more, each a whole number, at least 0, not (-1,)",
        ),
        (student(3, 1), "layers (3, 1) do not rise: say (1, 3)"),
        (student(1, 1), "layers (1, 1) do not rise: say (1,)"),
        (student(1, transfer=-1), "transfer must be a whole number, at least 0, not -1"),
        (student(1, hidden=-1), "hidden must be a number, at least 0, not -1"),
        (student(1, attention=-0.5), "attention must be a number, at least 0, not -0.5"),
        (TrimVocabulary(pieces=-1), "pieces must be a whole number, at least 0, not -1"),
        (Export(weights="int8"), "weights must be bfloat16, float16 or float32, not 'int8'"),
        (Quantize(bits=4), "Quantize: bits must be 8, not 4"),
        (QuantizeBlocks(bits=3), "QuantizeBlocks: bits must be 4 or 8, not 3"),
        (QuantizeBlocks(block=48), "block must be 32, 64 or 128, not 48"),
        (
            QuantizeStatic(exclude=("foo",)),
            "exclude must be a tuple of none or more, each attention, bias",
        ),
        (QuantizeStatic(texts=0), "texts must be a whole number, at least 1, not 0"),
        (CountEmbeddings(hidden=100, heads=7), "a width of 100 is not a multiple of 7 heads"),
        (Pretrain(tokens=9, window=2), "window must be a whole number, at least 3, not 2"),
        (tuned(languages=["hau"]), "a tuple of one or more, each a text, not ['hau']"),
        (student(0, peak=float("nan")), "peak must be a number, above 0, not nan"),
        (tuned(languages=()), "languages must be a tuple of one or more, each a text, not ()"),
        (tuned(task="tagging"), "task must be ner or classification, not 'tagging'"),
        (tuned(window=32), "overlap of 64 leaves no step in windows of 32: 29 at most"),
        (tuned(window=32, overlap=30), "leaves no step"),
        (tuned(window=7, overlap=0), "window must be a whole number, at least 8, not 7"),
    ],
)
def test_values_that_cannot_be_are_said_as_a_person_would(step: Step, line: str) -> None:
    with pytest.raises(BuildError) as caught:
        check((step,))
    said = str(caught.value)
    assert line in said and said.startswith(f"{type(step).__name__}: ")
    assert "\n" not in said and "`" not in said and "$" not in said


def test_values_at_their_bounds_can_be() -> None:
    check((*ENCODER, tuned(window=8, overlap=5)))
    check((*TUNED, student(1, hidden=0, attention=1, transfer=0, width=256, heads=4)))


@pytest.mark.parametrize(
    ("steps", "line"),
    [
        ((Factorize(bond=2, layers=(4,)),), "there is no layer 4: the network before it has 0 to"),
        ((SkipAttention(last=5),), "the network before it has 4 layers, not 5"),
        ((student(1, 3), SkipAttention(last=3)), "has 2 layers, not 3"),
        ((student(1, 3), student(2)), "there is no layer 2: the network before it has 0 to 1"),
        ((student(1, width=100, heads=7),), "a width of 100 is not a multiple of 7 heads"),
        ((student(1, width=102),), "a width of 102 is not a multiple of 4 heads"),
        ((student(1, width=512),), "no wider than its teacher's 256: not 512"),
        ((student(1, attention=1.0, heads=2),), "attention maps need the teacher's 4 heads, not 2"),
        ((SkipAttention(last=1), student(1, 3, attention=1.0)), "layer 3 has no attention"),
        (
            (SkipAttention(last=1), student(3, attention=1.0, fresh=True)),
            "layer 3 has no attention",
        ),
        ((Factorize(embedding=9), student(1, width=64, heads=2)), "before the embedding is"),
        ((Factorize(embedding=9), student(1, fresh=True)), "before the embedding is factorized"),
        ((Factorize(embedding=9), student(1, inner=64)), "before the embedding is factorized"),
        ((PruneStructure(heads=0.5), student(1, heads=2)), "keeps its teacher's 4"),
        ((PruneStructure(heads=0.5), student(1, attention=1.0, fresh=True)), "maps of a fresh"),
        ((Factorize(bond=2), PruneStructure(heads=0.5)), "before layers are factorized"),
        ((SkipAttention(last=4), PruneStructure(heads=0.5)), "before the last attention is"),
        (
            (
                SkipFeedForward(layers=(0, 1)),
                SkipFeedForward(layers=(2, 3)),
                PruneStructure(columns=0.5),
            ),
            "before the last feed-forward half is skipped",
        ),
        ((SkipFeedForward(layers=(4,)),), "there is no layer 4: the network before it has 0 to 3"),
        ((student(1, 3), SkipFeedForward(layers=(2,))), "has 0 to 1"),
        ((SkipFeedForward(layers=(1,)), Export(), Restore()), "only a plain network comes back"),
        ((Factorize(bond=2), Factorize(bond=2)), "of layer 0 is factorized already"),
        ((Factorize(bond=2), Factorize(bond=2, layers=(3,))), "of layer 3 is factorized already"),
        ((Factorize(bond=2, layers=(3,)), student(1, 3), Factorize(bond=2)), "of layer 1 is"),
        ((Factorize(embedding=2), Factorize(embedding=2)), "embedding is factorized already"),
        ((Factorize(bond=2), Export(), Restore()), "only a plain network comes back"),
        ((Factorize(embedding=2), Export(), Restore()), "only a plain network comes back"),
        ((SkipAttention(last=1), Export(), Restore()), "only a plain network comes back"),
        ((PruneStructure(heads=0.5), Export(), Restore()), "only a plain network comes back"),
        ((PruneStructure(columns=0.5), Export(), Restore()), "only a plain network comes back"),
        ((TrimVocabulary(languages=("yor",)),), "is not for yor: keep some of hau+swa"),
        (
            (TrimVocabulary(languages=("swa",)), TrimVocabulary(languages=("hau",))),
            "is not for hau: keep some of swa",
        ),
    ],
)
def test_what_cannot_be_done_to_a_network_is_said(steps: tuple[Step, ...], line: str) -> None:
    with pytest.raises(BuildError) as caught:
        check((*TUNED, *steps))
    said = str(caught.value)
    assert line in said and "\n" not in said
    assert said.startswith(f"{type(steps[-1]).__name__}: ")


@pytest.mark.parametrize(
    "steps",
    [
        (SkipAttention(last=1), student(0, 2, attention=1.0)),
        (SkipAttention(last=1), student(0, 2, attention=1.0, fresh=True)),
        (SkipAttention(last=1), student(1, 3)),
        (SkipAttention(last=1), student(0, 3, fresh=True), student(1, attention=1.0)),
        (SkipAttention(last=2), SkipAttention(last=1), student(1, 2), SkipAttention(last=2)),
        (SkipAttention(last=3), PruneStructure(heads=0.5)),
        (SkipAttention(last=4), PruneStructure(columns=0.5)),
        (SkipFeedForward(layers=(0, 1, 2)), PruneStructure(columns=0.5)),
        (SkipFeedForward(layers=(0, 1, 2, 3)), PruneStructure(heads=0.5)),
        (SkipFeedForward(layers=(1,)), student(0, 2), SkipFeedForward(layers=(0,)), Export()),
        (SkipFeedForward(layers=(1,)), student(0, 2), Export(), Restore()),
        (
            Factorize(bond=2, layers=(0,), parts=("output.dense",)),
            SkipFeedForward(layers=(0,)),
            PruneStructure(heads=0.5),
        ),
        (PruneStructure(heads=0.5), student(1, attention=1.0)),
        (PruneStructure(heads=0.5), student(1, heads=8)),
        (PruneStructure(columns=0.5), student(1, heads=2)),
        (PruneStructure(columns=0.5), student(1, attention=1.0, fresh=True)),
        (PruneStructure(heads=0.5), PruneStructure(columns=0.5), Factorize(bond=2)),
        (student(1), PruneStructure(columns=0.5), Export(), Restore(), Export(), Restore()),
        (Factorize(bond=2, layers=(0,)), Factorize(bond=2, layers=(1, 2, 3))),
        (Factorize(bond=2, layers=(0,)), student(1, 3), Factorize(bond=2)),
        (Factorize(bond=2), student(1, 3, width=64, heads=2), Factorize(bond=2)),
        (Factorize(bond=2), Factorize(embedding=2), student(1, 3)),
        (Factorize(embedding=2), PruneStructure(heads=0.5)),
        (
            Factorize(bond=2, layers=(3,), parts=("attention.self.key",)),
            SkipAttention(last=1),
            PruneStructure(columns=0.5),
        ),
        (student(1, width=64, heads=2, inner=32), TrimPositions(), Export(), Restore()),
        (Prune(sparsity=0.5, epochs=1), TrimVocabulary(), Export(), Restore(), student(1)),
        (TrimVocabulary(languages=("swa",)), TrimVocabulary(), Calibrate()),
    ],
)
def test_what_is_supported_is_left_alone(steps: tuple[Step, ...]) -> None:
    """Each was cooked once, as a toy."""
    check((*TUNED, *steps))


@pytest.mark.parametrize(
    ("steps", "line"),
    [
        ((Prune(sparsity=0.5, epochs=1),), "Prune: an encoder without a head has no gold to heal"),
        ((student(1, transfer=0),), "Distill: an encoder is distilled on text without gold"),
        ((TrimVocabulary(),), "TrimVocabulary: an encoder is for no task yet: name the languages"),
        ((Pretrain(tokens=9, window=513),), "pass what the encoder reads at once: 512 at most"),
        ((tuned(window=513),), "windows of 513 tokens pass what the encoder reads at once: 512"),
    ],
)
def test_an_encoder_is_for_no_task_yet(steps: tuple[Step, ...], line: str) -> None:
    with pytest.raises(BuildError) as caught:
        check((*ENCODER, *steps))
    assert line in str(caught.value)
    trims = [TrimVocabulary(languages=(each,)) for each in ("yor", "hau")]
    check((*ENCODER, Prune(sparsity=0.5), *trims, tuned(window=512)))


def test_a_given_encoder_is_where_the_steps_begin() -> None:
    check((tuned(window=128), student(1)), GIVEN)
    for steps, line in (
        ((tuned(),), "windows of 256 tokens pass what the encoder reads at once: 128 at most"),
        ((tuned(window=128), student(2)), "there is no layer 2: the network before it has 0 to 1"),
        ((Export(),), "Export cannot follow the start, which leaves an encoder"),
    ):
        with pytest.raises(BuildError) as caught:
            check(steps, GIVEN)
        assert line in str(caught.value)


def test_a_graph_for_another_runtime_can_be_packed() -> None:
    check((*TUNED, Export(weights="bfloat16"), RunWith(), Pack()))


def test_what_onnxruntime_alone_reads_is_not_for_another_runtime() -> None:
    check((*TUNED, Export(), QuantizeBlocks(embedding=False), RunWith()))
    with pytest.raises(BuildError, match="onnxruntime alone reads"):
        check((*TUNED, Export(), QuantizeBlocks(), RunWith()))


def test_nothing_is_made_of_steps_that_contradict(tmp_path: Path) -> None:
    kitchen = Kitchen(tmp_path / "corpus", "cpu", tmp_path / "cache")
    with pytest.raises(BuildError):
        cook(Checkpoint(tmp_path / "start", ()), (*TUNED, Export(), Prune(sparsity=0.5)), kitchen)
    assert not kitchen.cache.exists()


def test_every_step_has_its_place_and_somebody_who_does_it() -> None:
    kinds = {kind for kind in steps_of(Step) if kind.__module__ == Step.__module__}
    assert kinds == PLACES.keys()
    for kind in kinds:
        assert apply.dispatch(kind) is not apply.dispatch(Step)


def steps_of(kind: type[Step]) -> Iterator[type[Step]]:
    """Those that a recipe can have: what others only share its fields with is none."""
    if kinds := kind.__subclasses__():
        for each in kinds:
            yield from steps_of(each)
    else:
        yield kind

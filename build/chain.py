"""
Whether steps can follow each other, said before any work: what each takes and leaves, its numbers.

Knows nothing of files or of how a step is done.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

import msgspec

from build.errors import BuildError
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
    Step,
    TrainTokenizer,
    TrimPositions,
    TrimVocabulary,
)


class Stage(StrEnum):
    """What a checkpoint is."""

    NOTHING = "nothing"
    TOKENIZER = "a tokenizer"
    ENCODER = "an encoder"
    TRAINED = "a fine-tuned network"
    GRAPH = "an exported graph"
    QUANTIZED = "a quantized graph"
    ASSIGNED = "a graph for another runtime"
    PACKED = "a packed graph"


class Place(NamedTuple):
    """`leaves` None: what came in."""

    takes: tuple[Stage, ...]
    leaves: Stage | None = None


PLACES: dict[type[Step], Place] = {
    TrainTokenizer: Place((Stage.NOTHING,), Stage.TOKENIZER),
    CountEmbeddings: Place((Stage.TOKENIZER,), Stage.ENCODER),
    Pretrain: Place((Stage.ENCODER,)),
    Finetune: Place((Stage.ENCODER,), Stage.TRAINED),
    Distill: Place((Stage.ENCODER, Stage.TRAINED)),
    Prune: Place((Stage.ENCODER, Stage.TRAINED)),
    TrimVocabulary: Place((Stage.ENCODER, Stage.TRAINED)),
    PruneStructure: Place((Stage.TRAINED,)),
    Factorize: Place((Stage.TRAINED,)),
    SkipAttention: Place((Stage.TRAINED,)),
    TrimPositions: Place((Stage.TRAINED,)),
    NarrowWindows: Place(
        (Stage.TRAINED, Stage.GRAPH, Stage.QUANTIZED, Stage.ASSIGNED, Stage.PACKED)
    ),
    Calibrate: Place((Stage.TRAINED,)),
    Export: Place((Stage.TRAINED,), Stage.GRAPH),
    Restore: Place((Stage.GRAPH,), Stage.TRAINED),
    Quantize: Place((Stage.GRAPH,), Stage.QUANTIZED),
    QuantizeBlocks: Place((Stage.GRAPH,), Stage.QUANTIZED),
    QuantizeStatic: Place((Stage.GRAPH,), Stage.QUANTIZED),
    RunWith: Place((Stage.GRAPH, Stage.QUANTIZED), Stage.ASSIGNED),
    Pack: Place((Stage.GRAPH, Stage.QUANTIZED, Stage.ASSIGNED), Stage.PACKED),
}


def check(steps: Iterable[Step]) -> None:
    """
    Refuse steps that contradict each other, wherever the first begins.

    Raises BuildError naming the step, what came before it, and what it takes.
    """
    stages, depth = set(Stage), None
    before = "the start"
    for step in steps:
        name = type(step).__name__
        _check_numbers(step)
        if place := PLACES.get(type(step)):
            if not stages & set(place.takes):
                raise BuildError(
                    f"{name} cannot follow {before}, which leaves {' or '.join(sorted(stages))}: "
                    f"it takes {' or '.join(place.takes)}"
                )
            stages = {place.leaves} if place.leaves else stages & set(place.takes)
        depth = _depth(step, depth)
        before = name


def _check_numbers(step: Step) -> None:
    """Structs check their bounds only when they are read."""
    try:
        msgspec.convert(msgspec.structs.asdict(step), type(step))
    except msgspec.ValidationError as error:
        raise BuildError(f"{type(step).__name__}: {error}") from error
    if isinstance(step, Factorize) and step.bond is None and step.embedding is None:
        raise BuildError("Factorize: give a bond, a rank of the embedding, or both")
    if isinstance(step, PruneStructure) and not (step.heads or step.columns):
        raise BuildError("PruneStructure: give a share of heads, of columns, or both")


def _depth(step: Step, depth: int | None) -> int | None:
    """How many layers there are after the step, where the steps say so. Raises BuildError."""
    if isinstance(step, CountEmbeddings):
        return step.layers
    named: tuple[int, ...] = ()
    if isinstance(step, Distill):
        named = step.layers
    elif isinstance(step, Factorize):
        named = step.layers or ()
    elif isinstance(step, SkipAttention):
        named = (step.last - 1,)
    if depth is not None and (wrong := [each for each in named if not 0 <= each < depth]):
        raise BuildError(
            f"{type(step).__name__} names layer {wrong[0]}: the network before it has {depth}, "
            f"0 to {depth - 1}"
        )
    return len(step.layers) if isinstance(step, Distill) else depth

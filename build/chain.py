"""
Whether steps can follow each other, said before any work: what each takes and leaves.

Knows nothing of files or of how a step is done; of a step's values by themselves build/bounds.py
does, of a network's form build/form.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import NamedTuple

from build import bounds, form
from build.errors import BuildError
from build.form import Form
from build.steps import (
    Calibrate,
    CountEmbeddings,
    Distill,
    Export,
    Factorize,
    Finetune,
    Healing,
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


class Stage(StrEnum):
    """What a checkpoint is."""

    NOTHING = "nothing"
    TOKENIZER = "a tokenizer"
    ENCODER = "an encoder"
    TRAINED = "a fine-tuned network"
    GRAPH = "an exported graph"
    QUANTIZED = "a quantized graph"
    OWN = "a graph that onnxruntime alone reads"
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
    SkipFeedForward: Place((Stage.TRAINED,)),
    TrimPositions: Place((Stage.TRAINED,)),
    NarrowWindows: Place(
        (Stage.TRAINED, Stage.GRAPH, Stage.QUANTIZED, Stage.OWN, Stage.ASSIGNED, Stage.PACKED)
    ),
    Calibrate: Place((Stage.TRAINED,)),
    Export: Place((Stage.TRAINED,), Stage.GRAPH),
    Restore: Place((Stage.GRAPH,), Stage.TRAINED),
    Quantize: Place((Stage.GRAPH,), Stage.OWN),
    QuantizeBlocks: Place((Stage.GRAPH,), Stage.QUANTIZED),
    QuantizeStatic: Place((Stage.GRAPH,), Stage.QUANTIZED),
    RunWith: Place((Stage.GRAPH, Stage.QUANTIZED), Stage.ASSIGNED),
    Pack: Place((Stage.GRAPH, Stage.QUANTIZED, Stage.OWN, Stage.ASSIGNED), Stage.PACKED),
}


class _Known(NamedTuple):
    """
    What the steps so far say of what they leave.

    stages     it is one of these
    form       of its network, where that is known
    languages  that its network was trained for; none: nobody has said
    window     tokens of its windows, likewise
    """

    stages: frozenset[Stage]
    form: Form | None = None
    languages: tuple[str, ...] = ()
    window: int | None = None


def check(steps: Iterable[Step], start: Form | None = None) -> None:
    """
    Refuse steps that contradict each other or that cannot be done, wherever the first begins.

    start  the encoder that they begin with, where that is known

    Raises BuildError naming the step, and what came before it or what it takes.
    """
    known = _Known(frozenset({Stage.ENCODER}) if start else frozenset(Stage), start)
    before = "the start"
    for step in steps:
        name = type(step).__name__
        bounds.check(step)
        if (place := PLACES.get(type(step))) and not known.stages & set(place.takes):
            raise BuildError(
                f"{name} cannot follow {before}, which leaves {' or '.join(sorted(known.stages))}: "
                f"it takes {' or '.join(place.takes)}"
            )
        if line := next(_wrong(step, known), None):
            raise BuildError(f"{name}: {line}")
        known = _after(step, known)
        before = name


def _after(step: Step, known: _Known) -> _Known:
    if place := PLACES.get(type(step)):
        left = frozenset({place.leaves}) if place.leaves else known.stages & set(place.takes)
        known = known._replace(stages=left)
    match step:
        case QuantizeBlocks(embedding=True):  # its look-up is onnxruntime's own
            known = known._replace(stages=frozenset({Stage.OWN}))
        case Finetune():
            known = known._replace(languages=step.languages, window=step.window)
        case NarrowWindows():
            known = known._replace(window=step.tokens)
        case TrimVocabulary(languages=(_, *_)) if known.languages:
            known = known._replace(languages=step.languages)
    return known._replace(form=form.after(step, known.form, known.window))


def _wrong(step: Step, known: _Known) -> Iterator[str]:
    """Why the step cannot be done where it stands; nothing where it can."""
    yield from _alone(step)
    if isinstance(step, NarrowWindows) and known.window and step.tokens >= known.window:
        yield f"windows of {step.tokens} are no narrower than {known.window}: give fewer tokens"
    yield from _astray(step, known)
    if known.form:
        yield from form.unfit(step, known.form)


def _alone(step: Step) -> Iterator[str]:
    """Of a step's values beside each other."""
    match step:
        case CountEmbeddings() if step.hidden % step.heads:
            yield f"a width of {step.hidden} is not a multiple of {step.heads} heads"
        case Finetune() if step.overlap > step.window - 3:
            yield (
                f"an overlap of {step.overlap} leaves no step in windows of {step.window}: "
                f"{step.window - 3} at most"
            )
        case Distill() if [*step.layers] != (rising := sorted(set(step.layers))):
            yield f"layers {step.layers} do not rise: say {tuple(rising)}"
        case Healing(epochs=0, transfer=int()):
            yield "text without gold is read in epochs: give epochs of 1 or more"
        case NarrowWindows() if 2 * step.overlap >= step.tokens:
            yield f"an overlap of {step.overlap} is half of {step.tokens} tokens or more: give less"
        case Factorize(bond=None, embedding=None):
            yield "give a bond, a rank of the embedding, or both"
        case PruneStructure(heads=0, columns=0):
            yield "give a share of heads, of columns, or both"


def _astray(step: Step, known: _Known) -> Iterator[str]:
    """Of an encoder, which is for no task yet, and of languages."""
    encoder = known.stages == {Stage.ENCODER}
    strange: list[str] = []
    if isinstance(step, TrimVocabulary) and known.languages:
        strange = sorted(set(step.languages) - set(known.languages))
    match step:
        case Prune() if encoder and step.epochs:
            yield "an encoder without a head has no gold to heal by: epochs=0, Finetune heals it"
        case Distill(transfer=0) if encoder:
            yield "an encoder is distilled on text without gold: give a transfer of 1 or more"
        case TrimVocabulary(languages=()) if encoder:
            yield "an encoder is for no task yet: name the languages it is to keep"
        case TrimVocabulary() if strange:
            yield (
                f"the network before it is not for {'+'.join(strange)}: keep some of "
                f"{'+'.join(known.languages)}"
            )

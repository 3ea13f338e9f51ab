"""
A recipe as one run does it: from an encoder of one's own, or as a toy to see it work.

Pure functions from steps to steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from build.form import Form
from build.steps import (
    CountEmbeddings,
    Distill,
    Factorize,
    Finetune,
    Healing,
    Pretrain,
    PruneStructure,
    SkipAttention,
    SkipFeedForward,
    Step,
    TrainTokenizer,
    TrimVocabulary,
)

# What a recipe leaves out when it starts from an encoder of one's own.
FROM_NOTHING = (TrainTokenizer, CountEmbeddings, Pretrain)
# Ogueji et al. 2021 fine-tune their encoders at this rate; small fresh ones bear ten times that.
BASE_PEAK = 5e-5
# Of a toy, whose teachers are no wider than this.
WIDTH, HEADS, INNER, BOND = 32, 2, 64, 8
# Texts without gold that it is taught on.
TRANSFER = 5_000


def prepared(steps: Iterable[Step], *, base: Form | None, quick: bool) -> tuple[Step, ...]:
    """The recipe's steps as this run does them: from an encoder of that form, or as a toy."""
    if base:
        fitting = scaled(steps, base.layers, base.width, base.vocabulary)
        steps = [_gently(each) for each in fitting if not isinstance(each, FROM_NOTHING)]
    return tuple(_quick(step) if quick else step for step in steps)


def scaled(
    recipe: Iterable[Step], layers: int, hidden: int, vocabulary: int | None
) -> Iterator[Step]:
    """
    A recipe's steps with the fractions of depth, rank and pieces that they leave of the encoder it
    makes, for one of other sizes.

    Distill(layers=(1, 3)) of 4 layers  ->  Distill(layers=(1, 3, 5, 7, 9)) of 10
    SkipFeedForward(layers=(0,)) of 2  ->  SkipFeedForward(layers=(0, 1, 2)) of 5
    """
    begun, pieces = None, 0
    for step in recipe:
        match step:
            case TrainTokenizer():
                pieces = step.vocabulary
            case CountEmbeddings():
                begun, depth = step, step.layers
            case Distill() if begun:
                kept, of = len(step.layers), depth
                depth = kept
                if layers != of:
                    kept = max(1, round(layers * kept / of))
                    even = tuple((place + 1) * layers // kept - 1 for place in range(kept))
                    step = msgspec.structs.replace(step, layers=even)
                layers = kept
            case Factorize(embedding=int(rank)) if begun:
                rank = max(1, round(rank * hidden / begun.hidden))
                step = msgspec.structs.replace(step, embedding=rank)
            case SkipAttention() if begun:
                last = max(1, round(step.last * layers / depth))
                step = msgspec.structs.replace(step, last=last)
            case SkipFeedForward() if begun:
                chosen = tuple(n for n in range(layers) if n * depth // layers in step.layers)
                if not chosen:
                    continue
                step = msgspec.structs.replace(step, layers=chosen)
            case TrimVocabulary() if pieces and vocabulary:
                share = step.pieces / pieces
                step = msgspec.structs.replace(step, pieces=round(share * vocabulary))
        yield step


def _gently(step: Step) -> Step:
    if isinstance(step, Finetune | Distill | Healing):
        return msgspec.structs.replace(step, peak=BASE_PEAK)
    return step


def _quick(step: Step) -> Step:
    match step:
        case TrainTokenizer():
            return msgspec.structs.replace(step, vocabulary=2_000, sentences=20_000)
        case CountEmbeddings():
            small = {"layers": 4, "hidden": 2 * WIDTH, "heads": HEADS, "inner": 2 * INNER}
            return msgspec.structs.replace(step, tokens=2_000_000, **small)
        case Pretrain():
            return msgspec.structs.replace(step, tokens=200_000)
        case Finetune():
            return msgspec.structs.replace(step, epochs=1)
        case Distill(width=None):
            return msgspec.structs.replace(step, epochs=1, transfer=TRANSFER)
        case Distill():
            small = {"width": WIDTH, "heads": HEADS, "inner": INNER}
            return msgspec.structs.replace(step, epochs=1, transfer=TRANSFER, **small)
        case Healing():
            return _briefly(step)
        case _:
            return step


def _briefly(step: Healing) -> Healing:
    transfer = min(TRANSFER, step.transfer) if step.transfer else None
    step = msgspec.structs.replace(step, epochs=min(1, step.epochs), transfer=transfer)
    match step:
        case Factorize(bond=int()):
            return msgspec.structs.replace(step, bond=BOND)
        case PruneStructure():
            return msgspec.structs.replace(step, texts=200)
        case _:
            return step

"""
A recipe as one run does it: from an encoder of one's own, or as a toy to see it work.

Pure functions from steps to steps.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from build.steps import (
    CountEmbeddings,
    Distill,
    Factorize,
    Finetune,
    Healing,
    Pretrain,
    PruneStructure,
    Step,
    TrainTokenizer,
)

# What a recipe leaves out when it starts from an encoder of one's own.
FROM_NOTHING = (TrainTokenizer, CountEmbeddings, Pretrain)
# Ogueji et al. 2021 fine-tune their encoders at this rate; small fresh ones bear ten times that.
BASE_PEAK = 5e-5
# Of a toy, whose teachers are no wider than this.
WIDTH, HEADS, INNER, BOND = 32, 2, 64, 8


def prepared(steps: Iterable[Step], *, base: bool, quick: bool) -> tuple[Step, ...]:
    """The recipe's steps as this run does them: from a given encoder, or as a toy."""
    if base:
        kept = (each for each in steps if not isinstance(each, FROM_NOTHING))
        steps = [_gently(each) for each in kept]
    return tuple(_quick(step) if quick else step for step in steps)


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
            return msgspec.structs.replace(step, epochs=1, transfer=5_000)
        case Distill():
            small = {"width": WIDTH, "heads": HEADS, "inner": INNER}
            return msgspec.structs.replace(step, epochs=1, transfer=5_000, **small)
        case Factorize(bond=int()):
            return msgspec.structs.replace(step, bond=BOND, epochs=min(1, step.epochs))
        case PruneStructure():
            return msgspec.structs.replace(step, texts=200, epochs=min(1, step.epochs))
        case Healing():
            return msgspec.structs.replace(step, epochs=min(1, step.epochs))
        case _:
            return step

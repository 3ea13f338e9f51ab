"""
Cooking is a fold: each step turns a checkpoint folder into the next, and finished work is kept.

A folder with its final name is whole. A step that was killed leaves `NAME.part`, from which the
training steps continue; a step that failed leaves nothing unless it can be continued.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import singledispatch
from itertools import accumulate
from pathlib import Path

from build import chain
from build.checkpoint import LINEAGE, Checkpoint
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


@dataclass(frozen=True, slots=True)
class Kitchen:
    """
    Where steps find what they need.

    catalog  of published variants, from which `Restore` may take what came before it
    """

    corpus: Path
    device: str
    cache: Path
    catalog: Path | None = None


def cook(start: Checkpoint, steps: Iterable[Step], kitchen: Kitchen) -> Checkpoint:
    """
    Apply the steps in turn, from the last one whose work is at hand.

    Raises BuildError before any work where they contradict each other.
    """
    steps = tuple(steps)
    chain.check(steps)
    stages = list(accumulate(steps, Checkpoint.after, initial=start))
    done = len(steps)
    while done and not _is_at_hand(stages[done], steps[done:], kitchen):
        done -= 1
    for source, step in zip(stages[done:], steps[done:], strict=False):
        _once(source, step, kitchen)
    return stages[-1]


def _is_at_hand(stage: Checkpoint, coming: Sequence[Step], kitchen: Kitchen) -> bool:
    if stage.folder.exists():
        return True
    if not (kitchen.catalog and coming and isinstance(coming[0], Restore)):
        return False
    from build.restore import fetch

    return fetch(stage, kitchen.catalog)


def _once(source: Checkpoint, step: Step, kitchen: Kitchen) -> None:
    target = source.after(step)
    draft = target.folder.with_suffix(".part")
    draft.mkdir(parents=True, exist_ok=True)
    try:
        apply(step, source.folder, draft, kitchen)
    except BaseException:
        if not (draft / "resume.pt").exists():
            shutil.rmtree(draft, ignore_errors=True)
        raise
    for left in draft.glob("resume.*"):  # a kill may leave half a save
        left.unlink()
    (draft / LINEAGE).write_text("\n".join(target.lineage) + "\n")
    draft.rename(target.folder)


# Torch, transformers and onnx are imported by the step that needs them: `--list` needs none.


@singledispatch
def apply(step: Step, source: Path, target: Path, kitchen: Kitchen) -> None:
    """Read `source`, fill `target`, change nothing else."""
    raise NotImplementedError(f"nothing is registered for {type(step).__name__}")


@apply.register
def _(step: TrainTokenizer, source: Path, target: Path, kitchen: Kitchen) -> None:
    from build import stream, tokenizer

    sentences = stream.sentences(kitchen.corpus)
    lines = list(tokenizer.balanced(sentences, step.sentences, seed=step.seed))
    tokenizer.save(tokenizer.train(lines, step.vocabulary), target)


@apply.register
def _(step: CountEmbeddings, source: Path, target: Path, kitchen: Kitchen) -> None:
    from build.cooccurrence import count_embeddings

    count_embeddings(step, source, target, kitchen.corpus)


@apply.register
def _(step: Pretrain, source: Path, target: Path, kitchen: Kitchen) -> None:
    from build.pretrain import pretrain

    pretrain(step, source, target, kitchen.corpus, kitchen.device)


@apply.register
def _(step: Finetune, source: Path, target: Path, kitchen: Kitchen) -> None:
    from build.finetune import finetune

    finetune(step, source, target, kitchen.corpus, kitchen.device)


@apply.register
def _(step: Distill, source: Path, target: Path, kitchen: Kitchen) -> None:
    from build.distill import distill

    distill(step, source, target, kitchen.corpus, kitchen.device)


@apply.register
def _(step: Prune, source: Path, target: Path, kitchen: Kitchen) -> None:
    from build.prune import prune

    prune(step, source, target, kitchen.corpus, kitchen.device)


@apply.register
def _(step: PruneStructure, source: Path, target: Path, kitchen: Kitchen) -> None:
    from build.structure import prune_structure

    prune_structure(step, source, target, kitchen.corpus, kitchen.device)


@apply.register
def _(step: Factorize, source: Path, target: Path, kitchen: Kitchen) -> None:
    from build.factorize import factorize

    factorize(step, source, target, kitchen.corpus, kitchen.device)


@apply.register
def _(step: SkipAttention | SkipFeedForward, source: Path, target: Path, kitchen: Kitchen) -> None:
    from build.sublayers import skip

    skip(step, source, target, kitchen.corpus, kitchen.device)


@apply.register
def _(step: TrimVocabulary, source: Path, target: Path, kitchen: Kitchen) -> None:
    from build.vocabulary import trim_vocabulary

    trim_vocabulary(step, source, target, kitchen.corpus)


@apply.register
def _(step: TrimPositions, source: Path, target: Path, kitchen: Kitchen) -> None:
    from build.positions import trim_positions

    trim_positions(step, source, target)


@apply.register
def _(step: NarrowWindows, source: Path, target: Path, kitchen: Kitchen) -> None:
    from build.windows import narrow_windows

    narrow_windows(step, source, target)


@apply.register
def _(step: Calibrate, source: Path, target: Path, kitchen: Kitchen) -> None:
    from build.calibrate import calibrate

    calibrate(step, source, target, kitchen.corpus)


@apply.register
def _(step: Export, source: Path, target: Path, kitchen: Kitchen) -> None:
    from build.export import export

    export(step, source, target)


@apply.register
def _(step: Restore, source: Path, target: Path, kitchen: Kitchen) -> None:
    from build.restore import restore

    restore(step, source, target)


@apply.register
def _(step: Quantize, source: Path, target: Path, kitchen: Kitchen) -> None:
    from build.quantize import quantize

    quantize(step, source, target)


@apply.register
def _(step: QuantizeBlocks, source: Path, target: Path, kitchen: Kitchen) -> None:
    from build.quantize_blocks import quantize_blocks

    quantize_blocks(step, source, target)


@apply.register
def _(step: QuantizeStatic, source: Path, target: Path, kitchen: Kitchen) -> None:
    from build.quantize_static import quantize_static

    quantize_static(step, source, target, kitchen.corpus)


@apply.register
def _(step: RunWith, source: Path, target: Path, kitchen: Kitchen) -> None:
    from build.run_with import run_with

    run_with(step, source, target)


@apply.register
def _(step: Pack, source: Path, target: Path, kitchen: Kitchen) -> None:
    from build.pack import pack

    pack(step, source, target)

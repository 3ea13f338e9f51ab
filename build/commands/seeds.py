"""Recipes trained again with other seeds: how much of a score is luck."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from build.checkpoint import Checkpoint
from build.commands.common import (
    ZOO,
    add_folders,
    check,
    device,
    keep_to_one_corpus,
    known,
    numbers,
    publish,
    quiet_libraries,
)
from build.errors import BuildError
from build.recipes import RECIPES
from build.run import Kitchen, cook
from build.steps import Distill, Finetune, Healing, Step, TrimVocabulary
from models.spec import Input


def seeds(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m build seeds",
        description="Train a recipe again with other seeds and write each macro F1 into the "
        "manifest: how much of a score is luck. Tokenizer and encoder are shared, the recipe's own "
        "seed is the published variant's, and seeds the manifest has are not trained again.",
    )
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seeds", type=numbers, default=(1, 2, 3), help="1,2,3 by default")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    add_folders(parser, catalog=ZOO, what="whose manifests are written")
    args = parser.parse_args(words)
    kitchen = Kitchen(args.data, device(args.device), args.cache, args.catalog)
    for name in args.names:
        known(name, RECIPES, "recipe")
    check([(RECIPES[name], ()) for name in args.names], args.data)
    published = {name: _published_seed(args.catalog, name) for name in args.names}
    keep_to_one_corpus(kitchen)
    quiet_libraries()
    for name, found in published.items():
        for seed in args.seeds:
            if seed not in found:
                found[seed] = _with_seed(name, seed, args.catalog, kitchen)
            _write_seeds(args.catalog, name, found)
        told = ", ".join(f"{seed}: {f1:.3f}" for seed, f1 in sorted(found.items()))
        apart = max(found.values()) - min(found.values())
        print(f"{name}: macro F1 by seed {told}; {apart:.3f} between best and worst")
    return 0


def _published_seed(root: Path, name: str) -> dict[int, float]:
    """The seeds the manifest knows, the recipe's own among them. Raises BuildError."""
    from build.publish import read

    variant = read(root, name)
    steps = RECIPES[name]
    if variant.evidence is None or not variant.evidence.quality:
        raise BuildError(f"{name} has no evidence yet: evaluate it first")
    if variant.lineage != tuple(map(str, steps)):
        raise BuildError(f"{name} in {root} is not of today's recipe: build it again first")
    own = next(step.seed for step in steps if isinstance(step, Finetune))
    published = variant.evidence.quality["f1"][Input.RAW].macro.mean
    return variant.evidence.seeds | {own: published}


def _with_seed(name: str, seed: int, root: Path, kitchen: Kitchen) -> float:
    """Macro F1 (raw) of the recipe with another seed, its variant kept in the cache alone."""
    from build.checkpoint import filled, read_purpose
    from build.evaluate import evaluate
    from build.publish import trained_here
    from models import stored
    from models.pipeline import TOKENIZER

    steps = reseeded(RECIPES[name], seed)
    start = Checkpoint(kitchen.cache / "start", ())
    # Training a tokenizer twice gives two, and with them other encoders: the published one serves.
    with filled(start.after(steps[0]).folder) as draft:
        if draft and any(isinstance(step, TrimVocabulary) for step in steps):
            raise BuildError(
                f"{name} has a part of its tokenizer alone, and {kitchen.cache} does not hold the "
                "whole one: give the --cache it was built with"
            )
        if draft:
            (draft / TOKENIZER).write_bytes(stored.read(root / name / TOKENIZER))
    checkpoint = cook(start, steps, kitchen)
    title = trained_here(name, read_purpose(checkpoint.folder), base=None, parent=None)
    trial = kitchen.cache / f"seed-{seed}"
    publish(checkpoint, trial, title)
    found = evaluate(trial, [name], kitchen.corpus)
    return found[name].quality["f1"][Input.RAW].macro.mean


def reseeded(steps: Iterable[Step], seed: int) -> tuple[Step, ...]:
    """The same steps, supervised training begun from another seed."""
    return tuple(
        msgspec.structs.replace(step, seed=seed)
        if isinstance(step, Finetune | Distill | Healing)
        else step
        for step in steps
    )


def _write_seeds(root: Path, name: str, found: Mapping[int, float]) -> None:
    from build.publish import read, write

    variant = read(root, name)
    assert variant.evidence is not None  # or nothing was trained
    evidence = msgspec.structs.replace(variant.evidence, seeds=dict(found))
    write(root / name, msgspec.structs.replace(variant, evidence=evidence))

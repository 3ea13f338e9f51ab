"""Checkpoints of others, real shapes, and variants for other software."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from build.checkpoint import Checkpoint
from build.commands.common import (
    CACHE,
    STORE,
    ZOO,
    add_folders,
    known,
    names,
    new_name,
    publish,
    quiet_libraries,
)
from build.errors import BuildError
from build.recipes import RECIPES
from build.run import Kitchen, cook
from build.steps import Export, Quantize, Step
from models.spec import Task

if TYPE_CHECKING:
    from build.publish import Title

UNNAMED = ("und",)
SHAPES = ("afriberta-small", "afriberta-base", "afriberta-large")


def import_(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m build import",
        description="Serve your own fine-tuned XLM-RoBERTa-type checkpoint: no data needed.",
    )
    parser.add_argument("source", metavar="FOLDER|ID", help="a checkpoint folder or a hub id")
    parser.add_argument("--task", type=Task, required=True, choices=list(Task), metavar="TASK")
    parser.add_argument(
        "--name", type=new_name, required=True, help="becomes NAME-base and NAME-int8"
    )
    parser.add_argument("--labels", type=names, default=(), help="in the order of the outputs")
    parser.add_argument("--languages", type=names, default=UNNAMED, help="ISO 639-3: hau,yor")
    parser.add_argument("--multi-label", action="store_true", help="labels do not exclude others")
    parser.add_argument("--licence", default="not stated: ask who trained it")
    add_folders(parser, catalog=STORE)
    args = parser.parse_args(words)
    if args.multi_label and args.task is Task.NER:
        raise BuildError("--multi-label is for topics: a piece of text is one entity's or none")
    quiet_libraries()
    from build.importing import Wishes, adopt_finetuned, find, stored_at_half
    from build.publish import Title
    from models.spec import Licence

    origin = find(args.source)
    wishes = Wishes(
        task=args.task,
        labels=args.labels,
        languages=args.languages,
        multi_label=args.multi_label,
    )
    checkpoint = adopt_finetuned(origin, wishes, args.cache)
    title = Title(
        name=args.name,
        description=f"Imported from {origin.name}; not trained here.",
        licence=Licence(name=args.licence, sources=(origin.name,)),
        command=_import_command(origin.name, args),
    )
    export = Export(weights="float16" if stored_at_half(origin) else "float32")
    _pair(checkpoint, export, args, title)
    return 0


def _import_command(source: str, args: argparse.Namespace) -> str:
    """What makes the same again, wherever it is made."""
    said = f"python -m build import {source} --task {args.task} --name {args.name}"
    if args.labels:
        said += f" --labels {shlex.quote(','.join(args.labels))}"
    if args.languages != UNNAMED:
        said += f" --languages {','.join(args.languages)}"
    return said + (" --multi-label" if args.multi_label else "")


def shape(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m build shape",
        description="AfriBERTa's real shapes with random weights, to measure speed and size.",
    )
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--task", type=Task, default=Task.NER, choices=list(Task), metavar="TASK")
    parser.add_argument("--out", type=Path, dest="catalog", required=True, metavar="FOLDER")
    parser.add_argument(
        "--name", type=new_name, help="becomes NAME-base and NAME-int8; the shape's by default"
    )
    parser.add_argument("--like", metavar="RECIPE", help="and NAME-RECIPE, compressed as it is")
    parser.add_argument("--tokenizer", type=Path, help="a tokenizer.json; by default the zoo's")
    parser.add_argument("--cache", type=Path, default=CACHE)
    args = parser.parse_args(words)
    if args.like:
        known(args.like, RECIPES, "recipe")
    quiet_libraries()
    from build.publish import Title
    from build.shapes import DESCRIPTION, LICENCE, compressed, random_checkpoint

    tokenizer = args.tokenizer or next(iter(sorted(ZOO.glob("*/tokenizer.json"))), None)
    if tokenizer is None or not tokenizer.is_file():
        raise BuildError(f"no tokenizer {tokenizer or f'in {ZOO}'}: give --tokenizer FILE")
    checkpoint = random_checkpoint(args.shape, args.task, tokenizer, args.cache)
    title = Title(
        name=args.name or args.shape,
        description=DESCRIPTION,
        licence=LICENCE,
        command=f"python -m build shape {args.shape} --task {args.task} --out FOLDER",
    )
    _pair(checkpoint, Export(), args, title, golden=False)
    if args.like:
        recipe = RECIPES[args.like]
        last = max(place for place, step in enumerate(recipe) if isinstance(step, Export))
        made = cook(
            compressed(checkpoint, recipe), recipe[last:], Kitchen(Path(), "cpu", args.cache)
        )
        small = replace(title, name=f"{title.name}-{args.like}", parent=f"{title.name}-base")
        publish(made, args.catalog, small, golden=False)
    return 0


def _pair(
    checkpoint: Checkpoint,
    export: Step,
    args: argparse.Namespace,
    title: Title,
    *,
    golden: bool = True,
) -> None:
    """NAME-base and NAME-int8 of one checkpoint; nothing is published unless both can be made."""
    kitchen = Kitchen(Path(), "cpu", args.cache)
    base = cook(checkpoint, [export], kitchen)
    int8 = cook(base, [Quantize()], kitchen)
    first = replace(title, name=f"{title.name}-base")
    second = replace(title, name=f"{title.name}-int8", parent=first.name)
    publish(base, args.catalog, first, golden=golden)
    publish(int8, args.catalog, second, golden=golden)
    if golden:
        from build.evaluate import agreement

        same, texts = agreement(args.catalog, second.name, first.name)
        print(f"{second.name} answers {same} of {texts} of the project's texts as {first.name}")
    print(f"serve them with KADOGO_CATALOG={args.catalog} make serve")


def files(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m build files",
        description="Variants as the files other software reads: model.onnx, tokenizer.json, "
        "labels.json, each in a folder of its own.",
    )
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    told = "also the Hugging Face folder it was exported from: a baseline's"
    parser.add_argument("--network", action="store_true", help=told)
    parser.add_argument("--catalog", type=Path, default=ZOO)
    args = parser.parse_args(words)
    quiet_libraries()
    from build.plain_files import write_plain_files

    for name in args.names:
        write_plain_files(args.catalog / name, args.out / name, network=args.network)
    return 0

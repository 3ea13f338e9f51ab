"""
`python -m build`: cook recipes, import checkpoints, judge variants. One clear line when it fails.

Torch, transformers and onnx are imported by the command that needs them.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from build import chain, needs, provenance
from build.checkpoint import Checkpoint
from build.data import DataError
from build.errors import BuildError
from build.form import Form
from build.prepare import prepared
from build.recipes import BASELINES, RECIPES
from build.run import Kitchen, cook
from build.steps import (
    Distill,
    Export,
    Finetune,
    Healing,
    Quantize,
    Step,
)
from models.errors import KadogoError
from models.spec import Evidence, Input, Task, Variant

if TYPE_CHECKING:
    from build.importing import Origin
    from build.publish import Title

CACHE = Path(".cache/build")
ZOO = Path("models/zoo")
# Variants that are not the project's own stay out of git.
STORE = Path("models/store")
DOCS = Path("docs")
STOPPED = 130
FAILED = 2
SHAPES = ("afriberta-small", "afriberta-base", "afriberta-large")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0, or 2 after one line on stderr."""
    words = list(sys.argv[1:] if argv is None else argv)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    command = COMMANDS.get(words[0]) if words else None
    try:
        return command(words[1:]) if command else _recipe(words)
    except KeyboardInterrupt:
        print("\nstopped: the same command continues where it was", file=sys.stderr)
        return STOPPED
    except Exception as error:
        line = _foreseen(error)
        if line is None:
            raise
        print(f"build: {line}", file=sys.stderr)
        return FAILED


def _foreseen(error: Exception) -> str | None:
    """One line for the person who asked, or None where the fault is ours."""
    match error:
        case _ if _is_full_disk(error):
            return "the disk is full: make room and run the same command again"
        case BuildError() | DataError() | KadogoError():
            return str(error)
        case ModuleNotFoundError(name=str(name)) if not _is_ours(name):
            return f"{name} is missing: pip install -r requirements/build.txt"
        case OSError():
            return f"{error.strerror or error}: {error.filename or 'a file'}"
    return None


def _is_full_disk(error: BaseException | None) -> bool:
    """The libraries in Rust and C++ say it in words, or behind an error of their own."""
    if error is None:
        return False
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return True
    if f"os error {errno.ENOSPC}" in str(error):
        return True
    return _is_full_disk(error.__cause__ or error.__context__)


def _is_ours(module: str) -> bool:
    top = module.partition(".")[0]
    return top in {"build", "models"} or top in sys.stdlib_module_names


# --- recipes ----------------------------------------------------------------------------------


def _recipe(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m build",
        description="Make a variant: train, compress, publish, evaluate.",
        epilog=f"other commands: {', '.join(COMMANDS)}; each has --help",
    )
    parser.add_argument("recipe", nargs="?", help="one that --list shows")
    parser.add_argument("--list", action="store_true", help="show the recipes and their steps")
    parser.add_argument("--data", type=Path, metavar="DIR", help="laid out as docs/data.md says")
    parser.add_argument("--base", metavar="ID|FOLDER", help="fine-tune this encoder instead")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--quick", action="store_true", help="a toy in minutes, to see it work")
    parser.add_argument("--split-name", default="test", help="what the evidence calls the split")
    _add_folders(parser, catalog=None)
    args = parser.parse_args(words)
    if args.list:
        _list()
        return 0
    if args.recipe is None:
        parser.print_usage(sys.stderr)
        raise BuildError("give a recipe, or --list to see them")
    _known(args.recipe, RECIPES, "recipe")
    if args.data is None:
        raise BuildError(f"give --data DIR: {args.recipe} trains on corpora (docs/data.md)")
    catalog = args.catalog or _default_catalog(args)
    order = _Order(
        base=args.base,
        quick=args.quick,
        kitchen=Kitchen(args.data, _device(args.device), args.cache, catalog),
        catalog=catalog,
        split_name=args.split_name,
    )
    _make(args.recipe, order)
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """What was asked for beside the recipe."""

    base: str | None
    quick: bool
    kitchen: Kitchen
    catalog: Path
    split_name: str


def _list() -> None:
    for name, steps in RECIPES.items():
        print(name)
        for step in steps:
            print(f"    {step}")


def _default_catalog(args: argparse.Namespace) -> Path:
    if args.quick:
        return CACHE / "quick"
    return STORE if args.base else ZOO


def _make(name: str, order: _Order) -> None:
    baseline = BASELINES[needs.of(RECIPES[name]).task]
    parent = None if baseline == name else baseline
    first = parent if parent and not (order.catalog / parent).is_dir() else None
    names = [first, name] if first else [name]
    origin, form = _given(order.base)
    recipes = {each: prepared(RECIPES[each], base=form, quick=order.quick) for each in names}
    check([(steps, ()) for steps in recipes.values()], order.kitchen.corpus, form)
    keep_to_one_corpus(order.kitchen)
    _quiet_libraries()
    if first:
        print(f"{name} is compared with {first}, which comes first")
    start = _start(origin, order.kitchen)
    for each, steps in recipes.items():
        _cook(each, steps, start, parent if each == name else None, order)


def _given(base: str | None) -> tuple[Origin | None, Form | None]:
    """The encoder that was asked for instead of a fresh one, and its form."""
    if base is None:
        return None, None
    from build.importing import find, form

    origin = find(base)
    return origin, form(origin)


def _start(origin: Origin | None, kitchen: Kitchen) -> Checkpoint:
    if origin is None:
        return Checkpoint(kitchen.cache / "start", ())
    from build.importing import adopt_encoder

    return adopt_encoder(origin, kitchen.cache)


def _cook(
    name: str, steps: Sequence[Step], start: Checkpoint, parent: str | None, order: _Order
) -> None:
    from build.checkpoint import read_purpose
    from build.evaluate import evaluate
    from build.publish import trained_here

    checkpoint = cook(start, steps, order.kitchen)
    base = None if order.base is None else checkpoint.lineage[0]
    purpose = read_purpose(checkpoint.folder)
    _publish(checkpoint, order.catalog, trained_here(name, purpose, base=base, parent=parent))
    found = evaluate(order.catalog, [name], order.kitchen.corpus, called=order.split_name)
    _show(found)


def check(
    recipes: Sequence[tuple[Sequence[Step], tuple[str, ...]]],
    corpus: Path,
    start: Form | None = None,
) -> None:
    """
    All that can be said before any work of recipes, each with the languages it is scored in (none:
    its own), and of the encoder they start from, where one is given. Raises BuildError, DataError.
    """
    for steps, _ in recipes:
        chain.check(steps, start)
    needs.check([needs.of(steps, scored) for steps, scored in recipes], corpus)


def keep_to_one_corpus(kitchen: Kitchen) -> None:
    """Refuse a cache whose checkpoints were made from other data: their names would not tell."""
    note = kitchen.cache / "data.txt"
    mine = provenance.fingerprint(kitchen.corpus)
    kitchen.cache.mkdir(parents=True, exist_ok=True)
    if not note.exists():
        note.write_text(f"{mine}\n")
    elif (known := note.read_text().strip()) != mine:
        raise BuildError(
            f"{kitchen.cache} holds work on other data ({known}, now {mine}): "
            "give another --cache, or remove it"
        )


# --- checkpoints of others --------------------------------------------------------------------


def _import(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m build import",
        description="Serve your own fine-tuned XLM-RoBERTa-type checkpoint: no data needed.",
    )
    parser.add_argument("source", metavar="FOLDER|ID", help="a checkpoint folder or a hub id")
    parser.add_argument("--task", type=Task, required=True, choices=list(Task), metavar="TASK")
    parser.add_argument("--name", required=True, help="becomes NAME-base and NAME-int8")
    parser.add_argument("--labels", type=_names, default=(), help="in the order of the outputs")
    parser.add_argument("--languages", type=_names, default=("und",), help="ISO 639-3: hau,yor")
    parser.add_argument("--multi-label", action="store_true", help="labels do not exclude others")
    parser.add_argument("--licence", default="not stated: ask who trained it")
    _add_folders(parser, catalog=STORE)
    args = parser.parse_args(words)
    _quiet_libraries()
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
        command=f"python -m build import {origin.name} --task {args.task} --name {args.name}",
    )
    export = Export(weights="float16" if stored_at_half(origin) else "float32")
    _pair(checkpoint, export, args, title)
    return 0


def _shape(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m build shape",
        description="AfriBERTa's real shapes with random weights, to measure speed and size.",
    )
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--task", type=Task, default=Task.NER, choices=list(Task), metavar="TASK")
    parser.add_argument("--out", type=Path, dest="catalog", required=True, metavar="FOLDER")
    parser.add_argument("--name", help="becomes NAME-base and NAME-int8; the shape's by default")
    parser.add_argument("--like", metavar="RECIPE", help="and NAME-RECIPE, compressed as it is")
    parser.add_argument("--tokenizer", type=Path, help="a tokenizer.json; by default the zoo's")
    parser.add_argument("--cache", type=Path, default=CACHE)
    args = parser.parse_args(words)
    if args.like:
        _known(args.like, RECIPES, "recipe")
    _quiet_libraries()
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
        _publish(made, args.catalog, small, golden=False)
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
    _publish(base, args.catalog, first, golden=golden)
    _publish(int8, args.catalog, second, golden=golden)
    if golden:
        from build.evaluate import agreement

        same, texts = agreement(args.catalog, second.name, first.name)
        print(f"{second.name} answers {same} of {texts} of the project's texts as {first.name}")
    print(f"serve them with KADOGO_CATALOG={args.catalog} make serve")


def _files(words: Sequence[str]) -> int:
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
    _quiet_libraries()
    from build.plain_files import write_plain_files

    for name in args.names:
        write_plain_files(args.catalog / name, args.out / name, network=args.network)
    return 0


# --- judging ----------------------------------------------------------------------------------


def _evaluate(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m build evaluate",
        description="Score variants of a catalog and write the evidence into their manifests.",
    )
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--split", default="test", choices=("dev", "test"))
    parser.add_argument("--split-name", help="what the evidence calls it; the split by default")
    parser.add_argument("--catalog", type=Path, default=ZOO)
    told = "write nothing: score again, fail where a figure leaves the interval in the manifest"
    parser.add_argument("--check", action="store_true", help=told)
    parser.add_argument("--url", help="with --check: ask this server, KADOGO_KEY its key")
    args = parser.parse_args(words)
    if args.check:
        return _check(args)
    if args.url:
        raise BuildError("--url goes with --check: evidence is measured in-process")
    from build.evaluate import evaluate

    called = args.split_name or args.split
    _show(evaluate(args.catalog, args.names, args.data, split=args.split, called=called))
    return 0


def _check(args: argparse.Namespace) -> int:
    from build.evaluate import check
    from build.publish import read
    from build.server import Server
    from models import catalog

    failed = 0
    for name in args.names:
        variant = read(args.catalog, name)
        served = (
            Server(args.url, variant) if args.url else catalog.open_variant(args.catalog / name)
        )
        outside, count = check(variant, served.answer, args.data, args.split)
        for line in outside:
            print(f"{name}: outside its interval: {line}", file=sys.stderr)
        print(f"{name}: {count - len(outside)} of {count} scores inside their intervals")
        failed += len(outside)
    return 1 if failed else 0


def _labelled(words: Sequence[str]) -> int:
    from build.labelled import lines

    parser = argparse.ArgumentParser(
        prog="python -m build labelled",
        description="Write a split as JSON lines, texts with what is right: load tests read them.",
    )
    parser.add_argument("task", choices=[task.value for task in Task])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--split", default="test", choices=("dev", "test"))
    parser.add_argument("--languages", type=_names, default=(), help="hau,yor; all by default")
    args = parser.parse_args(words)
    for line in lines(args.data, Task(args.task), args.languages, args.split):
        print(line)
    return 0


def _seeds(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m build seeds",
        description="Train a recipe again with other seeds and write each macro F1 into the "
        "manifest: how much of a score is luck. Tokenizer and encoder are shared, the recipe's own "
        "seed is the published variant's, and seeds the manifest has are not trained again.",
    )
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seeds", type=_numbers, default=(1, 2, 3), help="1,2,3 by default")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    _add_folders(parser, catalog=ZOO)
    args = parser.parse_args(words)
    kitchen = Kitchen(args.data, _device(args.device), args.cache, args.catalog)
    for name in args.names:
        _known(name, RECIPES, "recipe")
    check([(RECIPES[name], ()) for name in args.names], args.data)
    published = {name: _published_seed(args.catalog, name) for name in args.names}
    keep_to_one_corpus(kitchen)
    _quiet_libraries()
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
    return {own: published} | variant.evidence.seeds


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
        if draft:
            (draft / TOKENIZER).write_bytes(stored.read(root / name / TOKENIZER))
    checkpoint = cook(start, steps, kitchen)
    title = trained_here(name, read_purpose(checkpoint.folder), base=None, parent=None)
    trial = kitchen.cache / f"seed-{seed}"
    _publish(checkpoint, trial, title)
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


def _measure(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m build measure",
        description="Speed and memory of variants against their baseline; wants a quiet machine.",
    )
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--catalog", type=Path, default=ZOO)
    args = parser.parse_args(words)
    from build.measure import measure

    for name, speed in measure(args.catalog, args.names, rounds=args.rounds).items():
        rate, ratio = speed.tokens_per_second, speed.ratio_to_baseline
        print(
            f"{name}: {rate.mean:,.0f} tokens/s on one core, {ratio.mean:.2f} x its baseline "
            f"({ratio.low:.2f} to {ratio.high:.2f}); loads in {speed.load_seconds.mean:.2f} s, "
            f"{speed.resident_bytes / 1e6:.0f} MB resident"
        )
    return 0


def _report(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m build report",
        description="Write the judged variants of a catalog up: a page, pictures, model cards.",
    )
    parser.add_argument("--catalog", type=Path, default=ZOO)
    parser.add_argument("--out", type=Path, default=DOCS, help=f"a folder; {DOCS} by default")
    args = parser.parse_args(words)
    from build.report import report

    for file in report(args.catalog, args.out):
        print(file)
    return 0


def _frontier(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m build frontier",
        description="Draw quality against bytes and speed for every judged and measured variant, "
        "and say which are dominated.",
    )
    parser.add_argument("--catalog", type=Path, default=ZOO)
    parser.add_argument("--out", type=Path, default=DOCS, help=f"a folder; {DOCS} by default")
    args = parser.parse_args(words)
    from build.frontier import frontier

    for file in frontier(args.catalog, args.out):
        print(file)
    return 0


def _study(words: Sequence[str]) -> int:
    from build.studies.plan import STUDIES, toy

    parser = argparse.ArgumentParser(
        prog="python -m build study",
        description="Make and score the rows of a study, then write its table, picture and page. "
        "What is done is not done again: a stopped study continues.",
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help=", ".join(STUDIES))
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--quick", action="store_true", help="toys in minutes, to see it work")
    parser.add_argument("--split-name", default="test", help="what the evidence calls the split")
    parser.add_argument("--out", type=Path, help=f"a folder; {DOCS / 'studies'} by default")
    _add_folders(parser, catalog=ZOO)
    args = parser.parse_args(words)
    for name in args.names:
        _known(name, STUDIES, "study")
    if args.quick and args.out is None:
        raise BuildError("give --out FOLDER: a quick study is not for the docs")
    studies = {name: toy(STUDIES[name]) if args.quick else STUDIES[name] for name in args.names}
    kitchen = Kitchen(args.data, _device(args.device), args.cache, args.catalog)
    check(
        [
            (prepared(row.steps, base=None, quick=args.quick), row.languages)
            for study in studies.values()
            for row in study.made
        ],
        args.data,
    )
    keep_to_one_corpus(kitchen)
    _quiet_libraries()
    from build.studies.run import run
    from build.studies.write import write

    rows = args.cache / ("quick-studies" if args.quick else "studies")
    for name, study in studies.items():
        found = run(study, kitchen, rows, quick=args.quick, called=args.split_name)
        out = args.out or DOCS / "studies"
        for file in write(name, study, found, rows, args.data, out, quick=args.quick):
            print(file)
    return 0


def _bench(words: Sequence[str]) -> int:
    from build.bench.cli import main as bench

    return bench(words)


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "import": _import,
    "shape": _shape,
    "files": _files,
    "evaluate": _evaluate,
    "labelled": _labelled,
    "seeds": _seeds,
    "measure": _measure,
    "report": _report,
    "frontier": _frontier,
    "study": _study,
    "bench": _bench,
}


# --- shared -----------------------------------------------------------------------------------


def _add_folders(parser: argparse.ArgumentParser, *, catalog: Path | None) -> None:
    told = f"where variants go; {catalog or f'{ZOO}, or {STORE} with --base'} by default"
    parser.add_argument("--catalog", type=Path, default=catalog, metavar="DIR", help=told)
    parser.add_argument("--cache", type=Path, default=CACHE, help=f"finished steps; {CACHE}")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in _names(text))


def _known(name: str, known: Iterable[str], what: str) -> None:
    names = [*known, *COMMANDS]
    if name in names:
        return
    close = get_close_matches(name, names, 1)
    hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(names)}"
    raise BuildError(f"there is no {what} {name}: {hint}")


def _device(asked: str) -> str:
    import torch

    present = torch.cuda.is_available()
    if asked == "auto":
        return "cuda" if present else "cpu"
    if asked != "cpu" and not (asked.partition(":")[0] == "cuda" and present):
        raise BuildError(f"--device {asked} is not here; cpu is{', cuda is' if present else ''}")
    return asked


def _quiet_libraries() -> None:
    """Our own bars tell what goes on."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def _publish(
    checkpoint: Checkpoint, catalog: Path, title: Title, *, golden: bool = True
) -> Variant:
    from build.publish import publish

    variant, warnings = publish(checkpoint, catalog, title, golden=golden)
    parity = variant.evidence.parity if variant.evidence else None
    apart = "" if parity is None else f", logits within {parity:.2g} of torch's"
    print(
        f"{variant.name}: {variant.bytes / 1e6:.1f} MB, {variant.parameters:,} parameters{apart}"
        f" -> {catalog / variant.name}"
    )
    for line in warnings:
        print(f"warning: {line}", file=sys.stderr)
    return variant


def _show(found: Mapping[str, Evidence]) -> None:
    from build.evaluate import lines

    for name, evidence in found.items():
        for line in lines(evidence):
            print(f"{name}: {line}")


if __name__ == "__main__":
    sys.exit(main())

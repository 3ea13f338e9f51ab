"""Cook a recipe: train, compress, publish, evaluate."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from build import needs
from build.checkpoint import Checkpoint
from build.commands.common import (
    STORE,
    ZOO,
    add_folders,
    check,
    device,
    keep_to_one_corpus,
    known,
    publish,
    quiet_libraries,
    show,
)
from build.errors import BuildError
from build.form import Form
from build.prepare import prepared
from build.recipes import BASELINES, RECIPES
from build.run import Kitchen, cook
from build.steps import Step

if TYPE_CHECKING:
    from build.importing import Origin


def recipe(words: Sequence[str], others: Collection[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m build",
        description="Make a variant: train, compress, publish, evaluate.",
        epilog=f"other commands: {', '.join(others)}; each has --help",
    )
    parser.add_argument("recipe", nargs="?", help="one that --list shows")
    parser.add_argument("--list", action="store_true", help="show the recipes and their steps")
    parser.add_argument("--data", type=Path, metavar="DIR", help="laid out as docs/data.md says")
    parser.add_argument("--base", metavar="ID|FOLDER", help="fine-tune this encoder instead")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--quick", action="store_true", help="a toy in minutes, to see it work")
    parser.add_argument("--split-name", default="test", help="what the evidence calls the split")
    add_folders(parser, catalog=None)
    args = parser.parse_args(words)
    if args.list:
        _list()
        return 0
    if args.recipe is None:
        parser.print_usage(sys.stderr)
        raise BuildError("give a recipe, or --list to see them")
    if args.recipe in others:
        raise BuildError(f"{args.recipe} is a command of its own: say it first")
    known(args.recipe, RECIPES, "recipe", others)
    if args.data is None:
        raise BuildError(f"give --data DIR: {args.recipe} trains on corpora (docs/data.md)")
    catalog = args.catalog or _default_catalog(args)
    order = _Order(
        base=args.base,
        quick=args.quick,
        kitchen=Kitchen(args.data, device(args.device), args.cache, catalog),
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
        return Path(args.cache) / "quick"
    return STORE if args.base else ZOO


def _make(name: str, order: _Order) -> None:
    baseline = BASELINES[needs.of(RECIPES[name]).task]
    parent = None if baseline == name else baseline
    names = [parent, name] if parent else [name]
    origin, form = _given(order.base)
    recipes = {each: prepared(RECIPES[each], base=form, quick=order.quick) for each in names}
    check([(steps, ()) for steps in recipes.values()], order.kitchen.corpus, form)
    keep_to_one_corpus(order.kitchen)
    quiet_libraries()
    start = _start(origin, order.kitchen)
    if parent and _is_there(parent, [*start.lineage, *map(str, recipes[parent])], order):
        del recipes[parent]
    elif parent:
        print(f"{name} is compared with {parent}, which comes first")
    for each, steps in recipes.items():
        _cook(each, steps, start, parent if each == name else None, order)


def _is_there(parent: str, lineage: Sequence[str], order: _Order) -> bool:
    """
    Whether the catalog holds what this run would compare with: of this encoder, by this recipe.

    A lineage does not name the data: another is warned of.
    """
    from build.evaluate import is_judged, is_of
    from build.publish import read

    if not is_judged(order.catalog, parent, lineage):
        return False
    variant = read(order.catalog, parent)
    if not is_of(variant, order.kitchen.corpus):
        print(
            f"warning: {parent} in {order.catalog} was judged on other data: if it was made of "
            "other data too, give another --catalog",
            file=sys.stderr,
        )
    return True


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
    publish(checkpoint, order.catalog, trained_here(name, purpose, base=base, parent=parent))
    found = evaluate(order.catalog, [name], order.kitchen.corpus, called=order.split_name)
    show(found)

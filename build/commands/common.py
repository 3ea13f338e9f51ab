"""What several commands share: folders, how words are read, what is told. Knows no recipes."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from build import chain, needs, provenance
from build.checkpoint import Checkpoint
from build.errors import BuildError
from build.form import Form
from build.run import Kitchen
from build.steps import Step
from models.spec import NAME, Evidence, Variant

if TYPE_CHECKING:
    from build.publish import Title

CACHE = Path(".cache/build")
ZOO = Path("models/zoo")
# Variants that are not the project's own stay out of git.
STORE = Path("models/store")
DOCS = Path("docs")
# Of the name that a user gives: of 64, what the longest recipe name leaves.
LETTERS = 40

# --- words ------------------------------------------------------------------------------------


def add_folders(
    parser: argparse.ArgumentParser, *, catalog: Path | None, what: str = "where variants go"
) -> None:
    told = f"{what}; {catalog or f'{ZOO}, or {STORE} with --base'} by default"
    parser.add_argument("--catalog", type=Path, default=catalog, metavar="DIR", help=told)
    parser.add_argument("--cache", type=Path, default=CACHE, help=f"finished steps; {CACHE}")


def names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in names(text))


def at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if (value := int(text)) < least:
            raise argparse.ArgumentTypeError(f"{text} is less than {least}")
        return value

    return number


def new_name(text: str) -> str:
    """What the names of variants begin with that are to be."""
    if not re.fullmatch(NAME, text) or len(text) > LETTERS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no name: give lower-case letters and digits, and . _ - after the first "
            f"of them, {LETTERS} at most"
        )
    return text


def known(name: str, those: Collection[str], what: str, also: Iterable[str] = ()) -> None:
    """Raises BuildError where it is none of those, with the nearest of them or of `also`."""
    if name in those:
        return
    close = get_close_matches(name, [*those, *also], 1)
    hint = f"did you mean {close[0]}?" if close else f"known are {', '.join([*those, *also])}"
    raise BuildError(f"there is no {what} {name}: {hint}")


def device(asked: str) -> str:
    import torch

    present = torch.cuda.is_available()
    if asked == "auto":
        return "cuda" if present else "cpu"
    numbered = (f"cuda:{number}" for number in range(torch.cuda.device_count() if present else 0))
    here = ("cpu", *(("cuda", *numbered) if present else ()))
    if asked not in here:
        raise BuildError(f"--device {asked} is not here; known are {', '.join(here)}")
    return asked


# --- before work ------------------------------------------------------------------------------


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
    kitchen.cache.mkdir(parents=True, exist_ok=True)
    # Older caches have the first note alone, by names and sizes; so has evidence.
    notes = {"data.txt": provenance.fingerprint, "contents.txt": provenance.contents}
    for name, digest in notes.items():
        note, mine = kitchen.cache / name, digest(kitchen.corpus)
        if not note.exists():
            note.write_text(f"{mine}\n")
        elif (known := note.read_text().strip()) != mine:
            raise BuildError(
                f"{kitchen.cache} holds work on other data ({known}, now {mine}): "
                "give another --cache, or remove it"
            )


def quiet_libraries() -> None:
    """Our own bars tell what goes on."""
    from transformers.utils import logging

    logging.disable_progress_bar()


# --- after it ---------------------------------------------------------------------------------


def publish(checkpoint: Checkpoint, catalog: Path, title: Title, *, golden: bool = True) -> Variant:
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


def show(found: Mapping[str, Evidence]) -> None:
    from build.evaluate import lines

    for name, evidence in found.items():
        for line in lines(evidence):
            print(f"{name}: {line}")

"""
A study's rows made and scored, one after the other: what is done already is not done again.

Rows become variants of a catalog of their own, beside the baseline they are compared with; what was
found stands in their manifests, as for any variant.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tqdm import tqdm

from build.checkpoint import Checkpoint, read_purpose
from build.errors import BuildError
from build.evaluate import Said, evaluate
from build.prepare import prepared
from build.publish import publish, read, trained_here
from build.recipes import RECIPES
from build.run import Kitchen, cook
from build.steps import Step
from build.studies.plan import BASE, Study
from models.catalog import MANIFEST
from models.spec import Input, Variant


def run(
    study: Study, kitchen: Kitchen, root: Path, *, quick: bool = False, called: str = "test"
) -> list[Variant]:
    """
    The baseline and every row, judged on the test split; `called` is how evidence names it.

    root   the catalog they are published into
    quick  the same rows as toys, to see it work

    Raises BuildError, DataError.
    """
    _baseline(kitchen, root, quick=quick, called=called)
    said: Said = {}  # the baseline is asked once
    for row in tqdm(study.rows, "rows", unit="row"):
        steps = prepared(row.steps, base=False, quick=quick)
        if not is_judged(root, row.name, steps):
            tqdm.write(f"{row.name}: {', '.join(f'{key} {at}' for key, at in row.at.items())}")
            _make(row.name, steps, kitchen, root, called=called, parent=BASE, said=said)
    return [read(root, name) for name in (BASE, *(row.name for row in study.rows))]


def is_judged(root: Path, name: str, steps: tuple[Step, ...]) -> bool:
    """Whether the catalog has this very variant, with its scores."""
    if not (root / name / MANIFEST).is_file():
        return False
    variant = read(root, name)
    same = variant.lineage == tuple(map(str, steps))
    return same and variant.evidence is not None and bool(variant.evidence.quality)


def _baseline(kitchen: Kitchen, root: Path, *, quick: bool, called: str) -> None:
    """The published one where it is of today's recipe; a toy, or another, is made."""
    steps = prepared(RECIPES[BASE], base=False, quick=quick)
    if is_judged(root, BASE, steps):
        return
    published = kitchen.catalog
    if published and is_judged(published, BASE, steps):
        shutil.rmtree(root / BASE, ignore_errors=True)
        shutil.copytree(published / BASE, root / BASE)
    elif quick:
        _make(BASE, steps, kitchen, root, called=called, parent=None, said={})
    else:
        raise BuildError(f"{published} holds no judged {BASE} of today's recipe: build it first")


def _make(
    name: str,
    steps: tuple[Step, ...],
    kitchen: Kitchen,
    root: Path,
    *,
    called: str,
    parent: str | None,
    said: Said,
) -> None:
    checkpoint = cook(Checkpoint(kitchen.cache / "start", ()), steps, kitchen)
    purpose = read_purpose(checkpoint.folder)
    title = trained_here(name, purpose, base=None, parent=parent)
    publish(checkpoint, root, title)
    # Half the time is scoring, and only raw text is read off.
    evaluate(root, [name], kitchen.corpus, called=called, inputs=(Input.RAW,), said=said)

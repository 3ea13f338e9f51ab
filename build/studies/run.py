"""
A study's rows made and scored, one after the other: what is done already is not done again.

Rows become variants of a catalog of their own, beside what they are compared with; what was found
stands in their manifests, as for any variant.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tqdm import tqdm

from build.checkpoint import Checkpoint, filled, read_purpose
from build.errors import BuildError
from build.evaluate import Said, evaluate, is_judged, is_of
from build.prepare import prepared
from build.publish import publish, read, trained_here
from build.recipes import RECIPES
from build.run import Kitchen, cook
from build.steps import Step
from build.studies.plan import BASE, Row, Study
from models.spec import Variant


def run(
    study: Study, kitchen: Kitchen, root: Path, *, quick: bool = False, called: str = "test"
) -> list[Variant]:
    """
    Every row, judged on the test split; before them the baseline, where it is compared with.

    root    the catalog they are published into
    quick   the same rows as toys, to see it work
    called  how evidence names the split

    Raises BuildError, DataError.
    """
    names = [row.name for row in study.made]
    if BASE in names:
        _baseline(kitchen, root, quick=quick, called=called)
    said: Said = {}  # what others are compared with is asked once
    for row in tqdm(study.rows, "rows", unit="row"):
        steps = prepared(row.steps, base=None, quick=quick)
        lineage = tuple(map(str, steps))
        if not is_judged(root, row.name, lineage):
            tqdm.write(f"{row.name}: {', '.join(f'{key} {at}' for key, at in row.at.items())}")
            _make(row, steps, kitchen, root)
        _judge(row, kitchen, root, called=called, said=said)
    return [read(root, name) for name in names]


def _baseline(kitchen: Kitchen, root: Path, *, quick: bool, called: str) -> None:
    """The published one where it is of today's recipe; a toy is made."""
    steps = prepared(RECIPES[BASE], base=None, quick=quick)
    lineage = tuple(map(str, steps))
    row = Row(name=BASE, at={}, steps=RECIPES[BASE], parent=None)
    published = kitchen.catalog
    if is_judged(root, BASE, lineage):
        pass
    elif published and is_judged(published, BASE, lineage):
        shutil.rmtree(root / BASE, ignore_errors=True)
        with filled(root / BASE) as draft:  # half of it is none
            if draft:
                shutil.copytree(published / BASE, draft, dirs_exist_ok=True)
    elif quick:
        _make(row, steps, kitchen, root)
    else:
        raise BuildError(f"{published} holds no judged {BASE} of today's recipe: build it first")
    _judge(row, kitchen, root, called=called, said={})


def _make(row: Row, steps: tuple[Step, ...], kitchen: Kitchen, root: Path) -> None:
    """Cook the row's steps as this run does them, and publish what comes of them."""
    checkpoint = cook(Checkpoint(kitchen.cache / "start", ()), steps, kitchen)
    purpose = read_purpose(checkpoint.folder)
    publish(checkpoint, root, trained_here(row.name, purpose, base=None, parent=row.parent))


def _judge(row: Row, kitchen: Kitchen, root: Path, *, called: str, said: Said) -> None:
    """Score the row's variant, unless it has scores of the split that is called so."""
    variant = read(root, row.name)
    known = variant.evidence
    if known and known.quality and known.split == called and is_of(variant, kitchen.corpus):
        return
    evaluate(
        root,
        [row.name],
        kitchen.corpus,
        called=called,
        inputs=row.inputs,
        languages=row.languages,
        said=said,
    )

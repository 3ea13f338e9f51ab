"""
A folder of variants: read them, make each prove itself on this host, keep the bad ones out.

Knows nothing of HTTP or of how variants are made.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from models import stored
from models.encode import Window
from models.errors import BadSetting, BrokenVariant
from models.pipeline import Pipeline
from models.session import SessionOptions
from models.spec import FORMAT, Answer, Entity, File, Golden, LabelScore, NerAnswer, Task, Variant
from models.weights import census

MANIFEST = "variant.json"
SCORE_TOLERANCE = 0.02
# What a packed file may unpack to: its variant's weights, none of which is wider, and room for the
# graph or the tokenizer around them.
WIDEST_WEIGHT = 8
ROOM = 64 * 2**20

Scored = TypeVar("Scored", Entity, LabelScore)


@dataclass(frozen=True)
class Catalog:
    """
    variants     that proved themselves, by name
    quarantined  name -> what is wrong with it
    manifests    of every folder whose manifest could be read, quarantined ones too
    """

    variants: dict[str, Pipeline] = field(default_factory=dict)
    quarantined: dict[str, str] = field(default_factory=dict)
    manifests: dict[str, Variant] = field(default_factory=dict)


def load(
    root: Path,
    options: SessionOptions | None = None,
    *,
    without: Collection[str] = (),
    threads: int = 1,
) -> Catalog:
    """
    Open every variant under `root`; a bad one is quarantined with its reason, the others serve.

    without  names of those whose manifest is read and no more
    threads  that open one each at a time: hashes, sessions and golden answers run beside each other

    Raises `BadSetting` where there is no such folder, no variant in it, or a setting asks for
    what this host does not have.
    """
    if not root.is_dir():
        raise BadSetting(f"there is no catalog folder {root}: set KADOGO_CATALOG to one")
    folders = _folders(root)
    if not any((folder / MANIFEST).exists() for folder in folders):
        raise BadSetting(
            f"the catalog {root} holds no variants (folders with a {MANIFEST}): "
            "build one, or set KADOGO_CATALOG to a folder that has some"
        )
    catalog = Catalog()

    def attempt(folder: Path) -> None:
        try:
            catalog.manifests[folder.name] = read(folder)
            if folder.name not in without:
                catalog.variants[folder.name] = open_variant(folder, options)
        except BadSetting:
            raise
        except BrokenVariant as error:
            catalog.quarantined[folder.name] = str(error)
        except Exception as error:  # unforeseen, and still only this variant's affair
            catalog.quarantined[folder.name] = (
                f"it cannot be opened: {_inside(folder, repr(error))}"
            )

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(attempt, folders))  # raises what one of them raised
    return Catalog(
        variants=dict(sorted(catalog.variants.items())),
        quarantined=dict(sorted(catalog.quarantined.items())),
        manifests=dict(sorted(catalog.manifests.items())),
    )


def manifests(root: Path) -> dict[str, Variant | None]:
    """Of every folder its manifest, None where that cannot be read; nothing is opened."""
    found: dict[str, Variant | None] = {}
    for folder in _folders(root) if root.is_dir() else ():
        found[folder.name] = None
        with contextlib.suppress(BrokenVariant):
            found[folder.name] = read(folder)
    return found


def read(folder: Path) -> Variant:
    """The manifest alone, nothing verified. Raises `BrokenVariant` where it is not one."""
    try:
        content = (folder / MANIFEST).read_bytes()
        written = msgspec.json.decode(content, type=_Format).format
        if written != FORMAT:
            raise BrokenVariant(_of_another_format(written, folder.name))
        variant = msgspec.json.decode(content, type=Variant)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BrokenVariant(f"{MANIFEST} cannot be read: {_inside(folder, error)}") from error
    if variant.name != folder.name:
        raise BrokenVariant(f"{MANIFEST} is of {variant.name}, its folder is called {folder.name}")
    return variant


def open_variant(folder: Path, options: SessionOptions | None = None) -> Pipeline:
    """
    Load a variant and check it against its manifest on this very host.

    In turn: the files' hashes, what packed ones unpack to, the weights' dtypes, the width of the
    output, the golden answers. Raises `BrokenVariant` naming the first that differs.
    """
    try:
        variant = read(folder)
        _check_files(variant, folder)
        _check_packed(variant, folder)
        _check_weights(variant, folder)
        pipeline = Pipeline.open(variant, folder, options or SessionOptions())
        prove(pipeline)
    except BrokenVariant as error:
        error.args = (_inside(folder, error),)
        raise
    return pipeline


def prove(pipeline: Pipeline) -> None:
    """Raises `BrokenVariant` unless it does on this host, now, what it did where it was made."""
    try:
        _check_output(pipeline)
        _check_golden(pipeline)
    except BrokenVariant:
        raise
    except Exception as error:  # each engine has its own kinds
        reason = str(error).strip().partition("\n")[0]
        raise BrokenVariant(f"the model does not run: {reason}") from error


def describe(folder: Path) -> dict[str, File]:
    """Hash and bytes of every file in the folder but the manifest, as the manifest lists them."""
    files = sorted(each for each in folder.rglob("*") if each.is_file())
    described = {}
    for file in files:
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        name = file.relative_to(folder).as_posix()
        described[name] = File(sha256=digest, bytes=file.stat().st_size)
    described.pop(MANIFEST, None)
    return described


def golden(pipeline: Pipeline, texts: Iterable[tuple[str, str]]) -> tuple[Golden, ...]:
    """Golden answers to write into a manifest, from (text, language) pairs; default options."""
    pairs = list(texts)
    answers = pipeline.answer([text for text, _ in pairs])
    return tuple(
        _golden(text, language, answer)
        for (text, language), answer in zip(pairs, answers, strict=True)
    )


def _inside(folder: Path, said: object) -> str:
    """As seen from the folder: callers are told too, and need not know where it lies."""
    return str(said).replace(f"{folder}/", "")


def _folders(root: Path) -> list[Path]:
    return sorted(each for each in root.iterdir() if each.is_dir() and each.name[0] not in "._")


class _Format(msgspec.Struct):
    format: str = ""


def _of_another_format(written: str, name: str) -> str:
    """What to do with such a manifest. There was one format so far: nothing to upgrade from."""
    again = f"make it again: python -m build {name} --data DIR, or python -m build import"
    family, _, number = FORMAT.rpartition("/")
    found = re.fullmatch(rf"{re.escape(family)}/([0-9]{{1,9}})", written)
    if found is None:
        return f"{MANIFEST} has none of our formats, this code reads {FORMAT}; {again}"
    if int(found[1]) > int(number):
        return (
            f"{MANIFEST} is {found[0]}, newer than the {FORMAT} that this code reads: "
            f"update Kadogo, or {again}"
        )
    return f"{MANIFEST} is {found[0]}, older than the {FORMAT} that this code reads; {again}"


def _check_files(variant: Variant, folder: Path) -> None:
    try:
        found = describe(folder)
    except OSError as error:
        raise BrokenVariant(f"a file cannot be read: {error}") from error
    if missing := sorted(variant.files.keys() - found.keys()):
        raise BrokenVariant(f"files are missing: {', '.join(missing)}")
    if strange := sorted(found.keys() - variant.files.keys()):
        raise BrokenVariant(f"files are not in the manifest: {', '.join(strange)}")
    for name, listed in variant.files.items():
        if found[name] != listed:
            raise BrokenVariant(
                f"{name} is not the file the manifest describes: {found[name].bytes} bytes with "
                f"sha256 {found[name].sha256[:12]}, listed {listed.bytes} with {listed.sha256[:12]}"
            )


def _check_packed(variant: Variant, folder: Path) -> None:
    """Refuse what would fill the memory before any of it is unpacked."""
    most = sum(variant.weights.values()) * WIDEST_WEIGHT + ROOM
    for name in variant.files:
        if name.endswith(stored.PACKED) and (size := stored.declared(folder / name)) > most:
            raise BrokenVariant(
                f"{name} would unpack to {size} bytes, more than the weights in the manifest "
                f"take: at most {most}"
            )


def _check_weights(variant: Variant, folder: Path) -> None:
    found = census(folder, variant.runtime)
    if found != variant.weights:
        raise BrokenVariant(f"weights are stored as {found}, the manifest says {variant.weights}")


def _check_output(pipeline: Pipeline) -> None:
    """Run the longest window, of the vocabulary's last id: both must fit the model's tables."""
    variant, last = pipeline.variant, pipeline.encoder.vocabulary - 1
    ids = np.full(variant.windows.tokens, last, np.int64)
    (logits,) = pipeline.run([Window(ids, 0)])
    labels = len(variant.labels)
    expected = (len(ids), labels) if variant.task is Task.NER else (labels,)
    if logits.shape != expected:
        raise BrokenVariant(
            f"the output for one window is {logits.shape}, {labels} labels need {expected}"
        )


def _check_golden(pipeline: Pipeline) -> None:
    expected = pipeline.variant.golden
    answers = pipeline.answer([each.text for each in expected])
    for index, (each, answer) in enumerate(zip(expected, answers, strict=True)):
        if not _agree(each, answer):
            raise BrokenVariant(
                f"golden answer {index} of {len(expected)} ({each.language}) is not reproduced "
                f"(equal spans and labels, scores within {SCORE_TOLERANCE})"
            )


def _agree(expected: Golden, answer: Answer) -> bool:
    if isinstance(answer, NerAnswer):
        wanted = expected.entities
        return (
            wanted is not None
            and [(e.label, e.start, e.end) for e in wanted]
            == [(e.label, e.start, e.end) for e in answer.entities]
            and all(map(_near, wanted, answer.entities))
        )
    ranked = expected.labels
    if not ranked or ranked[0].label != answer.labels[0].label:
        return False
    scores = {each.label: each for each in answer.labels}
    return scores.keys() == {each.label for each in ranked} and all(
        _near(each, scores[each.label]) for each in ranked
    )


def _near(one: Entity | LabelScore, other: Entity | LabelScore) -> bool:
    return abs(one.score - other.score) <= SCORE_TOLERANCE


def _golden(text: str, language: str, answer: Answer) -> Golden:
    if isinstance(answer, NerAnswer):
        return Golden(text=text, language=language, entities=_rounded(answer.entities))
    return Golden(text=text, language=language, labels=_rounded(answer.labels))


def _rounded(scored: tuple[Scored, ...]) -> tuple[Scored, ...]:
    return tuple(msgspec.structs.replace(each, score=round(each.score, 4)) for each in scored)

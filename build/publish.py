"""
A finished checkpoint to a variant in a catalog: files, manifest, golden answers, and the proof.

Knows nothing of how the checkpoint was made beyond its lineage, nor of gold labels.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from build import provenance, weights
from build.checkpoint import Checkpoint, Purpose, read_purpose, read_runtime
from build.errors import BuildError
from build.golden import golden_texts, steady, unseen
from build.graph import MODEL, PARITY, Parity, load
from models import catalog, stored
from models.catalog import MANIFEST
from models.errors import BrokenVariant
from models.pipeline import TOKENIZER, Pipeline
from models.session import SessionOptions
from models.spec import Evidence, Licence, Runtime, Task, Variant
from models.stored import PACKED
from models.weights import census

ONNX_FILES = (MODEL, f"{MODEL}.data", TOKENIZER, f"{MODEL}{PACKED}", f"{TOKENIZER}{PACKED}")
TORCH_WEIGHTS = "model.safetensors"
TORCH_FILES = (TORCH_WEIGHTS, "config.json", TOKENIZER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Title:
    """What a manifest says that no file can tell."""

    name: str
    description: str
    licence: Licence
    command: str
    parent: str | None = None


def publish(
    checkpoint: Checkpoint, root: Path, title: Title, *, golden: bool = True
) -> tuple[Variant, list[str]]:
    """
    Write `root/NAME`, replacing what was there only once the new folder has proved itself.

    Gives back the manifest and warnings: labels that no golden answer shows.
    Raises BuildError or BrokenVariant; the catalog is then as it was.
    """
    with _draft(root, title.name) as folder:
        variant = _with_evidence(_manifest(checkpoint, folder, title), root / title.name)
        if golden:
            pipeline = Pipeline.open(variant, folder, SessionOptions())
            pairs = steady(pipeline, golden_texts(variant))
            variant = msgspec.structs.replace(variant, golden=catalog.golden(pipeline, pairs))
        write(folder, variant)
        catalog.open_variant(folder)
        _replace(folder, root / title.name)
    return variant, unseen(variant)


def read(root: Path, name: str) -> Variant:
    """The manifest of one variant. Raises BuildError naming those there are."""
    if not (root / name / MANIFEST).is_file():
        known = ", ".join(sorted(file.parent.name for file in root.glob(f"*/{MANIFEST}")))
        raise BuildError(f"{root} holds no variant {name}; it holds {known or 'none'}")
    return catalog.read(root / name)


def write(folder: Path, variant: Variant) -> None:
    """Write the manifest; readers see the old one or the new one, whole."""
    content = msgspec.json.encode(variant)
    msgspec.json.decode(content, type=Variant)  # a NaN is written as null, which nobody can read
    draft = folder / f".{MANIFEST}"
    draft.write_bytes(msgspec.json.format(content, indent=1) + b"\n")
    draft.replace(folder / MANIFEST)


def _manifest(checkpoint: Checkpoint, folder: Path, title: Title) -> Variant:
    """Copy what serving needs into `folder` and describe it."""
    source = checkpoint.folder
    purpose = read_purpose(source)
    is_graph = stored.locate(source / MODEL).is_file()
    runtime = (read_runtime(source) or Runtime.ONNX) if is_graph else Runtime.TORCH
    for name in ONNX_FILES if is_graph else TORCH_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    weights = onnx_weights if is_graph else torch_weights
    parameters, zeros = _counted(weights(folder))
    return Variant(
        name=title.name,
        task=purpose.task,
        runtime=runtime,
        labels=purpose.labels,
        languages=purpose.languages,
        multi_label=purpose.multi_label,
        windows=purpose.windows,
        parent=title.parent,
        lineage=checkpoint.lineage,
        description=title.description,
        licence=title.licence,
        files=catalog.describe(folder),
        weights=census(folder, runtime),
        parameters=parameters,
        sparsity=zeros / parameters,
        golden=(),
        evidence=_first_evidence(source, title),
    )


def _with_evidence(variant: Variant, before: Path) -> Variant:
    """With what was measured of the very same variant that is there already."""
    try:
        old = catalog.read(before)
    except BrokenVariant:
        return variant
    same = ("digest", "labels", "parent")
    if old.evidence is None or any(getattr(old, each) != getattr(variant, each) for each in same):
        return variant
    parity = variant.evidence.parity if variant.evidence else old.evidence.parity
    evidence = msgspec.structs.replace(old.evidence, parity=parity)
    return msgspec.structs.replace(variant, evidence=evidence)


def _first_evidence(source: Path, title: Title) -> Evidence | None:
    """Parity is measured where the checkpoint is made, without data; the rest comes later."""
    if not (source / PARITY).is_file():
        return None
    parity = msgspec.json.decode((source / PARITY).read_bytes(), type=Parity)
    return Evidence(
        data="random pieces",
        split="none",
        command=title.command,
        commit=provenance.commit(),
        date=provenance.today(),
        host=provenance.host(),
        parity=parity.logits,
    )


# --- weights ----------------------------------------------------------------------------------


def onnx_weights(folder: Path) -> Iterator[np.ndarray[Any, Any]]:
    """Every weight of the network as it is stored; scales and zero points are not weights."""
    return weights.of_graph(load(folder).graph)


def torch_weights(folder: Path) -> Iterator[np.ndarray[Any, Any]]:
    from safetensors.numpy import load_file

    yield from load_file(folder / TORCH_WEIGHTS).values()


def _counted(weights: Iterator[np.ndarray[Any, Any]]) -> tuple[int, int]:
    """How many numbers there are, and how many are exactly zero."""
    parameters = zeros = 0
    for each in weights:
        parameters += math.prod(each.shape)
        zeros += int((each == 0).sum())
    return parameters, zeros


# --- folders ----------------------------------------------------------------------------------


@contextmanager
def _draft(root: Path, name: str) -> Iterator[Path]:
    """An empty folder of the variant's name, beside the catalog's own; gone afterwards."""
    around = root / f".{name}.part"
    shutil.rmtree(around, ignore_errors=True)
    (around / name).mkdir(parents=True)
    try:
        yield around / name
    finally:
        shutil.rmtree(around, ignore_errors=True)


def _replace(new: Path, old: Path) -> None:
    if old.exists():
        if not (old / MANIFEST).is_file():
            raise BuildError(f"{old.name} in the catalog is not a variant: move it away first")
        old.rename(new.parent / "replaced")
    new.rename(old)


# --- what the recipes' variants are -----------------------------------------------------------

FROM_SCRATCH = "AfriBERTa-architecture model trained here from scratch, not AfriBERTa's own weights"
PRETRAINING = (
    "pretraining text: open (CC0, CC BY, CC BY-SA) or CC BY-NC corpora and news sites, listed in "
    "models/LICENSE"
)
NEWS_SOURCE = (
    "MasakhaNEWS, no licence in its repository (hub card: AFL-3.0), text mostly the BBC's: "
    "Adelani et al. 2023, IJCNLP-AACL"
)
LICENCES = {
    Task.NER: Licence(
        name="CC BY-NC 4.0",
        sources=(
            "MasakhaNER 2.0, CC BY-NC 4.0: Adelani et al. 2022, EMNLP",
            "MasakhaNER 1.0 (Amharic), CC BY-NC 4.0: Adelani et al. 2021, TACL",
            PRETRAINING,
        ),
    ),
    Task.CLASSIFICATION: Licence(
        name="non-commercial use only", sources=(NEWS_SOURCE, PRETRAINING)
    ),
}
DOES = {
    Task.NER: "People, places, organisations and dates",
    Task.CLASSIFICATION: "The topic of a news article",
}


def trained_here(name: str, purpose: Purpose, *, base: str | None, parent: str | None) -> Title:
    """The title of a recipe's variant; `base` names the checkpoint it started from, if any."""
    origin = f"fine-tuned here from {base}" if base else f"{FROM_SCRATCH}"
    licence = LICENCES[purpose.task]
    if base:
        sources = (*licence.sources[:-1], f"{base}: see its own licence")
        licence = Licence(name=licence.name, sources=sources)
    return Title(
        name=name,
        description=f"{DOES[purpose.task]}, in {len(purpose.languages)} languages. {origin}.",
        licence=licence,
        command=f"python -m build {name} --data DIR{' --base BASE' if base else ''}",
        parent=parent,
    )

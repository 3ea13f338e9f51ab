"""
A checkpoint: a Hugging Face folder and what Kadogo knows of it beyond the folder's own files.

Knows nothing of how checkpoints are made. `task.json` is written once a head is trained.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from models.spec import Runtime, Task, Value, Variant, Windows

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
PURPOSE = "task.json"
RUNTIME = "runtime.json"
LINEAGE = "lineage.txt"


class Purpose(Value, frozen=True, kw_only=True):
    """What a fine-tuned checkpoint is for: the part of a manifest that training decides."""

    task: Task
    labels: tuple[str, ...]
    languages: tuple[str, ...]
    windows: Windows
    multi_label: bool = False

    @classmethod
    def of(cls, variant: Variant) -> Purpose:
        """What a published variant is for."""
        return cls(
            task=variant.task,
            labels=variant.labels,
            languages=variant.languages,
            windows=variant.windows,
            multi_label=variant.multi_label,
        )


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder named by the hash of how it came to be."""

    folder: Path
    lineage: tuple[str, ...]

    def after(self, step: object) -> Checkpoint:
        """The same history always names the same folder, so finished work is found again."""
        lineage = (*self.lineage, str(step))
        digest = hashlib.sha256("\n".join(lineage).encode()).hexdigest()[:12]
        return Checkpoint(self.folder.parent / f"{type(step).__name__.lower()}-{digest}", lineage)


def read_purpose(folder: Path) -> Purpose:
    return msgspec.json.decode((folder / PURPOSE).read_bytes(), type=Purpose)


def write_purpose(folder: Path, purpose: Purpose) -> None:
    (folder / PURPOSE).write_bytes(msgspec.json.format(msgspec.json.encode(purpose), indent=1))


def read_runtime(folder: Path) -> Runtime | None:
    """What is to run a graph, where a step has said so."""
    file = folder / RUNTIME
    return msgspec.json.decode(file.read_bytes(), type=Runtime) if file.is_file() else None


def write_runtime(folder: Path, runtime: Runtime) -> None:
    (folder / RUNTIME).write_bytes(msgspec.json.encode(runtime))


def copy_files(source: Path, target: Path, names: tuple[str, ...]) -> None:
    """Carry the files a step does not change; those that are absent are left out."""
    for name in names:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


@contextmanager
def filled(folder: Path) -> Iterator[Path | None]:
    """A draft to fill, which becomes `folder` when all went well; None where it is there."""
    if folder.exists():
        yield None
        return
    draft = folder.with_name(f"{folder.name}.part")  # names may have dots of their own
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        yield draft
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    draft.rename(folder)

"""How a long text is cut into windows, where that is otherwise than the network was trained."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec

from build.checkpoint import LINEAGE, read_purpose, write_purpose
from build.errors import BuildError
from build.steps import NarrowWindows
from models.spec import Windows

# Of the step that trained them, and of one that narrowed them.
_WINDOWS = re.compile(r"\b(?:window|tokens)=(\d+), overlap=(\d+)")


def narrow_windows(step: NarrowWindows, source: Path, target: Path) -> None:
    """
    Fill `target` with the same network, read otherwise; weights and graph stay to the byte.

    Raises BuildError for windows that are no narrower, or overlap by half and more.
    """
    purpose = read_purpose(source)
    if not 2 * step.overlap < step.tokens < purpose.windows.tokens:
        raise BuildError(
            f"{step} does not narrow windows of {purpose.windows.tokens} tokens: it takes fewer "
            "tokens than that, and an overlap below half of them"
        )
    shutil.copytree(
        source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns(LINEAGE, "resume.*")
    )
    windows = Windows(tokens=step.tokens, overlap=step.overlap)
    write_purpose(target, msgspec.structs.replace(purpose, windows=windows))


def as_trained(lineage: Sequence[str]) -> tuple[tuple[str, ...], Windows | None]:
    """
    The lineage without a narrowing that ends it, and the windows there were before.

    The lineage as it is, and None, where nothing was narrowed, or nothing says from what: who is
    imported does not.
    """
    before = tuple(lineage[:-1])
    said = _WINDOWS.findall("\n".join(before))
    if not said or not lineage[-1].startswith(f"{NarrowWindows.__name__}("):
        return tuple(lineage), None
    tokens, overlap = said[-1]
    return before, Windows(tokens=int(tokens), overlap=int(overlap))

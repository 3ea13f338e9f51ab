"""
The files that a run writes at its end, and tries at its beginning: minutes later is too late.

Knows nothing of what is in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from loadtest.record import Unusable


def tried(files: Sequence[Path]) -> str:
    """
    Makes their folders and opens each. Raises Unusable where that cannot be done.

    Returns a line on those that are there and will be written over; "" of none.
    """
    there = [file for file in files if file.is_file()]
    for file in files:
        is_new = not file.exists()
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.open("ab").close()
            if is_new:
                file.unlink()
        except OSError as error:
            raise _unwritable(file, error) from None
    return f"will be written over: {', '.join(map(str, there))}" if there else ""


def write(file: Path, text: str) -> None:
    """Raises Unusable."""
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise _unwritable(file, error) from None


def _unwritable(file: Path, error: OSError) -> Unusable:
    return Unusable(f"{file} cannot be written: {error.strerror or error}")

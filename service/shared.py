"""
What the server's processes share: rows of float64 in a file, changed one process at a time, and
texts that are the first one's.

Knows nothing of what the numbers and the texts mean.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TypeVar

T = TypeVar("T")

Row = tuple[float, ...]


class Rows:
    """
    `rows` rows of `width` numbers, all 0 at first.

    Whoever opens the same `file` sees the same numbers, also a process that comes in place of one
    that died; the lock of a process that dies is free. None: numbers of this process alone.
    Open it after a fork, never before: both sides would hold one lock.
    """

    def __init__(self, file: Path | None, *, rows: int, width: int) -> None:
        self._row = struct.Struct(f"={width}d")
        self._here = threading.Lock()  # flock does not part the threads of one process
        self._file = _opened(file)
        size = rows * self._row.size
        with self._alone():
            if os.fstat(self._file.fileno()).st_size < size:
                self._file.truncate(size)
            self._memory = mmap.mmap(self._file.fileno(), size)

    def change(self, row: int, into: Callable[[Row], tuple[Row, T]]) -> T:
        """
        Put what `into` makes of the row in its place and give back the other thing it makes.

        Nobody else reads or changes any row meanwhile, so `into` must be short: others wait for it
        on their event loops.
        """
        with self._alone():
            changed, made = into(self._row.unpack_from(self._memory, row * self._row.size))
            self._row.pack_into(self._memory, row * self._row.size, *changed)
            return made

    def read(self, row: int) -> Row:
        """The row, as no change has left it half done."""
        with self._alone():
            return self._row.unpack_from(self._memory, row * self._row.size)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        with self._here:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)


def first_of_this_server(name: str, read: Callable[[], str]) -> str:
    """
    What the first process of this server read that asked for `name`: the others, and those that
    come in place of one that died, are given the same, whatever there would be to read by then.
    """
    file = of_this_server(name)
    if file is None:
        return read()
    if not file.exists():
        text = read()
        with tempfile.NamedTemporaryFile(
            "w", dir=file.parent, encoding="utf-8", newline=""
        ) as draft:
            draft.write(text)
            draft.flush()
            with contextlib.suppress(FileExistsError):  # another was first
                os.link(draft.name, file)  # whole or not at all
    with file.open(encoding="utf-8", newline="") as opened:
        return opened.read()


def of_this_server(name: str) -> Path | None:
    """
    The file of that name which every process of this server finds, and no other's; it is gone with
    the server. None where there is no server of several processes.

    It lies where they count their metrics: BentoML names that folder to all of them, and
    `app.count_apart` gives every server its own.
    """
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    return Path(folder, name) if folder else None


def _opened(file: Path | None) -> IO[bytes]:
    """For reading and writing; made where it is not there yet, and never emptied."""
    if file is None:
        return tempfile.TemporaryFile()
    return os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT, 0o600), "r+b")

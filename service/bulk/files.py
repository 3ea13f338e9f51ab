"""
Files here and in object stores, through fsspec: find them, open them, write them whole or not.

Knows nothing of what is in them.
"""

from __future__ import annotations

import contextlib
import io
import os
import posixpath
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import IO, Any

import fsspec

from service.bulk.parts import COMPRESSED, SUFFIXES, Found, Refused, kind_of

READ_AHEAD = 1 << 20
# What stores call that which changes with a file's content, the surest first.
STAMPS = (
    "ETag",
    "etag",
    "md5Hash",
    "content_md5",
    "mtime",
    "LastModified",
    "last_modified",
    "updated",
)


def absolute(path: str) -> str:
    """As it is called wherever the work is done: the folder this runs in is not known there."""
    store, inside = _store(path)
    return inside if _is_local(store) else str(store.unstrip_protocol(inside))


def find(asked: Sequence[str]) -> list[Found]:
    """
    The files that are meant by files, folders (all below, of known kinds) and globs, in order.

    Raises `Refused` for what is not there or of no known kind.
    """
    listed: dict[str, dict[str, Any]] = {}
    for each in asked:
        store, inside = _store(each)
        with _told(each):
            found = _listed(store, inside)
        if not found:
            raise Refused(f"{each}: there is no such file, nor a folder of {' '.join(SUFFIXES)}")
        local = _is_local(store)
        listed |= {p if local else str(store.unstrip_protocol(p)): i for p, i in found.items()}
    for path in listed:
        if kind_of(path) is None:
            raise Refused(f"{path}: {_unread(path)}")
    names = _names(sorted(listed))
    return [
        Found(path=path, name=names[path], size=int(info.get("size") or 0), stamp=_stamp(info))
        for path, info in sorted(listed.items())
    ]


def opened(path: str, *, unpack: bool = False) -> IO[bytes]:
    """A file to read, from anywhere in it. `unpack`: as its suffix says."""
    file = fsspec.open(path, "rb", compression="infer" if unpack else None).open()
    return io.BufferedReader(file, READ_AHEAD)


def read(path: str) -> bytes | None:
    """What is in a file; None where there is none."""
    store, inside = _store(path)
    try:
        return bytes(store.cat_file(inside))
    except FileNotFoundError:
        return None


def below(folder: str) -> list[str]:
    """The names of a folder's files."""
    store, inside = _store(folder)
    store.invalidate_cache()
    try:
        return [posixpath.basename(each) for each in store.ls(inside, detail=False)]
    except FileNotFoundError:
        return []


def exists(path: str) -> bool:
    store, inside = _store(path)
    store.invalidate_cache()
    return bool(store.exists(inside))


def make(folder: str) -> None:
    store, inside = _store(folder)
    store.makedirs(inside, exist_ok=True)


def remove(path: str) -> None:
    """A file or a folder with all in it; nothing where there is none."""
    store, inside = _store(path)
    with contextlib.suppress(FileNotFoundError):
        store.rm(inside, recursive=True)


@contextlib.contextmanager
def replacing(path: str) -> Iterator[IO[bytes]]:
    """
    A file to write that takes its place whole when the block ends, and not at all if it raises.

    Here by a rename, in an object store by one upload.
    """
    store, inside = _store(path)
    local = _is_local(store)
    folder = Path(inside).parent if local else Path(tempfile.gettempdir())
    aside = folder / f".{uuid.uuid4().hex}.tmp"
    try:
        with aside.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if local:
            aside.replace(inside)
        else:
            store.put_file(str(aside), inside)
    finally:
        aside.unlink(missing_ok=True)


def write(path: str, content: bytes) -> None:
    with replacing(path) as file:
        file.write(content)


def _unread(path: str) -> str:
    """Why a file of no known kind is not read, and what would be."""
    if {".csv", ".tsv"} & {*Path(path.lower()).suffixes}:
        return "CSV is not read; make it JSON lines (.jsonl) or Parquet (.parquet)"
    known, packed = " ".join(SUFFIXES), " ".join(COMPRESSED)
    return f"its name ends in none that is read: {known}, of lines also with {packed} after it"


def _listed(store: Any, inside: str) -> dict[str, dict[str, Any]]:
    if store.isfile(inside):  # a name may have brackets and be no glob
        return {inside: store.info(inside)}
    if store.isdir(inside):
        found = store.find(inside, detail=True)
        return {p: i for p, i in found.items() if kind_of(p) and not _is_hidden(p, inside)}
    globbed = store.glob(inside, detail=True) if any(c in inside for c in "*?[") else {}
    return {path: info for path, info in globbed.items() if info["type"] == "file"}


def _is_hidden(path: str, root: str) -> bool:
    return any(step[0] in "._" for step in path[len(root) :].split("/") if step)


def _names(paths: Sequence[str]) -> dict[str, str]:
    """Each path below the folder that holds them all."""
    folders = [posixpath.dirname(each).split("/") for each in paths]
    shared = sum(
        1 for _ in takewhile(lambda steps: len({*steps}) == 1, zip(*folders, strict=False))
    )
    return {path: "/".join(path.split("/")[shared:]) for path in paths}


def _stamp(info: dict[str, Any]) -> str:
    return next((str(info[each]) for each in STAMPS if info.get(each)), "")


def _is_local(store: Any) -> bool:
    protocol = store.protocol
    return "file" in ((protocol,) if isinstance(protocol, str) else protocol)


def _store(path: str) -> tuple[Any, str]:
    """The file system of a path, and the path in it. Raises `Refused` where there is no driver."""
    with _told(path):
        store, inside = fsspec.core.url_to_fs(path)
    return store, inside


@contextlib.contextmanager
def _told(path: str) -> Iterator[None]:
    """Raises `Refused` for what a store's driver says, its absence too: "Install s3fs to ..."."""
    try:
        yield
    except (ImportError, ValueError, OSError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise Refused(f"{path}: {reason}") from error

"""
The plan of a run as values: what was asked, of which files, in which parts, and what came of them.

Pure; knows nothing of files, pipelines or who does the work.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum

import msgspec

from models.errors import KadogoError
from models.spec import Options, Task, Value


class Refused(KadogoError):
    """What was asked cannot be done; `str(error)` is one line that says what to do."""


class Kind(StrEnum):
    """What a file holds."""

    PARQUET = "parquet"
    JSONL = "jsonl"
    TEXT = "text"


SUFFIXES = {
    ".parquet": Kind.PARQUET,
    ".pq": Kind.PARQUET,
    ".jsonl": Kind.JSONL,
    ".ndjson": Kind.JSONL,
    ".txt": Kind.TEXT,
}
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")


def kind_of(path: str) -> Kind | None:
    """By its suffix; of lines also where they are compressed: news.jsonl.gz."""
    name = path.lower()
    bare = name.removesuffix(next((each for each in COMPRESSED if name.endswith(each)), ""))
    kind = SUFFIXES.get(os.path.splitext(bare)[1])
    return None if kind is Kind.PARQUET and bare != name else kind


class Ask(Value, frozen=True, kw_only=True):
    """
    What was asked of a run; another run into the same place must ask the same.

    variant, digest  who answers, and the exact weights
    text, id         columns; no id: rows that are set aside are known by file and row alone
    prefix           put before the names of the answer's columns
    options          how to answer
    kind             of the output: parquet or jsonl
    max_text         characters in one text
    part_rows        rows of one part at most
    """

    task: Task
    variant: str
    digest: str
    text: str
    id: str | None
    prefix: str
    options: Options
    kind: Kind
    max_text: int
    part_rows: int


class Found(Value, frozen=True, kw_only=True):
    """
    An input as its store lists it.

    path   absolute, or with its protocol
    name   what it is called in answers: its path below the folder that holds all inputs
    stamp  that changes with its content: a hash or a time
    """

    path: str
    name: str
    size: int
    stamp: str


class Source(Value, frozen=True, kw_only=True):
    """
    An input that was counted. `starts`: of lines, the byte at which each of its parts begins,
    unpacked.
    """

    found: Found
    rows: int
    starts: tuple[int, ...] = ()


class Plan(Value, frozen=True, kw_only=True):
    """
    Everything a run does, fixed before it begins.

    schema  of the columns that are carried over, as Arrow writes it, in base64; from lines to
            lines their names alone are true
    """

    ask: Ask
    kind: Kind
    sources: tuple[Source, ...]
    schema: str

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.ask, [each.found for each in self.sources])

    @property
    def rows(self) -> int:
        return sum(each.rows for each in self.sources)


class Part(Value, frozen=True, kw_only=True):
    """Rows `first` (from 0) and on of an input; `start` is the byte of the first, of lines."""

    index: int
    path: str
    name: str
    first: int
    rows: int
    start: int


class Done(Value, frozen=True, kw_only=True):
    """
    A part's receipt: its files are where they belong.

    aside         reason -> rows set aside
    began, ended  seconds since 1970, on the machine that did it
    """

    part: int
    rows: int
    tagged: int
    aside: dict[str, int]
    began: float
    ended: float


class Failed(Value, frozen=True, kw_only=True):
    """A part that could not be done, this time."""

    part: int
    reason: str


class Total(Value, frozen=True, kw_only=True):
    """What came of all parts; `fingerprint` and `ask` are of their plan."""

    fingerprint: str
    ask: Ask
    rows: int
    tagged: int
    aside: dict[str, int]

    @property
    def set_aside(self) -> int:
        return sum(self.aside.values())


def fingerprint(ask: Ask, inputs: Sequence[Found]) -> str:
    """Of what was asked and the inputs as they are now."""
    return hashlib.sha256(msgspec.json.encode([ask, *inputs], order="deterministic")).hexdigest()


def parts(plan: Plan) -> Iterator[Part]:
    """
    Every row is in exactly one; none crosses from one input into the next.

    rows 5 and 2, part_rows 3  ->  a 0-2, a 3-4, b 0-1
    """
    index = 0
    for source in plan.sources:
        for turn, first in enumerate(range(0, source.rows, plan.ask.part_rows)):
            yield Part(
                index=index,
                path=source.found.path,
                name=source.found.name,
                first=first,
                rows=min(plan.ask.part_rows, source.rows - first),
                start=source.starts[turn] if source.starts else 0,
            )
            index += 1


def total(plan: Plan, receipts: Iterable[Done]) -> Total:
    """Raises `Refused` where a part or a row is missing or there twice."""
    by_part = {each.part: each for each in receipts}
    for part in parts(plan):
        done = by_part.pop(part.index, None)
        if done is None or not done.rows == part.rows == done.tagged + sum(done.aside.values()):
            raise Refused(f"part {part.index} is not whole: delete its receipt and run again")
    if by_part:
        raise Refused(f"there are receipts of unknown parts: {sorted(by_part)[:5]}")
    aside: Counter[str] = Counter()
    tagged = 0
    for done in receipts:
        tagged += done.tagged
        aside.update(done.aside)
    return Total(
        fingerprint=plan.fingerprint,
        ask=plan.ask,
        rows=plan.rows,
        tagged=tagged,
        aside=dict(sorted(aside.items())),
    )


def differing(old: Ask, new: Ask) -> str:
    """The first thing asked otherwise, in words; that is not the inputs."""
    for name in Ask.__struct_fields__:
        before, now = getattr(old, name), getattr(new, name)
        if before != now:
            return f"{name} was {_shown(before)}, now it is {_shown(now)}"
    return "the inputs are not the same or have changed"


def _shown(value: object) -> str:
    return msgspec.json.encode(value).decode()

"""
A run's place in the files: begin it or go on with it, do one part of it, end it.

Knows nothing of who does the parts, where and how many at a time.
"""

from __future__ import annotations

import posixpath
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from models.catalog import open_variant
from models.errors import BrokenVariant, KadogoError
from models.session import SessionOptions
from models.spec import Answer, Value
from service.bulk import files
from service.bulk.formats import (
    Reader,
    join_lines,
    join_parquet,
    planned,
    reader,
    write_nothing,
    write_rejected,
    write_rows,
)
from service.bulk.parts import (
    Ask,
    Done,
    Failed,
    Kind,
    Part,
    Plan,
    Refused,
    Total,
    differing,
    fingerprint,
    parts,
    total,
)
from service.bulk.rows import NO_ID, Fault, answered, checked

# Below the parts' folder; readers of folders of Parquet pass over what begins with "_".
KEPT = "_bulk"

Kept = TypeVar("Kept", Done, Plan, Total)


class Place(Value, frozen=True, kw_only=True):
    """
    Where a run writes.

    out     a file, or the folder of parts
    single  whether it is a file: the parts' folder stands beside it until they are joined
    """

    out: str
    single: bool

    @property
    def folder(self) -> str:
        return f"{self.out}.parts" if self.single else self.out

    @property
    def rejected(self) -> str:
        return f"{self._bare}.rejected.jsonl"

    @property
    def summary(self) -> str:
        return f"{self._bare}.bulk.json"

    @property
    def plan(self) -> str:
        return f"{self.folder}/{KEPT}/plan.json"

    def owns(self, path: str) -> bool:
        """Whether a run put it there: it is no input of the next."""
        ours = path in (self.out, self.rejected, self.summary)
        return ours or path.startswith(f"{self.folder}/")

    def part(self, index: int, kind: Kind) -> str:
        return f"{self.folder}/part-{index:06d}.{kind}"

    def part_rejected(self, index: int) -> str:
        return f"{self.folder}/{KEPT}/part-{index:06d}.rejected.jsonl"

    def receipt(self, index: int) -> str:
        return f"{self.folder}/{KEPT}/part-{index:06d}.done.json"

    @property
    def _bare(self) -> str:
        return posixpath.splitext(self.out)[0] if self.single else self.out


class Job(Value, frozen=True, kw_only=True):
    """
    What who does a part needs to know.

    variant  the folder of the variant's files, where the work is done
    """

    place: Place
    plan: Plan
    variant: str
    provider: str
    batch_tokens: int


def begun(place: Place, ask: Ask, inputs: Sequence[str]) -> Plan | Total:
    """
    The plan, counted now or before; what came of it where all is done.

    Raises `Refused` where the place holds anything else than a run that asked the same.
    """
    found = [each for each in files.find(inputs) if not place.owns(each.path)]
    if not found:
        raise Refused(f"there are no inputs beside what is in {place.out} itself")
    mine = fingerprint(ask, found)
    if written := files.read(place.summary):
        done = _decoded(written, Total, place.summary)
        _check_same(done.fingerprint, mine, done.ask, ask, place.summary)
        if files.exists(place.out):
            return done
    if written := files.read(place.plan):
        plan = _decoded(written, Plan, place.plan)
        _check_same(plan.fingerprint, mine, plan.ask, ask, place.folder)
        return plan
    if (place.single and files.exists(place.out)) or {*files.below(place.folder)} - {KEPT}:
        raise Refused(f"{place.out} is there already and no run's: remove it or choose another")
    plan = planned(ask, found)
    files.make(f"{place.folder}/{KEPT}")
    files.write(place.plan, msgspec.json.encode(plan))
    return plan


def left(place: Place, plan: Plan) -> list[Part]:
    """The parts that have no receipt."""
    there = set(files.below(f"{place.folder}/{KEPT}"))
    return [e for e in parts(plan) if posixpath.basename(place.receipt(e.index)) not in there]


def ended(place: Place, plan: Plan) -> Total:
    """
    Join the parts, or what was set aside of them, and say what came of all.

    Raises `Refused` where a part is missing. Killed anywhere, it may be done again.
    """
    pieces = list(parts(plan))
    if missing := left(place, plan):
        raise Refused(
            f"{len(missing)} parts are not to be seen in {place.folder} from here: --out must be "
            "in a folder that all machines share, or in an object store"
        )
    came = total(plan, [receipt(place, each.index) for each in pieces])
    join = join_parquet if plan.ask.kind is Kind.PARQUET else join_lines
    if place.single:
        with files.replacing(place.out) as file:
            rows = join((place.part(each.index, plan.ask.kind) for each in pieces), file)
            if not pieces:
                write_nothing(file, plan)
            if rows != came.tagged:
                raise Refused(f"the parts hold {rows} rows, their receipts {came.tagged}")
    with files.replacing(place.rejected) as file:
        join_lines((place.part_rejected(e.index) for e in pieces), file)
    files.write(place.summary, msgspec.json.encode(came))
    if place.single:
        files.remove(place.folder)
    return came


def receipt(place: Place, index: int) -> Done:
    """Raises `Refused` where there is none that can be read."""
    path = place.receipt(index)
    return _decoded(files.read(path) or b"", Done, path)


class Worker:
    """A loaded variant and the input that was read last. One thread."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._reader: Reader | None = None
        options = SessionOptions(threads=1, provider=job.provider)
        self._pipeline = open_variant(Path(job.variant), options)
        found, wanted = self._pipeline.variant.digest, job.plan.ask.digest
        if found != wanted:
            raise BrokenVariant(f"{job.plan.ask.variant} is {found} here, the run is of {wanted}")

    def do(self, part: Part) -> Done | Failed:
        """Read, answer and write a part; its receipt comes last."""
        try:
            return self._do(part)
        except (KadogoError, OSError) as error:
            self._reader = None
            return Failed(part=part.index, reason=f"{part.name}: {error}")
        except Exception as error:  # a library's message may repeat a text
            self._reader = None
            return Failed(part=part.index, reason=f"{part.name}: {type(error).__name__}")

    def _do(self, part: Part) -> Done:
        job, ask, began = self._job, self._job.plan.ask, time.time()
        self._reader = self._reader or reader(job.plan)
        rows = self._reader.read(part)
        texts = [_checked(*each, ask) for each in zip(rows.texts, rows.ids, strict=True)]
        found = iter(
            answered(
                self._pipeline,
                [text for text in texts if isinstance(text, str)],
                ask.options,
                batch_tokens=job.batch_tokens,
            )
        )
        each = [next(found) if isinstance(text, str) else text for text in texts]
        answers: dict[int, Answer] = {i: a for i, a in enumerate(each) if not isinstance(a, Fault)}
        faults = [(i, rows.ids[i], a) for i, a in enumerate(each) if isinstance(a, Fault)]
        with files.replacing(job.place.part(part.index, ask.kind)) as file:
            write_rows(file, rows.body, list(answers), list(answers.values()), job.plan)
        with files.replacing(job.place.part_rejected(part.index)) as file:
            write_rejected(file, part, faults, job.plan)
        done = Done(
            part=part.index,
            rows=len(each),
            tagged=len(answers),
            aside=dict(Counter(fault.reason for _, _, fault in faults)),
            began=began,
            ended=time.time(),
        )
        files.write(job.place.receipt(part.index), msgspec.json.encode(done))
        return done


def _checked(text: object, id_: object, ask: Ask) -> str | Fault:
    if isinstance(text, Fault):
        return text
    if ask.id is not None and id_ is None:
        return Fault(NO_ID)
    return checked(text, ask.max_text)


def _check_same(old: str, new: str, before: Ask, now: Ask, where: str) -> None:
    if old != new:
        raise Refused(
            f"{where} is of another run ({differing(before, now)}): "
            "ask the same, remove it or choose another --out"
        )


def _decoded(content: bytes, kind: type[Kept], path: str) -> Kept:
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.DecodeError:
        raise Refused(f"{path} cannot be read: remove it and run again") from None

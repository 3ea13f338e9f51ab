"""
Rows of Parquet, JSON lines and text as they lie in files, and answered rows back into them.

Knows nothing of pipelines or of who asks. Imports pyarrow, which is not among what serving needs.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import IO, Any, NamedTuple, Protocol

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from models.spec import Aggregation, Answer, Task
from service.bulk import rows as said
from service.bulk.files import opened
from service.bulk.parts import Ask, Found, Kind, Part, Plan, Refused, Source, kind_of
from service.bulk.rows import Fault, columns, fields

# Bytes of one line: as much as a request's body may have.
LONGEST_LINE = 8 << 20
# Rows from which the columns of a Parquet file are learnt, where the inputs are JSON lines.
SAMPLE = 10_000
BATCH = 1024
BLOCK = 1 << 20
BOM = b"\xef\xbb\xbf"
TEXT_COLUMNS = ("file", "row", "text")


@dataclass(frozen=True, slots=True)
class Rows:
    """
    A part as it was read; all have the same length.

    texts  what stands where the text belongs, whatever it is, or why the row cannot be read
    ids    what stands in the id's column
    body   every column: a table, or each row's fields
    """

    texts: list[object]
    ids: list[object]
    body: pa.Table | list[dict[str, Any]]


class Reader(Protocol):
    """Reads parts; those of one input in their order without reading anything twice."""

    def read(self, part: Part) -> Rows: ...


def reader(plan: Plan) -> Reader:
    """For a worker, which has one core."""
    pa.set_cpu_count(1)
    return _Tables(plan) if plan.kind is Kind.PARQUET else _Lines(plan)


# --- planning ----------------------------------------------------------------------------------


def planned(ask: Ask, inputs: Sequence[Found]) -> Plan:
    """
    Count every input and learn the columns. Raises `Refused` for columns that are missing or
    taken, inputs that are not alike, and files that are not what their names say.
    """
    kinds = {kind_of(each.path) for each in inputs}
    kind = kinds.pop()
    if kinds or kind is None:
        raise Refused("the inputs are of several kinds: tag them one after another")
    try:
        schema, sources = _surveyed(kind, ask, inputs)
    except Refused:
        raise
    except Exception as error:  # each codec has its own kinds
        raise Refused(f"an input cannot be read: {_first_line(error)}") from error
    _check_columns(schema, ask, kind)
    written = base64.b64encode(schema.serialize().to_pybytes()).decode()
    return Plan(ask=ask, kind=kind, sources=sources, schema=written)


def _surveyed(
    kind: Kind, ask: Ask, inputs: Sequence[Found]
) -> tuple[pa.Schema, tuple[Source, ...]]:
    if kind is Kind.PARQUET:
        return _survey_tables(inputs)
    sources = tuple(_survey_lines(each, ask.part_rows) for each in inputs)
    if kind is Kind.TEXT:
        kinds = (pa.string(), pa.int64(), pa.string())
        return pa.schema(list(zip(TEXT_COLUMNS, kinds, strict=True))), sources
    sample = _sample(inputs)
    if ask.kind is Kind.PARQUET:
        return _learnt(sample), sources
    return pa.schema([(name, pa.null()) for name in _named(sample)]), sources


def _survey_tables(inputs: Sequence[Found]) -> tuple[pa.Schema, tuple[Source, ...]]:
    sources, schema = [], None
    for each in inputs:
        with opened(each.path) as file:
            parquet = pq.ParquetFile(file)
            mine = parquet.schema_arrow.remove_metadata()
            sources.append(Source(found=each, rows=parquet.metadata.num_rows))
        schema = schema or mine
        if mine != schema:
            raise Refused(f"{each.name} has other columns than {inputs[0].name}")
    assert schema is not None
    return schema, tuple(sources)


def _survey_lines(found: Found, part_rows: int) -> Source:
    """Count lines, and note where every `part_rows`-th begins."""
    starts, count, at, ended = [0], 0, 0, True
    with opened(found.path, unpack=True) as file:
        while block := file.read(BLOCK):
            seek, lines = -1, block.count(b"\n")
            while count + lines >= len(starts) * part_rows:  # a part begins in this block
                for _ in range(len(starts) * part_rows - count):
                    seek = block.index(b"\n", seek + 1)
                lines -= len(starts) * part_rows - count
                count = len(starts) * part_rows
                starts.append(at + seek + 1)
            count, at, ended = count + lines, at + len(block), block.endswith(b"\n")
    rows = count if ended else count + 1
    return Source(found=found, rows=rows, starts=tuple(starts[: -(-rows // part_rows)]))


def _sample(inputs: Sequence[Found]) -> list[dict[str, Any]]:
    """The first rows of JSON lines."""
    sample: list[dict[str, Any]] = []
    for each in inputs:
        with opened(each.path, unpack=True) as file:
            for line in islice(_lines(file), SAMPLE - len(sample)):
                row = _object(line, Any)
                if isinstance(row, dict):
                    sample.append(row)
    return sample


def _named(sample: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in sample for name in row))


def _learnt(sample: Sequence[Mapping[str, Any]]) -> pa.Schema:
    """The columns of JSON lines."""
    kinds = []
    for name in _named(sample):
        try:
            kinds.append((name, pa.array([row.get(name) for row in sample]).type))
        except (pa.ArrowException, OverflowError):  # its message may repeat a value
            raise Refused(
                f"the field {name} holds values of several kinds, which no column of Parquet can: "
                "ask for .jsonl instead"
            ) from None
    return pa.schema(kinds)


def _check_columns(schema: pa.Schema, ask: Ask, kind: Kind) -> None:
    names = schema.names
    if not names and kind is Kind.JSONL:
        return  # no row can be read; each will be set aside
    for flag, name in (("--text-column", ask.text), ("--id-column", ask.id)):
        if name is not None and name not in names:
            raise Refused(
                f"there is no column {name}: there are {', '.join(names)}; {flag} names one"
            )
    if len(set(names)) != len(names):
        raise Refused("two columns have the same name")
    if kind is Kind.PARQUET and not _is_text(schema.field(ask.text).type):
        raise Refused(f"column {ask.text} is {schema.field(ask.text).type}, not text")
    if taken := set(names) & set(columns(ask.task, ask.prefix)):
        raise Refused(
            f"there is a column {min(taken)} already, which the answer needs: "
            "--prefix kadogo_ puts kadogo_ before the names of the answer's columns"
        )


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


# --- reading -----------------------------------------------------------------------------------


class _Tables:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._path = ""

    def read(self, part: Part) -> Rows:
        if part.path != self._path:
            self._file = pq.ParquetFile(opened(part.path))
            self._path = part.path
            counts = [
                self._file.metadata.row_group(group).num_rows
                for group in range(self._file.num_row_groups)
            ]
            self._starts = [sum(counts[:group]) for group in range(len(counts))]
            self._go(part.first)
        elif part.first < self._at or self._group_of(part.first) > self._group_of(self._at):
            self._go(part.first)
        table = self._take(part.first, part.rows).replace_schema_metadata(None)
        ask = self._plan.ask
        texts = table.column(ask.text).to_pylist()
        ids = table.column(ask.id).to_pylist() if ask.id else [None] * len(texts)
        return Rows(texts, ids, table if ask.kind is Kind.PARQUET else table.to_pylist())

    def _group_of(self, row: int) -> int:
        return max(g for g, start in enumerate(self._starts) if start <= row)

    def _go(self, first: int) -> None:
        """To the row group in which the row is."""
        group = self._group_of(first)
        later = range(group, self._file.num_row_groups)
        self._batches = self._file.iter_batches(BATCH, row_groups=list(later), use_threads=False)
        self._at, self._held = self._starts[group], next(self._batches)

    def _take(self, first: int, rows: int) -> pa.Table:
        taken: list[pa.RecordBatch] = []
        beyond = first + rows
        while True:
            skipped = min(max(0, first - self._at), self._held.num_rows)
            count = min(beyond - self._at, self._held.num_rows) - skipped
            if count > 0:
                taken.append(self._held.slice(skipped, count))
            if self._at + self._held.num_rows >= beyond:
                return pa.Table.from_batches(taken)
            self._at += self._held.num_rows
            self._held = next(self._batches)


class _Lines:
    def __init__(self, plan: Plan) -> None:
        self._ask, self._kind = plan.ask, plan.kind
        self._schema = _schema(plan)
        self._path = ""

    def read(self, part: Part) -> Rows:
        if part.path != self._path:
            self._file = opened(part.path, unpack=True)
            self._path = part.path
        self._file.seek(part.start)
        lines = list(islice(_lines(self._file), part.rows))
        if len(lines) != part.rows:
            raise Refused(f"{part.name} has fewer rows than when they were counted")
        numbered = enumerate(lines, part.first + 1)
        if self._kind is Kind.TEXT:
            body = [_of_text(line, part.name, number) for number, line in numbered]
            return self._as_asked(*_split(body, _same, self._ask.text, self._ask.id))
        # Without a schema fields are carried over as they are written.
        of = msgspec.Raw if self._schema is None else Any
        unwrap = msgspec.json.decode if self._schema is None else _same
        objects = [_object(line, of) for line in lines]
        return self._as_asked(*_split(objects, unwrap, self._ask.text, self._ask.id))

    def _as_asked(self, texts: list[object], ids: list[object], body: list[dict[str, Any]]) -> Rows:
        """Rows whose fields fit nowhere are faults."""
        taken = set(columns(self._ask.task, self._ask.prefix))
        for index, row in enumerate(body):
            if taken & row.keys():
                texts[index], body[index] = Fault(said.TAKEN), {}
        if self._ask.kind is Kind.JSONL:
            return Rows(texts, ids, body)
        assert self._schema is not None
        for index, fault in _misfits(body, self._schema):
            texts[index], body[index] = fault, {}
        return Rows(texts, ids, pa.Table.from_pylist(body, self._schema))


def _schema(plan: Plan) -> pa.Schema | None:
    """None where rows go from lines to lines."""
    if plan.ask.kind is Kind.JSONL:
        return None
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(plan.schema)))


def _lines(file: IO[bytes]) -> Iterator[bytes | Fault]:
    """From where the file stands, without their ends."""
    first = file.tell() == 0
    while line := file.readline(LONGEST_LINE):
        long = len(line) == LONGEST_LINE and not line.endswith(b"\n")
        while long and not line.endswith(b"\n"):
            if not (line := file.readline(LONGEST_LINE)):
                break
        yield (
            Fault(said.LONG_LINE)
            if long
            else (line.removeprefix(BOM) if first else line).rstrip(b"\r\n")
        )
        first = False


def _of_text(line: bytes | Fault, name: str, number: int) -> dict[str, Any] | Fault:
    if isinstance(line, Fault):
        return line
    try:
        return dict(zip(TEXT_COLUMNS, (name, number, line.decode()), strict=True))
    except UnicodeDecodeError:
        return Fault(said.NOT_UTF8)


class _Half(NamedTuple):
    """A line that would be JSON but for half of a surrogate pair, and its fields."""

    fields: dict[str, Any]

    def id(self, name: str | None) -> object:
        """None where the half is in it."""
        found = self.fields.get(name) if name else None
        return found if _is_unicode(found) else None


def _object(line: bytes | Fault, of: Any) -> dict[str, Any] | _Half | Fault:
    if isinstance(line, Fault):
        return line
    try:
        line.decode()
        found: dict[str, Any] = msgspec.json.decode(line, type=dict[str, of])
        return found
    except UnicodeDecodeError:
        return Fault(said.NOT_UTF8)
    except msgspec.ValidationError:
        return Fault(said.NOT_AN_OBJECT)
    except (msgspec.DecodeError, RecursionError):
        return _half(line) or Fault(said.NOT_JSON)


def _half(line: bytes) -> _Half | None:
    """Python's own JSON takes halves, where msgspec tells them from nothing else."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return None if _is_unicode(found) else _Half(found)


def _is_unicode(value: object) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _same(value: Any) -> Any:
    return value


def _split(
    body: Sequence[dict[str, Any] | _Half | Fault], unwrap: Any, text: str, id_: str | None
) -> tuple[list[object], list[object], list[dict[str, Any]]]:
    """Texts, ids and fields; where a row cannot be read its fault stands for its text."""
    texts: list[object] = []
    ids: list[object] = []
    kept: list[dict[str, Any]] = []
    for row in body:
        if isinstance(row, _Half | Fault):
            texts.append(row if isinstance(row, Fault) else Fault(said.HALF))
            ids.append(row.id(id_) if isinstance(row, _Half) else None)
            kept.append({})
            continue
        try:
            texts.append(unwrap(row[text]) if text in row else None)
            ids.append(unwrap(row[id_]) if id_ in row else None)
        except (msgspec.DecodeError, RecursionError):  # inside what was left as it is written
            texts.append(Fault(said.NOT_JSON))
            ids.append(None)
            row = {}
        kept.append(row)
    return texts, ids, kept


def _misfits(body: list[dict[str, Any]], schema: pa.Schema) -> Iterator[tuple[int, Fault]]:
    names = set(schema.names)
    if all(row.keys() <= names for row in body) and _fits(body, schema):
        return
    for index, row in enumerate(body):
        if not row.keys() <= names:
            yield index, Fault(said.NO_COLUMN)
        elif not _fits([row], schema):
            yield index, Fault(said.MISFIT)


def _fits(body: list[dict[str, Any]], schema: pa.Schema) -> bool:
    """Whether the columns hold all that the rows say."""
    try:
        table = pa.Table.from_pylist(body, schema)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        return False
    return bool(_bare(table.to_pylist()) == _bare(body))


def _bare(value: Any) -> Any:
    """Without what is null: Arrow does not tell it from what is not there."""
    if isinstance(value, Mapping):
        return {name: _bare(each) for name, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_bare(each) for each in value]
    return value


# --- writing -----------------------------------------------------------------------------------


def write_rows(
    file: IO[bytes],
    body: pa.Table | list[dict[str, Any]],
    kept: Sequence[int],
    answers: Sequence[Answer],
    plan: Plan,
) -> None:
    """The rows of `body` that are `kept`, each with its answer."""
    ask = plan.ask
    said_of = [fields(answer, ask.prefix) for answer in answers]
    if isinstance(body, pa.Table):
        table = body.take(pa.array(kept, pa.int64()))
        for name, kind in zip(columns(ask.task, ask.prefix), _types(ask), strict=True):
            table = table.append_column(name, pa.array([each[name] for each in said_of], kind))
        pq.write_table(table.replace_schema_metadata(metadata(plan)), file, compression="zstd")
        return
    encoder = msgspec.json.Encoder()
    for index, answer in zip(kept, said_of, strict=True):
        file.write(encoder.encode(body[index] | answer) + b"\n")


def write_nothing(file: IO[bytes], plan: Plan) -> None:
    """What an empty corpus comes to: a file without rows, of Parquet with the columns."""
    schema = _schema(plan)
    write_rows(file, [] if schema is None else schema.empty_table(), [], [], plan)


def write_rejected(
    file: IO[bytes], part: Part, faults: Iterable[tuple[int, object, Fault]], plan: Plan
) -> None:
    """One JSON line a row that was set aside: file, row (from 1), id and reason; never its text."""
    for index, id_, fault in faults:
        row: dict[str, Any] = {"file": part.name, "row": part.first + index + 1}
        if plan.ask.id is not None:
            row["id"] = id_
        file.write(msgspec.json.encode(row | {"reason": fault.reason}) + b"\n")


def join_parquet(files: Iterable[str], into: IO[bytes]) -> int:
    """One file of several with the same columns; the rows in it."""
    writer, rows = None, 0
    for path in files:
        with opened(path) as file:
            parquet = pq.ParquetFile(file)
            if writer is None:
                writer = pq.ParquetWriter(into, parquet.schema_arrow, compression="zstd")
            for group in range(parquet.num_row_groups):
                table = parquet.read_row_group(group)
                rows += table.num_rows
                writer.write_table(table)
    if writer is not None:
        writer.close()
    return rows


def join_lines(files: Iterable[str], into: IO[bytes]) -> int:
    """As `join_parquet`, of lines."""
    rows = 0
    for path in files:
        with opened(path) as file:
            while block := file.read(BLOCK):
                rows += block.count(b"\n")
                into.write(block)
    return rows


def metadata(plan: Plan) -> dict[str, str]:
    """What a Parquet file says of itself beside its rows."""
    return {
        "kadogo.variant": plan.ask.variant,
        "kadogo.digest": plan.ask.digest,
        "kadogo.task": plan.ask.task,
        "kadogo.options": msgspec.json.encode(plan.ask.options).decode(),
        "kadogo.fingerprint": plan.fingerprint,
    }


def _types(ask: Ask) -> tuple[pa.DataType, ...]:
    """Of the answer's columns, in their order."""
    counts = (pa.int64(), pa.int64(), pa.float64())
    if ask.task is Task.CLASSIFICATION:
        label = pa.struct([("label", pa.string()), ("score", pa.float64())])
        return (pa.string(), pa.list_(label), *counts)
    entity = [
        ("label", pa.string()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("text", pa.string()),
        ("score", pa.float64()),
    ]
    if ask.options.aggregation is Aggregation.NONE:
        entity += [("index", pa.int64()), ("piece", pa.string())]
    return (pa.list_(pa.struct(entity)), *counts)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__

"""The figures as tables, for the terminal, Markdown and HTML alike. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from loadtest.bootstrap import Interval
from loadtest.findings import SHARES, STATISTICS, Findings, Row, slowest
from loadtest.report.numbers import number
from loadtest.report.verdict import WORDS, noise_told, searched

MILLION = 1_000_000
HOUR_S = 3600


@dataclass(frozen=True, slots=True)
class Cell:
    """A figure and, quieter, how sure it is."""

    text: str
    quiet: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """The first column are names, the others figures."""

    name: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""


def tables(found: Findings, price: float) -> list[Table]:
    """`price`: of an hour of one CPU."""
    made = [
        _latency(found),
        _worth(found, price),
        _differences(found),
        _server(found),
        _load(found),
    ]
    return [table for table in made if table.rows and len(table.head) > 1]


def cost(row: Row, price: float) -> Interval | None:
    """Of a million answers, from the CPU-seconds that the server's processes took."""
    cpu = row.server.cpu_s
    if cpu is None:
        return None
    a_second = MILLION * price / HOUR_S
    return Interval(cpu.mean * a_second, cpu.low * a_second, cpu.high * a_second)


def plain(table: Table) -> str:
    """Aligned for a terminal: names to the left, figures to the right."""
    lines = [table.head, *(tuple(_joined(cell) for cell in row) for row in table.rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(table.head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def markdown(table: Table) -> str:
    lines = [table.head, ["---", *["---:"] * (len(table.head) - 1)]]
    lines += [[_joined(cell) for cell in row] for row in table.rows]
    told = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"### {table.name}\n\n{told}\n" + (f"\n{table.note}\n" if table.note else "")


def _latency(found: Findings) -> Table:
    within = f"{1000 * found.limit_s:g} ms" if found.limit_s else ""
    columns: list[tuple[str, Callable[[Row], Cell]]] = [
        ("peak answers/s", lambda row: _sure(row.rate, least=row.least)),
        *((f"{share} ms", _percentile(share)) for share in SHARES),
        ("p99.9 ms", lambda row: Cell(number(row.p999_s * 1000))),
        ("failed", lambda row: Cell(f"{row.failed:.2%}" if row.failed else "0")),
    ]
    if within:
        columns.insert(-1, (f"answers/s within {within}", _goodput))
    if found.searches:
        columns.insert(
            1, ("largest rate, /s", lambda row: Cell(searched(found.searches.get(row.variant))))
        )
    requests = min(row.requests for row in found.rows)
    return Table(
        "Rate and latency",
        ("variant", *(name for name, _ in columns)),
        tuple((Cell(row.variant), *(make(row) for _, make in columns)) for row in found.rows),
        f"Latencies at {number(found.rate)} requests/s, the same arrivals for all, from when a "
        f"request was due; {requests:,} requests or more each, so that the p99 rests on "
        f"{slowest(requests)}. A request that failed took for ever. Brackets: 95 %."
        + (f" Largest rate: with a p99 within {within}, by search." if found.searches else ""),
    )


def _worth(found: Findings, price: float) -> Table:
    columns: list[tuple[str, Callable[[Row], Cell]]] = []
    rows = found.rows
    if any(row.quality for row in rows):
        columns.append(("F1", lambda row: _f1(row)))
        columns.append(("F1 below, at most", lambda row: _drop(row)))
    if any(row.quality and row.quality.n for row in rows):
        columns.append(("texts", _texts))
    if any(row.bytes for row in rows):
        columns.append(("size, MB", lambda row: Cell(number((row.bytes or math.nan) / 1e6))))
    if any(row.server.cpu_s for row in rows):
        columns.append(
            ("CPU ms an answer", lambda r: _sure(r.server.cpu_s, 1000) if r.server.cpu_s else NONE)
        )
        columns.append(
            (
                "cost of a million answers",
                lambda row: _sure(c, sign="$") if (c := cost(row, price)) else NONE,
            )
        )
    if any(row.server.energy_j for row in rows):
        columns.append(("J an answer", lambda row: Cell(number(row.server.energy_j or math.nan))))
    of = "the very answers" if found.labelled else "the variants' evidence"
    note = f"F1 of {of}. " if any(row.quality for row in rows) else ""
    if any(row.server.cpu_s for row in rows):
        note += f"Cost: CPU-seconds of the server's processes, ${price:g} an hour of one CPU; read "
        note += "once a turn, so their intervals know of rounds alone. "
    if any(row.server.energy_j for row in rows):
        note += "Energy: of the whole processor, what made the load included."
    return Table(
        "Quality and cost",
        ("variant", *(name for name, _ in columns)),
        tuple((Cell(row.variant), *(make(row) for _, make in columns)) for row in rows),
        note.strip(),
    )


def _differences(found: Findings) -> Table:
    first, *others = found.rows
    names = [name for name in STATISTICS if name in found.noise]
    rows = [
        (
            Cell(row.variant),
            *(_times(found, row.variant, first.variant, name) for name in names),
        )
        for row in others
    ]
    noise = (Cell("noise"), *(Cell(noise_told(found.noise[name])) for name in names))
    return Table(
        f"Times {first.variant}",
        ("variant", *(WORDS[name] for name in names)),
        (*rows, noise),
        f"How many times what {first.variant} has, over the same arrivals in paired rounds. ≈: "
        "not told, for the interval holds 1 or the difference is smaller than the noise. Noise: "
        f"how far {first.variant} was from itself in two turns of every round. At 95 % one in "
        "twenty may be luck.",
    )


def _server(found: Findings) -> Table:
    columns: list[tuple[str, Callable[[Row], Cell]]] = []
    told = [row.server for row in found.rows]
    if any(each.queue_s is not None for each in told):
        columns += [
            ("wait in the queue, ms", lambda row: _maybe(row.server.queue_s, 1000)),
            ("windows a batch", lambda row: _maybe(row.server.batch)),
            ("padding, %", lambda row: _maybe(row.server.padding, 100)),
        ]
    memory = max((each.memory for each in told if each.memory is not None), default=None)
    note = "At the same rate as the latencies; windows are what a long text is cut into."
    if memory is not None:
        note += (
            f" The whole server, with all the variants it holds, took {number(memory * 2**-20)} "
            "MiB of memory at most."
        )
    return Table(
        "What the server saw",
        ("variant", *(name for name, _ in columns)),
        tuple((Cell(row.variant), *(make(row) for _, make in columns)) for row in found.rows),
        note,
    )


def _load(found: Findings) -> Table:
    def cells(row: Row) -> Iterator[Cell]:
        load = row.load
        yield Cell(row.variant)
        yield from (Cell(number(each)) for each in (load.offered, load.achieved))
        yield Cell(f"{load.dropped:,}")
        yield from (Cell(number(each)) for each in (load.late_p99_s * 1000, load.cores))

    return Table(
        "The load itself",
        ("variant", "offered/s", "sent/s", "dropped", "p99 late, ms", "share of a core"),
        tuple(tuple(cells(row)) for row in found.rows),
        "At the same rate as the latencies. Late: from when a request was due until it went out. "
        "What sends has one core; above 0.7 of it, it would wait for itself.",
    )


NONE = Cell("-")


def _percentile(share: str) -> Callable[[Row], Cell]:
    return lambda row: _sure(row.percentiles[share], 1000)


def _goodput(row: Row) -> Cell:
    return Cell(number(row.goodput or 0.0))


def _sure(value: Interval, times: float = 1.0, *, least: bool = False, sign: str = "") -> Cell:
    text = ("≥ " if least else "") + sign + number(value.mean * times)
    if not math.isfinite(value.high) or value.low <= 0:
        return Cell(text)
    return Cell(text, f"[{number(value.low * times)}, {number(value.high * times)}]")


def _times(found: Findings, mine: str, theirs: str, name: str) -> Cell:
    difference = found.differences.get((mine, theirs, name))
    if difference is None:
        return NONE
    if not difference.exists:
        return Cell("failed")
    cell = _sure(difference.ratio)
    return Cell(f"≈ {cell.text}" if difference.undecided else f"× {cell.text}", cell.quiet)


def _f1(row: Row) -> Cell:
    if row.quality is None:
        return NONE
    low, high = row.quality.low, row.quality.high
    ends = f"[{low:.3f}, {high:.3f}]" if math.isfinite(high) else ""
    return Cell(f"{row.quality.mean:.3f}", ends)


def _texts(row: Row) -> Cell:
    return Cell(f"{row.quality.n:,}") if row.quality and row.quality.n else NONE


def _drop(row: Row) -> Cell:
    known = row.quality and row.quality.drop is not None
    return Cell(f"{row.quality.drop:.3f}") if known and row.quality else NONE


def _maybe(value: float | None, times: float = 1.0) -> Cell:
    return NONE if value is None else Cell(number(value * times))


def _joined(cell: Cell) -> str:
    return f"{cell.text} {cell.quiet}".strip()

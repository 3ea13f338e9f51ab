"""
`python -m service.bulk tag`: a command line to a run, its progress and what came of it.

Status 0: every row was tagged; 1: done, some rows were set aside; 2: not done, and one line says
why; 130: stopped. After the last two the same command goes on. Imports Ray when all else is right.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from models import catalog
from models.errors import KadogoError
from models.spec import Options, Task, Variant
from service.bulk.parts import Ask, Done, Failed, Kind, Part, Refused, Total, kind_of
from service.forms import Form
from service.schemas import PARAMETERS
from service.settings import Settings, cores

if TYPE_CHECKING:
    from service.bulk.parts import Plan
    from service.bulk.work import Place

SET_ASIDE, FAILED, STOPPED = 1, 2, 130
PART_ROWS = 2048
INSTALL = "pip install -r requirements/bulk.txt"
HERE = ("127.", "local")
# Seconds between two lines of progress where nobody sits before them.
EVERY = 10.0
# Characters of the bar.
CELLS = 20


def main(argv: Sequence[str]) -> int:
    """The status, after one line on stderr where it is not 0."""
    asked = _arguments(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds: Ray is stopped
    try:
        return _tag(asked)
    except KadogoError as error:
        print(error, file=sys.stderr)
        return FAILED
    except OSError as error:  # a place that cannot be written, a disk that is full
        print(f"{error.filename or asked.out}: {error.strerror or error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("stopped: the same command goes on from here", file=sys.stderr)
        return STOPPED


def _tag(asked: argparse.Namespace) -> int:
    settings = Settings.from_env()
    folder = settings.catalog / asked.variant
    variant = _variant(settings.catalog, asked.variant)
    kind, single = _kind_of_output(asked.out, asked.format)
    ask = Ask(
        task=variant.task,
        variant=variant.name,
        digest=variant.digest,
        text=asked.text_column,
        id=asked.id_column,
        prefix=asked.prefix,
        options=_options(asked.parameters, variant.task),
        kind=kind,
        max_text=settings.max_text,
        part_rows=asked.part_rows,
    )
    if asked.address is None or asked.address.startswith(HERE):
        # Ray would listen on every interface, and run what comes. It reads this as it is imported.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    try:
        from service.bulk import files, run, work
    except ImportError as error:
        raise Refused(f"tagging in bulk needs {error.name}: {INSTALL}") from error
    place = work.Place(out=files.absolute(asked.out), single=single)
    plan = work.begun(place, ask, asked.inputs)
    if isinstance(plan, Total):
        print("done before, nothing is left to do", file=sys.stderr)
        return _told(plan, place)
    todo = work.left(place, plan)
    job = work.Job(
        place=place,
        plan=plan,
        variant=str(folder.resolve()),
        provider=settings.provider,
        batch_tokens=settings.batch_tokens,
    )
    workers = asked.workers or (None if asked.address else cores())
    if failed := _followed(run.done(job, todo, workers=workers, address=asked.address), plan, todo):
        raise Refused(
            f"{len(failed)} parts failed, the first of them part {failed[0].part}, "
            f"{failed[0].reason}: the same command tries them again"
        )
    return _told(work.ended(place, plan), place)


def _followed(came: Iterator[Done | Failed], plan: Plan, todo: Sequence[Part]) -> list[Failed]:
    """Tell how far it is; the parts that failed."""
    failed: list[Failed] = []
    if not todo:
        return failed
    progress = _Progress(plan.rows, sum(part.rows for part in todo))
    for each in came:
        if isinstance(each, Failed):
            failed.append(each)
        else:
            progress.add(each)
    progress.end()
    return failed


class _Progress:
    """Rows done, rows a second and how long it will take, on stderr; on a terminal as a bar."""

    def __init__(self, rows: int, todo: int) -> None:
        self._rows, self._before, self._done = rows, rows - todo, 0
        self._began: float | None = None
        self._told = time.monotonic()
        self._live = sys.stderr.isatty()
        if self._before:
            print(f"going on: {self._before:,} of {rows:,} rows are done", file=sys.stderr)

    def add(self, done: Done) -> None:
        now = time.monotonic()
        # From the first part's own beginning: starting Ray and loading the variant are no rate.
        self._began = self._began or now - (done.ended - done.began)
        self._done += done.rows
        if self._live or now - self._told >= EVERY:
            self._told = now
            rate = self._done / max(1e-6, now - self._began)
            so_far = self._before + self._done
            left = (self._rows - so_far) / rate
            line = f"{so_far:,} of {self._rows:,} rows, {rate:,.0f} texts/s, {_clock(left)} left"
            print(
                f"\r{_bar(so_far, self._rows)} {line}\x1b[K" if self._live else line,
                end="" if self._live else "\n",
                file=sys.stderr,
                flush=True,
            )

    def end(self) -> None:
        if self._live:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _bar(done: int, of: int) -> str:
    """1 of 3  ->  [#####---------------]  33 %"""
    full = CELLS * done // of
    return f"[{'#' * full}{'-' * (CELLS - full)}] {100 * done // of:3} %"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


def _told(total: Total, place: Place) -> int:
    print(f"{total.rows} rows: {total.tagged} tagged, {total.set_aside} set aside: {place.out}")
    for reason, rows in total.aside.items():
        print(f"  {rows} set aside: {reason}")
    if not total.set_aside:
        return 0
    print(f"which they are, and why: {place.rejected}", file=sys.stderr)
    return SET_ASIDE


def _variant(root: Path, name: str) -> Variant:
    """Raises `Refused` where the catalog has none of that name."""
    known = {n: each for n, each in catalog.manifests(root).items() if each is not None}
    if name not in known:
        raise Refused(f"there is no variant {name} in {root}: known are {', '.join(known)}")
    return known[name]


def _kind_of_output(out: str, format_: str | None) -> tuple[Kind, bool]:
    """What is written, and whether into one file. Raises `Refused` for other suffixes."""
    kind, suffix = kind_of(out), os.path.splitext(out.rstrip("/"))[1]
    if kind in (Kind.PARQUET, Kind.JSONL) and suffix in (".parquet", ".jsonl"):
        if format_ not in (None, kind):
            raise Refused(f"--out {out} is {kind}, --format says {format_}")
        return kind, True
    if suffix:
        raise Refused(f"--out {out}: give a name in .parquet or .jsonl, or a folder without a dot")
    return Kind(format_ or Kind.PARQUET), False


def _options(parameters: str, task: Task) -> Options:
    """Raises `Refused` for what the service would refuse."""
    form = Form(PARAMETERS[task])
    try:
        return form.read(parameters.encode()).options()
    except KadogoError as error:
        raise Refused(f"--parameters: {str(error).removeprefix('the body: ')}") from error


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m service.bulk", description=__doc__)
    tag = parser.add_subparsers(required=True).add_parser(
        "tag", help="answer every text of a corpus", description=__doc__
    )
    tag.add_argument("inputs", nargs="+", help=".parquet, .jsonl or .txt: files, folders, globs")
    tag.add_argument("--variant", required=True, help="who answers")
    tag.add_argument("--out", required=True, help="a name in .parquet or .jsonl, or a folder")
    tag.add_argument("--format", choices=["parquet", "jsonl"], help="of a folder's parts: parquet")
    tag.add_argument("--text-column", default="text", metavar="NAME", help="text")
    tag.add_argument("--id-column", metavar="NAME", help="names rows that are set aside")
    tag.add_argument("--prefix", default="", help="before the names of the answer's columns")
    tag.add_argument("--parameters", default="{}", help='as /v1 takes them: {"min_score": 0.5}')
    tag.add_argument("--address", help="of a Ray cluster; left out: on this machine")
    tag.add_argument("--workers", type=_positive, help="at a time; left out: as many as cores")
    tag.add_argument("--part-rows", type=_positive, default=PART_ROWS, help=f"{PART_ROWS}")
    return parser.parse_args(argv)


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not (number := int(text)):
        raise argparse.ArgumentTypeError("it must be a whole number, 1 or more")
    return number


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

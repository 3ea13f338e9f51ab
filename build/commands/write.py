"""Write variants and studies up: pages, tables, pictures."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from build.commands.common import (
    DOCS,
    ZOO,
    add_folders,
    check,
    device,
    keep_to_one_corpus,
    known,
    quiet_libraries,
)
from build.errors import BuildError
from build.prepare import prepared
from build.run import Kitchen


def report(words: Sequence[str]) -> int:
    from build.report import report

    told = "Write the judged variants of a catalog up: a page, pictures, model cards."
    return _of_a_catalog("report", told, report, words)


def frontier(words: Sequence[str]) -> int:
    from build.frontier import frontier

    told = (
        "Draw quality against bytes and speed for every judged and measured variant, and say "
        "which are dominated."
    )
    return _of_a_catalog("frontier", told, frontier, words)


def _of_a_catalog(
    name: str, told: str, write: Callable[[Path, Path], Iterable[Path]], words: Sequence[str]
) -> int:
    parser = argparse.ArgumentParser(prog=f"python -m build {name}", description=told)
    parser.add_argument("--catalog", type=Path, default=ZOO)
    parser.add_argument("--out", type=Path, default=DOCS, help=f"a folder; {DOCS} by default")
    args = parser.parse_args(words)
    for file in write(args.catalog, args.out):
        print(file)
    return 0


def study(words: Sequence[str]) -> int:
    from build.studies.plan import STUDIES, toy

    parser = argparse.ArgumentParser(
        prog="python -m build study",
        description="Make and score the rows of a study, then write its table, picture and page. "
        "What is done is not done again: a stopped study continues.",
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help=", ".join(STUDIES))
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--quick", action="store_true", help="toys in minutes, to see it work")
    parser.add_argument("--split-name", default="test", help="what the evidence calls the split")
    parser.add_argument("--out", type=Path, help=f"a folder; {DOCS / 'studies'} by default")
    add_folders(parser, catalog=ZOO, what="where the baseline is taken from")
    args = parser.parse_args(words)
    for name in args.names:
        known(name, STUDIES, "study")
    if args.quick and args.out is None:
        raise BuildError("give --out FOLDER: a quick study is not for the docs")
    studies = {name: toy(STUDIES[name]) if args.quick else STUDIES[name] for name in args.names}
    kitchen = Kitchen(args.data, device(args.device), args.cache, args.catalog)
    check(
        [
            (prepared(row.steps, base=None, quick=args.quick), row.languages)
            for study in studies.values()
            for row in study.made
        ],
        args.data,
    )
    keep_to_one_corpus(kitchen)
    quiet_libraries()
    from build.studies.run import run
    from build.studies.write import write

    rows = args.cache / ("quick-studies" if args.quick else "studies")
    for name, study in studies.items():
        found = run(study, kitchen, rows, quick=args.quick, called=args.split_name)
        out = args.out or DOCS / "studies"
        for file in write(name, study, found, rows, args.data, out, quick=args.quick):
            print(file)
    return 0

"""Judge variants: their scores, their speed, and the texts that load tests score."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from build.commands.common import ZOO, at_least, names, show
from build.errors import BuildError
from models.spec import Task


def evaluate(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m build evaluate",
        description="Score variants of a catalog and write the evidence into their manifests.",
    )
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--split", default="test", choices=("dev", "test"))
    parser.add_argument("--split-name", help="what the evidence calls it; the split by default")
    parser.add_argument("--catalog", type=Path, default=ZOO)
    told = "write nothing: score again, fail where a figure leaves the interval in the manifest"
    parser.add_argument("--check", action="store_true", help=told)
    parser.add_argument("--url", help="with --check: ask this server, KADOGO_KEY its key")
    args = parser.parse_args(words)
    if args.check:
        if args.split_name:
            raise BuildError("--split-name is for evidence, which --check does not write")
        return _check(args)
    if args.url:
        raise BuildError("--url goes with --check: evidence is measured in-process")
    from build.evaluate import evaluate

    called = args.split_name or args.split
    show(evaluate(args.catalog, args.names, args.data, split=args.split, called=called))
    return 0


def _check(args: argparse.Namespace) -> int:
    from build.evaluate import check
    from build.publish import read
    from build.server import Server
    from models import catalog

    failed = 0
    for name in args.names:
        variant = read(args.catalog, name)
        served = (
            Server(args.url, variant) if args.url else catalog.open_variant(args.catalog / name)
        )
        outside, count = check(variant, served.answer, args.data, args.split)
        for line in outside:
            print(f"{name}: outside its interval: {line}", file=sys.stderr)
        print(f"{name}: {count - len(outside)} of {count} scores inside their intervals")
        failed += len(outside)
    return 1 if failed else 0


def measure(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m build measure",
        description="Speed and memory of variants against their baseline; wants a quiet machine.",
    )
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--rounds", type=at_least(2), default=20, help="20 by default")
    parser.add_argument("--catalog", type=Path, default=ZOO)
    args = parser.parse_args(words)
    from build.measure import measure

    for name, speed in measure(args.catalog, args.names, rounds=args.rounds).items():
        rate, ratio = speed.tokens_per_second, speed.ratio_to_baseline
        print(
            f"{name}: {rate.mean:,.0f} tokens/s on one core, {ratio.mean:.2f} x its baseline "
            f"({ratio.low:.2f} to {ratio.high:.2f}); loads in {speed.load_seconds.mean:.2f} s, "
            f"{speed.resident_bytes / 1e6:.0f} MB resident"
        )
    return 0


def labelled(words: Sequence[str]) -> int:
    from build.labelled import lines

    parser = argparse.ArgumentParser(
        prog="python -m build labelled",
        description="Write a split as JSON lines, texts with what is right: load tests read them.",
    )
    parser.add_argument("task", choices=[task.value for task in Task])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--split", default="test", choices=("dev", "test"))
    parser.add_argument("--languages", type=names, default=(), help="hau,yor; all by default")
    args = parser.parse_args(words)
    for line in lines(args.data, Task(args.task), args.languages, args.split):
        print(line)
    return 0

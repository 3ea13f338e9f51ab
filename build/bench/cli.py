"""
The command: flags to a plan, its sections in turn, then the report. Knows nothing of measuring.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from build import bench
from build.bench import overhead, routing, speed, start, throughput, watched, workers
from build.bench.plan import Plan
from build.bench.report import facts, say, tell
from build.errors import BuildError
from build.figures import Figure
from loadtest.record import Unusable
from loadtest.stolen import Stolen
from models import catalog
from models.errors import KadogoError
from models.spec import Variant

ROOT = Path(__file__).resolve().parents[2]
ZOO = ROOT / "models" / "zoo"

SECTIONS: dict[str, Callable[[Plan], list[Figure]]] = {
    "start": start.measure,
    "throughput": throughput.measure,
    "speed": speed.measure,
    "overhead": overhead.measure,
    "routing": routing.measure,
    "watched": watched.measure,
    "workers": workers.measure,
}
# Without what only some operators want to know, and for which more must be installed.
USUAL = "start,throughput,speed,overhead,routing"


def main(argv: Sequence[str]) -> int:
    """0, or 2 with one line on what was asked wrongly or went wrong."""
    args = _arguments(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds: servers are stopped
    try:
        return _bench(args, argv)
    except (BuildError, KadogoError, Unusable) as error:
        print(error, file=sys.stderr)
        return 2


def _bench(args: argparse.Namespace, argv: Sequence[str]) -> int:
    plan = _plan(args)
    stolen = Stolen()
    figures: list[Figure] = []
    told = {"command": " ".join(["python -m build bench", *argv])}
    try:
        for name, measure in SECTIONS.items():
            if name in args.only:
                say(f"{name} ...")
                figures += measure(plan)
    except BaseException:  # what was measured before it is told all the same
        told["broken off"] = f"in {name}: what follows is missing"
        if figures:
            tell(figures, {**facts(plan, stolen), **told}, args.out)
        raise
    tell(figures, {**facts(plan, stolen), **told}, args.out)
    return 0


def _plan(args: argparse.Namespace) -> Plan:
    """Raises BuildError for a variant or a checkpoint that is not there."""
    variants = variants_in(args.catalog, [name for name in args.variants.split(",") if name])
    return Plan(
        catalog=args.catalog,
        variants=variants,
        checkpoints=checkpoints_of(variants, args.torch),
        rounds=1 if args.quick else args.rounds,
        seconds=0.7 if args.quick else args.seconds,
        warmup_s=0.3 if args.quick else args.warmup,
        starts=1 if args.quick else min(3, args.rounds),
        connections=args.connections,
        cores=args.cores,
        seed=args.seed,
    )


def variants_in(root: Path, wanted: Sequence[str]) -> tuple[Variant, ...]:
    """The manifests of the variants wanted, or of all in the catalog. Raises BuildError."""
    known = sorted(path.parent.name for path in root.glob(f"*/{catalog.MANIFEST}"))
    if not known:
        raise BuildError(
            f"{root} holds no variants: build some, or give --catalog a folder of them"
        )
    if missing := [name for name in wanted if name not in known]:
        raise BuildError(f"{root} does not hold {', '.join(missing)}; it holds {', '.join(known)}")
    return tuple(catalog.read(root / name) for name in wanted or known)


def checkpoints_of(variants: Sequence[Variant], given: Sequence[str]) -> dict[str, Path]:
    """VARIANT=FOLDER flags. Raises BuildError."""
    names = {variant.name for variant in variants}
    found = {}
    for each in given:
        name, _, folder = each.partition("=")
        if name not in names or not (Path(folder) / "config.json").is_file():
            raise BuildError(
                f"--torch {each}: expected a variant that is measured, =, and the "
                "checkpoint folder (with config.json) it was exported from"
            )
        found[name] = Path(folder)
    return found


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m build bench",
        description=bench.__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--catalog", type=Path, default=ZOO, help="folder of variants")
    parser.add_argument("--variants", default="", help="names, comma-separated; none: all")
    parser.add_argument(
        "--torch",
        action="append",
        default=[],
        metavar="VARIANT=FOLDER",
        help="also run this variant's torch checkpoint, eager",
    )
    parser.add_argument("--only", default=USUAL, type=_sections, help="what to measure")
    parser.add_argument("--rounds", type=_positive(int), default=5, help="of each mode")
    parser.add_argument("--seconds", type=_positive(float), default=6.0, help="of each measurement")
    parser.add_argument("--warmup", type=float, default=2.0, help="seconds of load not counted")
    parser.add_argument("--connections", type=_positive(int), default=16, help="each one text")
    parser.add_argument("--cores", type=_positive(int), default=_cores(), help="model threads")
    parser.add_argument("--seed", type=int, default=1, help="of the texts")
    parser.add_argument("--quick", action="store_true", help="one short round: does it run at all?")
    parser.add_argument("--out", type=Path, default=Path("reports"), help="folder of bench.json")
    return parser.parse_args(argv)


def _sections(text: str) -> list[str]:
    names = text.split(",")
    if strange := set(names) - SECTIONS.keys():
        raise argparse.ArgumentTypeError(f"{', '.join(strange)}: known are {', '.join(SECTIONS)}")
    return names


def _positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    def positive(text: str) -> float:
        if (value := kind(text)) <= 0:
            raise argparse.ArgumentTypeError(f"{text} is not more than 0")
        return value

    return positive


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

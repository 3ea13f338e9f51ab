"""
How fast this machine serves: ratios from one interleaved run, never one day against another.

`python -m build bench` starts the real server, loads it over HTTP, and runs the same texts through
the same models in this process. Knows nothing of quality, nor of what else runs on the machine.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import psutil  # type: ignore[import-untyped]

from build import echo
from build.errors import BuildError
from build.figures import Figure, Target, interleave, ratios, table
from build.load import Load, generator_name, saturate
from build.server import Server, serving
from models import catalog
from models.batches import cut
from models.errors import KadogoError
from models.pipeline import BATCH_TOKENS, Pipeline
from models.runtime import SessionOptions, open_session
from models.spec import Runtime, Task, Variant

ROOT = Path(__file__).resolve().parent.parent
ZOO = ROOT / "models" / "zoo"

ROUTES = {Task.NER: "/v1/ner", Task.CLASSIFICATION: "/v1/classify"}
KINDS = {Task.NER: "sentences", Task.CLASSIFICATION: "articles"}
TEXTS = 512
LEAST_TEXTS = 32

# Texts waiting at a server with 16 connections: what it could sort at best.
WAITING = 16
SPEED_TEXTS = {Task.NER: 32, Task.CLASSIFICATION: 4}
SPEED_BATCH = 8

# The AfriBERTa-base shape has 111 million parameters, the embedded ones a tenth.
LARGE_PARAMETERS = 50_000_000
OF_IN_PROCESS_LARGE, OF_IN_PROCESS_SMALL = 0.85, 0.7
OF_STARLETTE = 2.0
READY_S = 6.0

SECTIONS = ("start", "throughput", "speed", "overhead")


@dataclass(frozen=True)
class Plan:
    """How long to measure. `cores`: of the server, and as many threads in this process."""

    rounds: int
    seconds: float
    warmup_s: float
    starts: int
    connections: int
    cores: int
    seed: int


# --- start ------------------------------------------------------------------------------------


def start(root: Path, plan: Plan) -> list[Figure]:
    """From starting the process to ready, files in the page cache; memory when ready."""
    ready, memory = [], []
    for _ in range(plan.starts):
        with _kadogo(root, plan) as server:
            ready.append(server.ready_s)
            memory.append(server.memory_bytes() / 2**20)
    return [
        Figure("start", "all", "to ready", "s", tuple(ready), Target(READY_S, at_least=False)),
        Figure("start", "all", "resident memory when ready", "MiB", tuple(memory)),
    ]


# --- throughput -------------------------------------------------------------------------------


def throughput(server: Server, pipeline: Pipeline, plan: Plan) -> list[Figure]:
    """Saturated texts/s over HTTP against the same texts in this process, on the same cores."""
    variant = pipeline.variant
    texts = traffic(KINDS[variant.task], plan.seed)
    bodies = [_body(text, variant.name) for text in texts]
    loads: list[Load] = []

    def http() -> float:
        loads.append(_load(server, variant.task, bodies, plan))
        return loads[-1].rate(after_s=plan.warmup_s, until_s=plan.warmup_s + plan.seconds)

    size = texts_for(http(), plan.seconds, len(texts))
    texts, bodies = texts[:size], bodies[:size]
    lengths = [len(pipeline.encode(text).ids) for text in texts]
    orders = {
        "in process, sorted within 16 waiting": sorted_within(lengths, WAITING, plan.cores),
        "in process, sorted over all": sorted_over_all(lengths, WAITING),
        "in process, one at a time": [[index] for index in range(size)],
    }
    inside = {
        name: _in_process(pipeline, [[texts[i] for i in group] for group in groups], plan)
        for name, groups in orders.items()
    }
    found = interleave({"HTTP": http, **inside}, plan.rounds)
    large = variant.parameters >= LARGE_PARAMETERS
    target = Target(OF_IN_PROCESS_LARGE if large else OF_IN_PROCESS_SMALL)
    sorted_orders = list(orders)[:2]

    def figure(what: str, unit: str, rounds: tuple[float, ...], **of: Target) -> Figure:
        return Figure("throughput", variant.name, what, unit, rounds, **of)

    return [
        *(figure(name, "texts/s", values) for name, values in found.items()),
        *(
            figure(f"HTTP / {name}", "ratio", ratios(found["HTTP"], found[name]), target=target)
            for name in sorted_orders
        ),
        figure("load generator", "cores", tuple(load.generator for load in loads[1:])),
        figure("failed calls", "calls", tuple(float(load.failures) for load in loads)),
    ]


def _load(server: Server, task: Task, bodies: Sequence[bytes], plan: Plan) -> Load:
    seconds = plan.warmup_s + plan.seconds
    url = server.url + ROUTES[task]
    load = saturate(url, bodies, connections=plan.connections, seconds=seconds)
    if not load.rate(after_s=plan.warmup_s, until_s=seconds):
        raise BuildError(
            f"no right answer came in {plan.seconds:g} s ({load.failures} failed): "
            "is the machine busy? --seconds gives it more time"
        )
    return load


def _in_process(
    pipeline: Pipeline, groups: Sequence[Sequence[str]], plan: Plan
) -> Callable[[], float]:
    """Texts a second of whole passes over the groups, a thread a core, each its own runs."""

    def turns(until: float) -> Iterator[Sequence[str]]:
        while True:
            yield from groups
            if time.perf_counter() >= until:
                return

    def measure() -> float:
        began = time.perf_counter()
        waiting, lock, done = turns(began + plan.seconds), threading.Lock(), itertools.count()

        def work() -> None:
            while True:
                with lock:
                    group = next(waiting, None)
                if group is None:
                    return
                for _ in pipeline.answer(group):
                    next(done)

        threads = [threading.Thread(target=work) for _ in range(plan.cores)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return next(done) / (time.perf_counter() - began)

    return measure


def texts_for(rate: float, seconds: float, available: int) -> int:
    """How many texts fill the time once, in whole groups of those waiting; 32 at least."""
    wanted = max(LEAST_TEXTS, round(rate * seconds / WAITING) * WAITING)
    return min(wanted, available)


def sorted_within(lengths: Sequence[int], waiting: int, cores: int) -> list[list[int]]:
    """
    Of each `waiting` texts in their order: sorted by length, as many groups as cores.

    lengths 9 2 3 8 | 5 1   waiting 4   cores 2   -> [1, 2] [3, 0] [5] [4]
    """
    groups = []
    for start in range(0, len(lengths), waiting):
        order = sorted(range(start, min(start + waiting, len(lengths))), key=lengths.__getitem__)
        size = -(-len(order) // cores)
        groups += [order[i : i + size] for i in range(0, len(order), size)]
    return groups


def sorted_over_all(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Sorted by length, groups of `size`."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    return [order[i : i + size] for i in range(0, len(order), size)]


# --- speed ------------------------------------------------------------------------------------


EAGER = ", torch eager"


def speed(pipelines: Mapping[str, Pipeline], plan: Plan) -> list[Figure]:
    """
    Tokens a second of the model alone on one core, in batches of 8 of like length.

    All of one task. Others are compared with the first, and with those of torch, by the time the
    same texts took.
    """
    names = list(pipelines)
    task = pipelines[names[0]].variant.task
    texts = traffic(KINDS[task], plan.seed)[: SPEED_TEXTS[task]]
    tokens = {
        name: sum(len(w.ids) for text in texts for w in pipeline.encode(text).windows)
        for name, pipeline in pipelines.items()
    }
    modes = {name: _passes(pipeline, texts, plan) for name, pipeline in pipelines.items()}
    found = interleave(modes, plan.rounds)

    def figure(name: str, what: str, unit: str, rounds: Iterable[float]) -> Figure:
        return Figure("speed", name, what, unit, tuple(rounds))

    eager = [name for name in names if name.endswith(EAGER)]
    pairs = [
        (name, other)
        for other in [names[0], *eager]
        for name in names
        if name != other and name not in eager
    ]
    return [
        *(figure(n, "one core", "tokens/s", (v * tokens[n] for v in found[n])) for n in names),
        *(
            figure(name, f"the same texts / {other}", "ratio", ratios(found[name], found[other]))
            for name, other in pairs
        ),
    ]


def _passes(pipeline: Pipeline, texts: Sequence[str], plan: Plan) -> Callable[[], float]:
    """Passes over the texts a second, whole ones; the model only."""
    windows = [window for text in texts for window in pipeline.encode(text).windows]
    lengths = [len(window.ids) for window in windows]
    groups = cut(lengths, max_items=SPEED_BATCH, max_padded_tokens=BATCH_TOKENS)

    def measure() -> float:
        began, passes = time.perf_counter(), 0
        while not passes or time.perf_counter() - began < plan.seconds:
            for group in groups:
                pipeline.run([windows[i] for i in group])
            passes += 1
        return passes / (time.perf_counter() - began)

    return measure


def compared(variants: Sequence[Variant]) -> list[list[Variant]]:
    """Of each task the variants, one that was compressed from no other of them first."""
    names = {variant.name for variant in variants}
    return [
        sorted((v for v in variants if v.task is task), key=lambda v: v.parent in names)
        for task in Task
        if any(v.task is task for v in variants)
    ]


# --- overhead ---------------------------------------------------------------------------------

KADOGO = "Kadogo"
STARLETTE = "Starlette, same lane"
FIXED = "Starlette, fixed answer"
LANE = "the lane alone, in process"


def overhead(plan: Plan) -> list[Figure]:
    """
    CPU time of a request whose model costs next to nothing, against plain Starlette's.

    The lane is what remains there: encoding, a lookup, decoding. Starlette does the same a text
    at a time in its thread pool; with a fixed answer it shows what HTTP alone costs.
    """
    texts = traffic(KINDS[Task.NER], plan.seed)
    bodies = [json.dumps({"inputs": text}, ensure_ascii=False).encode() for text in texts]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        variant = echo.write(root, texts)
        with (
            _kadogo(root, plan) as kadogo,
            serving(_starlette(variant)) as same,
            serving(_starlette(variant, "--empty")) as fixed,
        ):
            servers = {KADOGO: kadogo, STARLETTE: same, FIXED: fixed}
            modes = {name: _cpu_ms(server, bodies, plan) for name, server in servers.items()}
            modes[LANE] = _lane_ms(catalog.open_variant(variant), texts, plan)
            found = interleave(modes, plan.rounds)
    least = [web + lane for web, lane in zip(found[FIXED], found[LANE], strict=True)]

    def figure(what: str, unit: str, rounds: tuple[float, ...], **of: Target) -> Figure:
        return Figure("overhead", echo.NAME, what, unit, rounds, **of)

    return [
        *(figure(f"CPU a text, {name}", "ms", values) for name, values in found.items()),
        figure(
            f"CPU, {KADOGO} / {STARLETTE}",
            "ratio",
            ratios(found[KADOGO], found[STARLETTE]),
            target=Target(OF_STARLETTE, at_least=False),
        ),
        figure(f"CPU, {KADOGO} / (fixed answer + lane)", "ratio", ratios(found[KADOGO], least)),
    ]


def _starlette(variant: Path, *flags: str) -> Callable[[int], Sequence[str]]:
    command = [sys.executable, "-m", "build.echo", str(variant), *flags]
    return lambda port: [*command, "--port", str(port)]


def _cpu_ms(server: Server, bodies: Sequence[bytes], plan: Plan) -> Callable[[], float]:
    def measure() -> float:
        before = server.cpu_s()
        load = _load(server, Task.NER, bodies, plan)
        return (server.cpu_s() - before) / len(load.ended_s) * 1000

    return measure


def _lane_ms(pipeline: Pipeline, texts: Sequence[str], plan: Plan) -> Callable[[], float]:
    """In batches of as many texts as wait at the servers."""
    groups = [texts[i : i + WAITING] for i in range(0, len(texts), WAITING)]

    def measure() -> float:
        began, before, done = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - began < plan.seconds:
            for group in groups:
                done += len(pipeline.answer(group))
        return (time.process_time() - before) / done * 1000

    return measure


# --- the rim ----------------------------------------------------------------------------------


def traffic(kind: str, seed: int) -> list[str]:
    """The texts the load test sends: asked of it as a command, since we share no code with it."""
    command = [sys.executable, "-m", "loadtest.texts", "--kind", kind]
    command += ["--count", str(TEXTS), "--seed", str(seed)]
    lines = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    return [json.loads(line)["text"] for line in lines.decode().split("\n") if line]


def _kadogo(root: Path, plan: Plan) -> Any:
    def command(port: int) -> list[str]:
        bentoml = [sys.executable, "-m", "bentoml", "serve", "service.app:Kadogo"]
        return [*bentoml, "--host", "127.0.0.1", "--port", str(port)]

    environment = {
        "KADOGO_CATALOG": str(root.resolve()),
        "KADOGO_THREADS": str(plan.cores),
        "BENTOML_DO_NOT_TRACK": "True",
        "TOKENIZERS_PARALLELISM": "false",
    }
    return serving(command, environment)


def _body(text: str, variant: str) -> bytes:
    return json.dumps({"inputs": text, "variant": variant}, ensure_ascii=False).encode()


def main(argv: Sequence[str] | None = None) -> int:
    args = _arguments(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds: servers are stopped
    try:
        return _bench(args, _plan(args))
    except (BuildError, KadogoError) as error:
        print(error, file=sys.stderr)
        return 2


def _bench(args: argparse.Namespace, plan: Plan) -> int:
    chosen = _chosen(args.catalog, args.variants)
    eager = _eager(args.torch, {variant.name for variant in chosen})
    before = psutil.cpu_times()
    figures: list[Figure] = []
    for section in SECTIONS:
        if section in args.only:
            _say(f"{section} ...")
            figures += _section(section, args.catalog, chosen, eager, plan)
    facts = _facts(args, plan, before)
    print(table(figures))
    for name, value in facts.items():
        print(f"{name}: {value}")
    _write(figures, facts, args.out)
    return 0


def _section(
    name: str, root: Path, chosen: Sequence[Variant], eager: Mapping[str, Path], plan: Plan
) -> list[Figure]:
    match name:
        case "start":
            return start(root, plan)
        case "throughput":
            return _throughput(root, chosen, plan)
        case "speed":
            return [f for group in compared(chosen) for f in _speed(root, group, eager, plan)]
        case _:
            return overhead(plan)


def _throughput(root: Path, chosen: Sequence[Variant], plan: Plan) -> list[Figure]:
    figures: list[Figure] = []
    with _kadogo(root, plan) as server:
        for variant in chosen:
            _say(f"  {variant.name}")
            pipeline = catalog.open_variant(root / variant.name, SessionOptions(threads=1))
            figures += throughput(server, pipeline, plan)
    return figures


def _speed(
    root: Path, group: Sequence[Variant], eager: Mapping[str, Path], plan: Plan
) -> list[Figure]:
    options = SessionOptions(threads=1)
    opened = {v.name: catalog.open_variant(root / v.name, options) for v in group}
    for name, folder in eager.items():
        if name in opened:
            opened[name + EAGER] = _in_torch(opened[name], folder, options)
    return speed(opened, plan)


def _in_torch(pipeline: Pipeline, folder: Path, options: SessionOptions) -> Pipeline:
    """The same variant run by torch from the checkpoint it was exported from."""
    variant = msgspec.structs.replace(pipeline.variant, runtime=Runtime.TORCH)
    return Pipeline(variant, pipeline.encoder, open_session(variant, folder, options))


def _chosen(root: Path, wanted: str) -> list[Variant]:
    """The manifests of the variants named, or of all in the catalog. Raises BuildError."""
    folders = sorted(path.parent for path in root.glob(f"*/{catalog.MANIFEST}"))
    names = [name for name in wanted.split(",") if name] or [folder.name for folder in folders]
    if not names:
        raise BuildError(
            f"{root} holds no variants: build some, or give --catalog a folder of them"
        )
    if missing := [name for name in names if root / name not in folders]:
        known = ", ".join(folder.name for folder in folders)
        raise BuildError(f"{root} does not hold {', '.join(missing)}; it holds {known}")
    return [catalog.read(root / name) for name in names]


def _eager(given: Sequence[str], names: set[str]) -> dict[str, Path]:
    """NAME=FOLDER flags. Raises BuildError."""
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


def _facts(args: argparse.Namespace, plan: Plan, before: Any) -> dict[str, Any]:
    now = psutil.cpu_times()
    spent = sum(now) - sum(before)
    steal = (getattr(now, "steal", 0) - getattr(before, "steal", 0)) / max(spent, 1e-9)
    return {
        "processor": _processor(),
        "cores": f"{plan.cores}; server, generator and this process share them, none is pinned",
        "stolen by the host's other guests": f"{steal:.1%} of the CPU time",
        "load": f"{plan.connections} connections, one text each, by {generator_name()}",
        "rounds": f"{plan.rounds} of {plan.seconds:g} s after {plan.warmup_s:g} s of warm-up; "
        "every other one backwards; medians of ratios within a round",
        "command": "python -m build bench " + " ".join(args.given),
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _write(figures: Sequence[Figure], facts: Mapping[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    book = {"facts": facts, "figures": [_record(figure) for figure in figures]}
    (folder / "bench.json").write_text(json.dumps(book, indent=1, ensure_ascii=False) + "\n")
    print(f"written: {folder / 'bench.json'}")


def _record(figure: Figure) -> dict[str, Any]:
    return {
        "section": figure.section,
        "variant": figure.variant,
        "what": figure.what,
        "unit": figure.unit,
        "median": figure.median,
        "rounds": figure.rounds,
        "target": str(figure.target) if figure.target else None,
        "kept": figure.is_kept,
    }


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _plan(args: argparse.Namespace) -> Plan:
    if args.quick:
        return Plan(1, 0.7, 0.3, 1, args.connections, args.cores, args.seed)
    return Plan(
        rounds=args.rounds,
        seconds=args.seconds,
        warmup_s=args.warmup,
        starts=min(3, args.rounds),
        connections=args.connections,
        cores=args.cores,
        seed=args.seed,
    )


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    given = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="python -m build bench",
        description=__doc__,
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
    parser.add_argument(
        "--only", default=",".join(SECTIONS), type=_sections, help="what to measure"
    )
    parser.add_argument("--rounds", type=_positive(int), default=5, help="of each mode")
    parser.add_argument("--seconds", type=_positive(float), default=6.0, help="of each measurement")
    parser.add_argument("--warmup", type=float, default=2.0, help="seconds of load not counted")
    parser.add_argument("--connections", type=_positive(int), default=16, help="each one text")
    parser.add_argument("--cores", type=_positive(int), default=_cores(), help="model threads")
    parser.add_argument("--seed", type=int, default=1, help="of the texts")
    parser.add_argument("--quick", action="store_true", help="one short round: does it run at all?")
    parser.add_argument("--out", type=Path, default=Path("reports"), help="folder of bench.json")
    args = parser.parse_args(given)
    args.given = given
    return args


def _sections(text: str) -> list[str]:
    names = text.split(",")
    if strange := set(names) - set(SECTIONS):
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


if __name__ == "__main__":
    sys.exit(main())

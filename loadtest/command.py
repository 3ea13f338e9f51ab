"""
The command that compares variants of a running server and writes the report.

Joins the parts: the engine that sends, the watch on the server, what is found and how it is told.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loadtest import checker, promises, traffic
from loadtest.arrivals import BadArrivals
from loadtest.complaint import Complaint
from loadtest.files import tried, write
from loadtest.flags import above_0, address, count, from_0, told
from loadtest.machine import processor
from loadtest.record import Call, Run, Unusable
from loadtest.stolen import TITLE, Stolen
from loadtest.texts import BadTraffic

if TYPE_CHECKING:
    from loadtest.compare import Comparison, Engine, Settings, Watch
    from loadtest.findings import Findings, Search
    from loadtest.watch import Fact, Server

DEFAULT_HOST = "http://127.0.0.1:3000"
EXIT_BROKEN, EXIT_UNUSABLE = 1, 2
CALLS = 256
PRICE = 0.04  # of a CPU-hour, in dollars: about what general-purpose machines are rented for


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "compare", help="variants in turns on the same calls: which to deploy"
    )
    add_arguments(parser)
    parser.set_defaults(run=run)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    def flag(name: str, default: Any, kind: Any, explanation: str) -> None:
        shown = "none" if default in ("", None) else default
        parser.add_argument(
            f"--{name}", default=default, type=kind, help=f"{explanation} (default: {shown})"
        )

    host = os.environ.get("KADOGO_URL") or DEFAULT_HOST
    parser.add_argument("--host", default=host, type=address, help="default: %(default)s")
    parser.add_argument(
        "--variants",
        default="",
        help="names; the first of a task is what others are compared with (default: all there are)",
    )
    flag("rounds", 8, count, "turns of each variant, in each of the two passes")
    flag("peak", 2.0, above_0, "seconds of a turn at the peak")
    flag("open", 5.0, above_0, "seconds of a turn at the common rate")
    flag("warmup", 1.0, from_0, "seconds before each turn, not measured")
    flag("climb", 10.0, from_0, "seconds of a climb over each peak, followed; 0: none")
    flag("load", 0.7, above_0, "of the slowest one's peak: the common rate")
    flag("rate", None, above_0, "requests a second, instead")
    flag("callers", 16, count, "who ask at once at the peak")
    flag("calls", CALLS, count, "that are sent in turn")
    flag("p99-ms", None, above_0, "limit for the verdict, the goodput and the search")
    flag("confirm", 60.0, above_0, "seconds that confirm what --search finds; a step takes a third")
    flag("promises", None, Path, "a TOML file; a broken one ends with status 1")
    flag("price-cpu-hour", PRICE, from_0, "dollars")
    flag("out", Path("reports"), Path, "folder of comparison.html, .md and .json")
    parser.add_argument(
        "--search",
        action="store_true",
        help="for each variant the largest rate whose p99 is within --p99-ms, minutes each",
    )
    traffic.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """0: kept; 1: a promise broken, a mismatch; 2: nothing was proved, or could be."""
    # First: Locust patches the standard library before ssl is imported.
    from loadtest import engine  # noqa: F401
    from loadtest.watch import Server

    reports: list[Findings] = []
    ended: BaseException | None = None
    try:
        if args.search and args.p99_ms is None:
            raise Unusable("--search needs a limit: --p99-ms 100")
        over = tried(_files(args))
        server = Server(args.host)
        facts = {fact.name: fact for fact in server.facts()}
        names = chosen(facts, args.variants)
        stolen = Stolen()
        promised = promises.read(args.promises, names) if args.promises else promises.Promises()
        tasks = list(dict.fromkeys(facts[name].task for name in names))
        for task in tasks:  # before the first takes its minutes
            traffic.calls(traffic.from_arguments(args), task=task, count=1)
        if over:
            _say(over)
        for task in tasks:
            own = [name for name in names if facts[name].task == task]
            reports.append(_compared(args, server, task, own, facts, promised))
    except _BrokenOff as error:
        reports.append(error.found)
        ended = error.why
    except KeyboardInterrupt as error:
        if not reports:
            raise
        ended = error
    except (BadArrivals, BadTraffic, Unusable, promises.BadPromises) as error:
        print(error, file=sys.stderr)
        ended = error
    if not reports:
        return EXIT_UNUSABLE
    compared = {
        f"{name}, compared with its answers to each text alone": checker.told(each)
        for found in reports
        for name, each in found.checked.items()
    }
    settings = {**_told(args, facts, names), **compared, TITLE: str(stolen)}
    if ended:
        settings["broken off"] = _why(ended)
    try:
        _write(args, reports, settings)
    except Unusable as error:
        print(error, file=sys.stderr)
        return EXIT_UNUSABLE
    if isinstance(ended, KeyboardInterrupt):
        raise ended
    return _status(reports) or (EXIT_UNUSABLE if ended else 0)


class _BrokenOff(Exception):
    """What was found of the rounds that were whole, and why there are no more."""

    def __init__(self, found: Findings, why: BaseException) -> None:
        super().__init__(str(why))
        self.found, self.why = found, why


def _why(error: BaseException) -> str:
    return "it was told to end" if isinstance(error, KeyboardInterrupt) else str(error)


def _files(args: argparse.Namespace) -> list[Path]:
    return [args.out / f"comparison.{kind}" for kind in ("html", "md", "json")]


def _write(
    args: argparse.Namespace, reports: Sequence[Findings], settings: Mapping[str, object]
) -> None:
    """Printed first: that cannot fail. Raises Unusable."""
    from loadtest.report import book, page

    price = args.price_cpu_hour
    print(book.terminal(reports, price))
    contents = (
        page.html(reports, settings, price),
        book.markdown(reports, settings, price),
        book.to_json(book.book(reports, settings, price)),
    )
    for file, content in zip(_files(args), contents, strict=True):
        write(file, content)
    print(f"written: {args.out / 'comparison.html'}, .md and .json")


def chosen(facts: Mapping[str, Fact], wanted: str) -> list[str]:
    """Those named, by spaces or commas, or all; in that order, once. Raises Unusable."""
    ready = [name for name, fact in facts.items() if fact.ready]
    names = list(dict.fromkeys(re.split(r"[\s,]+", wanted.strip()))) if wanted.strip() else ready
    if missing := [name for name in names if name not in ready]:
        raise Unusable(f"not ready: {', '.join(missing)}; ready are {', '.join(ready) or 'none'}")
    if not names:
        raise Unusable("the server has no variant that is ready")
    return names


def _compared(
    args: argparse.Namespace,
    server: Server,
    task: str,
    names: Sequence[str],
    facts: Mapping[str, Fact],
    promised: promises.Promises,
) -> Findings:
    """Raises _BrokenOff where it was, and there are whole rounds; else BadTraffic, Unusable."""
    from loadtest import engine
    from loadtest.compare import Settings, compare
    from loadtest.findings import findings
    from loadtest.recorded import Recorded

    calls = traffic.calls(traffic.from_arguments(args), task=task, count=args.calls)
    key = os.environ.get("KADOGO_KEY")
    settings = Settings(
        rounds=args.rounds,
        peak_s=args.peak,
        open_s=args.open,
        warmup_s=args.warmup,
        follow_s=args.climb,
        load=args.load,
        rate=args.rate,
        callers=args.callers,
        seed=args.seed,
    )
    _say(f"{task}: {', '.join(names)}, about {_minutes(settings, len(names))}")
    alone = {}
    with checker.connection(args.host, engine.headers_of(key)) as post:
        for name in names:
            _say(f"each text alone: {name}")
            alone[name] = checker.alone(calls, name, post)
    send = partial(
        engine.run,
        args.host,
        task=task,
        calls=calls,
        warmup_s=0.0,
        callers=settings.senders,
        key=key,
    )

    def measure(variant: str, arrivals: str, seconds: float, seed: int) -> Run:
        return send(variant=variant, arrivals=arrivals, seconds=seconds, seed=seed)

    def again(engine: Engine, watch: Watch, fewer: Settings) -> Comparison:
        return compare(task, names, calls, engine, settings=fewer, watch=watch)

    recorded = Recorded(measure, server)
    found: Comparison | None = None
    limit_s = args.p99_ms / 1000 if args.p99_ms else None
    searches: dict[str, Search] = {}
    ended: Unusable | KeyboardInterrupt | None = None
    try:
        found = compare(task, names, calls, recorded, settings=settings, watch=recorded, say=_say)
        if args.search and limit_s:
            for name in names:
                searches[name] = _searched(recorded, name, args, limit_s, settings.senders)
    except (Unusable, KeyboardInterrupt) as error:
        found = found or recorded.whole(again, settings)
        if found is None:
            raise
        ended = error
    checked = _checked(recorded.runs, calls, alone)
    result = findings(
        found,
        facts=facts,
        promises=promised,
        limit_s=limit_s,
        swapped=_swapped(checked),
        searches=searches,
        checked={name: checker.together(each) for name, each in checked.items()},
    )
    if ended is None:
        return result
    rounds = f"broken off after {found.settings.rounds} of {args.rounds} rounds"
    raise _BrokenOff(replace(result, ended=f"{rounds}: {_why(ended)}"), ended)


def _checked(
    runs: Sequence[Run], calls: Sequence[Call], alone: Mapping[str, checker.Alone]
) -> dict[str, list[checker.Checked]]:
    """Of all that was sent to each variant: turns, warm-ups, climbs and searches."""
    found: dict[str, list[checker.Checked]] = {}
    for run in runs:
        each = checker.checked(calls, run, alone[run.variant])
        found.setdefault(run.variant, []).append(each)
    return found


def _swapped(checked: Mapping[str, Sequence[checker.Checked]]) -> list[Complaint]:
    found = [
        complaint
        for name, runs in checked.items()
        for each in runs
        for complaint in checker.complaints(each, name)
    ]
    return list(dict.fromkeys(found))


def _searched(
    measure: Engine, name: str, args: argparse.Namespace, limit_s: float, senders: int
) -> Search:
    from loadtest import figures, scenarios
    from loadtest.findings import Search

    def ask(arrivals: str, seconds: float) -> Run:
        _say(f"search: {name}, {arrivals} for {seconds:g} s")
        measure(name, arrivals, args.warmup, args.seed - 1)
        return measure(name, arrivals, seconds, args.seed)

    found = scenarios.server(ask, seconds=args.confirm, limit_s=limit_s, senders=senders)
    return Search(
        rate=found.rate,
        bounded=found.bounded,
        steps=[
            (step.rate, scenarios.latency(step.figures, 0.99), step.kept)
            for step in found.steps
            if figures.arrivals([step.figures])
        ],
        invalid=found.invalid,
    )


def _status(reports: Sequence[Findings]) -> int:
    from loadtest.findings import unproved

    wrong = [each for found in reports for each in found.complaints]
    void = [
        each
        for found in reports
        for each in (*filter(None, [found.ended]), *found.void, *unproved(found.searches))
    ]
    for complaint in wrong:
        print(f"not kept: {complaint}", file=sys.stderr)
    for each in void:
        print(f"nothing is proved: {each}", file=sys.stderr)
    # However late the load was, an answer was another's, or the server counted otherwise.
    if any(found.mismatches for found in reports):
        return EXIT_BROKEN
    return EXIT_UNUSABLE if void else EXIT_BROKEN if wrong else 0


def _told(
    args: argparse.Namespace, facts: Mapping[str, Fact], names: Sequence[str]
) -> dict[str, object]:
    """What the report says of how it was made."""
    return {
        "server": args.host,
        "variants": ", ".join(f"{name} {facts[name].digest}".strip() for name in names),
        "texts": args.texts or "composed: sentences for entities, articles for topics",
        "languages": args.languages or "as they are found",
        "inputs a request": args.inputs,
        "calls": args.calls,
        "seed": args.seed,
        "rounds": f"{args.rounds}, of {args.peak:g} s at the peak and {args.open:g} s at the "
        f"common rate, {args.warmup:g} s of warm-up before each",
        "callers at the peak": args.callers,
        "command": told("compare", args),
        "processor": f"{processor()}, {os.cpu_count()} cores of this machine",
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _minutes(settings: Settings, variants: int) -> str:
    minutes = settings.seconds(variants) / 60
    return f"{minutes:.0f} minutes" if minutes >= 1.5 else f"{minutes * 60:.0f} s"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

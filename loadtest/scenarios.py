"""
Load tests with a question each, in the sense of MLPerf: single, server, offline, burst, overload,
soak. Seeds are fixed, warm-up is left out, and a run that is too short to be believed says so.

What a scenario finds is a value with a sentence first. Each is a function over `Ask`, which sends;
only `run` knows the engine. `overload` is loadtest.faults.overload: its client is lighter than
Locust, which would take more of the machine than three times the peak leaves it.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from loadtest import checker, figures, labelled, traffic
from loadtest.arrivals import BadArrivals, Bursts, Phase, due, parse, phases, plain
from loadtest.flags import above_0, address, count, from_0
from loadtest.meanwhile import meanwhile
from loadtest.record import Call, Request, Run, Unusable
from loadtest.search import PRECISION, Step, largest
from loadtest.stolen import TITLE, Stolen
from loadtest.texts import BadTraffic
from loadtest.validity import generator, in_the_way, invalid

DEFAULT_HOST = "http://127.0.0.1:3000"
EXIT_BROKEN, EXIT_UNUSABLE = 1, 2

# A run is this long unless it is asked to be shorter, and then says that it was.
LEAST_S = {
    **{"single": 60.0, "server": 60.0, "offline": 60.0},
    **{"burst": 120.0, "overload": 60.0, "soak": 1800.0},
}
WARMUP_S = 5.0
CALLS = 512
CALLERS = 900  # enough for bursts; Locust's client does not hold more than 1,024 open
P99_MS = 100.0

FAILURES = 0.01
PEAK_CALLERS = 16
OFFLINE_CALLERS = 64
STEP = 1 / 3  # of the confirming run, as long is a step of the search
CALM, BURST = 0.4, 1.2  # of the peak, where no bursts are named
AFTER_S = 5.0
IN_BURSTS = "in bursts"
SOAK = 0.7
GROWTH = 1.05
DRIFT = 1.25
EVERY_S = 1.0

Ask = Callable[[str, float], Run]
"""(arrivals, seconds) -> what came of it, on the same calls with the same seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """
    What a scenario found.

    verdict  the answer, in a sentence
    broken   what was not kept, a sentence each
    swapped  answers that were others': proof, whatever else was in the way
    invalid  why nothing was proved, whatever was found
    rows     name and value, as they are printed
    runs     the last of which is the answer's
    steps    of a search, in the order they were measured
    rate     that it found; None: none keeps the limit. `bounded`: nor does any above it
    """

    scenario: str
    variant: str
    verdict: str
    rows: tuple[tuple[str, str], ...]
    runs: tuple[Run, ...]
    broken: tuple[str, ...] = ()
    swapped: tuple[str, ...] = ()
    invalid: tuple[str, ...] = ()
    steps: tuple[Step[Run], ...] = ()
    rate: float | None = None
    bounded: bool = True


# --- the scenarios ---------------------------------------------------------------------------


def single(ask: Ask, *, seconds: float) -> Outcome:
    """One request at a time, each as soon as the last is answered: the p90."""
    run = ask("closed:1", seconds)
    return Outcome(
        scenario="single",
        variant=run.variant,
        verdict=f"{run.variant} answers one at a time within {_ms(latency(run, 0.9))} (p90)",
        rows=rows(run),
        runs=(run,),
        broken=_failures(run),
        invalid=tuple(invalid(generator(run))),
    )


def server(
    ask: Ask,
    *,
    seconds: float,
    limit_s: float,
    precision: float = PRECISION,
    start: float = 0.0,
    senders: int = CALLERS,
) -> Outcome:
    """Poisson arrivals: the largest rate whose p99 meets the limit, found by search."""
    runs = [] if start else [ask(f"closed:{PEAK_CALLERS}", seconds * STEP)]
    start = start or max(0.1, figures.rate(runs) / 2)

    def measure(rate: float, longer: bool) -> tuple[bool, Run]:
        run = ask(f"poisson:{plain(rate)}", seconds if longer else seconds * STEP)
        return bool(run.requests) and latency(run, 0.99) <= limit_s, run

    found = largest(measure, start=start, precision=precision)
    last = found.steps[-1].figures
    reasons = in_the_way(last, senders) if found.rate else []
    # Those above it have no part in the answer.
    above = [s for s in found.steps if not s.kept and s.rate > (found.rate or 0.0)]
    broke = [s.figures for s in above if s.rate == min(each.rate for each in above)]
    doubts = (each for run in broke for each in in_the_way(run, senders))
    reasons += dict.fromkeys(f"where the limit broke {each}" for each in doubts)
    within = f"with a p99 within {_ms(limit_s)}"
    if found.rate is None:
        verdict = f"{last.variant} keeps no rate {within}"
    else:
        more = "" if found.bounded else " or more"
        verdict = f"{last.variant} answers {found.rate:.4g} requests/s{more} {within}"
    tried = tuple(
        (
            f"{step.rate:.4g}/s",
            f"p99 {_ms(latency(step.figures, 0.99))}, {'kept' if step.kept else 'not kept'}"
            + (", confirming" if step.confirming else "")
            if _arrivals(step.figures)
            else "nothing was sent",
        )
        for step in found.steps
    )
    return Outcome(
        scenario="server",
        variant=last.variant,
        verdict=verdict,
        rows=(*rows(last), *tried),
        runs=(*runs, *(step.figures for step in found.steps)),
        broken=() if found.rate else (verdict,),
        invalid=tuple(reasons),
        steps=found.steps,
        rate=found.rate,
        bounded=found.bounded,
    )


def offline(ask: Ask, calls: Sequence[Call], *, seconds: float, callers: int) -> Outcome:
    """As many at once as the server can use: texts a second. Latency is no matter."""
    run = ask(f"closed:{callers}", seconds)
    # Late ones are none of the rate: as many are under way at the end as there are callers.
    in_time = (each for each in run.right if each.done_s <= run.seconds)
    texts = sum(len(calls[each.call].texts) for each in in_time)
    inputs = max(len(call.texts) for call in calls)
    of = "" if inputs == 1 else f", {inputs} a request"
    return Outcome(
        scenario="offline",
        variant=run.variant,
        verdict=f"{run.variant} answers {texts / run.seconds:.4g} texts/s{of}, {callers} callers",
        rows=(("texts/s", f"{texts / run.seconds:.1f}"), *rows(run)),
        runs=(run,),
        broken=_failures(run),
        invalid=tuple(invalid(generator(run))),
    )


def burst(
    ask: Ask, *, seconds: float, seed: int, limit_s: float | None = None, arrivals: str = ""
) -> Outcome:
    """Bursts above what can be done: the p99 in them, in the seconds after, and in the calm."""
    runs = []
    if not arrivals:
        runs = [ask(f"closed:{PEAK_CALLERS}", min(10.0, seconds))]
        peak = max(0.1, figures.rate(runs))
        arrivals = f"bursts:{plain(CALM * peak)}/8s,{plain(BURST * peak)}/2s"
    process = parse(arrivals)
    if not isinstance(process, Bursts):
        raise BadArrivals(f"{arrivals} has no bursts: bursts:50/20s,400/2s has")
    run = ask(arrivals, seconds)
    # Nobody wrote down when those were due that were dropped; the schedule knows.
    sent = {each.due_s for each in run.requests}
    dropped = [at for at in due(process, seconds=seconds, seed=seed) if at not in sent]
    stretches = _stretches(run, dropped, phases(process, seconds=seconds, seed=seed))
    told = {name: _p99_told(each) for name, each in stretches.items() if _arrivals(each)}
    wrong = [
        f"the p99 {name} was {_ms(latency(stretches[name], 0.99))}, above {_ms(limit_s)}"
        for name in told
        if limit_s is not None and latency(stretches[name], 0.99) > limit_s
    ]
    answered = ", ".join(f"{value} {name}" for name, value in told.items())
    broken = (*_failures(run), *wrong)
    reasons = in_the_way(run, CALLERS)
    if IN_BURSTS not in told and not broken:
        reasons.append("no burst fell into the run: make it longer")
    return Outcome(
        scenario="burst",
        variant=run.variant,
        verdict=f"{run.variant} has a p99 of {answered or 'nothing'}",
        rows=(
            *rows(run),
            *(
                (f"p99 {name}", f"{value}, of {_arrivals(stretches[name])}")
                for name, value in told.items()
            ),
        ),
        runs=(*runs, run),
        broken=broken,
        invalid=tuple(reasons),
    )


def soak(
    ask: Ask,
    *,
    seconds: float,
    rate: float,
    resident: Callable[[], Sequence[int]],
    limit_s: float | None = None,
) -> Outcome:
    """A rate that can be kept, for long: memory and p99 stay as they were, and nothing fails."""
    run = ask(f"poisson:{plain(rate)}", seconds)
    memory = resident()
    first, last = _third(run, 0), _third(run, 2)
    before, after = latency(first, 0.99), latency(last, 0.99)
    failed = len(run.requests) - len(run.right) + run.dropped
    wrong = []
    if failed:
        wrong.append(f"{failed} of {len(run.requests) + run.dropped} requests failed")
    if limit_s is not None and (p99 := latency(run, 0.99)) > limit_s:
        wrong.append(f"the p99 was {_ms(p99)}, above {_ms(limit_s)}")
    if after > DRIFT * before:
        wrong.append(f"the p99 went from {_ms(before)} to {_ms(after)}, above {DRIFT:g} times")
    told = "not measured: the server runs elsewhere"
    if third := len(memory) // 3:
        low, high = float(np.mean(memory[:third])), float(np.mean(memory[-third:]))
        told = f"{low / 2**20:.0f} to {high / 2**20:.0f} MiB"
        if high > GROWTH * low:
            wrong.append(f"memory grew by {high / low - 1:.1%} from the first to the last third")
    kept = "as at first" if not wrong else "not as at first"
    return Outcome(
        scenario="soak",
        variant=run.variant,
        verdict=f"{run.variant} is {kept} after {run.seconds:.0f} s of {rate:.4g} requests/s",
        rows=(
            *rows(run),
            ("p99, thirds", f"{_ms(before)} first, {_ms(after)} last"),
            ("memory, thirds", told),
        ),
        runs=(run,),
        broken=tuple(wrong),
        invalid=tuple(in_the_way(run, CALLERS)),
    )


# --- what they are told by ---------------------------------------------------------------------


def latency(run: Run, share: float) -> float:
    """Of all arrivals: what failed or was dropped took for ever. 0 of none."""
    return figures.percentile_s([run], share)


def rows(run: Run) -> tuple[tuple[str, str], ...]:
    found = generator(run)
    errors = Counter(each.error for each in run.requests if each.error)
    percentiles = figures.all_percentiles_s([run], [0.5, 0.9, 0.99]) if _arrivals(run) else ()
    return (
        ("arrivals", run.arrivals),
        ("measured", f"{run.seconds:g} s"),
        ("offered", f"{found.offered:.1f}/s"),
        ("sent", f"{found.achieved:.1f}/s, {run.dropped} dropped"),
        ("right answers", f"{figures.rate([run]):.1f}/s"),
        ("p50, p90, p99", ", ".join(map(_ms, percentiles)) or "none"),
        ("failures", ", ".join(f"{n} {error}" for error, n in errors.most_common()) or "none"),
        ("generator", f"{run.cores:.2f} cores, p99 late {_ms(found.late_p99_s)}"),
    )


def told(outcome: Outcome) -> str:
    """The verdict, what was not kept, and the table."""
    width = max(len(name) for name, _ in outcome.rows)
    lines = [f"{name:<{width}}  {value}" for name, value in outcome.rows]
    return "\n".join([outcome.verdict, *outcome.broken, *outcome.swapped, "", *lines])


def _p99_told(run: Run) -> str:
    """Of right answers, and how many were not."""
    failed = 1 - len(run.right) / _arrivals(run)
    p99 = latency(replace(run, requests=tuple(run.right), dropped=0), 0.99)
    return (_ms(p99) if run.right else "no answer") + (
        f" ({failed:.1%} refused, dropped or failed)" if failed else ""
    )


def _arrivals(run: Run) -> int:
    return figures.arrivals([run])


def _failures(run: Run) -> tuple[str, ...]:
    whole = _arrivals(run)
    share = 1 - len(run.right) / whole if whole else 1.0
    return (
        (f"{share:.1%} of the requests failed, above {FAILURES:.0%}",) if share > FAILURES else ()
    )


def _stretches(run: Run, dropped: Sequence[float], found: Sequence[Phase]) -> dict[str, Run]:
    """What was due in bursts, in the seconds after each, and otherwise; `dropped`: when."""
    bursts = [(each.start_s, each.end_s) for each in found if each.burst]

    def place(due_s: float) -> str:
        if any(start <= due_s < end for start, end in bursts):
            return IN_BURSTS
        if any(end <= due_s < end + AFTER_S for _, end in bursts):
            return f"in the {AFTER_S:g} s after"
        return "while calm"

    names = (IN_BURSTS, f"in the {AFTER_S:g} s after", "while calm")
    places: dict[str, list[Request]] = {name: [] for name in names}
    for each in run.requests:
        places[place(each.due_s)].append(each)
    lost = Counter(map(place, dropped))
    return {n: replace(run, requests=tuple(each), dropped=lost[n]) for n, each in places.items()}


def _third(run: Run, number: int) -> Run:
    start, end = (run.seconds * (number + i) / 3 for i in (0, 1))
    inside = tuple(each for each in run.requests if start <= each.due_s < end)
    return replace(run, seconds=end - start, requests=inside, dropped=0)


def _ms(seconds: float) -> str:
    return "for ever" if math.isinf(seconds) else f"{seconds * 1000:.1f} ms"


# --- the command line ------------------------------------------------------------------------


SHORT = {
    "single": "one request at a time: the p90",
    "server": "the largest Poisson rate whose p99 meets a limit, by search",
    "offline": "as many at once as the server can use: texts a second",
    "burst": "bursts above what can be done: the p99 in and after them",
    "overload": "three times the peak: what is accepted is in time, the rest is refused",
    "soak": "70 % of what can be done, for long: nothing grows, drifts or fails",
}


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """A command for each scenario; `args.run(args)` runs it and returns the exit status."""
    for name, short in SHORT.items():
        parser = commands.add_parser(name, help=short.replace("%", "%%"))
        add_arguments(parser, name)
        parser.set_defaults(run=run, scenario=name)


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    host = os.environ.get("KADOGO_URL") or DEFAULT_HOST
    parser.add_argument(
        "--host", default=host, type=address, help="the server (default: %(default)s)"
    )
    parser.add_argument("--variant", default="ner-int8", help="default: %(default)s")
    parser.add_argument(
        "--seconds",
        type=above_0,
        default=LEAST_S[name],
        help="measured; fewer than %(default)g prove little",
    )
    if name == "overload":
        parser.add_argument("--times", type=above_0, default=3.0, help="of the peak (default: 3)")
        parser.add_argument("--deadline-ms", type=count, default=1000, help="default: %(default)s")
    else:
        parser.add_argument(
            "--warmup", type=from_0, default=WARMUP_S, help="seconds before (default: %(default)g)"
        )
    if name in ("server", "burst", "soak"):
        without = "none, and {:g} to find a rate by" if name == "soak" else "none"
        parser.add_argument(
            "--p99-ms",
            type=above_0,
            default=P99_MS if name == "server" else None,
            help=f"the limit (default: {P99_MS if name == 'server' else without.format(P99_MS)})",
        )
    if name == "server":
        parser.add_argument(
            "--precision", type=above_0, default=PRECISION, help="default: %(default)g"
        )
    if name == "offline":
        parser.add_argument(
            "--callers", type=count, default=OFFLINE_CALLERS, help="default: %(default)s"
        )
    if name == "burst":
        parser.add_argument(
            "--arrivals",
            default="",
            help=f"as bursts:50/20s,400/2s (default: {CALM:g} and {BURST:g} of the peak)",
        )
    if name == "soak":
        parser.add_argument(
            "--rate",
            type=above_0,
            default=None,
            help=f"requests a second (default: {SOAK:g} of what `server` finds)",
        )
    traffic.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """0: kept; 1: broken, or answers were swapped; 2: nothing was proved, or could be."""
    if args.seconds < (least := LEAST_S[args.scenario]):
        print(f"Short: {args.seconds:g} s, a run that proves something takes {least:g} s.")
    if args.scenario == "overload":
        from loadtest.faults import overload

        return overload.run(args)
    try:
        outcome = measure(args)
    except (BadArrivals, BadTraffic, Unusable) as error:
        print(error, file=sys.stderr)
        return EXIT_UNUSABLE
    print(told(outcome))
    for each in outcome.invalid:
        print(f"invalid: {each}", file=sys.stderr)
    return status(outcome)


def status(outcome: Outcome) -> int:
    """A swapped answer is one, however late the load was; what else was found may be the load's."""
    if outcome.swapped:
        return EXIT_BROKEN
    return EXIT_UNUSABLE if outcome.invalid else EXIT_BROKEN if outcome.broken else 0


def measure(args: argparse.Namespace) -> Outcome:
    """Raises BadArrivals, BadTraffic, Unusable."""
    # Late and first: Locust patches the standard library before ssl is imported.
    from loadtest import engine
    from loadtest.server import described, resident, workers_of

    settings = traffic.from_arguments(args)
    asked = described(args.host, args.variant)
    calls = traffic.calls(settings, task=asked["task"], count=CALLS)
    key = os.environ.get("KADOGO_KEY")
    with checker.connection(args.host, engine.headers_of(key)) as post:
        alone = checker.alone(calls, args.variant, post)

    def ask(arrivals: str, seconds: float) -> Run:
        print(f"{arrivals} for {seconds:g} s", file=sys.stderr, flush=True)
        return engine.run(
            args.host,
            args.variant,
            calls[0].task,
            calls=calls,
            arrivals=arrivals,
            seconds=seconds,
            warmup_s=args.warmup,
            seed=args.seed,
            callers=CALLERS,
            key=key,
        )

    stolen = Stolen()
    p99_ms = getattr(args, "p99_ms", None)
    limit_s = p99_ms / 1000 if p99_ms else None
    match args.scenario:
        case "single":
            outcome = single(ask, seconds=args.seconds)
        case "server":
            outcome = server(
                ask,
                seconds=args.seconds,
                limit_s=args.p99_ms / 1000,
                precision=args.precision,
            )
        case "offline":
            outcome = offline(ask, calls, seconds=args.seconds, callers=args.callers)
        case "burst":
            outcome = burst(
                ask,
                seconds=args.seconds,
                seed=args.seed,
                limit_s=limit_s,
                arrivals=args.arrivals,
            )
        case _:
            found_s = min(60.0, args.seconds)
            rate = args.rate or SOAK * _found(ask, found_s, limit_s or P99_MS / 1000)
            workers = workers_of(args.host)
            with meanwhile(lambda: resident(workers), EVERY_S) as memory:
                outcome = soak(
                    ask,
                    seconds=args.seconds,
                    rate=rate,
                    resident=lambda: memory,
                    limit_s=limit_s,
                )
            if gone := sum(not each.is_running() for each in workers):
                lost = f"{gone} of {len(workers)} workers ended"
                outcome = replace(outcome, broken=(*outcome.broken, lost))
    outcome = replace(outcome, rows=(*outcome.rows, (TITLE, str(stolen))))
    return _with_quality(outcome, calls, alone, asked["labels"])


def _found(ask: Ask, seconds: float, limit_s: float) -> float:
    found = server(ask, seconds=seconds, limit_s=limit_s)
    if found.invalid:
        raise Unusable(f"what the server can do is not known: {found.invalid[0]}; give a --rate")
    if found.rate is None:
        raise Unusable(
            f"no rate has a p99 within {_ms(limit_s)}: give a --rate or another --p99-ms"
        )
    return found.rate


def _with_quality(
    outcome: Outcome, calls: Sequence[Call], alone: checker.Alone, labels: Sequence[str]
) -> Outcome:
    """Scored on the very answers; one that belongs to another call breaks the run."""
    last = outcome.runs[-1]
    found = checker.checked(calls, last, alone)
    wrong = [
        str(complaint)
        for each in outcome.runs
        for complaint in checker.complaints(checker.checked(calls, each, alone), outcome.variant)
    ]
    scores = labelled.told(calls, last, labels)
    return replace(
        outcome,
        rows=(*outcome.rows, *scores, ("compared", checker.told(found))),
        swapped=tuple(dict.fromkeys(wrong)),
        invalid=(*outcome.invalid, *checker.blind(found)),
    )

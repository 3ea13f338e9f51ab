"""
`python -m loadtest.peers run`: Kadogo beside the peers; `serve NAME`: one of them by itself;
`tune NAME ...`: their best settings. One clear line when it fails.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from loadtest.files import tried
from loadtest.flags import above_0, count, from_0
from loadtest.machine import processor
from loadtest.peers import files, report, tune
from loadtest.peers.contests import CONTESTS, OTHERS, chosen
from loadtest.peers.measure import LEAST_REQUESTS, LONGEST_S, Plan, Unlike, measure
from loadtest.peers.peers import ENVIRONMENTS, PEERS, ROOT
from loadtest.peers.sentences import sentences
from loadtest.peers.server import command_of, environment_of
from loadtest.record import Unusable
from loadtest.stolen import TITLE, Stolen

TEXTS = 512


def main(argv: Sequence[str]) -> int:
    """0, or 2 with one line on what was asked wrongly or went wrong; 130 where it is broken off."""
    args = _arguments(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds: servers are stopped
    command: Callable[[argparse.Namespace], None] = args.command
    try:
        command(args)
    except argparse.ArgumentTypeError as error:
        print(f"peers: {error}", file=sys.stderr)
        return 2
    except (Unlike, Unusable, files.NoModel) as error:
        print(f"peers: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("peers: broken off", file=sys.stderr)
        return 130
    return 0


def _run(args: argparse.Namespace) -> None:
    contests = chosen(args.names, args.contests)
    if not contests:
        raise Unusable(
            f"no contest has {', '.join(args.names)}: those of {', '.join(args.contests)}"
        )
    if over := tried(report.files(args.out)):
        print(over, file=sys.stderr)
    plan = Plan(
        files=args.files,
        environments=args.environments,
        contests=contests,
        texts=sentences(TEXTS, seed=1),
        rounds=args.rounds,
        seconds=args.seconds,
        warmup_s=args.warmup,
        connections=args.connections,
    )
    stolen = Stolen()
    found = measure(plan)
    outcomes = [report.outcome(contest, found) for contest in contests]
    facts = _facts(plan, stolen)
    print(report.markdown(outcomes, facts))
    for each in outcomes:
        print(f"{each.contest.name}: {report.verdict(each)}", flush=True)
    report.write(outcomes, found, facts, args.out)
    print("written: {}, {}".format(*report.files(args.out)), flush=True)
    if found.ended:
        raise found.ended


def _serve(args: argparse.Namespace) -> None:
    """Becomes the server."""
    peer = PEERS[args.name]
    told = tune.tuned(peer.name, args.model)
    command = command_of(peer, args.port, told, args.environments)
    folder = files.folder_of(peer, args.model, args.files)
    path = peer.path_of(args.model)
    body = peer.body_of("Sani Bello ya je Kano.", args.model).decode()
    print(f"curl 127.0.0.1:{args.port}{path} --json '{body}'", file=sys.stderr, flush=True)
    os.chdir(ROOT)
    os.execvpe(command[0], command, environment_of(peer, folder, args.port, told))


def _tune(args: argparse.Namespace) -> None:
    for name in _known(OTHERS)(" ".join(args.names)) or OTHERS:
        peer = PEERS[name]
        for model in sorted({contest.theirs for contest in CONTESTS if name in contest.peers}):
            won = tune.tune(peer, model, here=args.files, environments=args.environments)
            print(f"{name} on {model}: {won}")


def _facts(plan: Plan, stolen: Stolen) -> Mapping[str, str]:
    """What a reader must know to believe the figures."""
    return {
        "processor": f"{processor()}, {os.cpu_count()} cores; servers and load share them",
        TITLE: str(stolen),
        "load": f"{plan.connections} connections of wrk, one sentence a request, for the rates; "
        "Poisson arrivals, latency from when each was due, for p99",
        "rounds": f"{plan.rounds}, every other one backwards, {plan.seconds:g} s of each after "
        f"{plan.warmup_s:g} s of warm-up; one server up at a time, started anew each round",
        "p99": f"of {LEAST_REQUESTS} requests a round, about, or more: slow servers are given the "
        f"time for them, {LONGEST_S:g} s at most; one that failed took for ever",
        "intervals": "95 %, by a bootstrap over rounds and, of rates alone, over seconds within "
        "them, the wider one, the same on both sides of a ratio",
        "settings": "workers x threads x threads in a call, batch at most and how long it waits",
        "memory": "proportional set size of all processes, after the load",
        "start": "from starting the process to its first right answer, files in the page cache",
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.peers",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--files", type=Path, default=files.HERE, help="the models' files")
    parser.add_argument("--environments", type=Path, default=ENVIRONMENTS)
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run", help="Kadogo beside the peers")
    run.set_defaults(command=_run)
    run.add_argument("--names", type=_known(OTHERS), default=(), help="peers, comma-separated")
    told = ", ".join(contest.name for contest in CONTESTS)
    known = _known([contest.name for contest in CONTESTS])
    run.add_argument("--contests", type=known, default=(), help=f"of {told}")
    run.add_argument("--rounds", type=count, default=4)
    run.add_argument("--seconds", type=above_0, default=3.0, help="of each measurement")
    run.add_argument("--warmup", type=from_0, default=1.5, help="seconds of load not counted")
    run.add_argument("--connections", type=count, default=16)
    run.add_argument("--out", type=Path, default=Path("reports"), help="of peers.md, peers.json")
    serve = commands.add_parser("serve", help="one peer by itself")
    serve.set_defaults(command=_serve)
    serve.add_argument("name", choices=OTHERS)
    serve.add_argument("--port", type=count, default=3001)
    serve.add_argument("--model", default="ner-base")
    tuning = commands.add_parser("tune", help="the peers' best settings, into tuned.json")
    tuning.set_defaults(command=_tune)
    tuning.add_argument("names", nargs="*", metavar="NAME", help=", ".join(OTHERS))
    return parser.parse_args(argv)


def _known(names: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    def known(text: str) -> tuple[str, ...]:
        given = tuple(name for name in text.replace(",", " ").split())
        if strange := [name for name in given if name not in names]:
            raise argparse.ArgumentTypeError(f"{', '.join(strange)}: known are {', '.join(names)}")
        return given

    return known


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

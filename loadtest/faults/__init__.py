"""What goes wrong on purpose, and whether the server keeps its promises meanwhile."""

from __future__ import annotations

import argparse
import os

from loadtest import traffic
from loadtest.flags import above_0, address


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`killed`; `overload` is a scenario."""
    parser = commands.add_parser("killed", help="a worker is killed under load (SIGKILL)")
    host = os.environ.get("KADOGO_URL") or "http://127.0.0.1:3000"
    parser.add_argument(
        "--host", default=host, type=address, help="the server (default: %(default)s)"
    )
    parser.add_argument("--variant", default="ner-int8", help="default: %(default)s")
    parser.add_argument(
        "--seconds", type=above_0, default=60.0, help="to wait for the next one (default: 60)"
    )
    traffic.add_arguments(parser)
    parser.set_defaults(run=_killed)


def _killed(args: argparse.Namespace) -> int:
    # Late: asyncio imports ssl, which Locust must patch first where it is used.
    from loadtest.faults import killed

    return killed.run(args)

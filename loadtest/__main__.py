"""
Load a running server: compare its variants, or ask one of them a question under load.

    python -m loadtest compare --variants "ner-base ner-int8"
    python -m loadtest server --variant ner-int8 --p99-ms 100
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

try:
    from loadtest import command, faults, rehearsal, scenarios
except ModuleNotFoundError as missing:
    # As after `make serve` alone: a server needs none of what loads it.
    print(f"{missing.name} is not installed: make .venv/.loadtest", file=sys.stderr)
    sys.exit(2)


EXIT_BROKEN_OFF = 130


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m loadtest",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command.register(commands)
    scenarios.register(commands)
    rehearsal.register(commands)
    faults.register(commands)
    args = parser.parse_args(argv)
    signal.signal(signal.SIGINT, _interrupt)
    try:
        return int(args.run(args))
    except KeyboardInterrupt:
        print("broken off", file=sys.stderr)
        return EXIT_BROKEN_OFF


def _interrupt(*_: object) -> NoReturn:
    """Of one that comes while another greenlet runs gevent prints all it came through."""
    if gevent := sys.modules.get("gevent"):
        gevent.get_hub().NOT_ERROR += (KeyboardInterrupt,)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())

"""
Compare the variants of a running server: each in turn, in short interleaved blocks.

Prints a table and writes reports/loadtest.html and .json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loadtest import report, scenarios
from loadtest.measure import Block, order, rows
from loadtest.texts import NoTexts, traffic
from loadtest.verdict import Promise, broken, doubts, kept

DEFAULT_HOST = "http://127.0.0.1:3000"
EXIT_BROKEN, EXIT_UNUSABLE = 1, 2


class Unusable(Exception):
    """Nothing can be measured; the message is one line for the person who asked."""


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in scenarios.SHORT:
        return scenarios.main(argv)
    args = _arguments(argv)
    try:
        variants = chosen(listed(args.host), args.variants)
        if args.texts:
            traffic(args.texts, count=1, seed=args.seed)
        blocks = _run(args, variants)
    except (Unusable, NoTexts) as error:
        print(error, file=sys.stderr)
        return EXIT_UNUSABLE
    found = rows(blocks)
    promise = Promise(failures=args.failures, p95_ms=args.p95_ms)
    verdict = broken(promise, found)
    page = report.Page(_settings(args), tuple(found), tuple(blocks), tuple(verdict), kept(promise))
    print(report.table(found))
    if not verdict:
        print(page.kept)
    _write(page, args.out)
    for sentence in [*doubts(found), *verdict]:
        print(sentence, file=sys.stderr)
    return EXIT_BROKEN if verdict else 0


def listed(host: str) -> dict[str, str]:
    """The variants a server is ready to answer with -> their tasks. Raises Unusable."""
    # Late, because Locust must patch the standard library before ssl is imported.
    from urllib.error import URLError
    from urllib.request import ProxyHandler, build_opener

    try:
        # A proxy set for the internet would be asked for 127.0.0.1 too.
        with build_opener(ProxyHandler({})).open(f"{host}/v1/variants", timeout=10) as answer:
            found = json.load(answer)["variants"]
            return {each["name"]: each["task"] for each in found if each["state"] == "ready"}
    except URLError as error:
        raise Unusable(f"no server answers at {host} ({error.reason}): run `make serve`") from None
    except (OSError, ValueError, TypeError, KeyError):
        raise Unusable(f"{host}/v1/variants does not list variants: is it Kadogo?") from None


def chosen(ready: dict[str, str], wanted: str) -> dict[str, str]:
    """Those of the comma-separated `wanted`, or all where it is empty. Raises Unusable."""
    names = [name for name in wanted.split(",") if name] or list(ready)
    if missing := [name for name in names if name not in ready]:
        raise Unusable(f"not ready: {', '.join(missing)}; ready are {', '.join(ready) or 'none'}")
    if not names:
        raise Unusable("the server has no variant that is ready")
    return {name: ready[name] for name in names}


def _run(args: argparse.Namespace, variants: dict[str, str]) -> list[Block]:
    from loadtest import blocks

    done = []
    turns = order(list(variants), args.rounds)
    for number, name in enumerate(turns, 1):
        print(f"block {number} of {len(turns)}: {name}", file=sys.stderr, flush=True)
        block = blocks.run(
            args.host,
            name,
            variants[name],
            texts=args.texts,
            seed=args.seed,
            callers=args.users,
            warmup_s=args.warmup,
            seconds=args.block,
        )
        done.append(block)
    return done


def _write(page: report.Page, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    book = {
        "settings": page.settings,
        "rows": [asdict(row) for row in page.rows],
        "verdict": page.verdict,
    }
    (folder / "loadtest.json").write_text(json.dumps(book, indent=1, ensure_ascii=False) + "\n")
    (folder / "loadtest.html").write_text(report.html(page), encoding="utf-8")
    print(f"written: {folder / 'loadtest.html'} and {folder / 'loadtest.json'}")


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "host": args.host,
        "callers": args.users,
        "texts": args.texts or "sentences (ner), articles (classification)",
        "seed": args.seed,
        "seconds a block": args.block,
        "warm-up seconds": args.warmup,
        "rounds": args.rounds,
        "cores of this machine": os.cpu_count(),
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtest",
        description=__doc__,
        epilog="Each flag has a variable: --users is LOADTEST_USERS, --p95-ms LOADTEST_P95_MS.",
    )

    def flag(name: str, default: Any, kind: Any, explanation: str) -> None:
        variable = "LOADTEST_" + name.upper().replace("-", "_")
        parser.add_argument(
            f"--{name}",
            default=os.environ.get(variable) or default,
            type=kind,
            help=f"{explanation} (default: {default or 'none'})",
        )

    flag("host", os.environ.get("KADOGO_URL") or DEFAULT_HOST, _host, "the server")
    flag("variants", "", str, "names, comma-separated; none means all that are ready")
    flag("users", 16, _count, "callers, each with one connection and one text at a time")
    flag("block", 10.0, _seconds, "seconds measured before the next variant's turn")
    flag("warmup", 2.0, float, "seconds before each block that are not counted")
    flag("rounds", 2, _count, "blocks a variant; every other round runs backwards")
    flag(
        "texts",
        "",
        str,
        "sentences, articles or headlines; or a .txt or .jsonl file or a folder; "
        "none means sentences for ner and articles for classification",
    )
    flag("seed", 1, int, "of the texts")
    flag("failures", 0.01, float, "promise: share of the calls that may fail, 0 to 1")
    flag("p95-ms", None, float, "promise: p95 in ms at most, for every variant")
    flag("out", Path("reports"), Path, "folder of the reports")
    return parser.parse_args(argv)


def _host(text: str) -> str:
    return text.rstrip("/") if "://" in text else f"http://{text.rstrip('/')}"


def _count(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{value} is not 1 or more")
    return value


def _seconds(text: str) -> float:
    if (value := float(text)) <= 0:
        raise argparse.ArgumentTypeError(f"{value} is not more than 0")
    return value


if __name__ == "__main__":
    sys.exit(main())

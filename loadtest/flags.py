"""What a flag's value may be; argparse shows the sentence of one that is not."""

from __future__ import annotations

import argparse
import math
import shlex
from urllib.parse import urlsplit


def count(text: str) -> int:
    """1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number, 1 or more")
    return int(text)


def above_0(text: str) -> float:
    if not 0 < (value := _number(text)) < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def from_0(text: str) -> float:
    if not 0 <= (value := _number(text)) < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number, 0 or more")
    return value


def address(text: str) -> str:
    """Of a server, without a slash at its end; http:// where it is left out."""
    found = (text if "://" in text else f"http://{text}").rstrip("/")
    try:
        parts = urlsplit(found)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise argparse.ArgumentTypeError(f"{text} is no server's address: http://HOST:3000 is one")
    return found


def told(command: str, args: argparse.Namespace) -> str:
    """
    The command line that does the same: all flags, those too that a default or a variable set.

    What is not asked for (None, "" and False) is left out, and what is no flag: functions.
    """
    words = ["python", "-m", "loadtest", command]
    for name, value in vars(args).items():
        # Not `in`: 0 is False there, and is asked for.
        if value is None or value is False or value == "" or callable(value):
            continue
        words.append(f"--{name.replace('_', '-')}")
        if value is not True:
            whole = isinstance(value, float) and value.is_integer()
            words.append(str(int(value) if whole else value))
    return shlex.join(words)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan

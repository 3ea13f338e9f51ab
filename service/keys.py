"""
API keys as values: read from a file, found by their token, made by `python -m service.keys new`.

A token is 256 random bits, so the file holds its plain sha256: nobody finds such a token by trying,
and a slow hash, which guards what people choose and remember, would only slow every request.
Knows nothing of HTTP, paths or what a scope opens.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import json
import re
import secrets
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from models.errors import BadSetting
from models.spec import NAME, Value
from service.rate import Rate

# As it is typed where the server is made and served; the system's own Python lacks what it needs.
COMMAND = ".venv/bin/python -m service.keys new NAME"
# A scanner of repositories and logs can look for it.
PREFIX = "kadogo_"


class Scope(StrEnum):
    """What a key may do: ask for answers and read what is served; that, and change the server."""

    INFER = "infer"
    ADMIN = "admin"


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """
    One [[key]] of the file.

    name    who has it: in the server's own bookkeeping, never secret
    sha256  of the token, as hexadecimal digits
    scopes  `admin` may do what `infer` may
    rate    how much it may send; None: as much as it likes
    """

    name: Annotated[str, Meta(pattern=NAME)]
    sha256: Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    scopes: Annotated[tuple[Scope, ...], Meta(min_length=1)]
    rate: Rate | None = None

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes or Scope.ADMIN in self.scopes


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    key: Annotated[tuple[Key, ...], Meta(min_length=1)]


# What each field must be, for whoever wrote something else: his value may be a token.
_WANTED = {
    "name": "1 to 64 of a-z 0-9 . _ -, the first a letter or a digit",
    "sha256": f"64 hexadecimal digits, as `{COMMAND}` prints them",
    "scopes": f"a list of {', '.join(Scope)}",
    "rate": "as {requests = 600, seconds = 60, burst = 100}, whole numbers of 1 to a billion; "
    "seconds are 60 and burst is as requests where they are left out",
}


class KeyChanges(Value, frozen=True, kw_only=True):
    """
    What became of a file's keys while the server served.

    revoked  sha256 of each that opens nothing any more -> the name it had
    rates    by name, in place of what the file says; None: as much as it likes
    """

    revoked: dict[str, str] = msgspec.field(default_factory=dict)
    rates: dict[str, Rate | None] = msgspec.field(default_factory=dict)


UNCHANGED = KeyChanges()


@dataclass(frozen=True)
class Keys:
    """Every key of a file."""

    every: tuple[Key, ...] = ()

    def changed(self, by: KeyChanges) -> Keys:
        """Those that are left, and what they may send now."""
        left = (key for key in self.every if key.sha256 not in by.revoked)
        return replace(self, every=tuple(_limited(key, by.rates) for key in left))

    def named(self, name: str) -> Key | None:
        return next((key for key in self.every if key.name == name), None)

    def find(self, token: bytes) -> Key | None:
        """
        The key of that token. Looks at all of them and at all of each hash, so that the time it
        takes tells nothing of how near a guess came.
        """
        digest = hashlib.sha256(token).hexdigest()
        found = None
        for key in self.every:
            if hmac.compare_digest(digest, key.sha256):
                found = key
        return found


def _limited(key: Key, rates: Mapping[str, Rate | None]) -> Key:
    if key.name not in rates:
        return key
    return msgspec.structs.replace(key, rate=rates[key.name])


def text_of(file: Path) -> str:
    """What stands in the file, where `read` can make keys of it. Raises `BadSetting`."""
    try:
        text = file.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise _refused(file, f"cannot be read: {type(error).__name__}") from None
    read(file, text)
    return text


def read(file: Path, text: str) -> Keys:
    """
    The keys of the file's text.

    Raises `BadSetting` that names the line, and repeats nothing of what stands there.
    """
    try:
        keys = msgspec.convert(tomllib.loads(text), _File).key
    except tomllib.TOMLDecodeError as error:
        raise _refused(file, f"is not TOML: {_where(str(error))}") from None
    except msgspec.ValidationError as error:
        raise _refused(file, _wrong(text, str(error))) from None
    for field in ("name", "sha256"):
        _check_unique(file, text, field, [getattr(key, field) for key in keys])
    return Keys(keys)


def _check_unique(file: Path, text: str, field: str, values: Sequence[str]) -> None:
    for index, value in enumerate(values):
        if value in values[:index]:
            line = _line(text, index, field)
            raise _refused(file, f"line {line}: another key has the same {field}")


def _refused(file: Path, why: str) -> BadSetting:
    return BadSetting(f"KADOGO_KEYS: {file} {why}")


def _where(message: str) -> str:
    """tomllib's message without what it quotes of the file: "at line 3, column 7"."""
    found = re.search(r"at line \d+, column \d+|at end of document", message)
    return found[0] if found else "see https://toml.io"


_AT = re.compile(r" - at `\$\.key\[(\d+)\](?:\.(\w+))?")
_FIELD = re.compile(r"(missing required|unknown) field `([^`]*)`")


def _wrong(text: str, message: str) -> str:
    """What msgspec found wrong, with its line in the file."""
    at = _AT.search(message)
    if at is None:
        return "must hold [[key]] tables, at least one, and nothing beside them"
    index, field = int(at[1]), at[2]
    if field:
        return f"line {_line(text, index, field)}: {field} must be {_WANTED[field]}"
    kind, name = found.groups() if (found := _FIELD.search(message)) else ("", "")
    if kind == "missing required":
        return f"line {_line(text, index)}: this key has no {name}"
    return f"line {_line(text, index, name)}: a key has {', '.join(_WANTED)} and no other field"


def _line(text: str, index: int, field: str = "") -> int:
    """The line of that field of the key with that index; of its [[key]] where that is not found."""
    seen, header = -1, 1
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(r"\s*\[\[\s*key\s*\]\]", line):
            seen += 1
            header = number if seen == index else header
        elif seen == index and field and re.match(rf"\s*\[?(?:key\.)?{re.escape(field)}\b", line):
            return number
    return header


def new(name: str, scopes: Iterable[Scope], rate: Rate | None) -> tuple[str, str]:
    """A token that nobody has seen, and the lines of its key. Raises `ValidationError`."""
    token = PREFIX + secrets.token_urlsafe(32)
    sha256 = hashlib.sha256(token.encode()).hexdigest()
    key = msgspec.convert(
        {"name": name, "sha256": sha256, "scopes": [*scopes], "rate": rate},
        Key,
        from_attributes=True,
    )
    lines = [
        "[[key]]",
        f'name = "{key.name}"',
        f'sha256 = "{key.sha256}"',
        f"scopes = {json.dumps(key.scopes)}",
    ]
    if key.rate:
        given = msgspec.structs.asdict(key.rate).items()
        lines.append(f"rate = {{{', '.join(f'{n} = {v}' for n, v in given if v)}}}")
    return token, "\n".join(lines) + "\n"


def main(argv: Sequence[str]) -> int:
    """The lines go to stdout and the token to stderr, so that `>> FILE` keeps only the lines."""
    parser = argparse.ArgumentParser(prog="python -m service.keys", description="API keys.")
    made = parser.add_subparsers(required=True).add_parser("new", help="make a key")
    made.add_argument("name", help=_WANTED["name"])
    scopes = [each.value for each in Scope]
    made.add_argument("--scope", action="append", choices=scopes, help="infer; may be repeated")
    made.add_argument("--rate", metavar="N/S", help="so many requests in so many seconds: 600/60")
    made.add_argument("--burst", type=int, help="so many of them at once after a rest")
    asked = parser.parse_args(argv)
    try:
        rate = _rate(asked.rate, asked.burst)
    except (ValueError, msgspec.ValidationError):
        parser.error(
            "--rate is as 600/60, --burst a whole number with it, all of them of 1 to a billion"
        )
    try:
        token, lines = new(asked.name, map(Scope, asked.scope or scopes[:1]), rate)
    except msgspec.ValidationError:
        parser.error(f"NAME is {_WANTED['name']}")
    print(lines, end="", flush=True)
    print(
        f"\nThe token, shown this once; the server keeps only its hash:\n{token}", file=sys.stderr
    )
    return 0


def _rate(given: str | None, burst: int | None) -> Rate | None:
    """Raises `ValueError` where they are not as `main` describes them."""
    if given is None:
        if burst is not None:
            raise ValueError
        return None
    requests, _, seconds = given.partition("/")
    return msgspec.convert(
        {"requests": int(requests), "seconds": int(seconds), "burst": burst}, Rate
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

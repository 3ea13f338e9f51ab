"""
What was promised of variants, in a TOML file, and which promises were broken, and by how much.

Pure but for reading the file; knows nothing of how anything was measured.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadtest.complaint import Complaint

KEYS = {
    "p99_ms": "milliseconds above 0",
    "min_rate": "answers a second, above 0",
    "max_failures": "a share from 0 to 1",
    "min_f1": "from 0 to 1",
}
DEFAULTS, VARIANTS = "defaults", "variants"


class BadPromises(Exception):
    """The file does not say what is promised; the message is one line with the place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """
    None: nothing is promised.

    p99_ms        at the comparison's rate, at most
    min_rate      answers a second at the peak, at least
    max_failures  share of the arrivals that may fail
    min_f1        at least
    """

    p99_ms: float | None = None
    min_rate: float | None = None
    max_failures: float | None = None
    min_f1: float | None = None

    def __str__(self) -> str:
        said = (
            ("p99 at most {:g} ms", self.p99_ms),
            ("at least {:g} answers/s", self.min_rate),
            ("at most {:.2%} failures", self.max_failures),
            ("F1 at least {:g}", self.min_f1),
        )
        return ", ".join(text.format(value) for text, value in said if value is not None)


# Whoever promises nothing promises this much.
LEAST = Promise(max_failures=0.01)


@dataclass(frozen=True, slots=True, kw_only=True)
class Promises:
    """`of` one variant what it has of its own, and else the default."""

    defaults: Promise = LEAST
    variants: Mapping[str, Promise] = field(default_factory=dict)

    def of(self, variant: str) -> Promise:
        own = self.variants.get(variant, Promise())
        return Promise(
            **{key: _first(getattr(own, key), getattr(self.defaults, key)) for key in KEYS}
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """
    Of one variant.

    least  of the rate no more is known than that it is at least this: the load was the limit
    f1     None: nobody knows it
    """

    variant: str
    p99_ms: float
    rate: float
    failures: float
    least: bool = False
    f1: float | None = None


def read(path: Path, variants: Iterable[str] | None = None) -> Promises:
    """`variants`: those that will run; a promise about another is refused. Raises BadPromises."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadPromises(f"{path} cannot be read: {error}") from None
    return parse(text, str(path), variants)


def parse(text: str, where: str = "promises", variants: Iterable[str] | None = None) -> Promises:
    """Raises BadPromises."""
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadPromises(f"{where} is not TOML: {error}") from None
    places = _places(text)

    def wrong(table: tuple[str, ...], why: str) -> BadPromises:
        line = places.get(table)
        return BadPromises(f"{where}{f', line {line}' if line else ''}: {'.'.join(table)} {why}")

    if strange := sorted(found.keys() - {DEFAULTS, VARIANTS}):
        raise wrong((strange[0],), f"is not known: there are [{DEFAULTS}] and [{VARIANTS}.NAME]")
    tables = found.get(VARIANTS, {})
    if not isinstance(tables, dict):
        raise wrong((VARIANTS,), f"is no table: [{VARIANTS}.NAME] is")
    ran = None if variants is None else list(variants)
    for name in tables:
        if ran is not None and name not in ran:
            raise wrong((VARIANTS, name), f"does not run: {', '.join(ran)} do")

    def promise(table: tuple[str, ...], values: Any) -> Promise:
        if not isinstance(values, dict):
            raise wrong(table, "is no table")
        for key, value in values.items():
            if key not in KEYS:
                raise wrong((*table, key), f"is not known: there are {', '.join(KEYS)}")
            if not _fits(key, value):
                raise wrong((*table, key), f"is {value!r}: it is {KEYS[key]}")
        return Promise(**values)

    defaults = promise((DEFAULTS,), found.get(DEFAULTS, {}))
    return Promises(
        defaults=Promise(**{k: _first(getattr(defaults, k), getattr(LEAST, k)) for k in KEYS}),
        variants={name: promise((VARIANTS, name), values) for name, values in tables.items()},
    )


def broken(promises: Promises, measured: Iterable[Measured]) -> list[Complaint]:
    """One for each promise a variant broke; none: all were kept."""
    return [
        Complaint(each.variant, why)
        for each in measured
        for why in _broken(promises.of(each.variant), each)
    ]


def unjudged(promises: Promises, measured: Iterable[Measured]) -> list[Complaint]:
    """One for each promise of a rate that the load itself could not reach."""
    return [
        Complaint(
            each.variant,
            f"at least {each.rate:.1f} answers/s at its peak, where the load was the limit: "
            f"whether it keeps the {wanted:g} promised is not known",
        )
        for each in measured
        if (wanted := promises.of(each.variant).min_rate) is not None
        and each.least
        and not each.rate >= wanted
    ]


def kept(promises: Promises, variants: Iterable[str]) -> list[str]:
    """
    What is said where `broken` and `unjudged` find nothing: of all at once where all promise alike.
    """
    names = list(variants)
    said = {name: str(promises.of(name)) for name in names}
    if len(names) > 1 and len(set(said.values())) == 1:
        return [f"by each, {each}" for each in {*said.values()} if each]
    return [f"by {name}, {each}" for name, each in said.items() if each]


def _broken(promise: Promise, found: Measured) -> list[str]:
    said = []
    if promise.p99_ms is not None and not found.p99_ms <= promise.p99_ms:
        how = (
            f"{found.p99_ms:.1f} ms, {found.p99_ms - promise.p99_ms:.1f} ms more"
            if math.isfinite(found.p99_ms)
            else "endless, for more than 1 % got no right answer,"
        )
        said.append(f"the p99 is {how} than the {promise.p99_ms:g} ms promised")
    if promise.min_rate is not None and not (found.least or found.rate >= promise.min_rate):
        said.append(
            f"{found.rate:.1f} answers/s at its peak are {promise.min_rate - found.rate:.1f} "
            f"fewer than the {promise.min_rate:g} promised"
        )
    if promise.max_failures is not None and not found.failures <= promise.max_failures:
        said.append(
            f"{found.failures:.2%} of the arrivals failed, "
            f"{100 * (found.failures - promise.max_failures):.2f} points more than the "
            f"{promise.max_failures:.2%} promised"
        )
    if promise.min_f1 is not None:
        if found.f1 is None:
            said.append(f"nobody knows its F1, and {promise.min_f1:g} is promised")
        elif not found.f1 >= promise.min_f1:
            said.append(
                f"its F1 of {found.f1:.4f} is {promise.min_f1 - found.f1:.4f} below the "
                f"{promise.min_f1:g} promised"
            )
    return said


def _fits(key: str, value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False
    return 0 <= value <= 1 if key in {"max_failures", "min_f1"} else value > 0


def _first(value: Any, other: Any) -> Any:
    return other if value is None else value


def _places(text: str) -> dict[tuple[str, ...], int]:
    """Line of every table and key, as people write them: a header, or key = value on a line."""
    found: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[([^\[\]]+)\]", line):
            table = _path(header[1])
            for i in range(len(table)):
                found.setdefault(table[: i + 1], number)
        elif key := re.match(r"\s*([^\s=#][^=]*?)\s*=", line):
            path = (*table, *_path(key[1]))
            for i in range(len(table), len(path)):
                found.setdefault(path[: i + 1], number)
    return found


def _path(dotted: str) -> tuple[str, ...]:
    """a."b.c".d   -> ("a", "b.c", "d")"""
    parts = re.findall(r'"([^"]*)"|\'([^\']*)\'|([^.\s]+)', dotted)
    return tuple(next(filter(None, each), "") for each in parts)

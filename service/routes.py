"""
Routes as values: who answers requests that name no variant and give no policy.

Read from TOML, and refused with the line that is wrong. Knows nothing of evidence or lanes.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from models.errors import BadSetting, InvalidRequest
from models.spec import NAME, Task, Value, Variant
from service.policy import Policy, languages
from service.schemas import LANGUAGE

Name = Annotated[str, Meta(pattern=NAME)]
Share = Annotated[float, Meta(gt=0, le=1)]
Weight = Annotated[float, Meta(gt=0)]
Seconds = Annotated[float, Meta(ge=0, le=3600)]


class Shadow(Value, frozen=True, kw_only=True):
    """`variant` answers a share of the requests too, for nobody: the answers are compared."""

    variant: str
    share: Share = 0.1


class Canary(Value, frozen=True, kw_only=True):
    """
    One of two variants of a split is on trial, and the trial ends itself.

    Its answers are compared with the other's, which reads along for nobody. As soon as one may be
    sure, at whatever moment, it answers all callers of the route or none any more.

    max_disagreement  of the mean disagreement of a text's two answers, 0 to 1
    max_slowdown      of the median quotient of its time and the other's, without waiting
    share             of its answers that are compared
    alpha             the chance, over the whole trial, that a verdict is wrong
    """

    variant: str
    max_disagreement: Share
    max_slowdown: Weight = 1.0
    share: Share = 1.0
    alpha: Annotated[float, Meta(gt=0, lt=1)] = 0.05


class Route(Value, frozen=True, kw_only=True):
    """
    Of the routes of a task the first that matches decides.

    when    header -> value that it must have; none: any request
    key     name of the API key that asks; none: any
    and one of these:
    variant  answers
    policy   decides
    split    variant -> weight; the same caller always gets the same one
    sticky   the header that tells callers of a split apart; without it, or where a request lacks
             it, the API key, and without that each request is on its own
    canary   which of a split is on trial
    shadow   reads along
    """

    name: Name
    task: Task
    when: dict[str, str] = msgspec.field(default_factory=dict)
    key: str | None = None
    variant: str | None = None
    policy: Policy | None = None
    split: dict[str, Weight] | None = None
    sticky: str | None = None
    canary: Canary | None = None
    shadow: Shadow | None = None

    @property
    def incumbent(self) -> str | None:
        """Against whom the canary stands."""
        others = [n for n in self.split or () if self.canary and n != self.canary.variant]
        return others[0] if others else None

    @property
    def variants(self) -> Iterator[str]:
        """Every variant it names."""
        if self.variant is not None:
            yield self.variant
        yield from self.split or ()
        if self.shadow is not None:
            yield self.shadow.variant

    @property
    def conditions(self) -> set[tuple[str, str]]:
        """What must hold for it to match. A route with more of them is narrower."""
        headers = {(name.lower(), value) for name, value in self.when.items()}
        return headers | ({("", self.key)} if self.key is not None else set())


class Ladder(Value, frozen=True, kw_only=True):
    """
    When requests move to smaller variants that satisfy their policy too, and back.

    down_s  of waiting work, at which they move one rung down
    up_s    below which they move one rung up
    hold_s  on a rung before the next one up
    """

    down_s: Seconds = 0.5
    up_s: Seconds = 0.1
    hold_s: Seconds = 2.0

    def __post_init__(self) -> None:
        if self.up_s >= self.down_s:
            raise ValueError(f"up_s {self.up_s:g} must be below down_s {self.down_s:g}")


class Routes(Value, frozen=True, kw_only=True):
    """The whole file; each `[[route]]` is one of `route`, in their order."""

    route: tuple[Route, ...] = ()
    ladder: Ladder = Ladder()


class BadRoutes(InvalidRequest):
    """The routes cannot be what was meant; the message says in which line."""

    title = "Bad routes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """
    What routes may name.

    variants  of the catalog, by name; None where the manifest cannot be read
    keys      names of API keys, none where nobody is asked for one; None: not looked at
    """

    variants: Mapping[str, Variant | None]
    keys: Collection[str] | None = None

    def of(self, task: Task) -> list[Variant]:
        """In the order of their names."""
        known = sorted(self.variants.items())
        return [each for _, each in known if each is not None and each.task is task]


def read(text: str) -> Routes:
    """Raises `BadRoutes` for what is no TOML, and for what is no routes whatever the catalog."""
    try:
        value = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadRoutes(f"the routes are not TOML: {error}") from None
    try:
        routes = msgspec.convert(value, Routes)
    except msgspec.ValidationError as error:
        raise BadRoutes(_told(str(error), text)) from None
    for index, route in enumerate(routes.route):
        for field in (each for each in route.when if each in Route.__struct_fields__):
            raise BadRoutes(f"{_line(text, index, field)}: route {route.name}: {_inside(field)}")
        wrong = _wrong_alone(route) or _unreachable(route, routes.route[:index])
        if wrong:
            raise BadRoutes(f"{_line(text, index)}: route {route.name}: {wrong}")
    return routes


def text_of(file: Path) -> str:
    """Raises `BadSetting` where the file cannot be read."""
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BadSetting(f"the routes {file} cannot be read: {error}") from None


def check(routes: Routes, text: str, known: Known) -> None:
    """Raises `BadRoutes` where one names a variant, a language or a key that there is not."""
    for index, route in enumerate(routes.route):
        for field, wrong in _strange(route, known):
            raise BadRoutes(f"{_line(text, index, field)}: route {route.name}: {wrong}")


def _strange(route: Route, known: Known) -> Iterator[tuple[str, str]]:
    """Where it names what is not known, and what is wrong with that."""
    alike = known.of(route.task)
    for name in route.variants:
        if name not in known.variants:
            names = ", ".join(each.name for each in alike) or "none"
            yield name, f"there is no variant {name}; of {route.task} there are {names}"
        elif (variant := known.variants[name]) and variant.task is not route.task:
            yield name, f"{name} serves {variant.task}, not {route.task}"
    if route.key is not None and known.keys is not None and route.key not in known.keys:
        keys = f"known are {', '.join(known.keys)}" if known.keys else "this server asks for none"
        yield "key", f"there is no key {route.key}; {keys}"
    wanted = route.policy.code if route.policy else None
    known_of = languages(alike)
    if wanted is not None and known_of and wanted not in known_of:
        named = ", ".join(sorted(known_of))
        wrong = f"no variant of {route.task} is for {wanted}; known are {named}"
        yield "language", wrong


def _inside(field: str) -> str:
    """What is said of a field that stands where headers do: as one it would never match."""
    return (
        f"when holds headers, and {field} is a field of the route: write {field} = ... on a line "
        f"of its own; a header that is called so is written {field.title()}"
    )


def _wrong_alone(route: Route) -> str | None:
    given = [name for name in ("variant", "policy", "split") if getattr(route, name) is not None]
    if len(given) != 1:
        said = f"it has {' and '.join(given)}" if given else "it has none"
        return f"give one of variant, policy and split; {said}"
    if route.split is not None and len(route.split) < 2:
        return "a split is between two variants at least; for one, say variant"
    if route.sticky is not None and route.split is None:
        return "sticky is of a split"
    if route.canary is not None:
        if route.split is None or len(route.split) != 2 or route.canary.variant not in route.split:
            return "a canary is one of the two variants of a split"
        if route.shadow is not None:
            return "a canary is compared already: leave the shadow out"
    if route.shadow is not None and route.shadow.variant == route.variant:
        return "a shadow of itself always agrees: name another variant"
    return None


def _unreachable(route: Route, before: tuple[Route, ...]) -> str | None:
    for other in before:
        if other.name == route.name:
            return "there is another route of that name"
        if other.task is route.task and other.conditions <= route.conditions:
            return f"it is never reached: {other.name}, before it, matches all that it would"
    return None


_AT = re.compile(r"^(?P<said>.*?)(?: - at `\$\.?(?P<path>[^`]*)`)?$")
_IN_ROUTE = re.compile(r"^route\[(\d+)\]\.?")
_UNKNOWN = re.compile(r"unknown field `([^`]*)`")
_BEGINS = re.compile(r"\s*\[\[\s*route\s*\]\]")
# Of fields for which msgspec would tell the pattern alone: what is wrong with them.
_PATTERNS = {
    "name": "a name is 1 to 64 of a-z 0-9 . _ -, the first a letter or a digit",
    "policy.language": LANGUAGE,
}


def _told(message: str, text: str) -> str:
    """msgspec's message, with the line instead of the number of the route."""
    found = _AT.match(message)
    said, path = (found["said"], found["path"] or "") if found else (message, "")
    named = _UNKNOWN.search(said)
    if route := _IN_ROUTE.match(path):
        field = path[route.end() :]
        where = _line(text, int(route[1]), named[1] if named else _last(field))
    else:
        field = path
        where = _place(text.splitlines(), 0, named[1] if named else _last(field))
    if "matching regex" in said:
        said = _PATTERNS.get(field, said)
    return ": ".join(filter(None, [where, field, said]))


def _last(path: str) -> str:
    """`split[...]` -> split"""
    return path.partition("[")[0].rpartition(".")[2]


def _line(text: str, index: int, named: str = "") -> str:
    """Where the route of that index says `named`, or else where it begins: "line 12"."""
    lines = text.splitlines()
    begins = [number for number, line in enumerate(lines) if _BEGINS.match(line)]
    if index >= len(begins):
        return f"route {index + 1}"
    begin, end = begins[index], [*begins[index + 1 :], len(lines)][0]
    return _place(lines[:end], begin, named) or f"line {begin + 1}"


def _place(lines: list[str], begin: int, named: str) -> str:
    """The first line from `begin` on that says `named`, comments aside; "" where none does."""
    word = re.compile(rf"(?<![\w.-]){re.escape(named)}(?![\w-])")
    for number, line in enumerate(lines[begin:], begin + 1):
        if named and word.search(line.partition("#")[0]):
            return f"line {number}"
    return ""

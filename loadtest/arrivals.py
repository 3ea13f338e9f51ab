"""
When requests are sent: seconds from the start of a run, of a named and seeded process.

    poisson:200               200 a second on average, none knowing of the others
    constant:100              one each 10 ms
    bursts:50/20s,400/2s      Poisson of 50 a second for 20 s on average, then of 400 for 2 s, ...
    ramp:10-200               from 10 to 200 a second, straight, over the run
    diurnal:20-200/60s        between 20 and 200 as a day goes, a day taking 60 s; else the run
    replay:trace.jsonl        as recorded: a due second a line, or {"due_s": 1.5, "call": 3}
    closed:16                 16 callers, each of whom asks again once he is answered

Pure, but for `parse`, which reads the trace. Knows nothing of what is sent.
"""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import TypeVar

Item = TypeVar("Item")


class BadArrivals(Exception):
    """The message is one line that says what is right."""


@dataclass(frozen=True, slots=True)
class Poisson:
    rate: float


@dataclass(frozen=True, slots=True)
class Constant:
    rate: float


@dataclass(frozen=True, slots=True)
class Bursts:
    """Markov-modulated Poisson: two rates in turn, calm first; each lasts so long on average."""

    calm: float
    calm_s: float
    burst: float
    burst_s: float


@dataclass(frozen=True, slots=True)
class Ramp:
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Diurnal:
    """Quietest at midnight, where it begins. `day_s` None: one day is the whole run."""

    low: float
    high: float
    day_s: float | None


@dataclass(frozen=True, slots=True)
class Replay:
    """`calls`: which call each is of; None where the trace does not say."""

    times: tuple[float, ...]
    calls: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Closed:
    callers: int


Open = Poisson | Constant | Bursts | Ramp | Diurnal | Replay
Arrivals = Open | Closed


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of one state of `Bursts`."""

    start_s: float
    end_s: float
    burst: bool


def parse(spec: str) -> Arrivals:
    """Raises BadArrivals."""
    kind, _, rest = spec.partition(":")
    if kind == "replay":
        return read(Path(rest))
    if kind not in _FORMS:
        raise BadArrivals(f"arrivals {spec!r} are none of {', '.join([*_FORMS, 'replay'])}")
    pattern, make, example = _FORMS[kind]
    found = re.fullmatch(pattern.replace("N", r"(\d+(?:\.\d+)?)"), rest)
    numbers = [float(each) for each in found.groups() if each] if found else []
    if not numbers or not all(0 < each < math.inf for each in numbers):
        raise BadArrivals(f"arrivals {spec!r} are not like {kind}:{example}, of numbers above 0")
    return make(*numbers)


def plain(rate: float) -> str:
    """As `parse` reads it: without an exponent, which 1e7 would have."""
    return f"{rate:.6f}".rstrip("0").rstrip(".")


def _closed(callers: float) -> Closed:
    if callers != int(callers):
        raise BadArrivals(f"closed:{callers:g} is no whole number of callers, as closed:16 is")
    return Closed(int(callers))


def _diurnal(low: float, high: float, day_s: float | None = None) -> Diurnal:
    if low > high:
        raise BadArrivals(f"diurnal:{low:g}-{high:g} goes down: diurnal:{high:g}-{low:g} is right")
    return Diurnal(low, high, day_s)


_FORMS: dict[str, tuple[str, Callable[..., Arrivals], str]] = {
    "poisson": ("N", Poisson, "200"),
    "constant": ("N", Constant, "100"),
    "bursts": ("N/Ns,N/Ns", Bursts, "50/20s,400/2s"),
    "ramp": ("N-N", Ramp, "10-200"),
    "diurnal": ("N-N(?:/Ns)?", _diurnal, "20-200/60s"),
    "closed": ("N", _closed, "16"),
}


def read(file: Path) -> Replay:
    """A recorded trace. Raises BadArrivals."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise BadArrivals(f"replay:{file} is no text file that can be read") from None
    found = [_recorded(line, f"{file}:{i}") for i, line in enumerate(lines, 1) if line.strip()]
    times = tuple(due for due, _ in found)
    if not times:
        raise BadArrivals(f"replay:{file} holds no line with a due second")
    if list(times) != sorted(times):
        raise BadArrivals(f"replay:{file} is not in the order of its seconds: sort it")
    return Replay(times, tuple(call for _, call in found))


def _recorded(line: str, place: str) -> tuple[float, int | None]:
    try:
        value = json.loads(line)
        due, call = (
            (value["due_s"], value.get("call")) if isinstance(value, dict) else (value, None)
        )
        right = isinstance(due, int | float) and 0 <= due < math.inf and not isinstance(due, bool)
        if right and (call is None or (type(call) is int and call >= 0)):
            return float(due), call
    except (ValueError, KeyError):
        pass
    raise BadArrivals(f'{place} is neither a second, as 1.5, nor {{"due_s": 1.5, "call": 3}}')


def due(arrivals: Open, *, seconds: float, seed: int) -> Iterator[float]:
    """Rising, from 0 to before `seconds`; the same for the same seed."""
    draw = random.Random(seed)
    match arrivals:
        case Poisson(rate):
            return _poisson(rate, 0.0, seconds, draw)
        case Constant(rate):
            return (i / rate for i in range(math.ceil(seconds * rate - 1e-9)))
        case Bursts():
            return _bursts(arrivals, seconds, seed)
        case Ramp(start, end):
            steep = (end - start) / seconds
            return _thinned(lambda t: start + steep * t, max(start, end), seconds, draw)
        case Diurnal(low, high, day_s):
            day = day_s or seconds
            half = (high - low) / 2
            turn = 2 * math.pi / day
            return _thinned(lambda t: low + half * (1 - math.cos(turn * t)), high, seconds, draw)
        case Replay(times):
            return (each for each in times if each < seconds)


def phases(arrivals: Bursts, *, seconds: float, seed: int) -> list[Phase]:
    """When `due` of the same seed is calm and when it bursts."""
    draw = random.Random(f"phases {seed}")
    found: list[Phase] = []
    start = 0.0
    while start < seconds:
        burst = len(found) % 2 == 1
        stay = draw.expovariate(1 / (arrivals.burst_s if burst else arrivals.calm_s))
        found.append(Phase(start, min(start + stay, seconds), burst))
        start += stay
    return found


def plan(arrivals: Open, *, seconds: float, seed: int, calls: int) -> Iterator[tuple[float, int]]:
    """
    When, and which of so many calls: one after another, and from the first again.

    Raises BadArrivals where a trace names a call that there is not.
    """
    times = due(arrivals, seconds=seconds, seed=seed)
    if not isinstance(arrivals, Replay):
        return zip(times, (number % calls for number in count()), strict=False)
    if missing := [each for each in arrivals.calls if each is not None and each >= calls]:
        raise BadArrivals(f"the trace asks for call {missing[0]}: there are {calls}, from 0 on")
    named = enumerate(arrivals.calls)
    return zip(times, (i % calls if each is None else each for i, each in named), strict=False)


def share(items: Iterable[Item], index: int, of: int) -> Iterator[Item]:
    """What worker `index` of so many takes of a plan: together they take each item once."""
    return islice(items, index, None, of)


def opening(arrivals: Open) -> float:
    """The rate at the start: of a warm-up before it."""
    match arrivals:
        case Poisson(rate) | Constant(rate):
            return rate
        case Bursts(calm):
            return calm
        case Ramp(start):
            return start
        case Diurnal(low):
            return low
        case Replay(times):
            return len(times) / max(times[-1], 1.0)


def length_s(arrivals: Arrivals) -> float | None:
    """Of a run with the whole trace in it; None: these come for as long as one likes."""
    # The end of a run is no part of it, its last line is; and of none there is no rate.
    return max(1.0, arrivals.times[-1] + 0.001) if isinstance(arrivals, Replay) else None


def _poisson(rate: float, start: float, end: float, draw: random.Random) -> Iterator[float]:
    at = start + draw.expovariate(rate)
    while at < end:
        yield at
        at += draw.expovariate(rate)


def _bursts(arrivals: Bursts, seconds: float, seed: int) -> Iterator[float]:
    draw = random.Random(seed)
    for phase in phases(arrivals, seconds=seconds, seed=seed):
        rate = arrivals.burst if phase.burst else arrivals.calm
        yield from _poisson(rate, phase.start_s, phase.end_s, draw)


def _thinned(
    rate: Callable[[float], float], highest: float, seconds: float, draw: random.Random
) -> Iterator[float]:
    """Of a Poisson process of the highest rate, each arrival by its chance (Lewis and Shedler)."""
    for at in _poisson(highest, 0.0, seconds, draw):
        if draw.random() * highest < rate(at):
            yield at

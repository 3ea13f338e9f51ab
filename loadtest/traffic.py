"""
What is sent: settings and a seed make the calls of a run, and the answers to them are read here.

Knows nothing of when calls are sent, over what, or how long they take.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadtest.record import Call, Result
from loadtest.texts import LENGTHS, BadTraffic, Text, compose, languages_of, read

PATHS = {"ner": "/v1/ner", "classification": "/v1/classify"}
KINDS = {"ner": "sentences", "classification": "articles"}
REFUSED = (429, 503)

# So many texts are composed for a task; a file's are all taken.
POOL = 512


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """
    What to send. Raises BadTraffic.

    texts       a kind of composed texts, a file or a folder; "": sentences for NER, else articles
    languages   code -> weight; None: as they are found, which is alike for composed texts
    tasks       task -> weight
    duplicates  exponent of Zipf's law over the texts; 0: every text once before any comes again
    inputs      texts a request
    """

    texts: str = ""
    languages: Mapping[str, float] | None = None
    tasks: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(PATHS, 1.0))
    duplicates: float = 0.0
    inputs: int = 1
    seed: int = 1

    def __post_init__(self) -> None:
        if strange := sorted(self.tasks.keys() - PATHS.keys()):
            raise BadTraffic(f"there is no task {', '.join(strange)}: there are {', '.join(PATHS)}")
        for name, weights in (("tasks", self.tasks), ("languages", self.languages)):
            if weights is None:
                continue
            if not weights or not all(0 < each < math.inf for each in weights.values()):
                raise BadTraffic(f"the weights of {name} are numbers above 0, as in a:2,b:1")
        if not 0 <= self.duplicates < math.inf:
            raise BadTraffic(f"duplicates is {self.duplicates:g}: it is 0 or more")
        if self.inputs < 1:
            raise BadTraffic(f"inputs is {self.inputs}: a request has 1 or more")
        if self.seed < 0:
            raise BadTraffic(f"seed is {self.seed}: give 0 or more")


# --- calls -----------------------------------------------------------------------------------


def calls(traffic: Traffic, *, task: str | None = None, count: int) -> list[Call]:
    """
    `count` calls of one task, or of the mix of tasks. Raises BadTraffic.

    Fewer are the beginning of more. The calls of a task are the same alone and in a mix.
    """
    if task is not None:
        return list(itertools.islice(_calls(traffic, task), count))
    rng = random.Random(f"tasks {traffic.seed}")
    drawn = rng.choices(list(traffic.tasks), list(traffic.tasks.values()), k=count)
    streams = {name: _calls(traffic, name) for name in dict.fromkeys(drawn)}
    return [next(streams[name]) for name in drawn]


def pool(traffic: Traffic, task: str) -> list[Text]:
    """The texts a task's calls are drawn from, in the order of their ranks. Raises BadTraffic."""
    kind = traffic.texts or KINDS[task]
    wanted = traffic.languages or {}
    if kind in LENGTHS:
        _known(wanted, languages_of(kind), kind)
        return compose(kind, count=POOL, seed=traffic.seed, languages=wanted)
    found = read(Path(kind))
    # What is labelled for the other task alone is sent where there is nothing else.
    other = next(name for name in PATHS if name != task)
    fit = [t for t in found if t.gold(task) is not None or t.gold(other) is None] or found
    _known(wanted, sorted({text.language for text in fit}), kind)
    random.Random(f"{task} {traffic.seed}").shuffle(fit)
    return fit


def _calls(traffic: Traffic, task: str) -> Iterator[Call]:
    made: dict[tuple[Text, ...], Call] = {}  # so that a million calls are no million objects
    drawn = _drawn(traffic, task)
    while True:
        texts = tuple(itertools.islice(drawn, traffic.inputs))
        if (call := made.get(texts)) is None:
            made[texts] = call = _call(task, texts)
        yield call


def _call(task: str, texts: Sequence[Text]) -> Call:
    gold = tuple(text.gold(task) for text in texts)
    return Call(
        task=task,
        texts=tuple(text.text for text in texts),
        languages=tuple(text.language for text in texts),
        gold=gold if any(each is not None for each in gold) else None,
    )


def _drawn(traffic: Traffic, task: str) -> Iterator[Text]:
    """A language by its weight, then one of its texts."""
    texts = pool(traffic, task)
    if traffic.languages is None:
        yield from _ranked(texts, traffic, f"{task} texts")
    weights = list(itertools.accumulate((traffic.languages or {}).values()))
    streams = [
        _ranked([each for each in texts if each.language == name], traffic, f"{task} {name} texts")
        for name in traffic.languages or {}
    ]
    rng = random.Random(f"{task} languages {traffic.seed}")
    while True:
        yield next(rng.choices(streams, cum_weights=weights)[0])


def _ranked(texts: Sequence[Text], traffic: Traffic, stream: str) -> Iterator[Text]:
    """One after another, over and over; with duplicates that of rank r as often as r^-exponent."""
    if not traffic.duplicates:
        yield from itertools.cycle(texts)
    rng = random.Random(f"{stream} {traffic.seed}")
    often = (rank**-traffic.duplicates for rank in range(1, len(texts) + 1))
    weights = list(itertools.accumulate(often))
    while True:
        yield rng.choices(texts, cum_weights=weights)[0]


def _known(wanted: Mapping[str, float], known: Sequence[str], where: str) -> None:
    if strange := [name for name in wanted if name not in known]:
        there = ", ".join(name for name in known if name)
        if not there:
            raise BadTraffic(f"{where} says of no text in what language it is: leave out languages")
        raise BadTraffic(f"{where} has no texts in {', '.join(strange)}: there are {there}")


# --- on the wire -----------------------------------------------------------------------------


def path(call: Call) -> str:
    return PATHS[call.task]


def body(call: Call, variant: str) -> bytes:
    """As it is sent to a variant; "" leaves the choice to the server."""
    inputs = call.texts[0] if len(call.texts) == 1 else call.texts
    named = {"variant": variant} if variant else {}
    return json.dumps({"inputs": inputs, **named}, ensure_ascii=False).encode()


def read_answer(
    call: Call, status: int, body: bytes
) -> tuple[tuple[Result, ...] | None, str | None]:
    """What was said of each text of a call, or why that is no right answer: one of them is None."""
    if status == 0:
        return None, "no answer (connection refused, reset or timed out)"
    if status != 200:
        return None, f"HTTP {status}"
    try:
        results = json.loads(body)["results"]
        said = tuple(_result(call.task, each) for each in results)
    except (ValueError, TypeError, KeyError, IndexError):
        return None, "no results in the answer"
    if len(said) != len(call.texts):
        return None, "not one result for each text"
    return said, None


def retry_after_s(status: int, body: bytes, header: str | None = None) -> float | None:
    """
    What a refusal said; None: it is none, or says nothing that can be understood.

    Ours say it in milliseconds in the body, others in whole seconds in the header.
    """
    if status not in REFUSED:
        return None
    try:
        told = float(json.loads(body)["retry_after_ms"]) / 1000
        if math.isfinite(told):
            return told
    except (ValueError, TypeError, KeyError):
        pass
    return float(header) if header and header.isdecimal() else None


def _result(task: str, result: Any) -> Result:
    """Entities come in code points where nothing else is asked for, labels best first."""
    if task == "ner":
        return frozenset((e["start"], e["end"], e["label"]) for e in result["entities"])
    return str(result["labels"][0]["label"])


# --- the command line ------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser, *, mixes: bool = False) -> None:
    """
    The flags of `from_arguments`, for our own command line and for Locust's.

    mixes  whether a run may have more than one task; --tasks is refused where it may not
    """

    def flag(name: str, default: Any, explanation: str, kind: Any = None) -> None:
        parser.add_argument(
            f"--{name}",
            default=os.environ.get(f"LOADTEST_{name.upper()}") or default,
            type=kind or type(default),
            help=explanation,
        )

    flag(
        "texts",
        "",
        f"{', '.join(LENGTHS)}; or a .txt or .jsonl file or a folder of them "
        "(default: sentences for ner, articles for classification)",
    )
    flag("languages", "", "and their weights, as in hau:2,swa:1 (default: as they are found)")
    if mixes:
        flag("tasks", "", "and their weights, as in ner:3,classification:1 (default: one task)")
    else:
        flag("tasks", "", argparse.SUPPRESS, _no_mix)
    flag(
        "duplicates",
        0.0,
        "exponent of Zipf's law over the texts, 1.1 for instance "
        "(default 0: every text once before any comes again)",
    )
    flag("inputs", 1, "texts a request (default 1)")
    flag("seed", 1, "of all that is drawn (default 1)")


def from_arguments(args: argparse.Namespace) -> Traffic:
    """Raises BadTraffic."""
    tasks = weights(args.tasks)
    return Traffic(
        texts=args.texts,
        languages=weights(args.languages) or None,
        duplicates=args.duplicates,
        inputs=args.inputs,
        seed=args.seed,
        **({"tasks": tasks} if tasks else {}),
    )


def _no_mix(text: str) -> str:
    if text:
        raise argparse.ArgumentTypeError(
            "a variant has one task: `locust -f loadtest/locustfile.py` without --variant mixes"
        )
    return text


def weights(text: str) -> dict[str, float]:
    """
    Names and how often each comes; 1 where it is not said. Raises BadTraffic.

    "hau:2,swa"   -> {"hau": 2.0, "swa": 1.0}
    """
    found: dict[str, float] = {}
    for part in (each.strip() for each in text.split(",") if each.strip()):
        name, _, weight = part.partition(":")
        try:
            value = float(weight or 1)
        except ValueError:
            raise BadTraffic(f"{part!r} is no name and weight, as in hau:2") from None
        if not name or name in found:
            raise BadTraffic(f"{text!r} names something twice, or nothing: as in hau:2,swa:1")
        found[name] = value
    return found

"""
Which variant answers a request: pure choices over manifests.

Knows nothing of lanes, load or HTTP.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from models.errors import Quarantined, UnknownVariant
from models.spec import Task, Variant

# As a manifest's name must be.
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def default(variants: Iterable[Variant], task: Task) -> Variant | None:
    """
    The task's int8 variant if there is one, else its smallest; None if nothing serves the task.

    Of several int8 variants the shortest name wins: `ner-int8` before `ner-distil-int8`.
    """
    serving = [variant for variant in variants if variant.task is task]
    int8 = [variant for variant in serving if variant.name.endswith("-int8")]
    if int8:
        return min(int8, key=lambda variant: (len(variant.name), variant.name))
    return min(serving, key=lambda variant: (variant.bytes, variant.name), default=None)


def choose(
    serving: Mapping[str, Variant],
    quarantined: Mapping[str, str],
    task: Task,
    wanted: str | None,
) -> Variant:
    """
    The variant named `wanted`, or the task's default.

    Raises `Quarantined` for a variant that failed its checks (`quarantined`: name to reason) and
    `UnknownVariant`, naming those of the task, for all other names.
    """
    if wanted is None:
        return _default_or_raise(serving, quarantined, task)
    variant = serving.get(wanted)
    if variant is not None and variant.task is task:
        return variant
    if wanted in quarantined:
        raise Quarantined(f"variant {wanted} is quarantined: {quarantined[wanted]}")
    if variant is not None:
        wrong = f"{wanted} serves {variant.task}, not {task}"
    else:
        wrong = unknown(wanted)
    raise UnknownVariant(f"{wrong}; {_known(serving, task)}")


def unknown(wanted: str) -> str:
    """A text may stand where a name belongs: only what could be a name is repeated."""
    named = wanted if _NAME.fullmatch(wanted) else "of that name"
    return f"there is no variant {named}"


def _default_or_raise(
    serving: Mapping[str, Variant], quarantined: Mapping[str, str], task: Task
) -> Variant:
    variant = default(serving.values(), task)
    if variant is not None:
        return variant
    if quarantined:
        raise Quarantined(
            f"no variant serves {task} now; quarantined are {', '.join(sorted(quarantined))}"
        )
    raise UnknownVariant(f"no variant in the catalog serves {task}")


def _known(serving: Mapping[str, Variant], task: Task) -> str:
    names = sorted(name for name, variant in serving.items() if variant.task is task)
    return f"known are {', '.join(names)}" if names else "no variant of that task is loaded"

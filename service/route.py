"""
Which variant answers a request: by name, by a policy, or as the task's default says.

Pure choices over manifests. Knows nothing of lanes, load or HTTP.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

from models.errors import Quarantined, UnknownVariant
from models.spec import Task, Variant
from service.policy import (
    DEFAULT,
    Decision,
    Estimate,
    Policy,
    Rejected,
    Unsatisfied,
    decide,
)

# As a manifest's name must be.
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
# Policies whose decisions are kept: they are of callers' making.
_KEPT = 1024

Predict = Callable[[Variant], Estimate]


class Table:
    """
    Every choice over one state of the catalog.

    serving      by name
    quarantined  name -> what is wrong with it
    """

    def __init__(self, serving: Mapping[str, Variant], quarantined: Mapping[str, str]) -> None:
        self._serving = serving
        self._quarantined = quarantined
        self._kin = {task: kin(serving.values(), task) for task in Task}
        # Manifests do not change, so neither does what follows from them alone.
        self._untimed = lru_cache(_KEPT)(lambda task, policy: decide(policy, self._kin[task], {}))
        self._defaults = {task: self._default(task) for task in Task}

    def choose(
        self, task: Task, wanted: str | None, policy: Policy | None, predict: Predict
    ) -> Decision:
        """
        The variant named `wanted`, the one `policy` decides for, or the task's default.

        Raises `Quarantined` for a variant that failed its checks, `UnknownVariant`, naming those
        of the task, for all other names, and `Unsatisfied`.
        """
        if wanted is not None:
            return Decision(self._named(task, wanted), "named")
        if policy is None:
            return self._defaults[task] or self._nothing(task)
        if not self._kin[task]:
            return self._nothing(task)
        if not policy.is_timed:
            decision: Decision = self._untimed(task, policy)
            return decision
        estimates = {each.name: predict(each) for each in self._kin[task]}
        return decide(policy, self._kin[task], estimates)

    def default(self, task: Task) -> Variant | None:
        """What answers who asks for nothing; None if nothing serves the task."""
        decision = self._defaults[task]
        return decision.variant if decision else None

    def _named(self, task: Task, wanted: str) -> Variant:
        variant = self._serving.get(wanted)
        if variant is not None and variant.task is task:
            return variant
        if wanted in self._quarantined:
            raise Quarantined(f"variant {wanted} is quarantined: {self._quarantined[wanted]}")
        if variant is not None:
            wrong = f"{wanted} serves {variant.task}, not {task}"
        else:
            wrong = unknown(wanted)
        raise UnknownVariant(f"{wrong}; {self._known(task)}")

    def _default(self, task: Task) -> Decision | None:
        """The default policy's decision; where nothing satisfies it, the baseline's turn."""
        if not self._kin[task]:
            return None
        try:
            decision: Decision = self._untimed(task, DEFAULT)
        except Unsatisfied as unsatisfied:
            why = {near.variant: near.reason for near in unsatisfied.nearest}
            last = max(self._kin[task], key=lambda each: (each.parent is None, each.bytes))
            rejected = [Rejected(variant=n, reason=r) for n, r in why.items() if n != last.name]
            reason = f"default: nothing satisfies it, so the largest answers: {why[last.name]}"
            return Decision(last, reason, tuple(rejected))
        return Decision(
            decision.variant, f"default: {decision.reason}", decision.rejected, decision.smaller
        )

    def _nothing(self, task: Task) -> Decision:
        if self._quarantined:
            names = ", ".join(sorted(self._quarantined))
            raise Quarantined(f"no variant serves {task} now; quarantined are {names}")
        raise UnknownVariant(f"no variant in the catalog serves {task}")

    def _known(self, task: Task) -> str:
        names = sorted(name for name, each in self._serving.items() if each.task is task)
        return f"known are {', '.join(names)}" if names else "no variant of that task is loaded"


def kin(variants: Iterable[Variant], task: Task) -> tuple[Variant, ...]:
    """
    Those of the task that may stand for each other: they answer with the same labels.

    A catalog may hold topics and sentiment, say: the larger kin is what the task's route is of,
    the first by name of equal ones; others answer by name.
    """
    alike = defaultdict[frozenset[str], list[Variant]](list)
    for variant in sorted(variants, key=lambda each: each.name):
        if variant.task is task:
            alike[frozenset(variant.labels)].append(variant)
    most = max(alike, key=lambda labels: len(alike[labels]), default=frozenset())
    return tuple(alike[most])


def unknown(wanted: str) -> str:
    """A text may stand where a name belongs: only what could be a name is repeated."""
    named = wanted if _NAME.fullmatch(wanted) else "of that name"
    return f"there is no variant {named}"

"""
Which variant answers a request: by name, by a policy, by a route, or as the task's default says.

Pure choices over manifests. Knows nothing of lanes, load or HTTP.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import blake2b
from math import log
from types import MappingProxyType
from typing import NoReturn

from models.errors import InvalidRequest, NotReady, Quarantined, UnknownVariant
from models.spec import NAME, Task, Variant
from service.generation import Verdict
from service.policy import (
    DEFAULT,
    Decision,
    Policy,
    Predict,
    Rejected,
    Unsatisfied,
    decide,
    judge,
    languages,
)
from service.routes import Route, Routes

_NAME = re.compile(NAME)
# Policies whose decisions are kept: they are of callers' making.
_KEPT = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """
    What of a request decides who answers.

    key     name of the API key; None without one
    number  of the request, by which a split tells those apart that nothing else does
    header  name in lower case -> value; None where the request has none
    """

    task: Task
    variant: str | None = None
    policy: Policy | None = None
    key: str | None = None
    number: str = ""
    header: Callable[[str], str | None] = field(default=lambda name: None)


class Table:
    """
    Every choice over one state of the catalog and the routes.

    serving      by name
    quarantined  name -> what is wrong with it
    unloaded     names of those that are not to serve now
    verdicts     of trials that ended, by the name of the route
    """

    def __init__(
        self,
        serving: Mapping[str, Variant],
        quarantined: Mapping[str, str],
        routes: Routes = Routes(),  # noqa: B008 - a frozen value
        *,
        unloaded: Collection[str] = (),
        verdicts: Mapping[str, Verdict] = MappingProxyType({}),
    ) -> None:
        self._serving = serving
        self._quarantined = quarantined
        self._unloaded = unloaded
        self._verdicts = verdicts
        self._routes = {
            task: tuple(each for each in routes.route if each.task is task) for task in Task
        }
        self._kin = {task: kin(serving.values(), task) for task in Task}
        self._languages = {task: languages(alike) for task, alike in self._kin.items()}
        # Manifests do not change, so neither does what follows from them alone.
        self._untimed = lru_cache(_KEPT)(lambda task, policy: self._decide(task, policy, _never))
        self._judged = lru_cache(_KEPT)(lambda task, policy: judge(policy, self._kin[task]))
        self._defaults = {task: self._default(task) for task in Task}

    def choose(self, asked: Asked, predict: Predict, chance: Callable[[], float]) -> Decision:
        """
        The variant of that name, the one its policy decides for, or what the first route that
        matches says, or else the default.

        chance  0 to 1, anew each time it is called: which requests a shadow reads too

        Raises `Quarantined` for a variant that failed its checks, `UnknownVariant`, naming those
        of the task, for all other names, `InvalidRequest` for a language that none is for,
        `NotReady` where all are unloaded, and `Unsatisfied`.
        """
        if asked.variant is not None:
            return Decision(self._named(asked.task, asked.variant), "named")
        if asked.policy is not None:
            self._check_language(asked.task, asked.policy)
            return self._satisfying(asked.task, asked.policy, predict)
        for route in self._routes[asked.task]:
            if _matches(route, asked):
                return self._routed(route, asked, predict, chance)
        return self._defaults[asked.task] or self._nothing(asked.task)

    def _check_language(self, task: Task, policy: Policy) -> None:
        """Of a language that nobody was measured in, the baseline would be a guess."""
        known = self._languages[task]
        if policy.code is not None and known and policy.code not in known:
            raise InvalidRequest(
                f"no variant of {task} is for the language that the policy names; known are "
                f"{', '.join(sorted(known))}"
            )

    def _satisfying(self, task: Task, policy: Policy, predict: Predict) -> Decision:
        if not self._kin[task]:
            self._nothing(task)
        if not policy.is_timed:
            decision: Decision = self._untimed(task, policy)
            return decision
        return self._decide(task, policy, predict)

    def _decide(self, task: Task, policy: Policy, predict: Predict) -> Decision:
        return decide(policy, self._judged(task, policy), predict)

    def _routed(
        self, route: Route, asked: Asked, predict: Predict, chance: Callable[[], float]
    ) -> Decision:
        """What the route says, and who reads along."""
        decision = self._of_route(route, asked, predict)
        reader, share, trial = self._reader(route, decision.variant.name)
        shadow = self._serving.get(reader)
        if shadow is None or chance() >= share:
            return decision
        return replace(decision, shadow=shadow, trial=trial)

    def _reader(self, route: Route, answering: str) -> tuple[str, float, str | None]:
        """Who reads along, how often, and for which route's trial; nobody is ""."""
        if route.canary and route.incumbent:
            on_trial = answering == route.canary.variant and route.name not in self._verdicts
            return (
                (route.incumbent, route.canary.share, route.name) if on_trial else ("", 0.0, None)
            )
        if route.shadow and route.shadow.variant != answering:
            return route.shadow.variant, route.shadow.share, None
        return "", 0.0, None

    def _of_route(self, route: Route, asked: Asked, predict: Predict) -> Decision:
        """Where all it names is out of service, or nothing satisfies it: what the default says."""
        if route.policy is not None:
            try:
                decision = self._satisfying(asked.task, route.policy, predict)
            except Unsatisfied:
                return self._instead(route, "nothing satisfies it", asked.task)
            return replace(decision, reason=f"route {route.name}: {decision.reason}")
        weights = route.split or {str(route.variant): 1.0}
        verdict = self._verdicts.get(route.name)
        if verdict:
            judged = [n for n in weights if (n == verdict.variant) is verdict.promoted]
            weights = {name: weights[name] for name in judged}
        alive = {name: weight for name, weight in weights.items() if name in self._serving}
        if not alive:
            return self._instead(route, "out of service", asked.task)
        if len(weights) == 1:
            [name] = alive
            told = f"; {verdict.why}" if verdict else ""
            return Decision(self._serving[name], f"route {route.name}{told}")
        name, why = _of_split(route, alive, asked)
        reason = f"route {route.name}: {why}"
        return Decision(self._serving[name], reason, again=f"{route.name}={name}")

    def _instead(self, route: Route, why: str, task: Task) -> Decision:
        decision = self._defaults[task] or self._nothing(task)
        return replace(decision, reason=f"route {route.name}: {why}; {decision.reason}")

    def default(self, task: Task) -> Variant | None:
        """What answers who asks for nothing; None if nothing serves the task."""
        decision = self._defaults[task]
        return decision.variant if decision else None

    def serving_default(self, task: Task) -> Variant:
        """As `default`. Raises as `choose` does where nothing serves the task."""
        return self.default(task) or self._nothing(task)

    def _named(self, task: Task, wanted: str) -> Variant:
        variant = self._serving.get(wanted)
        if variant is not None and variant.task is task:
            return variant
        if wanted in self._quarantined:
            raise Quarantined(f"variant {wanted} is quarantined: {self._quarantined[wanted]}")
        if wanted in self._unloaded:
            wrong = f"{wanted} is unloaded"
        elif variant is not None:
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

    def _nothing(self, task: Task) -> NoReturn:
        if self._quarantined:
            names = ", ".join(sorted(self._quarantined))
            raise Quarantined(f"no variant serves {task} now; quarantined are {names}")
        if self._unloaded:
            names = ", ".join(sorted(self._unloaded))
            raise NotReady(f"no variant serves {task} now; unloaded are {names}")
        raise UnknownVariant(f"no variant in the catalog serves {task}")

    def _known(self, task: Task) -> str:
        names = sorted(name for name, each in self._serving.items() if each.task is task)
        return f"known are {', '.join(names)}" if names else "no variant of that task is loaded"


def _never(variant: Variant) -> NoReturn:
    raise AssertionError("a policy that is not timed asks for no prediction")


def _matches(route: Route, asked: Asked) -> bool:
    return (route.key is None or route.key == asked.key) and all(
        asked.header(name.lower()) == value for name, value in route.when.items()
    )


def _of_split(route: Route, weights: Mapping[str, float], asked: Asked) -> tuple[str, str]:
    """The variant that answers this caller, and why."""
    again = asked.header("x-route") or ""
    wanted, _, name = again.partition("=")
    if wanted == route.name and name in weights:
        return name, "as before"
    value = asked.header(route.sticky.lower()) if route.sticky else None
    whose = value or asked.key
    return drawn(route.name, weights, whose or asked.number), "by its key" if whose else "by chance"


def drawn(salt: str, weights: Mapping[str, float], key: str) -> str:
    """
    One of the names, the same for the same key, as often over many keys as it weighs.

    Weighted rendezvous hashing (Thaler and Ravishankar 1998; Schindelhauer and Schomaker 2005):
    when weights move only as many keys move as must.
    """
    return max(weights, key=lambda name: -weights[name] / log(_uniform(f"{salt}\0{name}\0{key}")))


def _uniform(text: str) -> float:
    """A number between 0 and 1, neither of them, that looks like chance."""
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest) + 0.5) / 2**64


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


def is_name(wanted: str) -> bool:
    """Whether a variant may be called so. No other text of a caller's becomes a path."""
    return _NAME.fullmatch(wanted) is not None


def unknown(wanted: str) -> str:
    """A text may stand where a name belongs: only what could be a name is repeated."""
    named = wanted if is_name(wanted) else "of that name"
    return f"there is no variant {named}"

"""Changes under traffic, against a model of them: two real workers and no answer that is wrong."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from models.spec import Task
from service import keys
from service.keys import Scope
from tests.test_admin import Operated
from tests.test_serve import serving
from tests.tiny import NER_WORDS, judged, write_variant

# Each knows one city that no other does, so that an answer tells whose it is.
CITY = {"ner-base": "Dodoma", "ner-small": "Arusha", "ner-tiny": "Mwanza"}
NAMES = sorted(CITY)
TEXT = f"Sani ya je {' ya je '.join(CITY.values())}"
CALLERS = 3

some = st.sets(st.sampled_from(NAMES), min_size=1, max_size=2).map(sorted)


@dataclass(frozen=True)
class State:
    """What serves. `answers`: of the route for all who name nothing; none is the default."""

    loaded: frozenset[str] = frozenset(NAMES)
    answers: tuple[str, ...] = ()

    def right(self, named: str | None) -> set[str | None]:
        """Who may answer; None: nobody, a 404, or a 503 for who names none."""
        if named:
            return {named if named in self.loaded else None}
        alive = {name for name in self.answers if name in self.loaded}
        # The smallest that is surely near its baseline; the baseline; the last resort.
        default = (n for n in ("ner-small", "ner-base", "ner-tiny") if n in self.loaded)
        return {*alive} or {next(default, None)}


class Traffic:
    """Callers that never stop asking, and what was wrong with what they were told."""

    def __init__(self, operated: Operated) -> None:
        self._operated = operated
        self._states = [State()]
        self._sure = 0  # the last of them that is in force everywhere
        self._done = threading.Event()
        self.asked = itertools.count()
        self.wrong: list[str] = []

    def become(self, state: State) -> None:
        """From now on it may be in force, and until it is `settled` what was before may be too."""
        self._states.append(state)

    def settled(self) -> None:
        self._sure = len(self._states) - 1

    def stop(self) -> None:
        self._done.set()

    def ask(self, seed: int) -> None:
        chance = random.Random(seed)
        with httpx.Client(base_url=self._operated.server.url, timeout=30) as client:
            while not self._done.is_set():
                named = chance.choice([None, *NAMES])
                try:
                    self._one(client, named, str(chance.random()))
                except (httpx.HTTPError, KeyError, ValueError) as error:
                    self.wrong.append(repr(error))
                next(self.asked)

    def _one(self, client: httpx.Client, named: str | None, client_name: str) -> None:
        headers = {
            "Authorization": f"Bearer {self._operated.tokens['newsroom']}",
            "X-Client": client_name,
        }
        body = {"inputs": TEXT, **({"variant": named} if named else {})}
        since = self._sure
        reply = client.post("/v1/ner", json=body, headers=headers)
        right = {who for state in self._states[since:] for who in state.right(named)}
        if reply.status_code == (404 if named else 503):
            answered = None
        elif reply.status_code == 200:
            answered = reply.json()["variant"]
            found = {each["text"] for each in reply.json()["results"][0]["entities"]}
            if found != {"Sani", CITY[answered]}:
                self.wrong.append(f"{answered} found {found}")
        else:
            self.wrong.append(f"{reply.status_code}: {reply.text}")
            return
        if answered not in right:
            self.wrong.append(f"{answered} answered who named {named}, right were {right}")


class Operating(RuleBasedStateMachine):
    """What an operator may do, in any order."""

    def __init__(self, operated: Operated, traffic: Traffic) -> None:
        super().__init__()
        self._operated = operated
        self._traffic = traffic
        self._state = State()
        self._known = {0: State()}
        self._newest = 0

    @initialize()
    def as_at_the_start(self) -> None:
        self._newest = self._operated.both().popitem()[1]["generation"]
        self._change("POST", "/v1/generations/0/restore", State())

    def _change(self, method: str, path: str, state: State, **more: Any) -> None:
        self._traffic.become(state)
        done = self._operated.ask(method, path, **more)
        assert done.status_code == 200, done.text
        self._traffic.settled()
        number = done.json()["generation"]  # what changes nothing makes none
        assert number in (self._newest, self._newest + 1)
        self._state, self._newest = state, number
        self._known[number] = state

    @rule(name=st.sampled_from(NAMES))
    def load(self, name: str) -> None:
        loaded = replace(self._state, loaded=self._state.loaded | {name})
        self._change("POST", f"/v1/variants/{name}/load", loaded)

    @rule(name=st.sampled_from(NAMES))
    def unload(self, name: str) -> None:
        left = replace(self._state, loaded=self._state.loaded - {name})
        self._change("POST", f"/v1/variants/{name}/unload", left)

    @rule(answering=some, shadow=st.none() | st.sampled_from(NAMES))
    def route(self, answering: list[str], shadow: str | None) -> None:
        lines = ["[[route]]", 'name = "all"', 'task = "ner"']
        if len(answering) == 1:
            lines.append(f'variant = "{answering[0]}"')
        else:
            lines.append(f"split = {{ {', '.join(f'{name} = 50' for name in answering)} }}")
            lines.append('sticky = "X-Client"')
        if shadow and shadow not in answering:
            lines.append(f'shadow = {{ variant = "{shadow}", share = 1.0 }}')
        routed = replace(self._state, answers=tuple(answering))
        self._change("PUT", "/v1/routes", routed, content="\n".join(lines).encode())

    @rule()
    def route_to_the_default(self) -> None:
        self._change("PUT", "/v1/routes", replace(self._state, answers=()), content=b"# none")

    @rule(chosen=st.integers(0, 1000))
    def restore(self, chosen: int) -> None:
        number = sorted(self._known)[chosen % len(self._known)]
        self._change("POST", f"/v1/generations/{number}/restore", self._known[number])

    @rule()
    def check(self) -> None:
        self._change("POST", "/v1/check", self._state)

    @rule()
    def route_to_nobody(self) -> None:
        nobody = b'[[route]]\nname = "all"\ntask = "ner"\nvariant = "ner-huge"'
        assert self._operated.ask("PUT", "/v1/routes", content=nobody).status_code == 422

    @invariant()
    def both_workers_are_at_the_newest_and_every_answer_was_right(self) -> None:
        workers = self._operated.both().values()
        assert {each["generation"] for each in workers} == {self._newest}
        for each in workers:
            ready = {name for name, v in each["variants"].items() if v["state"] == "ready"}
            assert ready == self._state.loaded
        assert self._traffic.wrong == []


@pytest.fixture
def operated(tmp_path: Path) -> Iterator[Operated]:
    catalog, state, home = (tmp_path / name for name in ("zoo", "state", "home"))
    for folder in (state, home):
        folder.mkdir()
    for name, city in CITY.items():
        words = {**dict.fromkeys(CITY.values(), "O"), **NER_WORDS, city: "B-LOC"}
        if name == "ner-base":  # the largest
            words |= {f"word{n}": "O" for n in range(99)}
        evidence = {"ner-small": judged(0.7, -0.001), "ner-tiny": judged(0.5, -0.2)}.get(name)
        parent = None if name == "ner-base" else "ner-base"
        write_variant(catalog, name, Task.NER, words=words, parent=parent, evidence=evidence)
    made = {
        "operator": keys.new("operator", [Scope.ADMIN], None),
        "newsroom": keys.new("newsroom", [Scope.INFER], None),
    }
    file = tmp_path / "keys.toml"
    file.write_text("\n".join(lines for _, lines in made.values()))
    settings = {"KADOGO_WORKERS": "2", "KADOGO_KEYS": str(file), "KADOGO_STATE": str(state)}
    with serving(catalog, home, **settings) as server:
        yield Operated(server, catalog, state, {name: token for name, (token, _) in made.items()})


def test_no_order_of_changes_gives_anybody_a_wrong_answer(operated: Operated) -> None:
    traffic = Traffic(operated)
    workers = {*operated.both()}
    with ThreadPoolExecutor(CALLERS) as callers:
        asking: list[Future[None]] = [callers.submit(traffic.ask, n) for n in range(CALLERS)]
        try:
            run_state_machine_as_test(  # type: ignore[no-untyped-call]
                lambda: Operating(operated, traffic),
                settings=settings(
                    max_examples=5,
                    stateful_step_count=8,
                    deadline=None,
                    derandomize=True,
                    database=None,
                    phases=[Phase.generate],  # to shrink is to do it all again
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            traffic.stop()
        for each in asking:
            each.result(60)
    assert traffic.wrong == [] and next(traffic.asked) > 200
    assert {*operated.both()} == workers  # neither has died meanwhile

"""
Rounds: every server up by itself in turn, saturated and asked at a rate, weighed and stopped.

Forwards and backwards in turn, so that a machine that grows slower wrongs nobody. Knows nothing of
contests' outcomes.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from loadtest.peers.check import Agreement, agreement
from loadtest.peers.contests import Contest, Runner, runners_of
from loadtest.peers.files import folder_of
from loadtest.peers.load import Saturated, offer, saturate
from loadtest.peers.peers import KADOGO, PEERS, Entity
from loadtest.peers.server import post, serving
from loadtest.peers.tune import tuned
from loadtest.process import NotServing, Server
from loadtest.record import Unusable

LOAD = 0.7  # of the slowest's capacity
LEAST_SAME = 0.99  # of the texts, or the contest is void
LEAST_REQUESTS = 500  # in a stretch at a rate, for its p99; slow servers are given more time
LONGEST_S = 60.0
CHECKED = 300
PROBE_S = 2.0
CALLERS = 4


class Unlike(Exception):
    """A peer answers otherwise than the model does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """
    files         folder of the models' files
    environments  folder of the peers' environments
    seconds       of each measurement, after `warmup_s`
    """

    files: Path
    environments: Path
    contests: Sequence[Contest]
    texts: Sequence[str]
    rounds: int
    seconds: float
    warmup_s: float
    connections: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """
    One runner in one round.

    rates      texts a second in each second, saturated
    cpu_s      of all its processes for one answer, saturated
    latencies  seconds, by the rate that was offered; infinite of what failed
    """

    rates: tuple[float, ...]
    cpu_s: float
    latencies: Mapping[float, tuple[float, ...]]
    failed: int
    lag_s: float
    memory_bytes: int
    start_s: float


@dataclass(slots=True)
class Found:
    """
    What all rounds gave.

    offered  the rate of each contest
    void     why it proves nothing; `ended`: what broke it off
    """

    stretches: dict[Runner, list[Stretch]] = field(default_factory=dict)
    agreements: dict[Runner, Agreement] = field(default_factory=dict)
    capacities: dict[Runner, float] = field(default_factory=dict)
    offered: dict[str, float] = field(default_factory=dict)
    void: str = ""
    ended: BaseException | None = None


def measure(plan: Plan) -> Found:
    """
    Raises Unlike where a peer's answers differ, NotServing where one does not run, Unusable.

    What breaks it off after a round is in what is found, of the rounds that all had.
    """
    found = Found()
    runners = runners_of(plan.contests)
    _check(plan, runners, found)
    for contest in plan.contests:
        slowest = min(found.capacities[runner] for runner in contest.runners)
        found.offered[contest.name] = round(LOAD * slowest, 1)
    try:
        _rounds(plan, runners, found)
    except (KeyboardInterrupt, Unusable) as error:
        keep_whole(found, runners, plan.rounds, error)
    return found


def keep_whole(found: Found, runners: Sequence[Runner], planned: int, error: BaseException) -> None:
    """Only rounds that all runners had; raises what broke them off where there is none."""
    whole = min(len(found.stretches.get(runner, ())) for runner in runners)
    if not whole:
        raise error
    found.stretches = {runner: each[:whole] for runner, each in found.stretches.items()}
    why = next(iter(str(error).splitlines()), "it was told to end")
    found.void = f"broken off after {whole} of {planned} rounds: {why}"
    found.ended = error


def _rounds(plan: Plan, runners: Sequence[Runner], found: Found) -> None:
    for number in range(plan.rounds):
        for runner in runners[:: 1 if number % 2 == 0 else -1]:
            rates = {found.offered[c.name] for c in plan.contests if runner in c.runners}
            stretch = _measured(plan, runner, sorted(rates), seed=number + 1)
            found.stretches.setdefault(runner, []).append(stretch)
            _say(f"round {number + 1}: {runner.peer} {runner.model}: {_told(stretch)}")


def _check(plan: Plan, runners: Sequence[Runner], found: Found) -> None:
    """Each server's answers against Kadogo's with the same model, and about how fast it is."""
    texts = plan.texts[:CHECKED]
    own: dict[str, list[tuple[Entity, ...]]] = {}
    equal = {contest.theirs for contest in plan.contests if contest.is_equal}
    for runner in sorted(runners, key=lambda each: each.peer != KADOGO):
        with _serving(plan, runner) as server:
            if runner.model in equal:
                answers = _answers(server, runner, texts)
                if runner.peer == KADOGO:
                    own[runner.model] = answers
                elif runner.model in own:
                    same = agreement(own[runner.model], answers)
                    found.agreements[runner] = same
                    _say(f"{runner.peer} {runner.model} answers the same: {same}")
                    if same.share < LEAST_SAME:
                        raise Unlike(f"{runner.peer} on {runner.model} answers otherwise: {same}")
            probe = _saturated(plan, runner, server, PROBE_S)
            found.capacities[runner] = statistics.fmean(probe.rates)


def _measured(plan: Plan, runner: Runner, rates: Sequence[float], *, seed: int) -> Stretch:
    """Once more where it did not come up: something else may have taken its port meanwhile."""
    try:
        return _stretch(plan, runner, rates, seed=seed)
    except NotServing as error:
        _say(f"started once more: {error}")
        return _stretch(plan, runner, rates, seed=seed)


def _stretch(plan: Plan, runner: Runner, rates: Sequence[float], *, seed: int) -> Stretch:
    peer = PEERS[runner.peer]
    bodies = _bodies(plan, runner)
    latencies, lag_s = {}, 0.0
    with _serving(plan, runner) as server:
        before = server.cpu_s()
        saturated = _saturated(plan, runner, server, plan.seconds)
        cpu_s = (server.cpu_s() - before) / saturated.answers
        failed = saturated.failed
        for rate in rates:
            seconds = seconds_at(rate, plan.seconds)
            path = peer.path_of(runner.model)
            done = offer(server.url, path, bodies, peer.mark, rate=rate, seconds=seconds, seed=seed)
            latencies[rate] = done.latencies_s
            failed += done.failed
            lag_s = max(lag_s, done.lag_s)
        return Stretch(
            rates=saturated.rates,
            cpu_s=cpu_s,
            latencies=latencies,
            failed=failed,
            lag_s=lag_s,
            memory_bytes=server.memory_bytes(),
            start_s=server.ready_s,
        )


def seconds_at(rate: float, least_s: float) -> float:
    """Of a stretch that a p99 can rest on."""
    return max(least_s, min(LONGEST_S, LEAST_REQUESTS / rate))


def _serving(plan: Plan, runner: Runner) -> AbstractContextManager[Server]:
    peer = PEERS[runner.peer]
    folder = folder_of(peer, runner.model, plan.files)
    return serving(
        peer,
        folder,
        tuned(runner.peer, runner.model),
        ask=(plan.texts[0], runner.model),
        environments=plan.environments,
    )


def _bodies(plan: Plan, runner: Runner) -> list[bytes]:
    return [PEERS[runner.peer].body_of(text, runner.model) for text in plan.texts]


def _saturated(plan: Plan, runner: Runner, server: Server, seconds: float) -> Saturated:
    peer = PEERS[runner.peer]
    found = saturate(
        server.url + peer.path_of(runner.model),
        _bodies(plan, runner),
        peer.mark,
        connections=plan.connections,
        warmup_s=plan.warmup_s,
        seconds=seconds,
    )
    if not any(found.rates):
        raise NotServing(f"{runner.peer} on {runner.model} gave no right answer under load")
    return found


def _answers(server: Server, runner: Runner, texts: Sequence[str]) -> list[tuple[Entity, ...]]:
    peer = PEERS[runner.peer]

    def answer(text: str) -> tuple[Entity, ...]:
        path, body = peer.path_of(runner.model), peer.body_of(text, runner.model)
        status, said = post(server.url, path, body)
        if status != 200:
            raise Unlike(f"{runner.peer} on {runner.model} answers {status} to a text")
        return peer.entities(said)

    # Together, so that batches of several are checked too.
    with ThreadPoolExecutor(CALLERS) as callers:
        return list(callers.map(answer, texts))


def _told(stretch: Stretch) -> str:
    rate = f"{statistics.fmean(stretch.rates):.1f} texts/s"
    return f"{rate}, {stretch.cpu_s * 1000:.2f} CPU ms a text, {stretch.failed} failed"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

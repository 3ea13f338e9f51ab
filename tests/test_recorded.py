"""Laws of what is kept of a comparison that is broken off: its whole rounds, as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from loadtest.compare import Comparison, Engine, Settings, Watch, compare
from loadtest.record import Run, Unusable
from loadtest.recorded import Recorded
from loadtest.watch import Look
from tests.queues import CALLS, Queues

NAMES = ["base", "fast"]
SETTINGS = Settings(rounds=3, peak_s=0.5, open_s=1.0, warmup_s=0.5, follow_s=1.0)
TURNS = SETTINGS.rounds * (len(NAMES) + 1)


class Looking:
    """A server that is looked at so often, and then is gone."""

    def __init__(self, most: int) -> None:
        self.looks, self.most = 0, most

    def look(self) -> Look:
        self.looks += 1
        if self.looks > self.most:
            raise Unusable("no server answers")
        return Look(at_s=float(self.looks), metrics="", cpu_s=self.looks**2)

    @contextmanager
    def following(self, every_s: float) -> Iterator[list[Look]]:
        yield []


def compared(engine: Engine, watch: Watch, settings: Settings) -> Comparison:
    return compare("ner", NAMES, CALLS, engine, settings=settings, watch=watch)


def engine() -> Queues:
    return Queues({"base": 0.01, "fast": 0.005}, drift=0.05)


def whole() -> Comparison:
    return compared(engine(), Looking(10**6), SETTINGS)


def broken_off(looks: int) -> Comparison | None:
    recorded = Recorded(engine(), Looking(looks))
    with pytest.raises(Unusable):
        compared(recorded, recorded, SETTINGS)
    return recorded.whole(compared, SETTINGS)


@pytest.mark.parametrize("looks", [0, 1, 2 * TURNS - 1, 2 * TURNS, 2 * TURNS + 5])
def test_where_no_round_of_both_passes_is_whole_nothing_is_kept(looks: int) -> None:
    assert broken_off(looks) is None


@pytest.mark.parametrize(("turns", "rounds"), [(3, 1), (5, 1), (6, 2), (8, 2)])
def test_the_rounds_that_both_passes_ended_are_kept_as_they_were(turns: int, rounds: int) -> None:
    found = broken_off(2 * (TURNS + turns) + 1)
    assert found is not None and found.settings.rounds == rounds and not found.climbs
    right = whole()
    assert found.rate == pytest.approx(right.rate, abs=1e-6)
    assert found.blocks == tuple(each for each in right.blocks if each.round < rounds)


def test_all_rounds_are_kept_where_the_climb_was_broken_off() -> None:
    class Interrupted(Queues):
        def __call__(self, variant: str, arrivals: str, seconds: float, seed: int) -> Run:
            if arrivals.startswith("ramp"):
                raise KeyboardInterrupt
            return super().__call__(variant, arrivals, seconds, seed)

    recorded = Recorded(Interrupted(engine().service_s, drift=0.05), Looking(10**6))
    with pytest.raises(KeyboardInterrupt):
        compared(recorded, recorded, SETTINGS)
    found = recorded.whole(compared, SETTINGS)
    assert found is not None and found.blocks == whole().blocks


def test_a_turn_that_was_taken_again_is_taken_again() -> None:
    class Stalling(Queues):
        """Its generator stands still in its 30th run, of the open loop."""

        def __call__(self, variant: str, arrivals: str, seconds: float, seed: int) -> Run:
            found = super().__call__(variant, arrivals, seconds, seed)
            behind = (replace(each, sent_s=each.due_s + 0.2) for each in found.requests)
            return replace(found, requests=tuple(behind)) if len(self.asked) == 30 else found

    settings = replace(SETTINGS, warmup_s=0.0, rounds=8)
    recorded = Recorded(Stalling(engine().service_s), Looking(2 * (24 + 9)))
    with pytest.raises(Unusable):
        compared(recorded, recorded, settings)
    found = recorded.whole(compared, settings)
    assert found is not None and found.settings.rounds == 2
    assert [len(each.before) for each in found.blocks if each.kind == "open"] == [0, 0, 0, 0, 0, 1]

"""
What was said to a comparison, so that the whole rounds of one that is broken off can be told.

Stands between a comparison and what it measures with; knows nothing of either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import replace

from loadtest.compare import Comparison, Engine, Settings, Watch
from loadtest.record import Run
from loadtest.watch import Look

OPEN = "poisson:"

Again = Callable[[Engine, Watch, Settings], Comparison]
"""The comparison, with another engine and watch and less to do."""


class Recorded:
    """
    An engine and a watch that remember.

    runs  all there were: of turns, warm-ups, climbs and searches
    """

    def __init__(self, engine: Engine, watch: Watch) -> None:
        self.runs: list[Run] = []
        self._engine, self._watch = engine, watch
        self._turn: list[Run | Look] = []
        self._turns: list[tuple[int, list[Run | Look]]] = []
        self._seed = 0
        self._rate: float | None = None

    def __call__(self, variant: str, arrivals: str, seconds: float, seed: int) -> Run:
        run = self._engine(variant, arrivals, seconds, seed)
        self.runs.append(run)
        self._turn.append(run)
        self._seed = seed
        if self._rate is None and arrivals.startswith(OPEN):
            self._rate = float(arrivals.removeprefix(OPEN))
        return run

    def look(self) -> Look:
        look = self._watch.look()
        self._turn.append(look)
        if sum(isinstance(each, Look) for each in self._turn) == 2:  # before and after
            self._turns.append((self._seed, self._turn))
            self._turn = []
        return look

    def following(self, every_s: float) -> AbstractContextManager[list[Look]]:
        return self._watch.following(every_s)

    def whole(self, again: Again, settings: Settings) -> Comparison | None:
        """Of as many rounds as both passes ended, without climbs; None: of none."""
        if self._rate is None:
            return None
        for rounds in range(settings.rounds, 0, -1):
            # A round's arrivals are drawn from its number.
            said = [turn for seed, turn in self._turns if seed - settings.seed < rounds]
            told = _Told(each for turn in said for each in turn)
            with suppress(_Untold):
                fewer = replace(settings, rounds=rounds, rate=self._rate, follow_s=0.0)
                return again(told, told, fewer)
        return None


class _Untold(Exception):
    """It was broken off before this was said."""


class _Told:
    """Says it again."""

    def __init__(self, said: Iterator[Run | Look]) -> None:
        self._said = said

    def __call__(self, variant: str, arrivals: str, seconds: float, seed: int) -> Run:
        found = next(self._said, None)
        if not isinstance(found, Run) or found.variant != variant:
            raise _Untold
        return found

    def look(self) -> Look:
        found = next(self._said, None)
        if not isinstance(found, Look):
            raise _Untold
        return found

    def following(self, every_s: float) -> AbstractContextManager[list[Look]]:
        raise _Untold

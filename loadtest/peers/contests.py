"""
Who is compared with whom: contests of Kadogo's server with others, on models by name.

Pure values.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from loadtest.peers.peers import KADOGO, PEERS


class Runner(NamedTuple):
    """A server with a model."""

    peer: str
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """
    ours    the model Kadogo answers with
    theirs  that the peers do
    target  how often the rate of the best of them Kadogo's is to be
    """

    name: str
    title: str
    ours: str
    theirs: str
    peers: Sequence[str]
    target: float

    @property
    def is_equal(self) -> bool:
        """The same model: then every answer is to be the same."""
        return self.ours == self.theirs

    @property
    def kadogo(self) -> Runner:
        return Runner(KADOGO, self.ours)

    @property
    def others(self) -> list[Runner]:
        return [Runner(peer, self.theirs) for peer in self.peers]

    @property
    def runners(self) -> list[Runner]:
        return [self.kadogo, *self.others]


OTHERS = tuple(name for name in PEERS if name != KADOGO)
ONNX = tuple(name for name in OTHERS if PEERS[name].onnx)

CONTESTS = (
    Contest(
        name="fp32",
        title="The embedded baseline, 32 bits",
        ours="ner-base",
        theirs="ner-base",
        peers=OTHERS,
        target=1.2,
    ),
    Contest(
        name="int8",
        title="The same network in 8 bits",
        ours="ner-int8",
        theirs="ner-int8",
        peers=ONNX,
        target=1.2,
    ),
    Contest(
        name="small",
        title="Kadogo's best within 0.01 F1 against the embedded baseline",
        ours="ner-small",
        theirs="ner-base",
        peers=("fastapi",),
        target=15,
    ),
    Contest(
        name="shape",
        title="The same recipe on AfriBERTa-base's shape against that shape (random weights)",
        ours="afriberta-base-ner-small",
        theirs="afriberta-base-base",
        peers=("fastapi",),
        target=30,
    ),
)


def chosen(names: Collection[str], contests: Collection[str]) -> list[Contest]:
    """The contests of these names with only these peers in them; empty means all."""
    found = []
    for contest in CONTESTS:
        peers = tuple(each for each in contest.peers if not names or each in names)
        if peers and (not contests or contest.name in contests):
            found.append(replace(contest, peers=peers))
    return found


def runners_of(contests: Sequence[Contest]) -> list[Runner]:
    """Each once, Kadogo's beside those they are compared with."""
    return list(dict.fromkeys(runner for contest in contests for runner in contest.runners))

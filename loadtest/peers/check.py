"""
Whether two servers say the same of the same texts: spans and labels, and how far scores part.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loadtest.peers.peers import Entity

Answers = Sequence[Sequence[Entity]]


@dataclass(frozen=True, slots=True)
class Agreement:
    """
    texts  that were asked
    same   of them, with the very same spans and labels
    apart  the largest difference of two scores in those
    """

    texts: int
    same: int
    apart: float

    @property
    def share(self) -> float:
        return self.same / self.texts

    def __str__(self) -> str:
        scores = f"scores within {self.apart:.1g}" if self.apart else "scores equal"
        return f"{self.same} of {self.texts}, {scores}"


def agreement(ours: Answers, theirs: Answers) -> Agreement:
    """Answers to the same texts, in their order."""
    same, apart = 0, 0.0
    for one, other in zip(ours, theirs, strict=True):
        if [each[:3] for each in one] == [each[:3] for each in other]:
            same += 1
            differences = (abs(a.score - b.score) for a, b in zip(one, other, strict=True))
            apart = max(apart, max(differences, default=0.0))
    return Agreement(len(ours), same, apart)

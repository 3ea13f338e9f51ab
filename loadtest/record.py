"""
What is sent and what came of it: the values that all of a load test is made of.

Pure; knows nothing of HTTP, Locust, files or statistics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Result = frozenset[tuple[int, int, str]] | str
"""Of one text: its entities (start, end, label) in characters, or its label."""


class Unusable(Exception):
    """Nothing can be measured; the message is one line for the person who asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """
    One request to be sent, to whichever variant: the same calls go to all that are compared.

    task       "ner" or "classification"
    texts      sent together; more than one only where so many inputs a request were asked for
    languages  one a text; "" where it is not known
    gold       what is right for each text, None where it is not known; None: of no text it is
    """

    task: str
    texts: tuple[str, ...]
    languages: tuple[str, ...]
    gold: tuple[Result | None, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """
    What came of a call. Times are seconds since the run began, by one clock.

    call           its place among the run's calls: what pairs runs over the same calls
    due_s          when it was to be sent; in a closed loop that is when it was sent
    sent_s         when it was sent, never before it was due
    done_s         when its last byte was there, or it failed
    status         of HTTP; 0: no answer at all
    error          why it is no right answer; None: it is one
    answer         what was said of each text; None where it is no right answer
    retry_after_s  what a refusal said
    """

    call: int
    due_s: float
    sent_s: float
    done_s: float
    status: int
    error: str | None = None
    answer: tuple[Result, ...] | None = None
    retry_after_s: float | None = None

    @property
    def latency_s(self) -> float:
        """From when it was to be sent: a server that stalls delays what waits for it too."""
        return self.done_s - self.due_s

    @property
    def late_s(self) -> float:
        """How far the generator was behind."""
        return self.sent_s - self.due_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """
    A stretch of load on one variant, its warm-up left out.

    arrivals   how calls arrived, as it was asked for: "poisson:200", "closed:16", ...
    seconds    of the stretch
    requests   those due in it, in the order they were due
    dropped    arrivals in it that were never sent, for too many were under way
    cores      that the generator itself took, on average
    """

    variant: str
    task: str
    arrivals: str
    seconds: float
    requests: tuple[Request, ...]
    dropped: int
    cores: float

    @property
    def right(self) -> Sequence[Request]:
        return [each for each in self.requests if each.error is None]

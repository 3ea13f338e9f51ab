"""
Whether each call got its own answer: the one that its texts get when each of them is asked alone.

Knows nothing of what a right answer is, nor of how a run's answers came.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from loadtest.complaint import Complaint
from loadtest.record import Call, Result, Run, Unusable
from loadtest.traffic import body, path, read_answer

Alone = Mapping[tuple[str, str], Result]
"""(task, text) -> what is said of it alone: labels and spans, no scores."""

Post = Callable[[str, bytes], tuple[int, bytes]]
"""Path, body -> status (0: no answer), body."""

PATIENCE_S = 120


@dataclass(frozen=True, slots=True)
class Wrong:
    """
    A call that was answered otherwise than alone.

    whose  the nearest call that is answered so alone; None where there is none
    """

    call: int
    whose: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """
    What the answers of a run were found to be.

    compared  of how many calls all texts were known alone; `unknown`: of how many not
    wrong     those answered otherwise
    sight     the share of swaps between two of the texts that would be seen: where two are
              answered alike, nobody can tell
    """

    compared: int
    unknown: int
    wrong: tuple[Wrong, ...]
    sight: float


# --- before the run --------------------------------------------------------------------------


def alone(calls: Iterable[Call], variant: str, post: Post) -> Alone:
    """
    Ask for every text once, one after another. What is not answered right is left out.

    Raises Unusable where `post` does.
    """
    return known((call, *post(path(call), body(call, variant))) for call in singles(calls))


def singles(calls: Iterable[Call]) -> list[Call]:
    """Each text as a call of its own, once."""
    return [
        Call(task=task, texts=(text,), languages=("",))
        for task, text in dict.fromkeys((call.task, text) for call in calls for text in call.texts)
    ]


def known(asked: Iterable[tuple[Call, int, bytes]]) -> Alone:
    """Of calls with one text: their status and body."""
    found = {}
    for call, status, said in asked:
        answer, _ = read_answer(call, status, said)
        if answer:
            found[call.task, call.texts[0]] = answer[0]
    return found


@contextmanager
def connection(host: str, headers: Mapping[str, str] | None = None) -> Iterator[Post]:
    """
    One connection to ask over, be it behind a path; opened again where it broke.

    Asking raises Unusable where no answer comes within PATIENCE_S: thousands may be to be asked.
    """
    # Late, because Locust must patch the standard library before ssl is imported.
    from http.client import HTTPConnection, HTTPException, HTTPSConnection

    parts = urlsplit(host)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    http = kind(parts.hostname or "127.0.0.1", parts.port, timeout=PATIENCE_S)
    prefix = parts.path.rstrip("/")

    def post(path: str, body: bytes) -> tuple[int, bytes]:
        try:
            http.request(
                "POST", prefix + path, body, {"Content-Type": "application/json", **(headers or {})}
            )
            answer = http.getresponse()
            return answer.status, answer.read()
        except TimeoutError:
            raise Unusable(f"no answer within {PATIENCE_S} s to a text asked alone") from None
        except (OSError, HTTPException):
            http.close()
            return 0, b""

    try:
        yield post
    finally:
        http.close()


# --- after it --------------------------------------------------------------------------------


def checked(calls: Sequence[Call], run: Run, alone: Alone) -> Checked:
    """The answers of a run; a call's number counts on where the calls were begun anew."""
    said = ((each.call, each.answer) for each in run.requests if each.answer is not None)
    return compared(calls, said, alone)


def compared(
    calls: Sequence[Call], said: Iterable[tuple[int, tuple[Result, ...]]], alone: Alone
) -> Checked:
    """The same of single answers: a call's number and what was said of its texts."""
    right = unknown = 0
    wrong = []
    for number, answer in said:
        call = calls[number % len(calls)]
        expected = tuple(alone.get((call.task, text)) for text in call.texts)
        if None in expected:
            unknown += 1
        elif answer == expected:
            right += 1
        else:
            wrong.append((number, answer))
    return Checked(
        compared=right + len(wrong),
        unknown=unknown,
        wrong=_traced(calls, wrong, alone),
        sight=_sight(alone),
    )


def together(found: Sequence[Checked]) -> Checked:
    """Of several runs on the same calls, one at least."""
    return Checked(
        compared=sum(each.compared for each in found),
        unknown=sum(each.unknown for each in found),
        wrong=tuple(wrong for each in found for wrong in each.wrong),
        sight=found[0].sight,
    )


def told(found: Checked) -> str:
    """How much the comparison says."""
    return f"{found.compared} answers, {found.unknown} unknown, {found.sight:.1%} of swaps are seen"


def blind(found: Checked) -> list[str]:
    """Why nothing is proved: no swap could have been seen; empty where one could."""
    if found.compared or not found.unknown:
        return []
    return ["none of its answers could be compared: no text was answered when it was asked alone"]


def complaints(found: Checked, variant: str, *, most: int = 5) -> list[Complaint]:
    """Why a run fails: the calls by their numbers, never their texts; empty where all is right."""
    told = [
        f"call {each.call} was answered "
        + (
            "otherwise than its text is alone"
            if each.whose is None
            else f"as call {each.whose} is alone: answers were swapped"
        )
        for each in found.wrong[:most]
    ]
    if more := len(found.wrong) - most:
        told += [f"so were {more} more of {found.compared} calls"] if more > 0 else []
    return [Complaint(variant, each) for each in told]


def _traced(
    calls: Sequence[Call], wrong: Sequence[tuple[int, tuple[Result, ...]]], alone: Alone
) -> tuple[Wrong, ...]:
    places = defaultdict(list)
    for number, call in enumerate(calls if wrong else ()):
        places[tuple(alone.get((call.task, text)) for text in call.texts)].append(number)
    found = []
    for number, answer in wrong:
        near = number % len(calls)
        others = places.get(answer, []) if any(answer) else []
        found.append(Wrong(number, min(others, key=lambda other: abs(other - near), default=None)))
    return tuple(found)


def _sight(alone: Alone) -> float:
    if len(alone) < 2:
        return 0.0
    alike = Counter((task, said) for (task, _), said in alone.items())
    tasks = Counter(task for task, _ in alone)
    pairs = sum(n * (n - 1) for n in tasks.values())
    return 1 - sum(n * (n - 1) for n in alike.values()) / pairs if pairs else 0.0

"""Laws of the cross-check: a server that counts or times otherwise than its client is told so."""

from __future__ import annotations

import pytest

from loadtest.complaint import Complaint
from loadtest.crosscheck import mismatches
from loadtest.record import Run
from loadtest.watch import Window
from tests.queues import CALLS, request, run

BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 1.0)


def window(
    took_s: list[float], *, variant: str = "a", refused: int = 0, texts: int | None = None
) -> Window:
    """Of a server that answered so many requests in such times."""
    answered = {("variant", variant), ("status_class", "2xx"), ("task", "ner")}
    none = {("variant", "none"), ("status_class", "5xx"), ("task", "ner")}
    counted = {
        ("kadogo_request_seconds_count", frozenset(answered)): float(len(took_s)),
        ("kadogo_request_seconds_sum", frozenset(answered)): sum(took_s),
        ("kadogo_request_seconds_count", frozenset(none)): float(refused),
        ("kadogo_texts_total", frozenset({("variant", variant)})): float(
            len(took_s) if texts is None else texts
        ),
        ("kadogo_texts_total", frozenset({("variant", "idle")})): 0.0,
    }
    for edge in (*BUCKETS, float("inf")):
        labels = frozenset(answered | {("le", "+Inf" if edge == float("inf") else f"{edge}")})
        counted["kadogo_request_seconds_bucket", labels] = float(
            sum(each <= edge for each in took_s)
        )
    return Window(seconds=1.0, counted=counted)


def answers(took_s: float, count: int = 100, refused: int = 0, silent: int = 0) -> Run:
    requests = [request(i, i / 100, took_s) for i in range(count)]
    requests += [request(i, 0.5, 0.001, "HTTP 503") for i in range(refused)]
    lost = [request(i, 0.5, 1.0, "no answer") for i in range(silent)]
    requests += [type(each)(**{**_fields(each), "status": 0}) for each in lost]
    return run("a", requests)


def _fields(each: object) -> dict[str, object]:
    return {name: getattr(each, name) for name in type(each).__slots__}  # type: ignore[attr-defined]


def test_a_server_that_saw_what_its_client_saw_is_believed() -> None:
    assert mismatches(CALLS, answers(0.012), window([0.010] * 100)) == []
    assert mismatches(CALLS, answers(0.012, refused=7), window([0.010] * 100, refused=7)) == []


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        (window([0.01] * 99), "the server counted 99 answers of 2xx, the client 100"),
        (window([0.01] * 101), "the server counted 101 answers of 2xx, the client 100"),
        (window([0.01] * 100, refused=2), "the server counted 2 answers of 5xx, the client 0"),
        (window([0.01] * 100, texts=200), "the server counted 200 texts, the client 100"),
    ],
)
def test_counts_that_differ_are_told(seen: Window, told: str) -> None:
    assert Complaint("a", f"{told} (poisson:100)") in mismatches(CALLS, answers(0.012), seen)


def test_what_got_no_answer_may_have_been_counted_or_not() -> None:
    for count in (100, 102, 105):
        assert mismatches(CALLS, answers(0.012, silent=5), window([0.01] * count)) == []
    [*said] = mismatches(CALLS, answers(0.012, silent=5), window([0.01] * 106))
    assert "the client 100 and 5 without an answer" in said[0].why


def test_what_a_server_answered_after_its_client_gave_up_is_no_mismatch() -> None:
    given_up = window([*[0.01] * 100, 30.0])
    assert mismatches(CALLS, answers(0.012, silent=1), given_up) == []
    [said, *_] = mismatches(CALLS, answers(0.012), given_up)
    assert "the server counted 101 answers of 2xx, the client 100" in said.why


def test_a_server_that_says_it_took_longer_than_its_client_waited_is_told() -> None:
    said = mismatches(CALLS, answers(0.012), window([0.030] * 100))
    assert (
        "the server took 30.0 ms on average, longer than the 12.0 ms its client saw" in said[0].why
    )
    assert "the server's p50 is above 20.0 ms, its client's is 12.0 ms" in said[1].why


def test_time_that_passed_outside_the_server_is_told_where_it_is_most() -> None:
    assert mismatches(CALLS, answers(0.2), window([0.12] * 100)) == []
    [said] = mismatches(CALLS, answers(0.2), window([0.02] * 100))
    assert "of 200.0 ms on average 180.0 ms passed outside the server" in said.why


def test_somebody_else_who_asks_meanwhile_is_told() -> None:
    seen, theirs = window([0.01] * 100), window([0.01] * 3, variant="b")
    both = Window(seconds=1.0, counted={**theirs.counted, **seen.counted})
    assert mismatches(CALLS, answers(0.012), both) == [
        Complaint("a", "somebody else asked b 3 texts meanwhile (poisson:100)")
    ]

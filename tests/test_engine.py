"""
Laws of the load generator, against a server whose latencies are scripted.

In processes of their own: Locust patches the standard library. None depends on how fast the machine
is: a slow one only makes longer what is bounded from below.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadtest.record import Request, Run
from tests.scripted import Reply, Scripted, scripted, stalls

ROOT = Path(__file__).resolve().parent.parent

DRIVE = """
import gc, json, sys, time
from dataclasses import asdict
from loadtest import engine
from loadtest.record import Call
asked, collected = json.loads(sys.argv[1]), []
for name, value in asked.pop("constants", {}).items():
    setattr(engine, name, value)
calls = [Call(task="ner", texts=(text,), languages=("hau",)) for text in asked.pop("texts")]
if (beside_s := asked.pop("beside_s", None)) is not None:
    asked["beside"] = lambda clock: (time.sleep(beside_s), collected.append(gc.isenabled()))
if why := asked.pop("beside_raises", None):
    asked["beside"] = lambda clock: exec("raise OSError(why)")
found = engine.run(asked.pop("host"), "ner-int8", "ner", calls=calls, **asked)
assert not any(collected) and gc.isenabled(), "garbage is to be collected only between loads"
rows = [{**asdict(each), "answer": None if each.answer is None else [sorted(one) for one in
        each.answer]} for each in found.requests]
print(json.dumps({"requests": rows, "dropped": found.dropped, "cores": found.cores}))
"""


def _run(server: Scripted, arrivals: str, *, seconds: float = 1.0, **asked: Any) -> Run:
    asked = {
        **{"host": server.url, "arrivals": arrivals, "seconds": seconds},
        **{"warmup_s": 0.0, "seed": 1, "texts": ["Kano", "Abuja", "Jos"]},
        **asked,
    }
    command = [sys.executable, "-c", DRIVE, json.dumps(asked)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    requests = tuple(Request(**each) for each in found["requests"])
    return Run(
        variant="ner-int8",
        task="ner",
        arrivals=arrivals,
        seconds=seconds,
        requests=requests,
        dropped=found["dropped"],
        cores=found["cores"],
    )


def _latencies(run: Run) -> np.ndarray:
    return np.array([each.latency_s for each in run.requests])


def test_an_open_loop_shows_a_stall_that_a_closed_loop_hides() -> None:
    # Of 400 arrivals 10 ms apart the 150th begins a second in which nothing is answered: a hundred
    # are due in it, and take 1.00, 0.99, 0.98 ... s. Four of 400 are above the 99th percentile.
    with scripted(stalls(0.005, at=150, stall_s=1.0)) as server:
        shown = _run(server, "constant:100", seconds=4.0)
    assert len(shown.right) == 400 and shown.dropped == 0
    expected = np.concatenate([np.full(300, 0.005), np.arange(1, 101) / 100])
    assert (np.sort(_latencies(shown)) >= np.sort(expected) - 1e-3).all()
    assert np.quantile(_latencies(shown), 0.99) >= 0.959
    assert (_latencies(shown) >= 0.5).sum() >= 51

    # One caller who waits for each answer meets the stall once: his percentiles never tell.
    with scripted(stalls(0.005, at=150, stall_s=1.0)) as server:
        hidden = _run(server, "closed:1", seconds=4.0)
    assert len(hidden.right) > 150
    assert (_latencies(hidden) >= 1.0).sum() == 1
    assert np.quantile(_latencies(hidden), 0.99) < 0.5 * np.quantile(_latencies(shown), 0.99)


def test_a_stall_is_shown_though_callers_run_out() -> None:
    with scripted(stalls(0.005, at=50, stall_s=1.0)) as server:
        run = _run(server, "constant:100", seconds=2.0, callers=4)
    assert len(run.right) == 200 and run.dropped == 0
    assert (_latencies(run) >= 0.5).sum() >= 51
    # Those who waited for a free caller were sent late, and say so.
    assert max(each.late_s for each in run.requests) >= 0.5


def test_requests_are_sent_when_they_are_due_and_in_order() -> None:
    with scripted(lambda number: Reply()) as server:
        run = _run(server, "poisson:50", seconds=2.0)
        again = _run(server, "poisson:50", seconds=2.0)
    assert [each.due_s for each in run.requests] == [each.due_s for each in again.requests]
    assert all(0 <= each.due_s <= each.sent_s <= each.done_s for each in run.requests)
    assert [each.call for each in run.requests] == [i % 3 for i in range(len(run.requests))]
    assert all(each.answer == [[]] for each in run.requests)


def test_an_open_loop_does_not_wait_for_answers() -> None:
    with scripted(lambda number: Reply(after_s=0.5)) as server:
        run = _run(server, "constant:40", seconds=1.0)
    assert len(run.right) == 40
    assert run.requests[10].sent_s < run.requests[0].done_s


def test_what_warms_up_is_sent_but_not_measured() -> None:
    with scripted(lambda number: Reply()) as server:
        run = _run(server, "constant:30", seconds=1.0, warmup_s=1.0)
    assert len(run.requests) == 30 and run.requests[0].due_s == 0
    assert len(server.heads) > 35
    # From the last call on: what is measured first was not asked a moment ago.
    assert [body["inputs"] for body in server.bodies[:2]] == ["Jos", "Abuja"]


def test_a_refusal_is_recorded_with_what_it_said_and_not_sent_again() -> None:
    exact = Reply(status=429, body={"retry_after_ms": 250}, headers=("Retry-After: 1",))
    whole = Reply(status=503, body={}, headers=("Retry-After: 2",))
    with scripted(lambda number: (exact, whole, Reply())[number % 3]) as server:
        run = _run(server, "constant:30", seconds=1.0)
    assert len(server.heads) == len(run.requests) == 30
    assert len(run.right) == 10
    told = {(each.status, each.retry_after_s) for each in run.requests}
    assert told == {(429, 0.25), (503, 2.0), (200, None)}
    assert {each.error for each in run.requests} == {"HTTP 429", "HTTP 503", None}


def test_a_cut_connection_is_no_answer() -> None:
    with scripted(lambda number: Reply(status=0 if number == 5 else 200)) as server:
        run = _run(server, "constant:20", seconds=1.0)
    [lost] = [each for each in run.requests if each.error]
    assert lost.status == 0 and lost.error == "no answer: HTTPConnectionClosed"
    assert len(server.heads) == 20


def test_a_server_that_is_not_there_is_no_answer() -> None:
    run = _run(Scripted(url="http://127.0.0.1:9"), "constant:20", seconds=0.5)
    assert {each.error for each in run.requests} == {"no answer: ConnectionRefusedError"}


def test_what_is_under_way_at_the_end_is_waited_for() -> None:
    with scripted(lambda number: Reply(after_s=1.0)) as server:
        run = _run(server, "constant:20", seconds=0.5)
    assert len(run.right) == 10 and (_latencies(run) >= 1.0).all()


def test_what_never_is_answered_is_said_so_and_holds_nobody() -> None:
    with scripted(lambda number: Reply(after_s=30.0 if number == 3 else 0)) as server:
        run = _run(server, "constant:20", seconds=0.5, constants={"LAST_ANSWERS_S": 0.5})
    [lost] = [each for each in run.requests if each.error]
    assert lost.status == 0 and lost.error and lost.error.startswith("no answer within")
    assert lost.latency_s >= 0.5 and len(run.requests) == 10


def test_arrivals_beyond_those_who_may_wait_are_dropped_and_counted() -> None:
    with scripted(lambda number: Reply(after_s=1.2)) as server:
        run = _run(
            server,
            "constant:50",
            callers=2,
            constants={"WAITING": 5, "LAST_ANSWERS_S": 10.0},
        )
    assert len(run.requests) + run.dropped == 50
    assert len(run.requests) == len(server.heads) == 7


def test_arrivals_that_nobody_was_free_for_at_the_end_are_dropped() -> None:
    with scripted(lambda number: Reply(after_s=30.0)) as server:
        run = _run(server, "constant:20", callers=2, constants={"LAST_ANSWERS_S": 0.3})
    assert len(run.requests) == 2 and run.dropped == 18


def test_a_closed_loop_has_as_many_under_way_as_it_has_callers() -> None:
    with scripted(lambda number: Reply(after_s=0.05)) as server:
        run = _run(server, "closed:3", seconds=1.0)
    times = sorted([(r.sent_s, 1) for r in run.requests] + [(r.done_s, -1) for r in run.requests])
    assert max(np.cumsum([step for _, step in times])) == 3
    assert all(each.due_s <= each.sent_s for each in run.requests)
    assert {each.call for each in run.requests} == {0, 1, 2}


def test_a_closed_loop_counts_what_was_under_way_when_its_warm_up_was_over() -> None:
    # Asked three seconds before the run, and answered in it at the earliest.
    with scripted(lambda number: Reply(after_s=3.5 if number < 3 else 0.05)) as server:
        run = _run(server, "closed:3", seconds=1.0, warmup_s=3.0)
    assert sum(each.due_s < 0 <= each.done_s for each in run.requests) == 3
    # What was answered before the run is none of it, nor is an open loop's warm-up.
    with scripted(lambda number: Reply(after_s=0.02)) as server:
        before = _run(server, "closed:1", seconds=1.0, warmup_s=1.0)
        assert all(each.done_s >= 0 for each in before.requests)
        open_loop = _run(server, "constant:4", seconds=1.0, warmup_s=1.0)
    assert len(open_loop.requests) == 4 and open_loop.requests[0].due_s == 0


def test_a_server_may_be_behind_a_path_and_want_a_key() -> None:
    with scripted(lambda number: Reply()) as server:
        behind = Scripted(url=f"{server.url}/kadogo/")
        run = _run(behind, "constant:5", key="s3cret", headers={"X-Tenant": "a"})
    assert len(run.right) == 5
    for head in server.heads:
        assert head.startswith("POST /kadogo/v1/ner HTTP/1.1\r\n")
        assert "Authorization: Bearer s3cret\r\n" in head and "X-Tenant: a\r\n" in head
    assert {body["variant"] for body in server.bodies} == {"ner-int8"}


def test_a_trace_says_when_and_which(tmp_path: Path) -> None:
    (tmp_path / "trace").write_text('{"due_s": 0.1, "call": 2}\n{"due_s": 0.4, "call": 0}\n9\n')
    with scripted(lambda number: Reply()) as server:
        run = _run(server, f"replay:{tmp_path / 'trace'}", seconds=1.0)
    assert [(each.due_s, each.call) for each in run.requests] == [(0.1, 2), (0.4, 0)]
    assert [body["inputs"] for body in server.bodies] == ["Jos", "Kano"]


@pytest.mark.parametrize("spec", ["poison:3", "closed:0"])
def test_wrong_arrivals_are_refused_before_anything_is_sent(spec: str) -> None:
    with scripted(lambda number: Reply()) as server, pytest.raises(AssertionError, match="BadArr"):
        _run(server, spec)
    assert server.heads == []


def test_a_load_ends_with_what_is_done_beside_it_and_counts_nothing_that_was_due_later() -> None:
    # The last answers come after the end, while the next arrival is at hand already.
    with scripted(lambda _: Reply(0.3)) as server:
        ended = _run(server, "constant:20", seconds=600.0, beside_s=1.0)
    assert ended.dropped == 0 and 0 < len(ended.right) == len(ended.requests) < 40
    assert ended.cores > 0


def test_what_goes_wrong_beside_a_load_is_raised() -> None:
    # At once, so that it is long over when the load has ended.
    with scripted(lambda _: Reply()) as server, pytest.raises(AssertionError, match="no memory"):
        _run(server, "constant:20", seconds=600.0, beside_raises="no memory")


def test_a_trace_is_not_read_to_say_how_many_callers_there_are() -> None:
    command = """
from loadtest.engine import Work
rest = dict(host="", variant="", task="ner", calls=(), seconds=9, warmup_s=0, seed=1, callers=7)
print(*(Work(arrivals=each, **rest).users for each in ("replay:/nowhere", "closed:3", "poisson:9")))
"""
    done = subprocess.run(
        [sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "7 3 7\n", done.stderr


def test_nothing_imports_ssl_before_locust_has_patched_it() -> None:
    command = "import sys, loadtest.__main__; sys.exit('ssl' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command], cwd=ROOT, timeout=60).returncode == 0

"""Faults on real servers, in short; what they prove is in docs/faults.md, and how long there."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from loadtest.arrivals import Poisson, due
from loadtest.faults import killed, overload
from loadtest.faults.client import Answer, Pool, Run, offered
from loadtest.faults.overload import Found, broken, invalid, judged, overloaded, told
from loadtest.record import Unusable
from loadtest.server import workers_of
from loadtest.traffic import Traffic, calls, retry_after_s
from models.spec import Task
from service.settings import ROOT
from tests.scripted import Reply, scripted
from tests.test_serve import Server, serving
from tests.tiny import write_variant

GOOD = Found(
    peak=100,
    goodput=95,
    offered=600,
    accepted=200,
    in_time=199,
    lost=0,
    failed=0,
    dropped=0,
    swapped=0,
    refused=9,
    told_s=0.5,
    took_s=0.6,
    resident=(100, 100, 100, 100, 100, 101),
    recovery_s=0.1,
    cpu=0.1,
    lag_s=0.01,
)


def test_an_overload_that_keeps_its_promises_breaks_none() -> None:
    assert broken(GOOD) == invalid(GOOD) == []
    assert "goodput     95/s, 0.95 of the peak" in told(GOOD)
    assert "Retry-After 500 ms said, 600 ms taken" in told(GOOD)
    nobody = replace(GOOD, refused=0, told_s=None)
    assert broken(nobody) == []
    assert "Retry-After nobody refused" in told(nobody)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"in_time": 190}, "95.00% of accepted requests were answered in time, below 99%"),
        ({"goodput": 80}, "goodput was 0.80 of the peak, below 0.9"),
        ({"failed": 2}, "2 requests failed with another status than a refusal's"),
        ({"lost": 3}, "3 requests got no answer at all"),
        ({"swapped": 1}, "1 answers were not those of their texts"),
        ({"told_s": 2.0}, "refusals said 2000 ms, the queue took 600: not within a factor of 2"),
        ({"told_s": None}, "9 refusals at the end did not say when to come back"),
        ({"resident": (9, 9, 9, 9, 12, 12)}, "memory grew by 33.3% from the middle"),
        ({"recovery_s": 9.0}, "it took 9.0 s to recover, above 5"),
    ],
)
def test_a_broken_promise_says_by_how_much(change: dict[str, float], said: str) -> None:
    [wrong] = broken(replace(GOOD, **change))  # type: ignore[arg-type]
    assert wrong.startswith(said)


def test_a_run_whose_client_was_in_the_way_proves_nothing() -> None:
    assert invalid(replace(GOOD, cpu=0.2)) == ["the client took 20% of the machine, above 15%"]
    [late] = invalid(replace(GOOD, lag_s=0.2))
    assert late.startswith("the client was 200 ms late")
    assert invalid(replace(GOOD, dropped=9)) == ["the client had no connection for 9 of 600"]


def test_only_what_was_answered_by_its_deadline_counts() -> None:
    def answer(status: int, due: float, done: float, body: bytes = b"{}") -> Answer:
        return Answer(due, due, done, status, body)

    refusal = json.dumps({"retry_after_ms": 400}).encode()
    run = Run(
        (
            answer(200, 0.0, 0.9),
            answer(200, 0.0, 1.1),
            answer(504, 0.0, 1.0),
            answer(0, 0.0, 3.0),
            answer(429, 1.0, 1.01, refusal),
            answer(500, 1.0, 1.01),
            answer(200, 1.0, 1.5),
        ),
        seconds=2.0,
        dropped=1,
        cpu=0.1,
        lag_s=0.0,
    )
    found = judged(run, 1.0, 1.0, (), 0.0, 0)
    assert (found.offered, found.accepted, found.in_time, found.lost) == (8, 4, 2, 1)
    assert (found.failed, found.dropped) == (1, 1)
    assert (found.goodput, found.refused, found.told_s, found.took_s) == (1.0, 1, 0.4, 0.5)
    late = judged(replace(run, seconds=1.0), 1.0, 1.0, (), 0.0, 0)
    assert late.goodput == 1.0  # the last one came after that second


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((429, b'{"retry_after_ms": 400}'), 0.4),
        ((503, b'{"retry_after_ms": 400}'), 0.4),
        ((200, b'{"retry_after_ms": 400}'), None),
        ((503, b"<html>Bad gateway</html>"), None),
        ((503, b"[]"), None),
        ((503, b"[1]"), None),
        ((503, b'"slow"'), None),
        ((503, b"null"), None),
        ((503, b'{"retry_after_ms": null}'), None),
        ((503, b'{"retry_after_ms": NaN}'), None),
        ((503, b"\xff"), None),
        ((503, b"", "3"), 3.0),
        ((503, b"", "Wed, 21 Oct 2026 07:28:00 GMT"), None),
        ((503, b'{"retry_after_ms": 400}', "1"), 0.4),
        ((200, b"", "3"), None),
    ],
)
def test_a_refusal_says_when_to_come_back_where_it_can_be_understood(
    answer: Any, said: float | None
) -> None:
    assert retry_after_s(*answer) == said
    if len(answer) == 2:
        status, body = answer
        assert Answer(0.0, 0.0, 1.0, status, body).retry_after_s == said


def test_what_is_answered_after_the_end_is_none_of_a_rate() -> None:
    found = (
        Answer(5.0, 5.0, 5.4, 200, b""),
        Answer(5.4, 5.4, 5.5, 503, b""),
        Answer(5.4, 5.4, 6.2, 200, b""),
    )
    run = Run(found, seconds=1.0, dropped=0, cpu=0.1, lag_s=0.0)
    assert run.in_time == [found[0]]
    assert replace(run, answers=()).in_time == []


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of a variant that takes its time."""
    catalog, home = (tmp_path_factory.mktemp(name) for name in ("zoo", "home"))
    (catalog / "ner-base").symlink_to(ROOT / "models" / "zoo" / "ner-base")
    with serving(catalog, home) as server:
        yield server


def test_three_times_what_can_be_done_loses_nothing_and_swaps_nothing(base: Server) -> None:
    asked = calls(Traffic(), task="ner", count=60)
    found = asyncio.run(
        overloaded(base.url, "ner-base", asked, times=3, seconds=3, deadline_ms=500, seed=1)
    )
    assert found.swapped == found.lost == 0
    assert 0 < found.accepted < found.offered and found.resident
    assert found.told_s is not None and found.failed == 0
    # How much is in time hangs on what else the machine does: `make soak` judges that at rest.
    assert found.told_s < 20 * max(found.took_s, 0.5)


def test_recovery_counts_from_the_last_arrival(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = math.inf

    def stuck(_: int) -> Reply:
        """From shortly before the last arrival on nothing is answered for four seconds."""
        late_s = time.monotonic() - begun
        return Reply(5.0 - late_s if 0.9 < late_s < 5.0 else 0.004)

    async def noted(*args: Any, **how: Any) -> Run:
        nonlocal begun
        begun = time.monotonic()
        return await offered(*args, **how)

    monkeypatch.setattr(overload, "offered", noted)
    monkeypatch.setattr(overload, "workers_of", lambda _: [])
    asked = calls(Traffic(), task="ner", count=10)
    with scripted(stuck) as server:
        run = overloaded(server.url, "v", asked, times=0.01, seconds=1.0, deadline_ms=1000, seed=1)
        found = asyncio.run(run)
    # The first probe is answered when all are: four seconds late, less what it came late itself.
    assert found.recovery_s >= 1.0


def test_an_open_loop_client_does_not_wait_for_answers(base: Server) -> None:
    body = json.dumps({"inputs": "Kano " * 600}).encode()

    async def scenario() -> Run:
        pool = Pool(base.url)
        try:
            return await offered(pool, "/v1/ner", [body], rate=40, seconds=1)
        finally:
            pool.close()

    run = asyncio.run(scenario())
    assert len(run.answers) == len(list(due(Poisson(40), seconds=1, seed=1)))
    assert sum(later.sent < earlier.done for earlier, later in pairwise(run.answers)) > 5


def test_the_client_bears_the_servers_key() -> None:
    async def ask(url: str) -> None:
        pool = Pool(url, key="kadogo_1")
        answer = await pool.post("/v1/ner", b"{}", "X-Request-Timeout-Ms: 9\r\n")
        assert answer and answer.status == 200
        pool.close()

    with scripted(lambda _: Reply()) as server:
        asyncio.run(ask(server.url))
    lines = server.heads[0].splitlines()
    assert {"Authorization: Bearer kadogo_1", "X-Request-Timeout-Ms: 9"} <= set(lines)


def test_the_client_sends_no_key_where_all_could_read_it() -> None:
    for url in ("https://ner.example", "http://ner.example/prefix", "ner.example"):
        with pytest.raises(Unusable, match="will not do: this client speaks plain http"):
            Pool(url, key="kadogo_1")


def test_an_answer_that_is_no_http_is_none_and_loses_no_other() -> None:
    answers = itertools.chain([b"garbage\r\n\r\n"], itertools.repeat(b"HTTP/1.1 200 OK\r\n\r\n"))

    async def scenario() -> list[int]:
        async def said(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await reader.readuntil(b"{}"):
                writer.write(next(answers))

        server = await asyncio.start_server(said, "127.0.0.1", 0)
        pool = Pool(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        found = [await pool.post("/", b"{}") for _ in range(3)]
        pool.close()
        server.close()
        return [each.status for each in found if each]

    assert asyncio.run(scenario()) == [0, 200, 200]


def test_only_the_servers_own_workers_are_its_workers(
    base: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    (worker,) = workers_of(base.url)
    assert worker.pid == httpx.get(f"{base.url}/v1/status").json()["process"]
    # As behind a forwarded port: the number is told, but nobody here listens there.
    monkeypatch.setattr("loadtest.server.get", lambda host, path: {"process": worker.pid})
    assert workers_of(base.url) and workers_of("http://127.0.0.1:1") == []


def test_the_work_of_a_thousand_who_leave_is_not_run(base: Server) -> None:
    before = base.metric("kadogo_tokens_total", variant="ner-base")
    body = json.dumps({"inputs": "Sani Bello ya je Kano. " * 400}).encode()
    head = f"POST /v1/ner HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    address = (httpx.URL(base.url).host, httpx.URL(base.url).port)

    async def leaves() -> None:
        _, writer = await asyncio.open_connection(*address)
        writer.write(head + body)
        await writer.drain()
        await asyncio.sleep(0.2)
        writer.transport.abort()

    async def leave_together() -> None:
        for _ in range(10):
            await asyncio.gather(*(leaves() for _ in range(100)))

    asyncio.run(leave_together())
    neighbour = httpx.post(f"{base.url}/v1/ner", json={"inputs": "Kano"}, timeout=60)
    assert neighbour.status_code == 200
    for _ in range(600):
        if base.metric("kadogo_queue_depth", variant="ner-base") == 0:
            break
        time.sleep(0.1)
    one = httpx.post(f"{base.url}/v1/ner", content=body, timeout=60).json()["results"][0]["tokens"]
    ran = base.metric("kadogo_tokens_total", variant="ner-base") - before
    assert ran < 0.5 * 1000 * one
    assert base.metric("kadogo_dropped_total", variant="ner-base", reason="caller_left") > 0


def test_a_worker_that_is_killed_hangs_nobody(tmp_path: Path) -> None:
    catalog, home = tmp_path / "zoo", tmp_path / "home"
    home.mkdir()
    write_variant(catalog, "ner-base", Task.NER)
    # As in an image of BentoML's, whose server would leave a dead worker dead.
    inside = {"BENTOML_CONTAINERIZED": "true"}
    asked = calls(Traffic(), task="ner", count=60)
    with serving(catalog, home, KADOGO_WORKERS="2", **inside) as server:
        found = asyncio.run(killed.killed(server.url, "ner-base", asked, seconds=120))
        assert server.metric("kadogo_workers") == 2
    assert found.workers == 2 and found.strength_s is not None
    assert found.answered > 4 * found.cut and found.cut <= found.callers
    assert found.failed == 0


KILLED = killed.Found(
    workers=2,
    callers=8,
    answered=900,
    cut=3,
    failed=0,
    longest_s=0.2,
    silence_s=0.1,
    strength_s=7.0,
)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"longest_s": 9.0}, "a request took 9.0 s, above 5"),
        ({"cut": 9}, "9 requests were cut off, above one of each of 8"),
        ({"failed": 2}, "2 requests failed"),
        ({"silence_s": 1.4}, "nobody was answered for 1.4 s, above 1"),
        ({"strength_s": None}, "no new worker answered"),
        ({"strength_s": 15.5}, "the new worker answered after 15.5 s, above 15"),
    ],
)
def test_what_a_killed_worker_must_not_do_is_told(changes: dict[str, Any], reason: str) -> None:
    assert killed.broken(KILLED) == []
    assert killed.broken(replace(KILLED, **changes)) == [reason]
    assert "after 7.0 s, of 2 workers" in killed.told(KILLED)


def test_a_server_of_one_worker_is_not_killed(base: Server) -> None:
    command = [sys.executable, "-m", "loadtest", "killed", "--host", base.url]
    done = subprocess.run(
        [*command, "--variant", "ner-base"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert "has one worker on this machine: start it here with KADOGO_WORKERS=2" in done.stderr
    assert httpx.get(f"{base.url}/readyz").status_code == 200

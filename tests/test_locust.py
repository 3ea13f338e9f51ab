"""Locust's own command with our arrivals: alone, and a master with two workers on this machine."""

from __future__ import annotations

import json
import math
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadtest.arrivals import Poisson, due
from loadtest.record import Request, Run
from loadtest.shares import Share, figures, from_wire, measured, merged, percentile_s, to_wire
from tests.interrupted import interruptible
from tests.scripted import Reply, scripted

ROOT = Path(__file__).resolve().parent.parent


def _locust(*args: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "locust", "-f", "loadtest/locustfile.py", *args]
    pipe = subprocess.PIPE
    return interruptible(command, cwd=ROOT, stdout=pipe, stderr=pipe)


def _settings(url: str, out: Path) -> list[str]:
    return [
        *("--headless", "--only-summary", "--host", url, "--variant", "ner-int8"),
        *("--arrivals", "poisson:60", "--seconds", "3", "--warmup", "0.5", "--seed", "4"),
        *("--figures", str(out)),
    ]


def _free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


DUE = len(list(due(Poisson(60), seconds=3, seed=4)))


def test_locust_alone_keeps_the_schedule(tmp_path: Path) -> None:
    with scripted(lambda number: Reply(after_s=0.02)) as server:
        run = _locust(*_settings(server.url, tmp_path / "figures.json"))
        told, errors = run.communicate(timeout=120)
    found = json.loads((tmp_path / "figures.json").read_text())
    assert run.returncode == (2 if found["invalid"] else 0), errors
    assert (found["sent"], found["right"], found["dropped"]) == (DUE, DUE, 0)
    assert found["p50 ms"] >= 20 and f"sent             {DUE}" in told


def test_a_mix_of_tasks_asks_the_servers_defaults_of_each(tmp_path: Path) -> None:
    said = {"results": [{"entities": [], "labels": [{"label": "sports"}]}]}
    with scripted(lambda number: Reply(after_s=0.01, body=said)) as server:
        run = _locust(
            *_settings(server.url, tmp_path / "figures.json"),
            *("--variant", "", "--tasks", "ner:1,classification:2"),
        )
        _, errors = run.communicate(timeout=120)
    found = json.loads((tmp_path / "figures.json").read_text())
    assert found["right"] == found["sent"] == DUE, errors
    asked = Counter(head.split()[1] for head in server.heads)
    assert asked["/v1/classify"] > asked["/v1/ner"] > 0
    assert not any("variant" in body for body in server.bodies)


def test_a_run_that_proves_nothing_ends_with_status_2(tmp_path: Path) -> None:
    with scripted(lambda number: Reply()) as server:
        run = _locust(
            *_settings(server.url, tmp_path / "figures.json"),
            *("--arrivals", "poisson:0.001", "--seconds", "0.5", "--warmup", "0"),
        )
        told, errors = run.communicate(timeout=120)
    assert run.returncode == 2 and "['nothing was sent']" in told, errors


def test_a_master_and_two_workers_send_one_schedule_between_them(tmp_path: Path) -> None:
    port = _free_port()
    with scripted(lambda number: Reply(after_s=0.02, status=429 if number == 9 else 200)) as server:
        master = _locust(
            *_settings(server.url, tmp_path / "figures.json"),
            *("--master", "--expect-workers", "2"),
            *("--master-bind-host", "127.0.0.1", "--master-bind-port", port),
        )
        where = ("--worker", "--master-host", "127.0.0.1", "--master-port", port)
        workers = [_locust(*where) for _ in range(2)]
        told, errors = master.communicate(timeout=120)
        for worker in workers:
            worker.communicate(timeout=60)
    found = json.loads((tmp_path / "figures.json").read_text())
    assert found["workers"] == 2, errors
    assert found["sent"] == DUE and found["dropped"] == 0
    # The tenth request may have been of the warm-up, which is not measured.
    assert found["right"] in (DUE, DUE - 1)
    assert found["p50 ms"] >= 20 and "workers          2" in told
    assert {body["variant"] for body in server.bodies} == {"ner-int8"}
    assert len(server.heads) > DUE


def _until(true: Callable[[], bool]) -> None:
    for _ in range(600):
        if true():
            return
        time.sleep(0.1)
    raise AssertionError("not within a minute")


def test_a_run_that_is_told_to_end_has_figures_of_what_was_measured(tmp_path: Path) -> None:
    with scripted(lambda number: Reply(after_s=0.02)) as server:
        run = _locust(*_settings(server.url, tmp_path / "figures.json"), "--seconds", "600")
        _until(lambda: len(server.heads) > 90)
        run.send_signal(signal.SIGINT)
        told, errors = run.communicate(timeout=120)
    found = json.loads((tmp_path / "figures.json").read_text())
    # The signal may come while a request is being sent, which then is not.
    assert 0 < found["sent"] <= found["right"] + 1 and found["seconds"] < 600, errors
    assert f"sent             {found['sent']}" in told
    assert run.returncode == (2 if found["invalid"] else 0), errors


def test_workers_that_all_died_make_a_run_that_proves_nothing(tmp_path: Path) -> None:
    port = _free_port()
    with scripted(lambda number: Reply(after_s=0.02)) as server:
        master = _locust(
            *_settings(server.url, tmp_path / "figures.json"),
            *("--seconds", "600", "--master", "--expect-workers", "2"),
            *("--master-bind-host", "127.0.0.1", "--master-bind-port", port),
        )
        where = ("--worker", "--master-host", "127.0.0.1", "--master-port", port)
        workers = [_locust(*where) for _ in range(2)]
        _until(lambda: len(server.heads) > 30)
        for worker in workers:
            worker.kill()
            worker.communicate()
        told, errors = master.communicate(timeout=120)
    assert master.returncode == 2, errors
    assert "['0 of 2 workers reported']" in told
    found = json.loads((tmp_path / "figures.json").read_text())
    assert found == {"workers": 0, "invalid": ["0 of 2 workers reported"]}


def test_a_master_that_is_told_to_end_hears_its_workers_first(tmp_path: Path) -> None:
    port = _free_port()
    with scripted(lambda number: Reply(after_s=0.02)) as server:
        master = _locust(
            *_settings(server.url, tmp_path / "figures.json"),
            *("--seconds", "600", "--master", "--expect-workers", "1"),
            *("--master-bind-host", "127.0.0.1", "--master-bind-port", port),
        )
        worker = _locust("--worker", "--master-host", "127.0.0.1", "--master-port", port)
        _until(lambda: len(server.heads) > 90)
        master.send_signal(signal.SIGINT)
        _, errors = master.communicate(timeout=120)
        worker.communicate(timeout=60)
    found = json.loads((tmp_path / "figures.json").read_text())
    assert found["workers"] == 1 and found["sent"] > 0, errors


def _trace(tmp_path: Path) -> str:
    (tmp_path / "trace.jsonl").write_text("0\n0.25\n0.5\n1.5\n")
    return f"replay:{tmp_path / 'trace.jsonl'}"


def test_a_trace_is_replayed_to_its_end(tmp_path: Path) -> None:
    with scripted(lambda number: Reply()) as server:
        run = _locust(
            *("--headless", "--only-summary", "--host", server.url, "--warmup", "0"),
            *("--arrivals", _trace(tmp_path), "--figures", str(tmp_path / "figures.json")),
        )
        _, errors = run.communicate(timeout=120)
    found = json.loads((tmp_path / "figures.json").read_text())
    assert (found["sent"], found["seconds"]) == (4, 1.501) and "lines" not in errors


def test_a_trace_that_is_cut_says_how_much_of_it_is_sent(tmp_path: Path) -> None:
    trace = _trace(tmp_path)
    with scripted(lambda number: Reply()) as server:
        run = _locust(
            *("--headless", "--only-summary", "--host", server.url, "--warmup", "0"),
            *("--arrivals", trace, "--seconds", "1"),
        )
        told, errors = run.communicate(timeout=120)
    assert "sent             3\n" in told
    assert f"{trace}: 3 of 4 lines are due within --seconds 1, the last of all at 1.5 s" in errors


def test_figures_that_cannot_be_written_are_known_before_anything_is_sent(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with scripted(lambda number: Reply()) as server:
        run = _locust(*_settings(server.url, tmp_path / "file" / "figures.json"))
        _, errors = run.communicate(timeout=60)
    assert run.returncode == 2 and not server.heads
    [line] = [each for each in errors.splitlines() if "figures.json" in each]
    assert line.startswith(f"{tmp_path / 'file' / 'figures.json'} cannot be written: ")
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--arrivals", "poison:3"], "arrivals 'poison:3' are none of poisson"),
        (["--languages", "xyz"], "has no texts in xyz"),
        (["--variant", "a", "--tasks", "ner"], "a variant has one task: leave out --variant or"),
        (["--seconds", "-3"], "argument --seconds: -3 is not a number above 0"),
        (["--seconds", "0"], "argument --seconds: 0 is not a number above 0"),
        (["--callers", "0"], "argument --callers: 0 is not a whole number, 1 or more"),
        (["--warmup", "-1"], "argument --warmup: -1 is not a number, 0 or more"),
    ],
)
def test_wrong_settings_are_one_line(flags: list[str], said: str) -> None:
    run = _locust("--headless", "--host", "http://127.0.0.1:9", *flags)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 2 and said in errors and "Traceback" not in errors


def test_a_run_without_a_host_is_one_line() -> None:
    run = _locust("--headless")
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 2
    assert "nothing says whom to ask: give --host" in errors and "Traceback" not in errors


def _run(latencies: np.ndarray, **change: Any) -> Run:
    requests = tuple(
        Request(
            call=0,
            due_s=i / 100,
            sent_s=i / 100 + 0.001,
            done_s=i / 100 + each,
            status=200 if each < 1 else 503,
            error=None if each < 1 else "HTTP 503",
        )
        for i, each in enumerate(latencies)
    )
    values = {"dropped": 2, "cores": 0.1, **change}
    return Run(
        variant="v", task="ner", arrivals="poisson:100", seconds=50, requests=requests, **values
    )


def test_shares_together_are_what_one_would_have_measured() -> None:
    latencies = np.random.default_rng(1).exponential(0.2, 5000)
    run = _run(latencies, dropped=4, cores=0.3)
    whole = measured(run)
    parts = [
        measured(replace(run, requests=run.requests[place::2], dropped=2, cores=cores))
        for place, cores in enumerate((0.1, 0.3))
    ]
    sent = [from_wire(json.loads(json.dumps(to_wire(each)))) for each in parts]
    found = merged(sent)
    right = {**figures(whole), "workers": 2}
    assert figures(found) == right
    # What failed or was dropped took for ever.
    exact = np.append(np.where(latencies < 1, latencies, math.inf), [math.inf] * 4)
    for percent in (50, 90, 99, 99.9):
        expected = np.quantile(exact, percent / 100, method="inverted_cdf")
        assert percentile_s(found, percent) == pytest.approx(expected, rel=2e-3)
    assert percentile_s(found, 99) < percentile_s(found, 99.9) == math.inf
    assert right["p99.9 ms"] is None
    assert found.errors == {"HTTP 503": int((latencies >= 1).sum())}


def test_a_share_of_nothing_has_figures() -> None:
    found: Share = measured(_run(np.array([]), dropped=0))
    assert figures(found)["p99 ms"] == 0 and "nothing was sent" in figures(found)["invalid"]
    refused = figures(measured(_run(np.full(50, 9.0))))
    assert refused["right"] == 0 and refused["p50 ms"] is None is refused["p99 ms"]


def test_a_percentile_of_a_dead_server_is_never_reached(tmp_path: Path) -> None:
    where = _settings(f"http://127.0.0.1:{_free_port()}", tmp_path / "figures.json")
    run = _locust(*where, "--seconds", "1", "--warmup", "0")
    told, errors = run.communicate(timeout=120)
    assert "p50 ms           never" in told and "Traceback" not in errors
    assert json.loads((tmp_path / "figures.json").read_text())["p50 ms"] is None

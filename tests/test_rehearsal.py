"""A scale-out and a rollout on real servers behind the shipped proxy, in short; their verdict."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from loadtest import rehearsal
from loadtest.checker import Checked, Wrong
from loadtest.record import Run
from loadtest.rehearsal import Phase, Rehearsal, Replica, Stage, broken, status, told
from models.spec import Task
from service.settings import ROOT
from tests.queues import request, run
from tests.tiny import write_variant

HAPROXY = shutil.which("haproxy", path="/usr/sbin:/usr/bin")
ALIKE = Checked(compared=100, unknown=0, wrong=(), sight=0.999)
STATISTICS = """# pxname,svname,hrsp_2xx,wretr,wredis
kadogo,kadogo1,50,0,0
kadogo,BACKEND,50,0,0
"""


def replica(name: str, **changes: Any) -> Replica:
    facts = {"ready_s": 5.0, "gone_s": 1.5, "answered": 50, "status": 0, **changes}
    return Replica(name=name, address="", started=Mock(), **facts)


def rehearsed(found: Run, *replicas: Replica) -> Rehearsal:
    return Rehearsal(
        run=found, phases=(Phase("all", 0, 10),), replicas=replicas, retried=3, checked=ALIKE
    )


def answered(**changes: Any) -> Run:
    return run("ner-int8", [request(i, i / 10, 0.01) for i in range(100)], seconds=10, **changes)


def test_a_play_in_which_all_is_answered_is_told_so() -> None:
    stays = replica("kadogo2", gone_s=None, status=None)
    found = rehearsed(answered(), replica("kadogo1"), stays)
    assert broken(found) == []
    assert told(found).startswith("none of 100 requests failed in 10 s at poisson:100, while 2 ")
    assert "asked again 3 times" in told(found)
    assert told(found).endswith("compared: 100 answers, 0 unknown, 99.9% of swaps are seen")


def test_a_request_that_failed_breaks_it_and_is_counted_in_its_phase() -> None:
    refused = [request(i, i / 10, 0.01, "HTTP 503" if i == 7 else None) for i in range(100)]
    found = rehearsed(run("ner-int8", refused, seconds=10, dropped=1), replica("kadogo1"))
    assert broken(found) == ["2 of 101 requests failed: 1 HTTP 503"]
    assert re.search(r"^all +0\.0 - 10\.0 +100 +1 +10\.0 +10\.0$", told(found), re.MULTILINE)
    refused = [request(i, i / 10, 0.01, "HTTP 503" if i < 7 else None) for i in range(100)]
    found = rehearsed(run("ner-int8", refused, seconds=10), replica("kadogo1"))
    assert re.search(r"^all .* +100 +7 +10\.0 +never$", told(found), re.MULTILINE)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"status": -9}, "ended with -9"), ({"answered": 0}, "answered nothing")],
)
def test_a_replica_that_ended_badly_or_did_nothing_breaks_it(
    changes: dict[str, Any], reason: str
) -> None:
    assert broken(rehearsed(answered(), replica("kadogo1", **changes))) == [f"kadogo1 {reason}"]


def test_a_replica_that_stays_breaks_it_and_the_play_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rehearsal, "GONE_WITHIN_S", 0.1)
    asked: list[str] = []
    stage = Stage(tmp_path, {}, tmp_path)
    monkeypatch.setattr(stage, "_tell", lambda command: asked.append(command) or STATISTICS)
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True)"
    process = subprocess.Popen(
        [sys.executable, "-c", f"{deaf}; import time; time.sleep(600)"], stdout=subprocess.PIPE
    )
    assert process.stdout and process.stdout.readline()
    stays = Replica(name="kadogo1", address="", started=Mock(process=process), ready_s=5.0)
    stays.answered = 50
    stage.replicas.append(stays)
    stage.take(stays)
    process.kill()
    process.communicate()
    assert asked[-1] == "set server kadogo/kadogo1 state maint"
    assert stage.serving == []
    assert broken(rehearsed(answered(), stays)) == ["kadogo1 is still there 0 s after SIGTERM"]


def test_a_play_that_breaks_off_proves_nothing_unless_answers_were_swapped() -> None:
    why = "kadogo2 did not become ready:\nno memory left"
    lost = replace(rehearsed(answered(), replica("kadogo1")), ended=why, retried=None)
    assert status(lost) == 2
    assert told(lost).startswith(f"broken off, which proves nothing: {why}\nnone of 100 requests")
    assert "asked again" not in told(lost)
    assert status(replace(lost, checked=replace(ALIKE, wrong=(Wrong(7, 6),)))) == 1
    assert status(replace(lost, ended="", checked=replace(ALIKE, compared=0, unknown=9))) == 2
    assert status(rehearsed(answered(), replica("kadogo1", status=-9))) == 1
    assert status(rehearsed(answered(), replica("kadogo1"))) == 0


# One that is to be added does not start.
LACKS = """
import sys
from loadtest import rehearsal
from loadtest.__main__ import main
from loadtest.record import Unusable
def add(stage): raise Unusable("no memory left")
rehearsal.Stage.add = add
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed")
def test_what_was_measured_before_a_play_broke_off_is_told(tmp_path: Path) -> None:
    write_variant(tmp_path / "zoo", "ner-int8", Task.NER)
    told = ["--replicas", "2", "--rate", "20", "--settle", "1", "--catalog", str(tmp_path / "zoo")]
    done = subprocess.run(
        [sys.executable, "-c", LACKS, "rehearse", *told],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout.startswith("broken off, which proves nothing: no memory left\nnone of ")
    assert "\n1 replica " in done.stdout and "scaled out" not in done.stdout


@pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed")
def test_replicas_come_and_go_and_no_request_fails(tmp_path: Path) -> None:
    write_variant(tmp_path / "zoo", "ner-int8", Task.NER)
    told = ["--replicas", "2", "--rate", "20", "--settle", "1", "--catalog", str(tmp_path / "zoo")]
    done = subprocess.run(
        [sys.executable, "-m", "loadtest", "rehearse", *told],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.match(r"none of \d+ requests failed .* 4 replicas came and 3 went", done.stdout)
    for name in ("1 replica", "scaled out to 2", "replaced 2 of 2", "scaled in to 1", "kadogo4"):
        assert f"\n{name} " in done.stdout
    # Of texts asked alone before it are none; of its warm-up about 20.
    requests = int(done.stdout.split()[2])
    each = re.findall(r"^kadogo\d +[\d.]+ +(\d+) ", done.stdout, re.MULTILINE)
    assert len(each) == 4 and requests <= sum(map(int, each)) < requests + 100


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--rate", "10000000"], "--rate: 10000000 is more than one process sends: 10000 at most"),
        (
            ["--rate", "0.0000001"],
            "arrivals 'poisson:0' are not like poisson:200, of numbers above",
        ),
        (["--languages", "hau:x"], "'hau:x' is no name and weight, as in hau:2"),
    ],
)
def test_what_cannot_be_sent_is_one_line_before_anything_is_started(
    flags: list[str], said: str
) -> None:
    command = [sys.executable, "-m", "loadtest", "rehearse", *flags, "--catalog", "/none"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1] and "did not become ready" not in done.stderr


def test_a_replica_that_does_not_start_ends_it_with_its_log(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "loadtest", "rehearse", "--catalog", str(tmp_path / "none")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("kadogo1 did not become ready:\n") and "none" in done.stderr

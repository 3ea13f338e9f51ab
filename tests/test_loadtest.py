"""The comparison as people run it: on a real server, in short; and what is said where it cannot."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loadtest import command
from loadtest.complaint import Complaint
from loadtest.files import tried
from loadtest.findings import Findings
from loadtest.machine import processor
from models.spec import Task
from tests.scripted import Reply, scripted
from tests.test_serve import Server, serving
from tests.tiny import write_variant

ROOT = Path(__file__).resolve().parent.parent
SHORT = (
    *("--rounds", "2", "--peak", "0.4", "--open", "0.6", "--warmup", "0.2", "--climb", "1"),
    *("--calls", "16", "--rate", "20"),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    catalog, home = tmp_path_factory.mktemp("zoo"), tmp_path_factory.mktemp("home")
    write_variant(catalog, "ner-base", Task.NER)
    write_variant(catalog, "ner-int8", Task.NER)
    write_variant(catalog, "news-int8", Task.CLASSIFICATION)
    with serving(catalog, home, KADOGO_WORKERS="2") as running:
        yield running


def compare(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loadtest", "compare", *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180)


def test_variants_of_two_tasks_are_compared_each_with_its_own(
    server: Server, tmp_path: Path
) -> None:
    done = compare("--host", server.url, *SHORT, "--out", str(tmp_path))
    # How quick this machine is decides whether anything is proved; nothing else may be wrong.
    assert done.returncode in (0, 2), done.stderr
    assert "not kept" not in done.stderr
    written = json.loads((tmp_path / "comparison.json").read_text())
    by_task = {each["task"]: each for each in written["tasks"]}
    assert list(by_task) == ["ner", "classification"]
    assert [each["variant"] for each in by_task["ner"]["variants"]] == ["ner-base", "ner-int8"]
    for task in by_task.values():
        assert task["mismatches"] == [] and task["broken"] == []
        for variant in task["variants"]:
            assert variant["answers"] > 0 and variant["failed"] == 0
            assert variant["server"]["cpu_s"]["mean"] > 0 and variant["server"]["memory"] > 0
            assert variant["bytes"] > 0 and variant["server"]["energy_j"] is None
        assert task["climbs"].keys() == {each["variant"] for each in task["variants"]}
    assert (tmp_path / "comparison.html").read_text().startswith("<!doctype html>")
    told = (tmp_path / "comparison.md").read_text()
    assert told.startswith("# Variants compared")
    assert re.search(r"stolen by the host's other guests: \d+\.\d% of the CPU time", told)
    assert re.search(r"news-int8, compared .* alone: \d+ answers, 0 unknown, \d", told)
    assert "peak answers/s" in done.stdout and "open 1 of 6: ner-base" in done.stderr


def test_a_promise_of_a_variant_that_does_not_run_is_refused(
    server: Server, tmp_path: Path
) -> None:
    file = tmp_path / "promises.toml"
    file.write_text("[variants.ner-int8]\nmin_rate = 1\n")
    done = compare("--host", server.url, "--variants", "ner-base", "--promises", str(file))
    assert done.returncode == 2
    assert done.stderr == f"{file}, line 1: variants.ner-int8 does not run: ner-base do\n"


def test_an_unknown_variant_is_one_line_naming_the_known(server: Server) -> None:
    done = compare("--host", server.url, "--variants", "ner-base, nothing")
    assert done.returncode == 2
    assert done.stderr == "not ready: nothing; ready are ner-base, ner-int8, news-int8\n"


class Counted:
    """A server's one variant: it answers after a while, and tells how often it did."""

    def __init__(self, *, lies: int = 0, looks: int = 10**6) -> None:
        self.asked = self.looked = 0
        self.lies, self.looks = lies, looks
        variant = {"name": "ner-int8", "task": "ner", "state": "ready"}
        self.facts: dict[str, Any] = {
            "/v1/variants": {"variants": [variant]},
            "/v1/status": {"process": 2**30},  # of another machine
            "/metrics": self.metrics,
        }

    def reply(self, _: int) -> Reply:
        self.asked += 1
        return Reply(after_s=0.4)

    def metrics(self) -> bytes | Reply:
        self.looked += 1
        if self.looked > self.looks:
            return Reply(status=404)
        told = self.asked + self.lies * self.looked
        labels = '{variant="ner-int8",status_class="2xx"}'
        return (
            f"# TYPE kadogo_request_seconds summary\nkadogo_request_seconds_count{labels} {told}\n"
            f"kadogo_request_seconds_sum{labels} NaN\n"
            f'# TYPE kadogo_texts_total counter\nkadogo_texts_total{{variant="ner-int8"}} {told}\n'
        ).encode()

    def flags(self, url: str, folder: Path, rounds: int = 1) -> list[str]:
        (folder / "two.txt").write_text("Kano\nJos\n")
        return [
            *("--host", url, "--rounds", str(rounds), "--peak", "0.5", "--open", "0.5"),
            *("--warmup", "0", "--climb", "0", "--rate", "20", "--calls", "2"),
            *("--texts", str(folder / "two.txt"), "--out", str(folder / "reports")),
        ]


@pytest.mark.parametrize(
    ("promise", "lies", "status", "said"),
    [
        ("min_rate = 0.1", 0, 0, []),
        (
            "min_rate = 1e9\nmin_f1 = 0.5",
            *(0, 1),
            ["fewer than the 1e+09 promised", "nobody knows its F1, and 0.5 is promised"],
        ),
        ("min_rate = 0.1", 1, 1, ["not kept: ner-int8: the server counted"]),
    ],
    ids=["kept", "a promise broken", "counted otherwise"],
)
def test_each_status_is_said(
    tmp_path: Path, promise: str, lies: int, status: int, said: list[str]
) -> None:
    (tmp_path / "promises.toml").write_text(f"[variants.ner-int8]\n{promise}\n")
    for _ in range(3):  # a load that was late, for the machine is busy, proves nothing
        counted = Counted(lies=lies)
        with scripted(counted.reply, counted.facts) as server:
            flags = counted.flags(server.url, tmp_path)
            done = compare(*flags, "--promises", str(tmp_path / "promises.toml"))
        if done.returncode != 2:
            break
    assert done.returncode == status, done.stderr
    assert all(each in done.stderr for each in said) and "Traceback" not in done.stderr


@pytest.mark.parametrize("how", ["it does not tell its metrics any more", "Ctrl-C"])
def test_of_one_that_is_broken_off_whole_rounds_are_kept(tmp_path: Path, how: str) -> None:
    # Four looks a round: the third of the open loop is never whole.
    counted = Counted(looks=22) if how != "Ctrl-C" else Counted()
    with scripted(counted.reply, counted.facts) as server:
        command = [sys.executable, "-m", "loadtest", "compare"]
        comparing = subprocess.Popen(
            [*command, *counted.flags(server.url, tmp_path, rounds=3)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert comparing.stderr
        said = []
        for line in comparing.stderr:
            said.append(line)
            if how == "Ctrl-C" and line.startswith("open 5 of 6"):
                comparing.send_signal(signal.SIGINT)
        comparing.wait(timeout=120)
    errors = "".join(said)
    assert "Traceback" not in errors and "Interrupt" not in errors, errors
    assert comparing.returncode == (130 if how == "Ctrl-C" else 2)
    written = json.loads((tmp_path / "reports" / "comparison.json").read_text())
    void = written["tasks"][0]["ended"]
    why = "it was told to end" if how == "Ctrl-C" else f"{server.url}/metrics answers HTTP 404: .*"
    # Fewer where a turn was taken again, for the machine is busy.
    assert re.fullmatch(rf"broken off after [12] of 3 rounds: {why}", void)
    assert re.fullmatch(why, written["settings"]["broken off"])
    assert written["tasks"][0]["deploy"] == []


def test_a_folder_that_cannot_be_written_is_known_before_anything_is_asked(tmp_path: Path) -> None:
    (tmp_path / "reports").write_text("")
    counted = Counted()
    with scripted(counted.reply, counted.facts) as server:
        done = compare(*counted.flags(server.url, tmp_path))
    assert done.returncode == 2 and not counted.asked
    assert done.stderr == f"{tmp_path}/reports/comparison.html cannot be written: File exists\n"


def test_a_report_that_is_written_over_is_named(tmp_path: Path) -> None:
    kept, new = tmp_path / "kept", tmp_path / "folder" / "new"
    kept.write_text("as it was")
    assert tried([kept, new]) == f"will be written over: {kept}"
    assert kept.read_text() == "as it was" and not new.exists() and new.parent.is_dir()
    assert tried([new]) == ""


def test_what_is_proof_comes_before_what_proves_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    found = Findings(task="ner", rate=1, seconds=1, limit_s=None, rows=(), noise={}, differences={})
    said = (Complaint("ner-int8", "it is not kept"),)
    assert command._status([found]) == 0
    assert command._status([replace(found, broken=said)]) == 1
    late = replace(found, spoilt=(Complaint("base", "requests went out late"),))
    assert command._status([late]) == command._status([replace(late, broken=said)]) == 2
    assert command._status([late, replace(found, mismatches=said)]) == 1
    assert "nothing is proved: base: requests went out late" in capsys.readouterr().err


def test_a_report_says_all_that_it_was_asked_and_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOADTEST_DUPLICATES", "1.1")
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    args = parser.parse_args(["--p99-ms", "100", "--search", "--promises", "a file.toml"])
    told = command._told(args, {}, [])
    assert str(told["command"]).startswith(
        "python -m loadtest compare --host http://127.0.0.1:3000"
    )
    for flag in (
        *("--duplicates 1.1", "--load 0.7", "--climb 10", "--p99-ms 100", "--confirm 60"),
        *("--search --", "--promises 'a file.toml'", "--seed 1", "--rounds 8", "--out reports"),
    ):
        assert flag in f"{told['command']} --", flag
    assert parser.parse_args(shlex.split(str(told["command"]))[4:]) == args
    assert processor() in str(told["processor"])


def test_a_search_without_a_limit_is_refused(server: Server) -> None:
    done = compare("--host", server.url, "--search")
    assert (done.returncode, done.stderr) == (2, "--search needs a limit: --p99-ms 100\n")


def test_a_search_says_what_a_variant_keeps_within_the_limit(
    server: Server, tmp_path: Path
) -> None:
    done = compare(
        *("--host", server.url, "--variants", "ner-base", *SHORT, "--climb", "0"),
        *("--search", "--p99-ms", "100", "--confirm", "1", "--out", str(tmp_path)),
    )
    # What a second proves is this machine's affair.
    assert done.returncode in (0, 2) and "Traceback" not in done.stderr, done.stderr
    [task] = json.loads((tmp_path / "comparison.json").read_text())["tasks"]
    assert task["searches"]["ner-base"]
    found = task["rates_within_limit"]["ner-base"]
    assert found["invalid"] or found["rate"] is None or found["rate"] > 0
    assert "Largest rate, requests/s, with a p99 within" in done.stdout


def test_no_server_is_one_line_that_says_what_to_do() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        done = compare("--host", f"http://127.0.0.1:{free.getsockname()[1]}")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "no server answers at http://127.0.0.1" in done.stderr and "make serve" in done.stderr


def test_what_is_not_installed_is_one_line_that_installs_it() -> None:
    code = "import runpy, sys; sys.modules['hdrh'] = None; runpy.run_module('loadtest.__main__')"
    command = [sys.executable, "-c", code, "server"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert re.fullmatch(r"hdrh\S* is not installed: make .venv/.loadtest\n", done.stderr)


def test_the_commands_are_listed() -> None:
    command = [sys.executable, "-m", "loadtest", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    for name in ("compare", "single", "server", "offline", "burst", "overload", "soak"):
        assert f"\n    {name} " in done.stdout

"""The comparison as people run it: on a real server, in short; and what is said where it cannot."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.spec import Task
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
    assert "peak answers/s" in done.stdout and "open 1 of 6: ner-base" in done.stderr


def test_a_broken_promise_ends_it_with_what_is_missing(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "promises.toml"
    file.write_text("[variants.ner-int8]\nmin_rate = 1e9\nmin_f1 = 0.5\n")
    done = compare(
        *("--host", server.url, "--variants", "ner-int8", *SHORT, "--climb", "0"),
        *("--promises", str(file), "--out", str(tmp_path)),
    )
    assert done.returncode in (1, 2), done.stderr
    # A variant that outruns the load on this machine may do more than was seen.
    assert re.search(
        r"fewer than the 1e\+09 promised|keeps the 1e\+09 promised is not known", done.stderr
    )
    assert "nobody knows its F1, and 0.5 is promised" in done.stderr


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

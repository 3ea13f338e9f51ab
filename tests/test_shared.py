"""Shared rows: nothing is lost between processes and threads, and a dead one holds nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.settings import ROOT
from service.shared import Row, Rows, first_of_this_server, of_this_server

COUNTS = """
import sys
from pathlib import Path
from service.shared import Rows
rows = Rows(Path(sys.argv[1]), rows=2, width=3)
for _ in range(2000):
    rows.change(1, lambda row: ((row[0] + 1, row[1], row[2] - 1), None))
"""
HOLDS = """
import sys, time
from pathlib import Path
from service.shared import Rows
rows = Rows(Path(sys.argv[1]), rows=1, width=1)
rows.change(0, lambda row: (print("held", flush=True), time.sleep(600)))
"""


def started(code: str, file: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, str(file)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def plus_one(row: Row) -> tuple[Row, float]:
    return (row[0] + 1,), row[0]


def test_all_numbers_are_0_at_first(tmp_path: Path) -> None:
    rows = Rows(tmp_path / "rows", rows=2, width=3)
    assert rows.read(0) == rows.read(1) == (0.0, 0.0, 0.0)


def test_a_change_gives_back_what_it_makes_and_touches_one_row() -> None:
    rows = Rows(None, rows=3, width=2)
    assert rows.change(1, lambda row: ((row[0] + 0.5, -1.0), "made")) == "made"
    assert [rows.read(row) for row in range(3)] == [(0.0, 0.0), (0.5, -1.0), (0.0, 0.0)]


def test_nothing_is_lost_between_processes(tmp_path: Path) -> None:
    counting = [started(COUNTS, tmp_path / "rows") for _ in range(4)]
    assert [process.wait(60) for process in counting] == [0] * 4
    rows = Rows(tmp_path / "rows", rows=2, width=3)
    assert rows.read(0) == (0.0, 0.0, 0.0)
    assert rows.read(1) == (8000.0, 0.0, -8000.0)


def test_nothing_is_lost_between_threads() -> None:
    rows = Rows(None, rows=1, width=1)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: rows.change(0, plus_one), range(5000)))
    assert rows.read(0) == (5000.0,)


def test_a_change_that_fails_changes_nothing_and_holds_nothing(tmp_path: Path) -> None:
    rows = Rows(tmp_path / "rows", rows=1, width=1)

    def fails(row: Row) -> tuple[Row, None]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        rows.change(0, fails)
    again = Rows(tmp_path / "rows", rows=1, width=1)
    assert again.change(0, plus_one) == 0.0


def test_a_process_that_dies_with_the_lock_holds_up_nobody(tmp_path: Path) -> None:
    holder = started(HOLDS, tmp_path / "rows")
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with ThreadPoolExecutor(1) as waiter:
        rows = waiter.submit(Rows, tmp_path / "rows", rows=1, width=1)
        time.sleep(0.2)
        assert not rows.done()
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait(30)
        assert rows.result(30).change(0, plus_one) == 0.0


def test_the_file_lies_where_the_servers_processes_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    assert of_this_server("keys") is None
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    assert of_this_server("keys") == tmp_path / "keys"


def test_what_the_first_read_is_what_all_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    text = "# Ọ̀yọ́\r\n"
    with ThreadPoolExecutor(8) as pool:
        read = [*pool.map(lambda n: first_of_this_server("notes", lambda: f"{text}{n}"), range(8))]
    assert len(set(read)) == 1 and read[0].startswith(text)
    assert first_of_this_server("notes", lambda: "other") == read[0]
    assert [file.name for file in tmp_path.iterdir()] == ["notes"]


def test_what_cannot_be_read_is_nobodys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> str:
        raise FileNotFoundError("notes")

    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    with pytest.raises(FileNotFoundError):
        first_of_this_server("notes", gone)
    assert first_of_this_server("notes", lambda: "back") == "back"
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR")
    assert first_of_this_server("notes", lambda: "alone") == "alone"

"""wrk: what it prints is read, and without it it is said how to get it."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtest import wrk
from loadtest.record import Unusable


def test_what_it_prints_is_read() -> None:
    output = "Running 1s test\n  2 threads\nanswered 0.5\nanswered 1.25\nfailed 2\nfailed 1\n"
    assert wrk.read(output) == ((0.5, 1.25), 3)


def test_without_it_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert not wrk.installed()
    with pytest.raises(Unusable, match=r"^wrk is not installed: apt-get install wrk"):
        wrk.saturate("http://127.0.0.1:1/", [b"{}"], "x", connections=1, seconds=1)


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("kill -9 $$", "it ended with -9"),
        ("echo 'wrk.lua:51: out of memory' >&2", "wrk.lua:51: out of memory"),
        ("echo no host; exit 1", "no host"),
        ("true", "it ended with 0"),
    ],
)
def test_where_it_does_not_come_to_its_end_it_is_said_why(
    script: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wrk").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "wrk").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(Unusable, match=f"^wrk failed: {why}$"):
        wrk.saturate("http://127.0.0.1:1/", [b"{}"], "x", connections=1, seconds=1)

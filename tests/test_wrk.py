"""wrk: what it prints is read, and without it it is said how to get it."""

from __future__ import annotations

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

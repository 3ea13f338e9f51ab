"""The time that the host gave to others is a share of what passed between two looks."""

from __future__ import annotations

from typing import NamedTuple

import psutil
import pytest

from loadtest.stolen import Stolen


class Times(NamedTuple):
    user: float
    steal: float


def test_it_is_of_the_time_between(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([Times(10, 1), Times(16, 3)])
    monkeypatch.setattr(psutil, "cpu_times", lambda: next(times))
    assert Stolen().share == 0.25


def test_where_the_system_does_not_tell_it_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_times", lambda: (5.0,))
    assert Stolen().share == 0

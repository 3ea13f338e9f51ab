"""Where the server listens, and when it needs keys for that."""

from __future__ import annotations

import socket
from pathlib import Path

import click
import pytest

from models.errors import BadSetting
from service import bound
from service.settings import Settings

ELSEWHERE = ["0.0.0.0", "::", "192.0.2.7", "2001:db8::1", "example.org", ""]
LOOPBACK = ["127.0.0.1", "127.8.8.8", "::1", "localhost", None]


@pytest.mark.parametrize("host", LOOPBACK)
def test_nobody_elsewhere_means_nobody_is_asked(host: str | None) -> None:
    bound.check(Settings(), host)


@pytest.mark.parametrize("host", ELSEWHERE)
def test_others_can_reach_it_only_with_keys_or_where_that_is_said(host: str) -> None:
    with pytest.raises(BadSetting, match=r"KADOGO_KEYS=.*--host, or say KADOGO_AUTH=off"):
        bound.check(Settings(), host)
    bound.check(Settings(auth=False), host)
    bound.check(Settings(keys=Path("keys.toml")), host)
    bound.check(Settings(keys=Path("keys.toml"), auth=True), host)


@pytest.mark.parametrize("host", [*ELSEWHERE, *LOOPBACK])
def test_settings_that_contradict_each_other_are_refused_everywhere(host: str | None) -> None:
    with pytest.raises(BadSetting, match="contradict each other"):
        bound.check(Settings(keys=Path("keys.toml"), auth=False), host)
    with pytest.raises(BadSetting, match="KADOGO_AUTH=on needs keys"):
        bound.check(Settings(auth=True), host)


def test_where_no_server_is_started_there_is_no_address() -> None:
    assert bound.host() is None and bound.address() is None


@pytest.mark.parametrize(
    ("family", "host", "more", "shown"),
    [
        (socket.AF_INET, "127.0.0.1", {}, "http://127.0.0.1:{}"),
        (socket.AF_INET, "127.0.0.1", {"ssl_certfile": "a.pem"}, "https://127.0.0.1:{}"),
        (socket.AF_INET, "0.0.0.0", {}, "http://localhost:{}"),
        (socket.AF_INET6, "::1", {}, "http://[::1]:{}"),
        (socket.AF_INET6, "::", {}, "http://localhost:{}"),
    ],
)
def test_a_worker_knows_where_its_server_is_opened(
    family: int, host: str, more: dict[str, str], shown: str
) -> None:
    with socket.socket(family) as server, click.Context(click.Command("worker")) as command:
        try:
            server.bind((host, 0))
        except OSError:
            pytest.skip(f"this machine has no {host}")
        command.params = {"fd": server.fileno(), **more}
        assert bound.address() == shown.format(server.getsockname()[1])

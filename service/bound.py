"""
Where the server listens, and whether it may without keys.

Knows BentoML's command lines; nothing of keys but how one is made, and nothing of requests.
"""

from __future__ import annotations

import ipaddress
import os
import socket

import click
from bentoml._internal.configuration.containers import BentoMLContainer

from models.errors import BadSetting
from service.keys import COMMAND
from service.settings import Settings


def host() -> str | None:
    """
    The address this process's server is bound to; None where no server is being started.

    A worker holds the bound socket, and it has the last word; before there are workers, the
    command line, which has read BENTOML_HOST too, and then BentoML's configuration.
    """
    command = click.get_current_context(silent=True)
    if command is None:
        return None
    if "fd" in command.params:
        with socket.socket(fileno=os.dup(command.params["fd"])) as bound:
            return str(bound.getsockname()[0])
    if "host" in command.params:
        return str(command.params["host"] or BentoMLContainer.http.host.get())
    return None


def address() -> str | None:
    """
    Where a browser on this machine finds the server that this process is a worker of.

    None where it is none, or its socket has no address.
    """
    command = click.get_current_context(silent=True)
    if command is None or "fd" not in command.params:
        return None
    with socket.socket(fileno=os.dup(command.params["fd"])) as bound:
        if bound.family not in (socket.AF_INET, socket.AF_INET6):
            return None
        host, port = bound.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:  # every address, and no browser's
        host = "localhost"
    scheme = "https" if command.params.get("ssl_certfile") else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def is_worker() -> bool:
    """Whether this process serves under another one that has started the server."""
    command = click.get_current_context(silent=True)
    return command is not None and "fd" in command.params


def check(settings: Settings, host: str | None) -> None:
    """Raises `BadSetting` for a server that others can reach and that would answer everybody."""
    if settings.keys is not None:
        if settings.auth is False:
            raise BadSetting("KADOGO_KEYS and KADOGO_AUTH=off contradict each other; give one")
        return
    if settings.auth:
        raise BadSetting(f"KADOGO_AUTH=on needs keys; {_MAKE_ONE}")
    if settings.auth is None and host is not None and not _is_loopback(host):
        raise BadSetting(
            f"bound to {host} it would answer whoever reaches it; {_MAKE_ONE}, or bind it to "
            "127.0.0.1 with --host, or say KADOGO_AUTH=off where something else asks who is there"
        )


_MAKE_ONE = f"make one with `{COMMAND} >> keys.toml` and give KADOGO_KEYS=keys.toml"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

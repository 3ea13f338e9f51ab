"""
What load tests ask the server beside the load: its variants, its workers.

HTTP and, where the server runs here, its processes. Knows nothing of load.
"""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

import psutil

from loadtest.record import Unusable

_open = build_opener(ProxyHandler({})).open


def fetch(host: str, path: str) -> bytes:
    """With KADOGO_KEY, where there is one."""
    key = os.environ.get("KADOGO_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with _open(Request(f"{host}{path}", headers=headers), timeout=30) as answer:
        return bytes(answer.read())


def get(host: str, path: str) -> Any:
    return json.loads(fetch(host, path))


def task_of(host: str, variant: str) -> str:
    """What that variant does. Raises Unusable."""
    try:
        return str(get(host, f"/v1/variants/{variant}")["task"])
    except HTTPError as error:
        raise Unusable(f"{host} has no variant {variant} to ask (HTTP {error.code})") from None
    except URLError as error:
        raise Unusable(f"no server answers at {host} ({error.reason}): run `make serve`") from None
    except (OSError, ValueError, TypeError, KeyError):
        raise Unusable(f"{host} does not describe {variant}: is it Kadogo?") from None


def workers_of(host: str) -> list[psutil.Process]:
    """The server's worker processes, if they run on this machine."""
    try:
        arbiter = psutil.Process(get(host, "/v1/status")["process"]).parent()
    except psutil.NoSuchProcess:
        return []
    return arbiter.children() if arbiter else []

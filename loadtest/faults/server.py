"""
What the faults need of the server they are done to: its variants, its workers.

HTTP and, where the server runs here, its processes. Knows nothing of faults.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

import psutil

_open = build_opener(ProxyHandler({})).open


def get(host: str, path: str) -> Any:
    with _open(Request(f"{host}{path}"), timeout=30) as answer:
        return json.load(answer)


def task_of(host: str, variant: str) -> str:
    """What that variant does."""
    return str(get(host, f"/v1/variants/{variant}")["task"])


def workers_of(host: str) -> list[psutil.Process]:
    """The server's worker processes, if they run on this machine."""
    try:
        arbiter = psutil.Process(get(host, "/v1/status")["process"]).parent()
    except psutil.NoSuchProcess:
        return []
    return arbiter.children() if arbiter else []

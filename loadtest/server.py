"""
What load tests ask the server beside the load: its variants, its workers.

HTTP and, where the server runs here, its processes. Knows nothing of load.
"""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

import psutil

from loadtest.record import Unusable

WORKER = "_bentoml_impl.worker.service"  # of BentoML's worker processes, in their command line

_open = build_opener(ProxyHandler({})).open


def fetch(host: str, path: str) -> bytes:
    """With KADOGO_KEY, where there is one."""
    key = os.environ.get("KADOGO_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with _open(Request(f"{host}{path}", headers=headers), timeout=30) as answer:
        return bytes(answer.read())


def get(host: str, path: str) -> Any:
    return json.loads(fetch(host, path))


def described(host: str, variant: str) -> dict[str, Any]:
    """What a server says of a variant: "task", "labels" and more. Raises Unusable."""
    try:
        every: dict[str, dict[str, Any]] = {
            each["name"]: each for each in get(host, "/v1/variants")["variants"]
        }
        if variant not in every:
            raise Unusable(f"{host} has no variant {variant} to ask: there are {', '.join(every)}")
        return every[variant]
    except HTTPError as error:
        raise Unusable(f"{host} does not list its variants (HTTP {error.code})") from None
    except URLError as error:
        raise Unusable(f"no server answers at {host} ({error.reason}): run `make serve`") from None
    except (OSError, ValueError, TypeError, KeyError):
        raise Unusable(f"{host}/v1/variants lists no variants: is it Kadogo?") from None


def workers_of(host: str) -> list[psutil.Process]:
    """
    The server's worker processes, if they run on this machine: the number of a process that a
    server elsewhere names may be somebody else's here.
    """
    port = urlsplit(host).port or 80
    try:
        told = psutil.Process(get(host, "/v1/status")["process"])
        arbiter = told.parent()
        family = arbiter.children() if arbiter else []
        found = [each for each in family if WORKER in each.cmdline()]
        if told in found and any(_listens(each, port) for each in (arbiter, told) if each):
            return found
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        pass
    return []


def _listens(process: psutil.Process, port: int) -> bool:
    return any(
        each.status == psutil.CONN_LISTEN and each.laddr.port == port
        for each in process.net_connections(kind="tcp")
    )

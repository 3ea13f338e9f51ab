"""
What load tests ask the server beside the load: its variants, its workers.

HTTP and, where the server runs here, its processes. Knows nothing of load.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from http.client import HTTPException
from typing import Any, TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

import psutil

from loadtest.record import Unusable

WORKER = "_bentoml_impl.worker.service"  # of BentoML's worker processes, in their command line

T = TypeVar("T")

_open = build_opener(ProxyHandler({})).open


def fetch(host: str, path: str) -> bytes:
    """With KADOGO_KEY, where there is one. Raises Unusable."""
    key = os.environ.get("KADOGO_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with _open(Request(f"{host}{path}", headers=headers), timeout=30) as answer:
            return bytes(answer.read())
    except HTTPError as error:
        what = "is KADOGO_KEY its key?" if error.code in (401, 403) else "is it Kadogo?"
        raise Unusable(f"{host}{path} answers HTTP {error.code}: {what}") from None
    except (OSError, HTTPException) as error:
        why = error.reason if isinstance(error, URLError) else error
        raise Unusable(f"no server answers at {host} ({why}): run `make serve`") from None


def get(host: str, path: str) -> Any:
    """Raises Unusable."""
    try:
        return json.loads(fetch(host, path))
    except ValueError:
        raise Unusable(f"{host}{path} answers no JSON: is it Kadogo?") from None


def variants(host: str, read: Callable[[dict[str, Any]], T]) -> list[T]:
    """All that a server has, each as it is read. Raises Unusable."""
    try:
        return [read(each) for each in get(host, "/v1/variants")["variants"]]
    except (TypeError, KeyError):
        raise Unusable(f"{host}/v1/variants lists no variants: is it Kadogo?") from None


def described(host: str, variant: str) -> dict[str, Any]:
    """What a server says of a variant: "task", "labels" and more. Raises Unusable."""
    every = dict(variants(host, lambda each: (str(each["name"]), each)))
    if variant not in every:
        raise Unusable(f"{host} has no variant {variant} to ask: there are {', '.join(every)}")
    return every[variant]


def workers_of(host: str) -> list[psutil.Process]:
    """
    The server's worker processes, if they run on this machine: the number of a process that a
    server elsewhere names may be somebody else's here. Raises Unusable.
    """
    port = urlsplit(host).port or 80
    try:
        told = psutil.Process(get(host, "/v1/status")["process"])
        arbiter = told.parent()
        family = arbiter.children() if arbiter else []
        found = [each for each in family if WORKER in each.cmdline()]
        if told in found and any(_listens(each, port) for each in (arbiter, told) if each):
            return found
    except (psutil.Error, TypeError, KeyError, ValueError):
        pass
    return []


def resident(processes: Iterable[psutil.Process]) -> int | None:
    """Bytes of those that are still there; None where there are none to look at."""
    bytes_ = []
    for each in processes:
        with suppress(psutil.Error):
            bytes_.append(int(each.memory_info().rss))
    return sum(bytes_) if bytes_ else None


def _listens(process: psutil.Process, port: int) -> bool:
    return any(
        each.status == psutil.CONN_LISTEN and each.laddr.port == port
        for each in process.net_connections(kind="tcp")
    )

"""
What the faults need of the server they are done to: its paths, its workers, bodies to ask it with.

HTTP and, where the server runs here, its processes. Knows nothing of faults.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

import psutil

PATHS = {"ner": "/v1/ner", "classification": "/v1/classify"}
_open = build_opener(ProxyHandler({})).open


def get(host: str, path: str) -> Any:
    with _open(Request(f"{host}{path}"), timeout=30) as answer:
        return json.load(answer)


def path_of(host: str, variant: str) -> str:
    """Where that variant is asked."""
    return PATHS[get(host, f"/v1/variants/{variant}")["task"]]


def bodies_of(variant: str, texts: Sequence[str]) -> list[bytes]:
    """A request for each text, to that variant by name."""
    return [json.dumps({"inputs": text, "variant": variant}).encode() for text in texts]


def workers_of(host: str) -> list[psutil.Process]:
    """The server's worker processes, if they run on this machine."""
    try:
        arbiter = psutil.Process(get(host, "/v1/status")["process"]).parent()
    except psutil.NoSuchProcess:
        return []
    return arbiter.children() if arbiter else []

"""
A peer in its own environment: its command, started until it answers rightly.

Knows nothing of load.
"""

from __future__ import annotations

import http.client
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from loadtest import process
from loadtest.peers import settings
from loadtest.peers.peers import ENVIRONMENTS, KADOGO, ROOT, Peer
from loadtest.peers.settings import Settings
from loadtest.process import NotServing, Server, free_port

READY_WITHIN_S = 120
STOPPED_WITHIN_S = 20  # some never end by themselves


def command_of(peer: Peer, port: int, told: Settings, environments: Path) -> list[str]:
    """What to run. Raises NotServing where the peer's environment is not there."""
    binaries = ROOT / ".venv" / "bin" if peer.name == KADOGO else environments / peer.name / "bin"
    program, *rest = peer.command
    if not (binaries / program).exists():
        how = "make .venv/.serve" if peer.name == KADOGO else f"make peer NAME={peer.name}"
        raise NotServing(f"{peer.name} is not installed: {how}")
    known = {"port": port, "workers": told.workers}
    return [str(binaries / program), *(word.format(**known) for word in rest)]


def environment_of(peer: Peer, model: Path, port: int, told: Settings) -> Mapping[str, str]:
    """`model`: of Kadogo a catalog, of the others a folder of files."""
    common = {**os.environ, "PYTHONPATH": str(ROOT), "BENTOML_DO_NOT_TRACK": "True"}
    if peer.name == KADOGO:
        return {**common, "KADOGO_CATALOG": str(model.resolve()), "TOKENIZERS_PARALLELISM": "false"}
    return {**common, **settings.environment(model, port, told)}


def serving(
    peer: Peer,
    model: Path,
    told: Settings,
    *,
    ask: tuple[str, str],
    environments: Path = ENVIRONMENTS,
) -> AbstractContextManager[Server]:
    """
    Run a peer for as long as the block lasts; `ask` is (a text, the model's name).

    Raises NotServing with the end of its log where it does not answer rightly in time.
    """
    port = free_port()
    text, name = ask
    path, body = peer.path_of(name), peer.body_of(text, name)
    return process.serving(
        peer.name,
        command_of(peer, port, told, environments),
        environment_of(peer, model, port, told),
        port=port,
        ready=lambda: _answers(peer, port, path, body),
        within_s=READY_WITHIN_S,
        stopped_within_s=STOPPED_WITHIN_S,
    )


def post(url: str, path: str, body: bytes) -> tuple[int, bytes]:
    host, _, port = url.removeprefix("http://").partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _answers(peer: Peer, port: int, path: str, body: bytes) -> bool:
    try:
        status, answer = post(f"http://127.0.0.1:{port}", path, body)
        if status != 200:
            return False
        peer.entities(answer)
    except Exception:  # not listening yet, or what a framework says while it starts
        return False
    return True

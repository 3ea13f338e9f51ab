"""
The peers: how each is started, asked and understood. Kadogo is one of them.

The contract is POST /ner {"inputs": text} -> {"entities": [{label, start, end, score}]}; where a
framework has a wire format of its own, the peer's own functions here translate. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENTS = ROOT / ".venv-peers"
KADOGO = "kadogo"


class Entity(NamedTuple):
    label: str
    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """
    command  to start it, below its environment's bin/; {port} is filled in
    path     that is asked; {model} is filled in
    body     what is sent for a text, to a model by name
    read     the entities of an answer, as the wire has them
    mark     bytes that every right answer has
    onnx     whether it runs model.onnx, int8 too; else the Hugging Face folder
    shown    what tables call it
    """

    name: str
    shown: str
    command: Sequence[str]
    path: str = "/ner"
    body: Callable[[str, str], Any] = lambda text, model: {"inputs": text}
    read: Callable[[Any], Any] = lambda said: said["entities"]
    mark: str = '"entities"'
    onnx: bool = True

    def body_of(self, text: str, model: str) -> bytes:
        return json.dumps(self.body(text, model), ensure_ascii=False).encode()

    def entities(self, body: bytes) -> tuple[Entity, ...]:
        """Raises an exception of some kind where the answer is another."""
        found = self.read(json.loads(body))
        return tuple(
            Entity(e["label"], int(e["start"]), int(e["end"]), float(e["score"])) for e in found
        )

    def path_of(self, model: str) -> str:
        return self.path.format(model=model)


def _module(name: str) -> Sequence[str]:
    return ("python", "-m", f"loadtest.peers.{name}.server")


def _uvicorn(name: str) -> Sequence[str]:
    told = ("--port", "{port}", "--workers", "{workers}", "--no-access-log")
    return ("uvicorn", f"loadtest.peers.{name}.server:app", *told, "--log-level", "warning")


def _bentoml(service: str) -> Sequence[str]:
    return ("bentoml", "serve", service, "--host", "127.0.0.1", "--port", "{port}")


def _first(said: Any) -> Any:
    return said[0]


PEERS: Mapping[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer(
            name=KADOGO,
            shown="Kadogo",
            command=_bentoml("service.app:Kadogo"),
            path="/v1/ner",
            body=lambda text, model: {
                "inputs": text,
                "variant": model,
                "parameters": {"aggregation": "simple"},  # as the others group pieces
            },
            read=lambda said: said["results"][0]["entities"],
            mark='"results"',
        ),
        Peer(
            name="fastapi",
            shown="FastAPI + transformers pipeline",
            command=_uvicorn("fastapi"),
            onnx=False,
        ),
        Peer(
            name="starlette",
            shown="Starlette + threads + onnxruntime",
            command=_uvicorn("starlette"),
        ),
        Peer(
            name="bentoml",
            shown="BentoML",
            command=_bentoml("loadtest.peers.bentoml.server:Server"),
            body=lambda text, model: {"inputs": [text]},
            read=_first,
            mark="[[",
        ),
        Peer(name="litserve", shown="LitServe", command=_module("litserve")),
        Peer(
            name="mosec",
            shown="mosec",
            command=(*_module("mosec"), "--address", "127.0.0.1", "--port", "{port}"),
        ),
        Peer(
            name="mlserver",
            shown="MLServer, custom runtime",
            command=_module("mlserver"),
            path="/v2/models/ner/infer",
            body=lambda text, model: {
                "inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [text]}]
            },
            read=lambda said: json.loads(said["outputs"][0]["data"][0]),
            mark='"outputs"',
        ),
        Peer(name="ray", shown="Ray Serve", command=_module("ray")),
    )
}

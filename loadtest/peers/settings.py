"""
How a peer is set: what its process is told by its starter, and nothing else.

Knows neither frameworks nor models.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

VARIABLE = "PEER"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """
    workers  processes that each hold the model
    threads  that call the model at once, in each worker
    intra    threads of onnxruntime or torch within one call
    batch    requests in one call at most; 1: none are batched
    wait_ms  for a batch to fill
    """

    workers: int = 1
    threads: int = 1
    intra: int = 1
    batch: int = 1
    wait_ms: float = 0.0

    def __str__(self) -> str:
        told = f"{self.workers} x {self.threads} x {self.intra}"
        return told if self.batch == 1 else f"{told}, batch {self.batch}, {self.wait_ms:g} ms"


@dataclass(frozen=True, slots=True)
class Told:
    """What a peer's server reads from its environment."""

    model: Path
    port: int
    settings: Settings


def environment(model: Path, port: int, settings: Settings) -> Mapping[str, str]:
    told = {"model": str(model.resolve()), "port": port, "settings": asdict(settings)}
    # Told here once for all: every framework reads some of these by itself, and each peer's own
    # number of threads is in its settings.
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(settings.intra))
    return {VARIABLE: json.dumps(told), "TOKENIZERS_PARALLELISM": "false", **threads}


def told() -> Told:
    said = json.loads(os.environ[VARIABLE])
    return Told(Path(said["model"]), said["port"], Settings(**said["settings"]))

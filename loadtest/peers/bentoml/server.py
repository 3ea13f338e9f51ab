"""
BentoML over onnxruntime, with its own adaptive batching where a call may hold more than one text.

A batchable endpoint takes and gives lists: the client sends a list of one.
"""

from __future__ import annotations

import bentoml

from loadtest.peers.ner import Entities, Ner
from loadtest.peers.settings import told

TOLD = told()


@bentoml.service(
    workers=TOLD.settings.workers,
    threads=TOLD.settings.threads,
    traffic={"timeout": 60},
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": ".*"},
)
class Server:
    def __init__(self) -> None:
        self.ner = Ner(TOLD.model, TOLD.settings.intra)

    @bentoml.api(
        route="/ner",
        batchable=TOLD.settings.batch > 1,
        max_batch_size=max(2, TOLD.settings.batch),
        max_latency_ms=60_000,  # only when to refuse: the dispatcher finds its own wait
    )
    def ask(self, inputs: list[str]) -> list[Entities]:
        return self.ner(inputs)

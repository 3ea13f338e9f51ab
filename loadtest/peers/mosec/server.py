"""Mosec with its batching, over onnxruntime. Its web server is Rust, in a process of its own."""

from __future__ import annotations

from typing import Any

import mosec

from loadtest.peers.ner import Entities, Ner
from loadtest.peers.settings import told

TOLD = told()


class Worker(mosec.Worker):
    def __init__(self) -> None:
        self.ner = Ner(TOLD.model, TOLD.settings.intra)

    def forward(self, data: Any) -> Any:
        if TOLD.settings.batch == 1:
            return answer(self.ner([data["inputs"]])[0])
        return [answer(each) for each in self.ner([each["inputs"] for each in data])]


def answer(entities: Entities) -> dict[str, Entities]:
    return {"entities": entities}


if __name__ == "__main__":
    server = mosec.Server()
    server.append_worker(
        Worker,
        num=TOLD.settings.workers,
        max_batch_size=TOLD.settings.batch,
        max_wait_time=max(1, round(TOLD.settings.wait_ms)),
        route="/ner",
    )
    server.run()

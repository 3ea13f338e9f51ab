"""Ray Serve with its batching, over onnxruntime; set for throughput as its documentation says."""

from __future__ import annotations

import os
import signal
import tempfile
from typing import Any

# Read as Ray is imported.
os.environ["RAY_SERVE_THROUGHPUT_OPTIMIZED"] = "1"
os.environ["RAY_SERVE_ENABLE_HA_PROXY"] = "1"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# By default Ray's replicas yield to every other process, the load generator too.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112

import ray
from ray import serve
from starlette.requests import Request

from loadtest.peers.ner import Entities, Ner
from loadtest.peers.settings import told

TOLD = told()
SETTINGS = TOLD.settings


class Replica:
    def __init__(self) -> None:
        self.ner = Ner(TOLD.model, SETTINGS.intra)

    @serve.batch(
        max_batch_size=SETTINGS.batch,
        batch_wait_timeout_s=SETTINGS.wait_ms / 1000,
        max_concurrent_batches=SETTINGS.threads,
    )
    async def batched(self, texts: list[str]) -> list[Entities]:
        return self.ner(texts)

    async def __call__(self, request: Request) -> Any:
        text = (await request.json())["inputs"]
        if SETTINGS.batch == 1:
            return {"entities": self.ner([text])[0]}
        return {"entities": await self.batched(text)}


Server = serve.deployment(
    num_replicas=SETTINGS.workers,
    max_ongoing_requests=1000,
    ray_actor_options={"num_cpus": 0.5},
)(Replica)

if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        ray.init(
            num_cpus=os.cpu_count(),
            include_dashboard=False,
            object_store_memory=200 * 2**20,
            log_to_driver=False,
            _temp_dir=folder,
        )
        serve.start(http_options={"host": "127.0.0.1", "port": TOLD.port, "access_log": False})
        serve.run(Server.bind(), route_prefix="/ner")
        signal.sigwait({signal.SIGTERM, signal.SIGINT})
        ray.shutdown()

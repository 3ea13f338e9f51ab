"""LitServe with its batching, over onnxruntime."""

# No annotations from __future__: LitServe reads those of decode_request and encode_response.
from typing import Any

import litserve
from fastapi import Request, Response

from loadtest.peers.ner import Entities, Ner
from loadtest.peers.settings import told

TOLD = told()


class Api(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.ner = Ner(TOLD.model, TOLD.settings.intra)

    def decode_request(self, request: Request) -> str:
        return str(request["inputs"])  # by now what was in its body

    def batch(self, inputs: list[str]) -> list[str]:
        return inputs

    def predict(self, texts: Any) -> Any:
        return self.ner(texts) if isinstance(texts, list) else self.ner([texts])[0]

    def unbatch(self, output: list[Entities]) -> list[Entities]:
        return output

    def encode_response(self, output: Any) -> Response:
        return {"entities": output}


if __name__ == "__main__":
    settings = TOLD.settings
    api = Api(
        max_batch_size=settings.batch,
        batch_timeout=settings.wait_ms / 1000,
        api_path="/ner",
    )
    server = litserve.LitServer(
        api, accelerator="cpu", workers_per_device=settings.workers, timeout=60, fast_queue=True
    )
    server.run(
        host="127.0.0.1",
        port=TOLD.port,
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )

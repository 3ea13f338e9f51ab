"""
MLServer with its adaptive batching: a custom runtime over onnxruntime, on the V2 protocol.

Its Hugging Face runtime is not taken: README.md says why.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.types import InferenceRequest, InferenceResponse

from loadtest.peers.ner import Ner
from loadtest.peers.settings import Told, told

NAME = "ner"


class Server(MLModel):
    async def load(self) -> bool:
        this = told()
        self.ner = Ner(this.model, this.settings.intra)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        texts = StringCodec.decode_input(payload.inputs[0])
        found = [json.dumps(entities) for entities in self.ner(texts)]
        outputs = [StringCodec.encode_output("entities", found)]
        return InferenceResponse(model_name=self.name, outputs=outputs)


def settings(this: Told) -> dict[str, object]:
    return {
        "host": "127.0.0.1",
        "http_port": this.port,
        "grpc_port": 0,  # any: nobody asks there
        "metrics_endpoint": None,
        "parallel_workers": this.settings.workers if this.settings.workers > 1 else 0,
        "use_structured_logging": False,
        "debug": False,
    }


def model_settings(this: Told) -> dict[str, object]:
    return {
        "name": NAME,
        "implementation": "loadtest.peers.mlserver.server.Server",
        "max_batch_size": this.settings.batch,
        "max_batch_time": this.settings.wait_ms / 1000,
    }


if __name__ == "__main__":
    this = told()
    folder = Path(tempfile.mkdtemp(prefix="mlserver"))
    (folder / "settings.json").write_text(json.dumps(settings(this)))
    (folder / "model-settings.json").write_text(json.dumps(model_settings(this)))
    binary = Path(sys.executable).with_name("mlserver")
    os.execv(binary, [str(binary), "start", str(folder)])

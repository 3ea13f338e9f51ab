"""
Runs a Hugging Face folder as its readers would: torch and transformers, eager.

The only file outside build/ that imports torch; left out of the slim image.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from models.errors import BrokenVariant
from models.session import Halt, SessionOptions
from models.spec import Task, Variant

_MODELS: dict[Task, Any] = {
    Task.NER: AutoModelForTokenClassification,
    Task.CLASSIFICATION: AutoModelForSequenceClassification,
}


class TorchSession:
    """
    A folder with config.json and model.safetensors, in float32 on the CPU.

    `options.threads` is torch's own number for the whole process; the other options are
    onnxruntime's.
    """

    multiple = 1

    def __init__(self, variant: Variant, folder: Path, options: SessionOptions) -> None:
        torch.set_num_threads(options.threads)
        try:
            model, report = _MODELS[variant.task].from_pretrained(
                folder, local_files_only=True, dtype=torch.float32, output_loading_info=True
            )
        except Exception as error:  # transformers raises many kinds
            reason = str(error).strip().partition("\n")[0]
            raise BrokenVariant(f"the checkpoint does not load: {reason}") from error
        if report["missing_keys"]:
            missing = sorted(report["missing_keys"])
            raise BrokenVariant(f"the checkpoint lacks {len(missing)} weights: {missing[0]} first")
        self._model = model.eval()

    def run(
        self, ids: NDArray[np.int64], mask: NDArray[np.int64], halt: Halt | None = None
    ) -> NDArray[np.float32]:
        with torch.inference_mode():
            output = self._model(
                input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)
            )
        logits: NDArray[np.float32] = output.logits.numpy()
        return logits

"""
Fine-tuned networks in torch: which class a task's is, and reading one from its checkpoint.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from build.checkpoint import Purpose
from build.errors import BuildError
from models.spec import Task

AUTO: dict[Task, Any] = {
    Task.NER: AutoModelForTokenClassification,
    Task.CLASSIFICATION: AutoModelForSequenceClassification,
}


def load(source: Path, purpose: Purpose) -> Any:
    """The torch network in float32, ready to run. Raises BuildError where windows do not fit."""
    network = AUTO[purpose.task].from_pretrained(
        source, dtype=torch.float32, attn_implementation="eager", local_files_only=True
    )
    room = longest_window(network.config)
    if purpose.windows.tokens > room:
        raise BuildError(
            f"windows of {purpose.windows.tokens} tokens pass the network's {room} positions"
        )
    return network.eval()


def longest_window(config: Any) -> int:
    """XLM-R counts positions from the padding id on: the first two of 514 are never a token's."""
    return int(config.max_position_embeddings) - int(config.pad_token_id) - 1

"""
A graph that another runtime than onnxruntime is to run: the same file, and a word beside it.

Knows nothing of what a runtime does with a graph; how one is opened is in models/.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from build.checkpoint import copy_files, write_runtime
from build.graph import CARRIED, MODEL, PARITY, Ints, changed_parity
from build.steps import RunWith
from models.session import SessionOptions
from models.spec import Runtime


def run_with(step: RunWith, source: Path, target: Path) -> None:
    """
    Copy `source/model.onnx` into `target`, to be run by the step's runtime.

    Raises BrokenVariant where that runtime is not installed or cannot run the graph here, and
    BuildError where its logits are not finite.
    """
    from models.runtime_openvino import OpenvinoSession

    copy_files(source, target, (*CARRIED, MODEL, f"{MODEL}.data"))
    write_runtime(target, Runtime(step.runtime))
    session = OpenvinoSession(None, target, SessionOptions())

    def run(feed: Mapping[str, Ints]) -> NDArray[np.float32]:
        return session.run(feed["input_ids"], feed["attention_mask"])

    (target / PARITY).write_bytes(msgspec.json.encode(changed_parity(source, run)))

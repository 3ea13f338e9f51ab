"""
Runs `model.onnx`, packed or not, with OpenVINO on the CPU. The only file that imports openvino,
which is installed apart; knows nothing of text or labels.

How weights are stored says how they are multiplied: those in bfloat16 in bfloat16, all others in
float32, and int8 ones with int8 activations where the graph says so. Nothing is left to the host:
one that has no bfloat16 refuses a graph that wants it, for float32 answers would be others.
"""

from __future__ import annotations

import os
import threading
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import stored
from models.errors import BrokenVariant
from models.session import Halt, SessionOptions, check_names, feed
from models.spec import Variant

try:
    import openvino as ov
except ImportError as error:
    raise BrokenVariant(
        f"this is an OpenVINO variant and {error.name} is missing: "
        "pip install -r requirements/openvino.txt"
    ) from error

MODEL = "model.onnx"
_CPU = "CPU"
# A vector of AVX-512 holds 16 float32, a tile of AMX is 32 bfloat16 deep.
_MULTIPLES = {ov.Type.f32: 16, ov.Type.bf16: 32}


class OpenvinoSession:
    """
    A graph with inputs `input_ids`, `attention_mask` and perhaps `token_type_ids`.

    A text gets the same logits alone and in company if batches are a `multiple` of tokens wide.
    At other widths company moves them, though by little: logits of 4x384 by up to 3e-6 in float32
    and 0.007 in bfloat16, for what does not fill a vector or a tile is summed in another order.

    `options.threads` share a run; there are as many runs at a time as the cores allow, more wait.
    The other options are onnxruntime's. `variant` is not looked at: the graph says all.
    """

    def __init__(self, variant: Variant | None, folder: Path, options: SessionOptions) -> None:
        try:
            file = folder / MODEL
            graph = _core().read_model(stored.read(file) if stored.is_packed(file) else file)
            precision = _precision(graph)
            settings = {**_settings(options), "INFERENCE_PRECISION_HINT": precision}
            self._compiled = _core().compile_model(graph, _CPU, settings)
        except BrokenVariant:
            raise
        except Exception as error:  # RuntimeError for all; what went wrong is said last
            reason = (str(error).strip() or repr(error)).splitlines()[-1].lstrip("- ")
            raise BrokenVariant(f"{MODEL} does not load: {reason}") from error
        self._inputs = {each.any_name for each in self._compiled.inputs}
        check_names(MODEL, self._inputs, [each.any_name for each in self._compiled.outputs])
        self.multiple = _MULTIPLES[precision]
        self._own = threading.local()  # a request is one thread's: it holds the run's memory

    def run(
        self, ids: NDArray[np.int64], mask: NDArray[np.int64], halt: Halt | None = None
    ) -> NDArray[np.float32]:
        if not hasattr(self._own, "request"):
            self._own.request = self._compiled.create_infer_request()
        found = self._own.request.infer(feed(self._inputs, ids, mask), share_inputs=True)
        return np.asarray(found["logits"], np.float32)


@cache
def _core() -> Any:
    return ov.Core()


def _precision(graph: Any) -> Any:
    """What is multiplied in: bfloat16 where weights are stored in it, else float32."""
    constants = (each for each in graph.get_ops() if each.get_type_name() == "Constant")
    if ov.Type.bf16 not in {each.get_element_type() for each in constants}:
        return ov.Type.f32
    if not has_bfloat16():
        raise BrokenVariant(
            "its weights are bfloat16, which this processor does not multiply in: "
            "serve a variant with others"
        )
    return ov.Type.bf16


def has_bfloat16() -> bool:
    """Whether this processor multiplies in bfloat16 by itself: AMX, AVX-512 BF16 or the like."""
    return "BF16" in _core().get_property(_CPU, "OPTIMIZATION_CAPABILITIES")


def _settings(options: SessionOptions) -> dict[str, Any]:
    """
    Runs at a time are OpenVINO's streams: with one, two threads would take turns.

    Nothing is quantized on the way: OpenVINO would do so to the rows that meet int8 weights, on
    processors where that is fast.
    """
    streams = max(1, _cores() // options.threads)
    return {
        "NUM_STREAMS": streams,
        "INFERENCE_NUM_THREADS": streams * options.threads,
        "ENABLE_CPU_PINNING": False,
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    }


def _cores() -> int:
    """That this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

"""
Runs `model.onnx`, packed or not. The only file that imports onnxruntime; knows nothing of text or
labels.
"""

from __future__ import annotations

import platform
from functools import cache, partial
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from models import stored
from models.errors import BadSetting, BrokenVariant
from models.session import Halt, Halted, SessionOptions, check_names, feed
from models.spec import Variant

MODEL = "model.onnx"
_CPU = "CPUExecutionProvider"
_ONLY_ERRORS = 3
# onnxruntime's fused Add + LayerNormalization is slower on a CPU than the two apart: without it
# int8 of the AfriBERTa-base shape reads 1.19 times the tokens a second (one Zen 5 core, 32 x 8).
_SLOWER = ["SkipLayerNormFusion"]


class OnnxSession:
    """A graph with inputs `input_ids`, `attention_mask` and perhaps `token_type_ids`."""

    multiple = 1

    def __init__(self, variant: Variant, folder: Path, options: SessionOptions) -> None:
        try:
            file = folder / MODEL
            self._session = ort.InferenceSession(
                stored.read(file) if stored.is_packed(file) else file,
                _onnxruntime_options(options),
                providers=providers(options),
                disabled_optimizers=_SLOWER,
            )
        except (BadSetting, BrokenVariant):
            raise
        except Exception as error:  # onnxruntime's own classes share no closer base
            reason = str(error).strip().partition("\n")[0]
            raise BrokenVariant(f"{MODEL} does not load: {reason}") from error
        self._session._model_bytes = None  # onnxruntime has its own copy and would keep this one
        self._inputs = {each.name for each in self._session.get_inputs()}
        check_names(MODEL, self._inputs, [each.name for each in self._session.get_outputs()])

    def run(
        self, ids: NDArray[np.int64], mask: NDArray[np.int64], halt: Halt | None = None
    ) -> NDArray[np.float32]:
        of_this_run = None
        if halt:
            of_this_run = ort.RunOptions()
            halt.by(partial(setattr, of_this_run, "terminate", True))
        try:
            (logits,) = self._session.run(["logits"], feed(self._inputs, ids, mask), of_this_run)
        except Exception as error:  # as above
            if halt and halt.asked:
                raise Halted from error
            raise
        return np.asarray(logits, np.float32)


def providers(options: SessionOptions) -> list[str]:
    """The chosen execution provider, then the CPU's. Raises BadSetting where the host lacks it."""
    available = ort.get_available_providers()
    if options.provider not in available:
        raise BadSetting(
            f"execution provider {options.provider} is not available here; "
            f"this onnxruntime has {', '.join(available)}"
        )
    return list(dict.fromkeys([options.provider, _CPU]))


def _onnxruntime_options(options: SessionOptions) -> ort.SessionOptions:
    chosen = ort.SessionOptions()
    chosen.intra_op_num_threads = options.threads
    chosen.inter_op_num_threads = 1
    chosen.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    chosen.enable_cpu_mem_arena = options.arena
    chosen.enable_mem_pattern = options.memory_pattern
    chosen.log_severity_level = _ONLY_ERRORS
    chosen.add_session_config_entry("session.intra_op.allow_spinning", str(int(options.spinning)))
    if _products_may_overflow():
        chosen.add_session_config_entry("session.x64quantprecision", "1")
    return chosen


@cache
def _products_may_overflow() -> bool:
    """
    Whether this processor adds uint8 x int8 products in 16 bits: x86 without VNNI.

    onnxruntime then has a slower exact way. It would take it with VNNI too, where nothing can
    overflow and int8 runs at two thirds of its speed, so it is asked for only here.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return True
    return not flags & {"avx512_vnni", "avx_vnni"}

"""
What can run a model: what it takes, what it gives, and how it uses its host.

Knows no engine.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.errors import BrokenVariant

INPUTS = frozenset({"input_ids", "attention_mask", "token_type_ids"})


class Halted(Exception):
    """A run was ended before it was done."""


class Halt:
    """
    A way to end one run from another thread, where what runs it can be told.

    asked  whether it is to end: `now` was called
    """

    __slots__ = ("_stop", "asked")

    def __init__(self) -> None:
        self.asked = False
        self._stop: Callable[[], None] | None = None

    def now(self) -> None:
        """End the run, or the one that is to come. One that is done is not touched."""
        self.asked = True
        if self._stop:
            self._stop()

    def by(self, stop: Callable[[], None]) -> None:
        """How the run that begins now is ended."""
        self._stop = stop
        if self.asked:
            stop()


class Session(Protocol):
    """
    A loaded model. Safe to share between threads.

    multiple  of tokens that batches are to be wide: at other widths padding may move answers
    """

    @property
    def multiple(self) -> int: ...

    def run(
        self, ids: NDArray[np.int64], mask: NDArray[np.int64], halt: Halt | None = None
    ) -> NDArray[np.float32]:
        """
        (batch, tokens) ids and mask of ones -> (batch, tokens, labels) or (batch, labels).

        Raises `Halted` where `halt` ended it; an engine that cannot be told runs to its end.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """
    How a model uses its host.

    threads         that share one run; one each and as many runs as cores gives most texts/s
    spinning        whether idle threads burn a core waiting; several sessions then fight for it
    provider        of onnxruntime; CUDAExecutionProvider where onnxruntime-gpu is installed
    arena           whether onnxruntime keeps memory it once needed
    memory_pattern  whether onnxruntime plans memory per input shape; texts differ in length
    """

    threads: int = 1
    spinning: bool = False
    provider: str = "CPUExecutionProvider"
    arena: bool = False
    memory_pattern: bool = False


def check_names(model: str, inputs: Collection[str], outputs: Collection[str]) -> None:
    """Raises `BrokenVariant` where a graph is of another kind."""
    if set(inputs) - INPUTS or "input_ids" not in inputs:
        raise BrokenVariant(
            f"{model} has inputs {sorted(inputs)}, "
            "expected input_ids, attention_mask and at most token_type_ids"
        )
    if "logits" not in outputs:
        raise BrokenVariant(f"{model} has outputs {list(outputs)}, expected logits")


def feed(
    inputs: Collection[str], ids: NDArray[np.int64], mask: NDArray[np.int64]
) -> dict[str, NDArray[np.int64]]:
    """What a graph reads of a batch, by the names of its inputs."""
    known = {"input_ids": ids, "attention_mask": mask}
    if "token_type_ids" in inputs:
        known["token_type_ids"] = np.zeros_like(ids)
    return {name: array for name, array in known.items() if name in inputs}

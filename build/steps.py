"""
The steps a variant is made by, as data. Knows nothing of torch, files or how a step is done.

A step's text (`str(step)`) is its identity: it names cached checkpoints and stands in the
manifest's lineage. When a step's code changes its meaning, raise its `version`.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from models.spec import Task

Positive = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(ge=0, le=1)]
Rate = Annotated[float, Meta(gt=0)]


class Step(msgspec.Struct, frozen=True):
    """One transform: a checkpoint folder in, a checkpoint folder out."""

    def __str__(self) -> str:
        fields = (f"{name}={_text(getattr(self, name))}" for name in self.__struct_fields__)
        return f"{type(self).__name__}({', '.join(fields)})"


class TrainTokenizer(Step, frozen=True, kw_only=True):
    """Unigram pieces (Kudo 2018) from the pretraining and training text, languages balanced."""

    vocabulary: Positive = 12_000
    sentences: Positive = 400_000
    seed: int = 1
    version: int = 1


class Pretrain(Step, frozen=True, kw_only=True):
    """Masked-language modelling (Devlin 2019) of a fresh XLM-RoBERTa-type encoder."""

    layers: Positive = 4
    hidden: Positive = 256
    heads: Positive = 4
    inner: Positive = 1024
    tokens: Positive = 4_000_000
    window: Positive = 128
    batch_tokens: Positive = 2_048
    masked: Share = 0.15
    peak: Rate = 7e-4
    warmup: Share = 0.06
    seed: int = 1
    version: int = 1


class Finetune(Step, frozen=True, kw_only=True):
    """Supervised training of the whole network with a fresh head."""

    task: Task
    languages: tuple[str, ...]
    epochs: Positive
    window: Positive = 256
    overlap: int = 64
    batch_tokens: Positive = 4_096
    peak: Rate = 5e-4
    warmup: Share = 0.1
    dropout: Share = 0.1
    seed: int = 1
    version: int = 1


class Export(Step, frozen=True, kw_only=True):
    """To ONNX with dynamic axes. At 16 bits the weights are rounded first, then compared."""

    weights: str = "float32"
    version: int = 1


class Quantize(Step, frozen=True, kw_only=True):
    """Dynamic int8: a scale per weight column, per activation row and per embedding row."""

    bits: int = 8
    version: int = 1


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return "+".join(str(item) for item in value)
    return str(value)

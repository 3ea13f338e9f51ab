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


class CountEmbeddings(Step, frozen=True, kw_only=True):
    """
    A fresh XLM-RoBERTa-type encoder whose embeddings are factors of how often pieces stand near
    each other (Levy, Goldberg and Dagan 2015) in `tokens` of running text.
    """

    layers: Positive = 4
    hidden: Positive = 256
    heads: Positive = 4
    inner: Positive = 1024
    tokens: Positive = 50_000_000
    seed: int = 1
    version: int = 1


class Pretrain(Step, frozen=True, kw_only=True):
    """Masked-language modelling (Devlin et al. 2019) of an encoder on running text."""

    tokens: Positive
    window: Positive = 128
    batch_tokens: Positive = 2_048
    masked: Share = 0.15
    peak: Rate = 7e-4
    warmup: Share = 0.06
    seed: int = 1
    version: int = 2


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


class Distill(Step, frozen=True, kw_only=True):
    """
    A student made of some of the teacher's layers learns the teacher's answers and hidden states
    (Sanh et al. 2019, Jiao et al. 2020) on the teacher's training text and on text without gold.

    layers       of the teacher, from 0, that the student keeps and whose output it imitates
    transfer     how many texts without gold are added to the training texts
    temperature  by which both networks' logits are divided before they are compared
    soft         weight of the teacher's answers; gold labels have what is left to 1
    hidden       weight of the hidden states' mean squared error
    """

    layers: tuple[int, ...]
    epochs: Positive
    transfer: int = 50_000
    temperature: Rate = 2.0
    soft: Share = 0.8
    hidden: float = 0.5
    batch_tokens: Positive = 4_096
    peak: Rate = 5e-4
    warmup: Share = 0.1
    seed: int = 1
    version: int = 1


class Calibrate(Step, frozen=True, kw_only=True):
    """
    One temperature for all logits (Guo et al. 2017), so that scores say how often they are right.

    texts  of the dev split that it is found on, the same number of each language
    """

    texts: Positive = 3_000
    seed: int = 1
    version: int = 1


class Export(Step, frozen=True, kw_only=True):
    """To ONNX with dynamic axes. At 16 bits the weights are rounded first, then compared."""

    weights: str = "float32"
    version: int = 1


class Restore(Step, frozen=True, kw_only=True):
    """
    An exported network back to torch, to be compressed further.

    Where the catalog has the variant that the steps before this one make, it is taken from there
    instead of made again: what follows is then taught by the published weights themselves.
    """

    version: int = 1


class Quantize(Step, frozen=True, kw_only=True):
    """Dynamic int8: a scale per weight column, per activation row and per embedding row."""

    bits: int = 8
    version: int = 1


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return "+".join(str(item) for item in value)
    return str(value)

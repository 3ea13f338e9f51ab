"""
Every noun of Kadogo as a frozen value: tasks, answers, manifests, evidence.

`python -m models.spec` prints `variant.schema.json`; a test keeps file and code equal.
Knows nothing of files, models, torch or HTTP.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any

import msgspec
from msgspec import Meta

FORMAT = "kadogo-variant/1"
# The label of what is in no entity.
OUTSIDE = "O"

# Patterns as JSON Schema has them. In Python $ matches before a last line break too.
NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$(?!\n)"
LANGUAGE = r"^[a-z]{2,3}$(?!\n)"


class Task(StrEnum):
    NER = "ner"
    CLASSIFICATION = "classification"


class Runtime(StrEnum):
    ONNX = "onnx"
    TORCH = "torch"
    OPENVINO = "openvino"


class Input(StrEnum):
    """
    How a scored text was written: as callers write ("Abuja."), as corpora do ("Abuja ."), some
    sentences in a row as articles have them, or of an article the headline alone.
    """

    RAW = "raw"
    TOKENISED = "tokenised"
    JOINED = "joined"
    HEADLINE = "headline"


class Aggregation(StrEnum):
    """How pieces become entities, as Hugging Face's token-classification pipeline names it."""

    NONE = "none"
    SIMPLE = "simple"
    FIRST = "first"
    AVERAGE = "average"
    MAX = "max"


class OffsetUnit(StrEnum):
    """What `start` and `end` count: code points (Python) or UTF-16 units (JavaScript, Java)."""

    CODEPOINT = "codepoint"
    UTF16 = "utf16"


class Squash(StrEnum):
    """How the logits of a text's labels become their scores; `none` leaves them as they are."""

    SIGMOID = "sigmoid"
    SOFTMAX = "softmax"
    NONE = "none"


class Value(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A frozen value that reads and writes itself as JSON and refuses unknown fields."""


# --- answers ---------------------------------------------------------------------------------


class Entity(Value, frozen=True, kw_only=True, omit_defaults=True):
    """
    One entity: `text[start:end] == entity.text` in the caller's own string.

    Without aggregation one piece, and then also `index`, its number in the text from 1 on, and
    `piece`, how the vocabulary spells it; one unknown to the vocabulary is spelt as the text.
    """

    label: str
    start: int
    end: int
    text: str
    score: float
    index: int | None = None
    piece: str | None = None


class LabelScore(Value, frozen=True, kw_only=True):
    label: str
    score: float


class NerAnswer(Value, frozen=True, kw_only=True):
    """
    entities  in the order of the text
    tokens    pieces the text became, special tokens not counted
    windows   model inputs they were read in
    unknown   share of non-space characters encoded as unknown or as byte pieces, 0 to 1
    """

    entities: tuple[Entity, ...]
    tokens: int
    windows: int
    unknown: float


class ClassificationAnswer(Value, frozen=True, kw_only=True):
    """As `NerAnswer`; `labels` come best first."""

    labels: tuple[LabelScore, ...]
    tokens: int
    windows: int
    unknown: float


Answer = NerAnswer | ClassificationAnswer


class Options(Value, frozen=True, kw_only=True):
    """
    What a caller may ask of an answer.

    ignore  kinds of entities that are left out; without aggregation, whole labels
    top_k   None: every label
    squash  None: as the variant was trained; `min_score` is of scores, not of bare logits
    """

    aggregation: Aggregation = Aggregation.FIRST
    min_score: Annotated[float, Meta(ge=0, le=1)] = 0.0
    top_k: Annotated[int, Meta(ge=1)] | None = None
    offset_unit: OffsetUnit = OffsetUnit.CODEPOINT
    ignore: frozenset[str] = frozenset({OUTSIDE})
    squash: Squash | None = None


# --- evidence --------------------------------------------------------------------------------


class Interval(Value, frozen=True, kw_only=True):
    """A measured mean with its 95 % interval. `n`: the units measured (texts, entities, runs)."""

    n: int
    mean: float
    low: float
    high: float


class Scores(Value, frozen=True, kw_only=True):
    """One metric: the mean over languages, and each language (ISO 639-3)."""

    macro: Interval
    languages: dict[str, Interval]


class Speed(Value, frozen=True, kw_only=True):
    """
    Measured on one core in one interleaved run with the fp32 baseline.

    tokens_per_second      tokens with specials, no padding counted
    ratio_to_baseline      its quotient by the fp32 baseline of the same run
    load_seconds           from folder to first answer
    resident_bytes         growth of the process by loading the variant and answering
    host                   that it was measured on; None in older manifests: where the scores were
    """

    tokens_per_second: Interval
    ratio_to_baseline: Interval
    load_seconds: Interval
    resident_bytes: int
    host: str | None = None


class Evidence(Value, frozen=True, kw_only=True):
    """
    What was measured, on what, by which command and commit.

    quality       metric -> input -> scores; metrics are f1, accuracy; in [0, 1]
    difference    the same, paired with the baseline on the same texts: this minus baseline
    calibration   input -> expected calibration error of the scores in answers, in [0, 1]
    disagreement  input -> share of what this or the baseline says that the other does not
    seeds         macro F1, raw, of the same recipe fine-tuned with other seeds, by seed
    parity        largest difference of a logit to the torch original, where there is one
    """

    data: str
    split: str
    command: str
    commit: str
    date: str
    host: str
    quality: dict[str, dict[Input, Scores]] = {}
    difference: dict[str, dict[Input, Scores]] = {}
    calibration: dict[Input, Scores] = {}
    disagreement: dict[Input, Scores] = {}
    seeds: dict[int, float] = {}
    parity: float | None = None
    speed: Speed | None = None


# --- manifest --------------------------------------------------------------------------------


class File(Value, frozen=True, kw_only=True):
    sha256: str
    bytes: int


class Windows(Value, frozen=True, kw_only=True):
    """How long texts are read: windows of `tokens` pieces, specials included, sharing `overlap`."""

    tokens: Annotated[int, Meta(ge=8)]
    overlap: Annotated[int, Meta(ge=0)]

    def __post_init__(self) -> None:
        if self.overlap >= self.tokens - 2:
            raise ValueError(f"overlap {self.overlap} leaves no step in windows of {self.tokens}")


class Golden(Value, frozen=True, kw_only=True):
    """A text written for the project and the answer the variant gave where it was made."""

    text: str
    language: str
    entities: tuple[Entity, ...] | None = None
    labels: tuple[LabelScore, ...] | None = None


class Licence(Value, frozen=True, kw_only=True):
    """Of the weights. `sources`: each corpus with its own licence and citation."""

    name: str
    sources: tuple[str, ...]


class Variant(Value, frozen=True, kw_only=True, dict=True):
    """
    One servable artefact: what `variant.json` says of its folder.

    lineage      the steps that made it, in order, as text
    parent       the variant it was compressed from; None for a baseline
    multi_label  classification by sigmoid instead of softmax
    files        name -> hash and bytes, for every file but variant.json itself
    weights      weight elements by stored dtype, e.g. {"float16": 6400000}, as `weights.census`
                 counts them: int64 and bool constants are shapes and indices, not weights
    parameters   of the model, however stored
    sparsity     share of the parameters that are exactly zero
    """

    format: str = FORMAT
    name: Annotated[str, Meta(pattern=NAME)]
    task: Task
    runtime: Runtime
    labels: tuple[str, ...]
    languages: tuple[str, ...]
    multi_label: bool = False
    windows: Windows
    parent: str | None = None
    lineage: tuple[str, ...]
    description: str
    licence: Licence
    files: dict[str, File]
    weights: dict[str, int]
    parameters: int
    sparsity: float
    golden: tuple[Golden, ...]
    evidence: Evidence | None = None

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ValueError(f"format is {self.format}, this code reads {FORMAT}")
        if len(set(self.labels)) != len(self.labels) or not self.labels:
            raise ValueError(f"labels must be distinct and at least one: {self.labels}")

    @cached_property
    def bytes(self) -> int:
        """Size of the files the manifest lists; variant.json itself comes on top."""
        return sum(file.bytes for file in self.files.values())

    @cached_property
    def digest(self) -> str:
        """Names what answers: a hash over the files' hashes and the windows, 16 hex digits."""
        lines = sorted(f"{name} {file.sha256}" for name, file in self.files.items())
        lines.append(f"windows {self.windows.tokens} {self.windows.overlap}")
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def schema() -> dict[str, Any]:
    """The JSON schema of `variant.json`."""
    return msgspec.json.schema(Variant)


if __name__ == "__main__":  # python -m models.spec > models/variant.schema.json
    print(msgspec.json.format(msgspec.json.encode(schema()), indent=2).decode())

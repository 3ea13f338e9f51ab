"""
What Open Inference Protocol v2 says of the server and of a variant, as values.

Knows nothing of lanes, tensors' contents or HTTP.
"""

from __future__ import annotations

import msgspec

from models.spec import Runtime, Task, Variant
from service.schemas import VERSION, State, VariantStatus
from service.settings import Settings
from service.tensors import TEXT, Datatype

# What a variant of the task answers with, a row for each text.
OUTPUTS: dict[Task, dict[str, Datatype]] = {
    Task.NER: {"entities": "BYTES"},
    Task.CLASSIFICATION: {"labels": "BYTES", "label": "BYTES", "score": "FP32"},
}
# As the protocol and as Triton's model configuration call them.
_PLATFORMS = {
    Runtime.ONNX: ("onnx_onnxv1", "onnxruntime"),
    Runtime.OPENVINO: ("openvino_onnxv1", "openvino"),
    Runtime.TORCH: ("pytorch_safetensors", "pytorch"),
}
_TYPES: dict[Datatype, str] = {"BYTES": "TYPE_STRING", "FP32": "TYPE_FP32"}


class ServerMetadata(msgspec.Struct, frozen=True, kw_only=True):
    name: str = "kadogo"
    version: str = VERSION
    extensions: tuple[str, ...] = (
        "binary_tensor_data",
        "model_configuration",
        "model_repository",
        "parameters",
        "statistics",
    )


class Live(msgspec.Struct, frozen=True):
    live: bool


class Ready(msgspec.Struct, frozen=True):
    ready: bool


class ModelReady(msgspec.Struct, frozen=True):
    name: str
    ready: bool


class TensorMetadata(msgspec.Struct, frozen=True):
    """`shape`: -1 where it is as long as the request has texts."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...] = (-1,)


class ModelMetadata(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ConfigTensor(msgspec.Struct, frozen=True):
    name: str
    data_type: str
    dims: tuple[int, ...] = (-1,)


class ConfigParameter(msgspec.Struct, frozen=True):
    string_value: str


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True):
    """
    max_batch_size  0: the one dimension is not a batch's but the number of texts
    parameters      what else there is to know, under names of ours
    """

    name: str
    platform: str
    backend: str
    max_batch_size: int = 0
    input: list[ConfigTensor]
    output: list[ConfigTensor]
    parameters: dict[str, ConfigParameter]


class IndexRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`ready`: leave out what cannot answer."""

    ready: bool = False


class ChangeParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`unload_dependents`: there are none; Triton's clients say it all the same."""

    unload_dependents: bool = False


class ChangeRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of loading and unloading, in which there is nothing to choose."""

    parameters: ChangeParameters | None = None


class IndexEntry(msgspec.Struct, frozen=True, kw_only=True):
    """`state`: READY or UNAVAILABLE; `reason`: why, where it is not READY."""

    name: str
    version: str
    state: str
    reason: str


def metadata(variant: Variant) -> ModelMetadata:
    return ModelMetadata(
        name=variant.name,
        versions=(variant.digest,),
        platform=_PLATFORMS[variant.runtime][0],
        inputs=[TensorMetadata(TEXT, "BYTES")],
        outputs=[TensorMetadata(name, kind) for name, kind in OUTPUTS[variant.task].items()],
    )


def config(variant: Variant, settings: Settings) -> ModelConfig:
    platform, backend = _PLATFORMS[variant.runtime]
    parameters = {
        "task": variant.task,
        "labels": ",".join(variant.labels),
        "languages": ",".join(variant.languages),
        "max_inputs": str(settings.max_inputs),
        "max_text": str(settings.max_text),
    }
    outputs = OUTPUTS[variant.task].items()
    return ModelConfig(
        name=variant.name,
        platform=platform,
        backend=backend,
        input=[ConfigTensor(TEXT, _TYPES["BYTES"])],
        output=[ConfigTensor(name, _TYPES[kind]) for name, kind in outputs],
        parameters={name: ConfigParameter(value) for name, value in parameters.items()},
    )


def entry(name: str, status: VariantStatus) -> IndexEntry:
    ready = status.state is State.READY
    return IndexEntry(
        name=name,
        version=status.digest or "",
        state="READY" if ready else "UNAVAILABLE",
        reason=status.reason or ("" if ready else str(status.state)),
    )

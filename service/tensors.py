"""
Tensors on the wire: the requests and answers of Open Inference Protocol v2, in JSON and in the
binary form that may follow it, as pure functions.

Knows nothing of variants, tasks or HTTP.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple, NoReturn

import msgspec
from msgspec import Meta

from models.errors import MalformedRequest, TooLarge
from service.forms import UNKNOWN, FieldError, FieldsInvalid, decoded, pointed, unknown

# The one input every variant has.
TEXT = "text"
TEXTS_AT = "/inputs/0/data"

Datatype = Literal["BYTES", "FP32"]
Parameter = str | int | float | bool
Size = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]


def _told(**schema: Any) -> Meta:
    """Told in the API's description; `texts_in` checks it, and says better what is wrong."""
    return Meta(extra_json_schema=schema)


_LENGTH = struct.Struct("<I")


class InputParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`binary_data_size`: this many bytes after the JSON are the tensor, instead of `data`."""

    binary_data_size: Size | None = None


class InputTensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """
    Texts: `text`, BYTES, [n] or [n, 1].

    data  flat, or in rows as `shape` says; left out where the texts follow in binary
    """

    name: Annotated[str, _told(const=TEXT)]
    shape: Annotated[list[Size], _told(minItems=1, maxItems=2)]
    datatype: Annotated[str, _told(const="BYTES")]
    parameters: InputParameters | None = None
    data: list[str | list[str]] | None = None


class OutputParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`binary_data`: whether this tensor is to follow the JSON in binary."""

    binary_data: bool | None = None


class WantedOutput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    parameters: OutputParameters | None = None


class InferRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """
    outputs     the tensors wanted; left out, all that the variant has
    parameters  those of `/v1`, `timeout` in microseconds, and `binary_data_output`: whether the
                outputs that do not say it themselves are to follow the JSON in binary
    """

    inputs: Annotated[list[InputTensor], _told(minItems=1, maxItems=1)]
    id: str | None = None
    outputs: list[WantedOutput] | None = None
    parameters: dict[str, Parameter] | None = None


class TensorParameters(msgspec.Struct, frozen=True):
    binary_data_size: int


class OutputTensor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`data`, or where it follows the JSON in binary its size there."""

    name: str
    datatype: Datatype
    shape: list[int]
    parameters: TensorParameters | None = None
    data: list[str | float] | None = None


class InferResponse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`model_version`: the digest of the weights and tokenizer that answered."""

    model_name: str
    model_version: str
    id: str | None = None
    parameters: dict[str, Parameter]
    outputs: list[OutputTensor]


class Tensor(NamedTuple):
    """One dimension of JSON texts, labels (BYTES) or scores (FP32)."""

    name: str
    datatype: Datatype
    values: Sequence[str | float]


# --- in --------------------------------------------------------------------------------------

_decoder = msgspec.json.Decoder(InferRequest)
_KNOWN: dict[str, tuple[str, type[msgspec.Struct]]] = {
    "": ("field", InferRequest),
    "/inputs/0": ("field", InputTensor),
    "/inputs/0/parameters": ("parameter", InputParameters),
    "/outputs/0": ("field", WantedOutput),
    "/outputs/0/parameters": ("parameter", OutputParameters),
}


def split(body: bytes, header_length: int | None) -> tuple[bytes, bytes]:
    """
    The JSON of a body and the binary after it. `header_length` None: it is JSON alone.

    Raises `MalformedRequest`.
    """
    if header_length is None:
        return body, b""
    if header_length > len(body):
        raise MalformedRequest(
            f"Inference-Header-Content-Length says {header_length} bytes of JSON, "
            f"and the body has {len(body)}"
        )
    return body[:header_length], body[header_length:]


def read_request(said: bytes) -> InferRequest:
    """Raises `MalformedRequest` for what is not JSON, `FieldsInvalid` for what is no request."""
    try:
        return decoded(said, _decoder)
    except msgspec.ValidationError as error:
        raise FieldsInvalid(_field_error(str(error))) from None


def texts_in(request: InferRequest, binary: bytes, *, most: int) -> list[str]:
    """
    The texts of its one input; `binary` is what followed the JSON, all of which must be theirs.

    Nothing is read of more than `most` texts: `TooLarge`. Raises `MalformedRequest` and
    `FieldsInvalid` for what does not fit together.
    """
    tensor = _only_input(request)
    count = _count(tensor.shape)
    if count > most:
        raise TooLarge(f"{count} inputs; at most {most} go in one request")
    size = tensor.parameters.binary_data_size if tensor.parameters else None
    if size is None:
        if binary:
            raise MalformedRequest(
                f"{len(binary)} bytes follow the JSON and no input has binary_data_size"
            )
        return _from_json(tensor, count)
    if tensor.data is not None:
        _wrong("/inputs/0", "it has both data and binary_data_size; give one of them")
    if size != len(binary):
        raise MalformedRequest(
            f"binary_data_size is {size} and {len(binary)} bytes follow the JSON, whose length the "
            "header Inference-Header-Content-Length says"
        )
    return [_utf8(each, index) for index, each in enumerate(unpacked(binary, count))]


def unpacked(binary: bytes, count: int) -> list[bytes]:
    """
    The `count` elements of a BYTES tensor: each its length in four bytes, the least first, then
    itself. Raises `MalformedRequest` unless they are exactly all of `binary`.

    01 00 00 00 61 00 00 00 00  count=2  ->  [b"a", b""]
    """
    elements = []
    at = 0
    for index in range(count):
        begin = at + _LENGTH.size
        size = _LENGTH.unpack_from(binary, at)[0] if begin <= len(binary) else 0
        at = begin + size
        if at > len(binary):
            raise MalformedRequest(f"the binary data end within element {index} of {count}")
        elements.append(binary[begin:at])
    if at != len(binary):
        raise MalformedRequest(
            f"{len(binary) - at} bytes of the binary data are left after {count} elements"
        )
    return elements


def _only_input(request: InferRequest) -> InputTensor:
    if len(request.inputs) != 1:
        _wrong("/inputs", f"it holds {len(request.inputs)} tensors; give one, {TEXT}")
    [tensor] = request.inputs
    if tensor.name != TEXT:
        _wrong("/inputs/0/name", f"there is one input, {TEXT}")
    if tensor.datatype != "BYTES":
        _wrong("/inputs/0/datatype", f"{TEXT} is BYTES: strings")
    return tensor


def _count(shape: list[int]) -> int:
    """How many texts are in a tensor of [n] or [n, 1]."""
    if not shape or shape[1:] not in ([], [1]):
        _wrong("/inputs/0/shape", f"{TEXT} is [n] or [n, 1], n texts")
    return shape[0]


def _from_json(tensor: InputTensor, count: int) -> list[str]:
    if tensor.data is None:
        _wrong("/inputs/0", "it has neither data nor binary_data_size")
    texts = [row if isinstance(row, str) else _alone(row, at) for at, row in enumerate(tensor.data)]
    if len(texts) != count:
        _wrong(TEXTS_AT, f"it has {len(texts)} texts where the shape says {count}")
    return texts


def _alone(row: list[str], index: int) -> str:
    if len(row) != 1:
        _wrong(f"{TEXTS_AT}/{index}", f"it is a row of {len(row)} texts; rows are of one")
    return row[0]


def _utf8(text: bytes, index: int) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        _wrong(f"{TEXTS_AT}/{index}", "the text is not UTF-8")


def _wrong(pointer: str, detail: str) -> NoReturn:
    raise FieldsInvalid(FieldError(pointer, detail))


def _field_error(message: str) -> FieldError:
    """msgspec's message without what the caller wrote: an unknown field may be called anything."""
    error = pointed(message)
    if not message.startswith(UNKNOWN):
        return error
    place = re.sub(r"/\d+", "/0", error.pointer)
    pointer = error.pointer if place in _KNOWN else ""
    what, kind = _KNOWN.get(place, _KNOWN[""])
    return FieldError(pointer, unknown(message, kind, what))


# --- out -------------------------------------------------------------------------------------


def written(tensor: Tensor, *, binary: bool) -> tuple[OutputTensor, bytes]:
    """What the JSON says of a tensor, and its bytes after it: none, unless it is `binary`."""
    name, datatype, values = tensor
    shape = [len(values)]
    if not binary:
        return OutputTensor(name=name, datatype=datatype, shape=shape, data=list(values)), b""
    after = (
        packed([str(value).encode() for value in values])
        if datatype == "BYTES"
        else struct.pack(f"<{len(values)}f", *values)
    )
    size = TensorParameters(len(after))
    return OutputTensor(name=name, datatype=datatype, shape=shape, parameters=size), after


def packed(elements: Sequence[bytes]) -> bytes:
    """The BYTES tensor that `unpacked` reads."""
    return b"".join(part for each in elements for part in (_LENGTH.pack(len(each)), each))

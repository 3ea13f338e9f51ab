"""Tensors on the wire: what was packed is unpacked, and nothing unforeseen is ever raised."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from models.errors import InvalidRequest, KadogoError, MalformedRequest, TooLarge
from service.tensors import (
    InferRequest,
    InferResponse,
    Tensor,
    packed,
    read_request,
    split,
    texts_in,
    unpacked,
    written,
)

TEXTS = ["Kano", "በአዲስ አበባ", "😀"]


def body(texts: list[str] = TEXTS, **more: Any) -> dict[str, Any]:
    """A request in JSON; `more` is of its input."""
    tensor = {"name": "text", "datatype": "BYTES", "shape": [len(texts)], "data": texts, **more}
    return {"inputs": [{name: v for name, v in tensor.items() if v is not None}]}


def read(said: Any, binary: bytes = b"", *, most: int = 64) -> list[str]:
    return texts_in(read_request(json.dumps(said).encode()), binary, most=most)


# --- bytes -----------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=20)))
def test_what_is_packed_is_unpacked(elements: list[bytes]) -> None:
    assert unpacked(packed(elements), len(elements)) == elements


@given(st.lists(st.binary(max_size=20), min_size=1))
def test_it_is_packed_as_triton_packs_it(elements: list[bytes]) -> None:
    tensor = np.array(elements, np.object_)
    assert packed(elements) == serialize_byte_tensor(tensor).item()
    assert deserialize_bytes_tensor(packed(elements)).tolist() == elements


@given(st.binary(max_size=40), st.integers(-2, 9))
def test_any_bytes_are_unpacked_whole_or_refused(binary: bytes, count: int) -> None:
    with contextlib.suppress(MalformedRequest):
        assert packed(unpacked(binary, count)) == binary


@pytest.mark.parametrize(
    ("binary", "count", "said"),
    [
        (b"\1\0\0\0a", 2, "end within element 1 of 2"),
        (b"\1\0\0\0a\2\0", 2, "end within element 1 of 2"),
        (b"\2\0\0\0a", 1, "end within element 0 of 1"),
        (b"\xff\xff\xff\xffa", 1, "end within element 0 of 1"),
        (b"", 10**9, "end within element 0"),
        (b"\1\0\0\0ab", 1, "1 bytes of the binary data are left after 1 elements"),
        (b"a", 0, "1 bytes of the binary data are left after 0 elements"),
    ],
)
def test_bytes_that_do_not_fit_are_refused(binary: bytes, count: int, said: str) -> None:
    with pytest.raises(MalformedRequest, match=said):
        unpacked(binary, count)


# --- in --------------------------------------------------------------------------------------


@given(st.binary(max_size=30), st.none() | st.integers(0, 40))
def test_a_body_is_split_without_losing_a_byte(whole: bytes, length: int | None) -> None:
    try:
        said, binary = split(whole, length)
    except MalformedRequest:
        assert length is not None and length > len(whole)
    else:
        assert said + binary == whole
        assert len(said) == (len(whole) if length is None else length)


def test_texts_are_read_from_json_flat_and_in_rows() -> None:
    assert read(body()) == TEXTS
    assert read(body(shape=[3, 1])) == TEXTS
    assert read(body(shape=[3, 1], data=[[text] for text in TEXTS])) == TEXTS


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=9), st.booleans())
def test_texts_are_read_from_binary(texts: list[str], as_column: bool) -> None:
    binary = packed([text.encode() for text in texts])
    shape = [len(texts), 1] if as_column else [len(texts)]
    said = body(texts, shape=shape, data=None, parameters={"binary_data_size": len(binary)})
    assert read(said, binary) == texts


SIZED = {"binary_data_size": 8}
ABCD = packed([b"abcd"])


@pytest.mark.parametrize(
    ("said", "pointer"),
    [
        ({"inputs": []}, "/inputs: it holds 0 tensors; give one, text"),
        ({"inputs": body()["inputs"] * 2}, "/inputs: it holds 2 tensors"),
        (body(name="SECRET"), "/inputs/0/name: there is one input, text"),
        (body(datatype="SECRET"), "/inputs/0/datatype: text is BYTES"),
        (body(datatype="FP32", data=[1.5]), "/inputs/0/data/0: Expected"),
        (body(shape=[]), "/inputs/0/shape: text is"),
        (body(shape=[-3]), "/inputs/0/shape/0: Expected `int` >= 0"),
        (body(shape=[1, 3]), "/inputs/0/shape: text is"),
        (body(shape=[3, 1, 1]), "/inputs/0/shape: text is"),
        (body(shape=[3, -1]), "/inputs/0/shape/1: Expected `int` >= 0"),
        (body(shape=["3"]), "/inputs/0/shape/0: Expected `int`"),
        (body(shape=[10**30]), "/inputs/0/shape/0: Expected `int` <= 9223372036854775807"),
        (body(shape=3), "/inputs/0/shape: Expected"),
        (body(shape=[2]), "/inputs/0/data: it has 3 texts where the shape says 2"),
        (body(data=None), "/inputs/0: it has neither data nor binary_data_size"),
        (body(data="SECRET"), "/inputs/0/data: Expected"),
        (body(data=["SECRET", 1, "b"]), "/inputs/0/data/1: Expected"),
        (body(data=["SECRET", ["a", "b"], "b"]), "/inputs/0/data/1: it is a row of 2 texts"),
        (body(data=["SECRET", [], "b"]), "/inputs/0/data/1: it is a row of 0 texts"),
        (body(data=["SECRET", [["a"]], "b"]), "/inputs/0/data/1/0: Expected"),
        (body(parameters=SIZED), "/inputs/0: it has both data and binary_data_size"),
        (body(data=None, parameters={"binary_data_size": -1}), "/inputs/0/parameters/binary_data_"),
        (
            body(data=None, parameters={"shared_memory_region": "SECRET"}),
            "/inputs/0/parameters: unknown parameter; known are binary_data_size",
        ),
        (
            {**body(), "outputs": [{"name": "a", "parameters": {"classification": 2}}]},
            "/outputs/0/parameters: unknown parameter; known are binary_data",
        ),
        ({**body(), "SECRET": 1}, "the body: unknown field; known are inputs, id, outputs, param"),
        ({**body(), "outputz": []}, "the body: unknown field; did you mean outputs? known are inp"),
        ({**body(), "x` - at `$.SECRET": 1}, "the body: unknown field; known are inputs"),
        ({**body(), "parameters": {"SECRET": None}}, "/parameters/-: Expected"),
        ({**body(), "parameters": {"SECRET": ["SECRET"]}}, "/parameters/-: Expected"),
        ({**body(), "id": 7}, "/id: Expected"),
        ({"id": "SECRET"}, "the body: Object missing required field `inputs`"),
        (["SECRET"], "the body: Expected `object`"),
    ],
)
def test_a_bad_field_is_pointed_at_and_nothing_is_repeated(said: Any, pointer: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        read(said)
    assert str(raised.value).startswith(pointer)
    assert "SECRET" not in str(raised.value)


@pytest.mark.parametrize(
    ("shape", "size", "binary", "said"),
    [
        ([1], None, ABCD, "8 bytes follow the JSON and no input has binary_data_size"),
        ([1], 7, ABCD, "binary_data_size is 7 and 8 bytes follow the JSON"),
        ([1], 10**12, ABCD, "and 8 bytes follow the JSON"),
        ([1], 8, b"", "and 0 bytes follow the JSON, whose length the header Inference-Header-"),
        ([2], 8, ABCD, "the binary data end within element 1 of 2"),
        ([0], 8, ABCD, "8 bytes of the binary data are left after 0 elements"),
    ],
)
def test_binary_that_does_not_fit_is_refused(
    shape: list[int], size: int | None, binary: bytes, said: str
) -> None:
    sized = None if size is None else {"binary_data_size": size}
    with pytest.raises(MalformedRequest, match=said):
        read(body(data=None, shape=shape, parameters=sized), binary)


def test_a_text_that_is_not_utf8_is_pointed_at() -> None:
    for wrong in (b"\xff", b"\xed\xa0\x80", "é".encode("latin-1")):
        binary = packed([b"Kano", wrong])
        said = body(data=None, shape=[2], parameters={"binary_data_size": len(binary)})
        with pytest.raises(InvalidRequest, match=r"^/inputs/0/data/1: the text is not UTF-8$"):
            read(said, binary)


def test_more_texts_than_go_in_one_request_are_not_read_at_all() -> None:
    many = 10**15
    zeros = bytes(100)
    with pytest.raises(TooLarge, match=r"^1000000000000000 inputs; at most 64 go in"):
        read(body(data=None, shape=[many], parameters={"binary_data_size": 100}), zeros)


@pytest.mark.parametrize("said", [b"", b" ", b"\xff", b"{", b'{"inputs": [SECRET]}', b"[" * 9999])
def test_what_is_not_json_is_malformed(said: bytes) -> None:
    with pytest.raises((MalformedRequest, InvalidRequest)) as raised:
        read_request(said)
    assert "SECRET" not in str(raised.value)


def refused_or_read(said: bytes, binary: bytes) -> None:
    try:
        texts = texts_in(read_request(said), binary, most=64)
    except KadogoError as error:
        assert 400 <= error.status < 500
    else:
        assert all(isinstance(text, str) for text in texts)


@given(st.binary(), st.none() | st.integers(0, 300))
def test_any_bytes_are_a_request_or_refused(whole: bytes, length: int | None) -> None:
    try:
        said, binary = split(whole, length)
    except MalformedRequest:
        return
    refused_or_read(said, binary)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner),
    max_leaves=9,
)
INPUTS = st.fixed_dictionaries(
    {
        "name": st.just("text") | VALUES,
        "shape": st.lists(st.integers(-1, 4), max_size=3) | VALUES,
        "datatype": st.just("BYTES") | VALUES,
    },
    optional={
        "data": st.lists(st.text(max_size=5), max_size=4) | VALUES,
        "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(-1, 30)}) | VALUES,
    },
)
REQUESTS = st.fixed_dictionaries(
    {"inputs": st.lists(INPUTS, min_size=1, max_size=2) | VALUES},
    optional={"id": VALUES, "outputs": VALUES, "parameters": VALUES},
)


@given(REQUESTS, st.binary(max_size=30))
def test_any_json_is_a_request_or_refused(said: Any, binary: bytes) -> None:
    refused_or_read(json.dumps(said).encode(), binary)


# --- out -------------------------------------------------------------------------------------


def test_a_tensor_is_written_in_json() -> None:
    output, after = written(Tensor("label", "BYTES", ["a", "b"]), binary=False)
    assert (output.shape, output.data, output.parameters, after) == ([2], ["a", "b"], None, b"")


def test_a_tensor_is_written_in_binary_with_its_size() -> None:
    output, after = written(Tensor("label", "BYTES", ["a", "é"]), binary=True)
    assert after == packed([b"a", "é".encode()])
    assert output.data is None
    assert output.parameters is not None and output.parameters.binary_data_size == len(after)


@given(st.lists(st.floats(0, 1), min_size=1))
def test_scores_are_floats_of_32_bits_the_least_byte_first(scores: list[float]) -> None:
    output, after = written(Tensor("score", "FP32", scores), binary=True)
    assert output.datatype == "FP32"
    assert np.frombuffer(after, "<f4").tolist() == np.float32(scores).tolist()


def test_what_was_not_said_is_left_out_of_the_json() -> None:
    request = read_request(json.dumps(body()).encode())
    assert request == InferRequest(inputs=request.inputs)
    output, _ = written(Tensor("label", "BYTES", ["a"]), binary=True)
    said = InferResponse(model_name="m", model_version="v", parameters={}, outputs=[output])
    assert json.loads(msgspec.json.encode(said)) == {
        "model_name": "m",
        "model_version": "v",
        "parameters": {},
        "outputs": [
            {
                "name": "label",
                "datatype": "BYTES",
                "shape": [1],
                "parameters": {"binary_data_size": 5},
            }
        ],
    }

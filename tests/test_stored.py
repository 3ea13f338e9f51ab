"""A file plain or packed: the same bytes, and one line where they cannot be had."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import stored
from models.errors import BrokenVariant

CONTENT = bytes(range(256)) * 400


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the plain file would be; only the packed one is there."""
    packed(tmp_path / "model.onnx").write_bytes(stored.pack(CONTENT, 3))
    return tmp_path / "model.onnx"


def packed(file: Path) -> Path:
    return file.with_name(f"{file.name}.zst")


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=2_000), st.integers(1, 22))
def test_unpacking_gives_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, level: int
) -> None:
    file = tmp_path_factory.mktemp("stored") / "any"
    packed(file).write_bytes(stored.pack(content, level))
    assert stored.read(file) == content == bytes(stored.view(file))
    assert stored.declared(packed(file)) == len(content)
    assert stored.is_packed(file)


def test_a_plain_file_is_read_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(CONTENT)
    assert stored.locate(file) == file and not stored.is_packed(file)
    assert stored.read(file) == CONTENT == bytes(stored.view(file))


def test_where_there_is_neither_the_plain_one_is_missed(tmp_path: Path) -> None:
    for read in (stored.read, stored.view):
        with pytest.raises(FileNotFoundError, match=r"model\.onnx'"):
            read(tmp_path / "model.onnx")


def test_both_at_once_are_refused(file: Path) -> None:
    file.write_bytes(CONTENT)
    with pytest.raises(BrokenVariant, match=r"model\.onnx and model\.onnx\.zst are both there"):
        stored.read(file)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda c: b"", "is not packed with zstd, or is cut off"),
        (lambda c: c[:4], "is not packed with zstd, or is cut off"),
        (lambda c: CONTENT, "is not packed with zstd, or is cut off"),
        (lambda c: c[: len(c) // 2], "is cut off or was added to"),
        (lambda c: c[:-1], "is cut off or was added to"),
        (lambda c: c + b"more", "is cut off or was added to"),
        (lambda c: c + c, "is cut off or was added to"),
        (lambda c: c[:-2] + bytes([c[-2] ^ 1, c[-1]]), "is corrupt"),
        (lambda c: c[:6] + bytes([c[6] ^ 1]) + c[7:], "is corrupt|is cut off or was added to"),
    ],
)
def test_a_damaged_file_is_one_line(
    file: Path, damage: Callable[[bytes], bytes], reason: str
) -> None:
    packed(file).write_bytes(damage(packed(file).read_bytes()))
    with pytest.raises(BrokenVariant, match=rf"^model\.onnx\.zst ({reason})") as caught:
        stored.read(file)
    assert "\n" not in str(caught.value)


def test_every_byte_counts(file: Path) -> None:
    """Whatever byte is changed, nothing but the same bytes or an error comes out."""
    whole = packed(file).read_bytes()
    for at in range(len(whole)):
        packed(file).write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            assert stored.read(file) == CONTENT
        except BrokenVariant as error:
            assert "\n" not in str(error)


def test_a_stream_that_does_not_declare_its_length_is_refused(file: Path) -> None:
    stream = stored.zstd.ZstdCompressor()
    packed(file).write_bytes(stream.compress(CONTENT) + stream.flush())
    with pytest.raises(BrokenVariant, match="does not declare its length: pack it in one piece"):
        stored.read(file)


def test_what_declares_more_than_any_model_has_is_not_unpacked(file: Path) -> None:
    content = packed(file).read_bytes()
    size = len(CONTENT)
    header = content[:9]
    assert size.to_bytes(4, "little") == header[5:9]  # magic, descriptor, four bytes of length
    longer = bytearray(content)
    longer[5:9] = (stored.LONGEST + 1).to_bytes(4, "little")
    packed(file).write_bytes(longer)
    with pytest.raises(BrokenVariant, match="would unpack to 2147483648 bytes, more than"):
        stored.read(file)


def test_no_more_is_unpacked_than_declared(file: Path) -> None:
    shorter = bytearray(packed(file).read_bytes())
    shorter[5:9] = (100).to_bytes(4, "little")
    packed(file).write_bytes(shorter)
    with pytest.raises(BrokenVariant):
        stored.read(file)

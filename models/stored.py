"""
A variant's file as it lies in its folder: plain, or packed with zstd (RFC 8878) beside its name.

The one place that knows both: `model.onnx` is asked for, `model.onnx.zst` may be what is there.
Knows nothing of what is in a file.
"""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

from models.errors import BrokenVariant

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PACKED = ".zst"
# No file that is packed is longer: protobuf ends here. What says it is would only fill the memory.
LONGEST = 2**31 - 1
_HEADER = 18  # bytes, at most: RFC 8878, 3.1.1


def locate(file: Path) -> Path:
    """
    The plain file or the packed one, whichever is there; the plain one's path where neither is.

    Raises BrokenVariant where both are: nobody could say which one is meant.
    """
    packed = file.with_name(f"{file.name}{PACKED}")
    if not packed.is_file():
        return file
    if file.is_file():
        raise BrokenVariant(f"{file.name} and {packed.name} are both there: keep one of them")
    return packed


def is_packed(file: Path) -> bool:
    return locate(file).suffix == PACKED


def read(file: Path) -> bytes:
    """
    The content of `file`, unpacked in memory where it is packed.

    Never makes more bytes than the packed file declares. Raises OSError where it cannot be read,
    BrokenVariant where it is cut off, corrupt or not what it declares.
    """
    found = locate(file)
    return found.read_bytes() if found == file else _unpacked(found)


def view(file: Path) -> memoryview:
    """As `read`, without reading what is not looked at where the file is plain."""
    found = locate(file)
    if found != file:
        return memoryview(_unpacked(found))
    with found.open("rb") as opened:
        return memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))


def declared(packed: Path) -> int:
    """
    How many bytes a packed file says it unpacks to, from its first few.

    Raises BrokenVariant where it is no zstd or does not say, as streams of unknown length do.
    """
    with packed.open("rb") as opened:
        return _declared(opened.read(_HEADER), packed.name)


def pack(content: bytes, level: int) -> bytes:
    """One zstd frame that declares its length and carries a checksum; `level` from 1 to 22."""
    parameter = zstd.CompressionParameter
    return zstd.compress(
        content, options={parameter.compression_level: level, parameter.checksum_flag: 1}
    )


def _unpacked(file: Path) -> bytes:
    content = file.read_bytes()
    size = _declared(content[:_HEADER], file.name)
    if size > LONGEST:
        raise BrokenVariant(f"{file.name} would unpack to {size} bytes, more than {LONGEST}")
    frame = zstd.ZstdDecompressor()
    try:
        plain = frame.decompress(content, size + 1)  # one more would show
    except zstd.ZstdError as error:
        raise BrokenVariant(f"{file.name} is corrupt: {error}") from error
    if len(plain) != size or not frame.eof or frame.unused_data:
        raise BrokenVariant(
            f"{file.name} is cut off or was added to: it does not unpack to the {size} bytes it "
            "declares"
        )
    return plain


def _declared(header: bytes, name: str) -> int:
    try:
        size: int | None = zstd.get_frame_info(header).decompressed_size
    except zstd.ZstdError as error:
        raise BrokenVariant(f"{name} is not packed with zstd, or is cut off") from error
    if size is None:
        raise BrokenVariant(f"{name} does not declare its length: pack it in one piece")
    return size

"""
Text in, model inputs out: pieces, where they stand in the caller's string, and windows of them.

Reads `tokenizer.json`, packed or not, and nothing else. Knows nothing of models, tasks or labels.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from models import stored
from models.errors import BrokenVariant
from models.spec import Windows

Ints = NDArray[np.int64]

# Neither a space nor a zero-width mark belongs to an entity that only touches it.
BLANK = frozenset(c for c in map(chr, range(0x3001)) if c.isspace()) | set("\u200b\u2060\ufeff")


def _class_of_marks(first: int, beyond: int) -> str:
    return "".join(c for c in map(chr, range(first, beyond)) if unicodedata.category(c)[0] == "M")


# What belongs to the letter before it: combining marks, vowels and finals of decomposed Hangul.
# In two classes, for `re` looks a character up at once only in one that ends at U+FFFF.
_MARKS = re.compile(
    f"(?:[{_class_of_marks(0x300, 0x10000)}\u1160-\u11ff]"
    f"|(?=[\U00010000-\U0010ffff])[{_class_of_marks(0x10000, 0x20000)}\U000e0100-\U000e01ef])+"
)
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_BYTE_PIECES = tuple(f"<0x{byte:02X}>" for byte in range(256))
_XLMR_PAD = 1


class Window(NamedTuple):
    """
    One model input.

    ids    (tokens,) int64, an opening and a closing special around the pieces
    start  index in `Encoded.ids` of its first piece
    """

    ids: Ints
    start: int


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """
    A text as the model will read it. Special tokens are in `windows` only.

    text     the caller's own string
    ids      (pieces,) int64
    offsets  (pieces, 2) int64: code points of `text`, never inside a letter and its marks
    words    (pieces,) int64: the word of the pre-tokenizer each piece belongs to, ascending
    unknown  share of the non-space characters in unknown or byte pieces, 0 to 1
    windows  at least one; together they hold every piece
    """

    text: str
    ids: Ints
    offsets: Ints
    words: Ints
    unknown: float
    windows: tuple[Window, ...]


class Encoder:
    """
    Encodes with a `tokenizer.json` that puts one special before a text and one after it.

    Safe to share between threads. Raises `BrokenVariant` where the file is not such a tokenizer.
    """

    def __init__(self, tokenizer_file: Path, windows: Windows) -> None:
        try:
            content = stored.read(tokenizer_file)
            self._tokenizer = Tokenizer.from_buffer(content)
            self._unk = _unknown_id(content, self._tokenizer)
        except BrokenVariant:
            raise
        except Exception as error:  # tokenizers raises Exception itself
            raise BrokenVariant(f"{tokenizer_file.name} does not load: {error}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True  # a caller's "</s>" is text, not a control
        specials = self._tokenizer.encode("").ids
        if len(specials) != 2:
            raise BrokenVariant(
                f"{tokenizer_file.name} puts {len(specials)} special tokens around a text, "
                "expected one before and one after: save it with its post_processor"
            )
        self._opening, self._closing = specials
        self._blind = frozenset(_blind_ids(self._unk, self._tokenizer))
        self._windows = windows
        pad = self._tokenizer.token_to_id("<pad>")
        self.pad_id: int = _XLMR_PAD if pad is None else pad

    @property
    def vocabulary(self) -> int:
        """Ids are below this number."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    def encode(self, text: str) -> Encoded:
        """Encode the whole text, however long; nothing is truncated."""
        readable = text if text.isascii() else _LONE_SURROGATE.sub("\ufffd", text)
        encoding = self._tokenizer.encode(readable, add_special_tokens=False)
        ids: list[int] = encoding.ids
        offsets = spans(text, encoding.offsets)
        return Encoded(
            text=text,
            ids=np.array(ids, np.int64),
            offsets=np.array(offsets, np.int64).reshape(-1, 2),
            words=np.array(encoding.word_ids, np.int64),
            unknown=self._unknown(text, ids, offsets),
            windows=tuple(self._cut(ids)),
        )

    def pieces(self, ids: Ints) -> list[str]:
        """What stands in the vocabulary under these ids."""
        return [str(self._tokenizer.id_to_token(each)) for each in ids.tolist()]

    def spelt(self, encoded: Encoded) -> list[str]:
        """How the vocabulary spells each piece of a text; an unknown one is spelt as the text."""
        spelt = self.pieces(encoded.ids)
        for index in np.flatnonzero(encoded.ids == self._unk).tolist():
            start, end = encoded.offsets[index].tolist()
            spelt[index] = encoded.text[start:end]
        return spelt

    def _cut(self, ids: list[int]) -> Iterator[Window]:
        room = self._windows.tokens - 2
        for start in window_starts(len(ids), room, self._windows.overlap):
            pieces = [self._opening, *ids[start : start + room], self._closing]
            yield Window(np.array(pieces, np.int64), start)

    def _unknown(self, text: str, ids: list[int], offsets: list[tuple[int, int]]) -> float:
        if self._blind.isdisjoint(ids):
            return 0.0
        unread = reached = 0  # byte pieces of one letter, or of a run of them, share a span
        for piece, (start, end) in zip(ids, offsets, strict=True):
            if piece in self._blind:
                unread += sum(not c.isspace() for c in text[max(start, reached) : end])
                reached = max(end, reached)
        return unread / max(1, sum(not c.isspace() for c in text))


def window_starts(pieces: int, room: int, overlap: int) -> list[int]:
    """
    Where windows of `room` pieces begin so that they cover all; the last one ends with the text.

    pieces=10 room=4 overlap=1  ->  0 3 6
    pieces=11 room=4 overlap=1  ->  0 3 6 7
    """
    if pieces <= room:
        return [0]
    return [*range(0, pieces - room, room - overlap), pieces - room]


def spans(text: str, offsets: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """
    Mend what tokenizers report, piece by piece.

    A normaliser that composes leaves marks outside a piece ("o\u0323" as "o") or, between two
    pieces, cuts a letter from its marks: both pieces then span the whole letter. Metaspace pieces
    may hold the space before them. Offsets that run backwards or past the end are clamped.
    """
    letters = {} if text.isascii() else _marked_letters(text)
    length = len(text)
    first = last = 0
    found = 0, 0
    mended: list[tuple[int, int]] = []
    for start, end in offsets:  # of each piece of each text served: no call where none is needed
        start = first if start < first else start if start < length else length
        end = last if end < last else end if end < length else length
        if start > end:
            end = start
        if start != first or end != last:
            first, last = start, end
            if letters:
                start, _ = letters.get(start, (start, start))
                _, end = letters.get(end, (end, end))
            if start < end and (text[start] in BLANK or text[end - 1] in BLANK):
                start, end = trim(text, start, end)
            found = start, end
        mended.append(found)
    return mended


def trim(text: str, start: int, end: int) -> tuple[int, int]:
    """The span without blanks at either end; all blank: empty, at its end."""
    while start < end and text[start] in BLANK:
        start += 1
    while start < end and text[end - 1] in BLANK:
        end -= 1
    return start, end


def _marked_letters(text: str) -> dict[int, tuple[int, int]]:
    """Every position inside a letter with its marks -> where that letter begins and ends."""
    letters: dict[int, tuple[int, int]] = {}
    for marks in _MARKS.finditer(text):
        start, end = marks.span()
        if start > 0 and text[start - 1] not in BLANK:
            start -= 1
        letters.update(dict.fromkeys(range(start + 1, end), (start, end)))
    return letters


class _Model(msgspec.Struct):
    unk_id: int | None = None
    unk_token: str | None = None


class _TokenizerFile(msgspec.Struct):
    model: _Model


def _unknown_id(content: bytes, tokenizer: Tokenizer) -> int:
    """The piece for letters the vocabulary does not have; -1 where every letter has a piece."""
    model = msgspec.json.decode(content, type=_TokenizerFile).model
    known = None if model.unk_token is None else tokenizer.token_to_id(model.unk_token)
    unknown = known if model.unk_id is None else model.unk_id
    return -1 if unknown is None else unknown


def _blind_ids(unknown: int, tokenizer: Tokenizer) -> Iterator[int]:
    """Ids that tell the model nothing of the letters they stand for, or only their bytes."""
    yield unknown
    for piece in _BYTE_PIECES:
        known = tokenizer.token_to_id(piece)
        if known is not None:
            yield known

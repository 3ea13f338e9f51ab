"""What the encoder promises: spans into the caller's own string, windows that hold every piece."""

from __future__ import annotations

import unicodedata
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from models.encode import BLANK, Encoder, spans, window_starts
from models.errors import BrokenVariant
from models.spec import Windows
from tests.tiny import NER_WORDS, tokenizer

OSUN = "Ọ̀ṣun"
TEXTS = {
    "nfc": unicodedata.normalize("NFC", f"{OSUN} ya Ìbàdàn."),
    "nfd": unicodedata.normalize("NFD", f"{OSUN} ya Ìbàdàn."),
    "nfd_igbo": unicodedata.normalize("NFD", "Ọnwụ Ụmụahịa, Ṅnewi"),
    "marks_reordered": "o\u0301\u0323 e\u0301\u0323\u0300x",
    "mark_alone": "\u0301a \u0301 b",
    "hangul_jamo": unicodedata.normalize("NFD", "각 ya 한"),
    "emoji": "👩\u200d👩\u200d👧 Sani 👍🏽🇳🇬 ya❤\ufe0f",
    "ethiopic": "አዲስ አበባ፣ ኢትዮጵያ።",
    "lines": "\tSani\nBello\r\n ya\u2028Kano\u2029.",
    "zero_width": "\ufeffSani\u200b Bel\u200dlo \u2060ya",
    "surrogate": "Sani \ud83d Bello\udc00",
    "nul": "Sani\x00Bello \x1f ya",
    "specials": "<s> Sani</s><pad><mask>",
}
WORDS = st.sampled_from([*NER_WORDS, *TEXTS.values(), " ", "\n", "\u0323", "\u200d", "é", "ọ́"])
ANY_TEXT = st.one_of(st.text(max_size=60), st.lists(WORDS, max_size=8).map("".join))


def whole_words() -> Tokenizer:
    return tokenizer(NER_WORDS)


def metaspace_and_bytes() -> Tokenizer:
    """As XLM-R checkpoints are often converted: spaces inside pieces, bytes for the unknown."""
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁", "▁Sani", "▁ya", *map(chr, range(33, 127))]
    pieces += [f"<0x{byte:02X}>" for byte in range(256)]
    scores = [-float(len(pieces) - len(piece)) for piece in pieces]
    built = Tokenizer(
        models.Unigram(list(zip(pieces, scores, strict=True)), unk_id=3, byte_fallback=True)
    )
    built.normalizer = normalizers.NFKC()
    built.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    built.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return built


def encoder_of(built: Tokenizer, folder: Path, tokens: int = 128, overlap: int = 32) -> Encoder:
    file = folder / "tokenizer.json"
    built.save(str(file))
    return Encoder(file, Windows(tokens=tokens, overlap=overlap))


@pytest.fixture(scope="module", params=[whole_words, metaspace_and_bytes])
def encoder(request, tmp_path_factory) -> Encoder:
    return encoder_of(request.param(), tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def narrow(tmp_path_factory) -> Encoder:
    return encoder_of(whole_words(), tmp_path_factory.mktemp("tokenizer"), tokens=8, overlap=2)


def is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M")


def check_spans(encoder: Encoder, text: str) -> None:
    encoded = encoder.encode(text)
    assert encoded.text == text
    assert len(encoded.ids) == len(encoded.offsets) == len(encoded.words)
    covered = set()
    for start, end in encoded.offsets.tolist():
        assert 0 <= start <= end <= len(text)
        covered.update(range(start, end))
        if start < end:
            assert not {text[start], text[end - 1]} & BLANK
            assert end == len(text) or not is_mark(text[end])
            assert start == 0 or not is_mark(text[start]) or text[start - 1] in BLANK
    assert all(a[0] <= b[0] and a[1] <= b[1] for a, b in pairwise(encoded.offsets.tolist()))
    assert {at for at, c in enumerate(text) if c not in BLANK} <= covered
    assert all(a <= b for a, b in pairwise(encoded.words.tolist()))
    assert 0.0 <= encoded.unknown <= 1.0


@pytest.mark.parametrize("name", TEXTS)
def test_spans_cover_whole_letters_of_the_callers_own_string(encoder, name):
    check_spans(encoder, TEXTS[name])


@given(text=ANY_TEXT)
@settings(deadline=None)
def test_spans_hold_for_any_text(encoder, text):
    check_spans(encoder, text)


def test_a_decomposed_letter_keeps_its_marks(encoder):
    text = unicodedata.normalize("NFD", f"{OSUN} ya")
    offsets = encoder.encode(text).offsets.tolist()
    assert text[min(s for s, _ in offsets) : offsets[-1][1]] == text
    assert any(text[start:end].endswith("s\u0323") for start, end in offsets)


def test_a_space_inside_a_piece_is_not_part_of_its_span(tmp_path):
    encoded = encoder_of(metaspace_and_bytes(), tmp_path).encode("ya Sani  ya ")
    assert encoded.offsets.tolist() == [[0, 2], [3, 7], [8, 8], [9, 11], [12, 12]]


def test_offsets_that_run_backwards_or_too_far_are_clamped():
    assert spans("Sani ya", [(0, 4), (2, 3), (5, 99)]) == [(0, 4), (2, 4), (5, 7)]
    assert spans("ya", [(7, 9)]) == [(2, 2)]


@pytest.mark.parametrize("text", ["", " ", "\t\n\u2028 "])
def test_a_blank_text_is_one_window_of_specials(narrow, text):
    encoded = narrow.encode(text)
    assert [window.ids.tolist() for window in encoded.windows] == [[0, 2]]
    assert encoded.ids.shape == (0,)
    assert encoded.offsets.shape == (0, 2)
    assert encoded.unknown == 0.0


def test_a_text_of_specials_is_read_as_text(narrow):
    encoded = narrow.encode("</s> <s> <pad> <mask>")
    assert not {0, 1, 2} & set(encoded.ids.tolist())


@pytest.mark.parametrize(
    "unit", ["Sani ya ", "a", "é", "👩\u200d👧", "ọ\u0300", "\u0323", "\u200b", " "]
)
def test_a_long_text_is_read_to_its_end(encoder, unit):
    text = (unit * 100_000)[:100_000]
    encoded = encoder.encode(text)
    assert encoded.windows[-1].start + len(encoded.windows[-1].ids) - 2 == len(encoded.ids)
    if len(encoded.ids):
        assert encoded.offsets[-1, 1] >= len(text.rstrip()) - 1


def test_unknown_is_the_share_of_characters_the_vocabulary_lacks(encoder):
    assert encoder.encode("Sani ya").unknown == 0.0
    assert encoder.encode("ya አዲ").unknown == 0.5
    assert encoder.encode("አዲስ አበባ").unknown == 1.0


@given(pieces=st.integers(0, 300), room=st.integers(6, 60), share=st.floats(0, 0.99))
def test_windows_cover_all_pieces_and_share_at_least_the_overlap(pieces, room, share):
    overlap = int(share * (room - 1))
    starts = window_starts(pieces, room, overlap)
    assert starts[0] == 0
    assert starts == sorted(set(starts))
    assert starts[-1] == max(0, pieces - room)
    assert all(later - earlier <= room - overlap for earlier, later in pairwise(starts))


@given(words=st.lists(st.sampled_from(list(NER_WORDS)), max_size=40))
def test_windows_hold_the_pieces_between_specials(narrow, words):
    encoded = narrow.encode(" ".join(words))
    for window in encoded.windows:
        opening, *pieces, closing = window.ids.tolist()
        assert (opening, closing) == (0, 2)
        assert pieces == encoded.ids[window.start : window.start + len(pieces)].tolist()
        assert len(encoded.windows) == 1 or len(window.ids) == 8


def test_truncation_and_padding_saved_with_the_tokenizer_are_off(tmp_path):
    built = whole_words()
    built.enable_truncation(4)
    built.enable_padding(length=32)
    assert len(encoder_of(built, tmp_path).encode("ya " * 10).ids) == 10


def test_the_pad_id_is_the_tokenizers_own(tmp_path):
    encoder = encoder_of(whole_words(), tmp_path)
    assert encoder.pad_id == 1
    assert encoder.vocabulary == whole_words().get_vocab_size()


def test_a_tokenizer_without_specials_is_refused_with_a_reason(tmp_path):
    built = Tokenizer(models.Unigram([("<unk>", 0.0)], unk_id=0))
    with pytest.raises(BrokenVariant, match="post_processor"):
        encoder_of(built, tmp_path)


@pytest.mark.parametrize("content", ["", "{}", "not json"])
def test_a_broken_tokenizer_file_is_refused_with_a_reason(tmp_path, content):
    file = tmp_path / "tokenizer.json"
    file.write_text(content)
    with pytest.raises(BrokenVariant, match=r"tokenizer\.json does not load"):
        Encoder(file, Windows(tokens=8, overlap=0))

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from build import tokenizer
from models.encode import Encoder
from models.spec import Windows

GOLDEN = Path(__file__).parent.parent / "build" / "golden.json"
TEXTS = [each["text"] for each in json.loads(GOLDEN.read_text(encoding="utf-8"))]
VOCABULARY = 1_000


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return tokenizer.train(TEXTS, VOCABULARY)


def test_the_vocabulary_is_as_large_as_asked_at_most(trained: Tokenizer) -> None:
    assert VOCABULARY * 0.8 < trained.get_vocab_size() <= VOCABULARY


def test_specials_are_xlm_rs_and_the_mask_comes_last(trained: Tokenizer) -> None:
    ids = [trained.token_to_id(piece) for piece in ("<s>", "<pad>", "</s>", "<unk>")]
    assert ids == [0, 1, 2, 3]
    assert trained.token_to_id("<mask>") == trained.get_vocab_size() - 1
    encoded = trained.encode("Kano").ids
    assert (encoded[0], encoded[-1]) == (0, 2)


def test_punctuation_reads_alike_raw_and_tokenised(trained: Tokenizer) -> None:
    for raw, tokenised in [
        ("Abuja.", "Abuja ."),
        ("A Kano, (Sani)!", "A Kano , ( Sani ) !"),
        ("አበበ ተናገረ።", "አበበ ተናገረ ።"),
    ]:
        assert trained.encode(raw).ids == trained.encode(tokenised).ids


def test_composed_and_decomposed_letters_read_alike(trained: Tokenizer) -> None:
    for text in TEXTS:
        composed, decomposed = (unicodedata.normalize(form, text) for form in ("NFC", "NFD"))
        assert trained.encode(composed).ids == trained.encode(decomposed).ids


def test_few_pieces_are_bare_word_marks(trained: Tokenizer) -> None:
    tokens = [token for text in TEXTS for token in trained.encode(text).tokens]
    assert tokens.count("▁") / len(tokens) < 0.08


def test_openings_score_just_above_their_parts(trained: Tokenizer) -> None:
    pieces = dict(json.loads(trained.to_str())["model"]["vocab"])
    bare = tokenizer.train(TEXTS[:40], 200)
    for piece, score in tokenizer.missing_openings(bare, TEXTS, 5):
        assert piece.startswith("▁") and len(piece) > 1 and score < 0.1
    assert len(pieces) == trained.get_vocab_size()  # no piece twice


def test_a_saved_tokenizer_loads_wherever_it_is_read(trained: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(trained, tmp_path)
    encoder = Encoder(tmp_path / "tokenizer.json", Windows(tokens=64, overlap=16))
    encoded = encoder.encode(TEXTS[0])
    assert encoded.ids.tolist() == trained.encode(TEXTS[0], add_special_tokens=False).ids
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs(TEXTS[0])["input_ids"] == trained.encode(TEXTS[0]).ids
    assert theirs.mask_token_id == trained.token_to_id("<mask>")


def test_languages_are_balanced() -> None:
    pools = {"few": ["f"] * 10, "some": ["s"] * 100, "many": ["m"] * 1_000}
    drawn = list(tokenizer.balanced(pools, 300, seed=1))
    assert [drawn.count(letter) for letter in "fsm"] == [10, 100, 190]
    assert len(list(tokenizer.balanced(pools, 5_000, seed=1))) == 1_110
    assert drawn == list(tokenizer.balanced(pools, 300, seed=1))

"""A trimmed vocabulary: what stays is read as before, what goes is what was asked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import sentencepiece
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, XLMRobertaForMaskedLM

from build import data
from build.checkpoint import Checkpoint, Purpose, read_purpose, write_purpose
from build.data import DataError
from build.errors import BuildError
from build.importing import convert_sentencepiece
from build.networks import load
from build.publish import Title, publish
from build.run import Kitchen, cook
from build.steps import Export, Quantize, TrimVocabulary
from build.tokenizer import SPECIALS, save, train
from build.vocabulary import (
    Change,
    always_kept,
    changed,
    counted,
    needed,
    read_unigram,
    shortened,
    trim_vocabulary,
    trimmed,
)
from models import catalog
from models.encode import Encoder
from models.spec import Licence, Task, Windows
from tests.test_encode import metaspace_and_bytes
from tests.tiny import NER_WORDS, tokenizer
from tests.tiny_checkpoint import CORPUS_LABELS, network
from tests.tiny_corpus import write_corpus

GOLDEN = Path(__file__).parent.parent / "build" / "golden.json"
TEXTS = [each["text"] for each in json.loads(GOLDEN.read_text(encoding="utf-8"))]
HAUSA = [each["text"] for each in json.loads(GOLDEN.read_text()) if each["language"] == "hau"]
WINDOWS = Windows(tokens=64, overlap=16)
FIRST = (0, 1, 2)
WHOLE = "word_embeddings.weight"


# --- tokenizers -------------------------------------------------------------------------------


def ours(folder: Path) -> Path:
    save(train(TEXTS, 1_000), folder)
    return folder / "tokenizer.json"


def xlm_rs(folder: Path) -> Path:
    """As AfriBERTa's and XLM-R's SentencePiece models are converted."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_prefix=str(folder / "trained"),
        vocab_size=900,
        minloglevel=2,
    )
    (folder / "trained.model").rename(folder / "sentencepiece.bpe.model")
    convert_sentencepiece(folder).save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def with_bytes(folder: Path) -> Path:
    metaspace_and_bytes().save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


class Trim:
    """A tokenizer.json before and after it was trimmed to Hausa texts."""

    def __init__(self, file: Path, pieces: int = 0) -> None:
        self.content = read_unigram(file)
        self.old = Encoder(file, WINDOWS)
        shares = counted(Tokenizer.from_file(str(file)), {"hau": HAUSA})
        self.occurring = set(np.flatnonzero(shares).tolist())
        self.kept = needed(self.content, shares, pieces, FIRST)
        after = file.parent / f"trimmed-{pieces}.json"
        after.write_text(json.dumps(trimmed(self.content, self.kept)))
        self.new = Encoder(after, WINDOWS)
        self.after = Tokenizer.from_file(str(after))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        return self.old.pieces(np.array(ids))


@pytest.fixture(scope="module", params=[ours, xlm_rs, with_bytes])
def trim(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Trim:
    return Trim(request.param(tmp_path_factory.mktemp("tokenizer")))


@pytest.fixture(scope="module", params=[ours, xlm_rs])
def fewest(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Trim:
    """With no piece more than must be kept."""
    file = request.param(tmp_path_factory.mktemp("tokenizer"))
    whole = Trim(file)
    return Trim(file, len(always_kept(whole.content, whole.occurring) | set(FIRST)))


LETTERS = st.sampled_from(sorted(set("".join(HAUSA)) - {"\n"}))
HAUSA_TEXT = st.one_of(
    st.text(LETTERS, max_size=40), st.lists(st.sampled_from(HAUSA), max_size=3).map(" ".join)
)
FOREIGN = st.sampled_from([*TEXTS, "Ж", "東京 ", "አዲስ", "<s>", "\u0323", "ọ́"])
ANY_TEXT = st.lists(st.one_of(HAUSA_TEXT, FOREIGN), max_size=4).map("".join)


def test_all_pieces_kept_change_nothing(trim: Trim) -> None:
    everything = range(trim.old.vocabulary)
    assert trimmed(trim.content, everything) == trim.content
    weights = {f"roberta.embeddings.{WHOLE}": torch.randn(len(everything), 4)}
    for name, weight in shortened(weights, everything).items():
        assert torch.equal(weight, weights[name])


def test_specials_and_bytes_stay_and_the_mask_is_last(trim: Trim) -> None:
    vocabulary = trim.after.get_vocab()
    assert [vocabulary[piece] for piece in SPECIALS] == [0, 1, 2, 3]
    assert vocabulary.get("<mask>", len(vocabulary) - 1) == len(vocabulary) - 1
    known = {piece for piece in trim.pieces(range(trim.old.vocabulary)) if piece[:3] == "<0x"}
    assert known <= vocabulary.keys()
    assert trim.after.encode("Kano").ids[:: len(trim.after.encode("Kano").ids) - 1] == [0, 2]
    assert len(vocabulary) == len(trim.kept) < trim.old.vocabulary or known


def test_texts_that_were_counted_become_the_same_pieces(trim: Trim) -> None:
    change = changed(trim.old, trim.new, HAUSA)
    assert change.share == 0 and change.pieces[0] == change.pieces[1]
    assert change.unknown[0] == change.unknown[1]


@settings(deadline=None, max_examples=200)
@given(text=ANY_TEXT)
def test_a_text_whose_pieces_are_all_kept_is_read_as_before(trim: Trim, text: str) -> None:
    before, after = trim.old.encode(text), trim.new.encode(text)
    if set(before.ids.tolist()) <= set(trim.kept):
        assert trim.new.pieces(after.ids) == trim.old.pieces(before.ids)
        assert [trim.kept[each] for each in after.ids] == before.ids.tolist()
        assert after.offsets.tolist() == before.offsets.tolist()


@settings(deadline=None, max_examples=200)
@given(text=HAUSA_TEXT)
def test_no_text_becomes_unknown(fewest: Trim, text: str) -> None:
    before, after = fewest.old.encode(text), fewest.new.encode(text)
    assert before.unknown == after.unknown == 0
    assert len(after.ids) >= len(before.ids)


def test_a_letter_without_a_piece_of_its_own_keeps_those_that_have_it(tmp_path: Path) -> None:
    pieces = [*SPECIALS, "▁", "▁a", "a", "b", "▁ab", "xy", "y", "bb", "zzz"]
    file = tmp_path / "tokenizer.json"
    model = models.Unigram([(piece, -1.0 - at) for at, piece in enumerate(pieces)], unk_id=3)
    Tokenizer(model).save(str(file))
    content = read_unigram(file)
    kept = always_kept(content, {pieces.index("▁ab"), pieces.index("xy"), pieces.index("bb")})
    # The last is the least probable one, from which the cost of the unknown is taken.
    assert {pieces[each] for each in kept} == {"<unk>", "▁", "▁a", "a", "b", "xy", "y", "zzz"}


def test_frequent_pieces_stay_before_rare_ones_and_languages_weigh_alike(tmp_path: Path) -> None:
    file = ours(tmp_path)
    whole, content = Tokenizer.from_file(str(file)), read_unigram(file)
    few, many = HAUSA[:5], [text for text in TEXTS if text not in HAUSA]
    shares = counted(whole, {"hau": few, "oth": many})
    assert shares.sum() == pytest.approx(1)
    assert np.allclose(shares, (counted(whole, {"hau": few}) + counted(whole, {"oth": many})) / 2)
    always = always_kept(content, set(np.flatnonzero(shares).tolist()))
    most = len(always) + 50
    kept = needed(content, shares, most, FIRST)
    assert len(kept) == most and kept == sorted(set(kept)) and always <= set(kept)
    gone = set(np.flatnonzero(shares).tolist()) - set(kept)
    assert min(shares[each] for each in set(kept) - always) >= max(shares[each] for each in gone)
    assert needed(content, shares, 10_000, FIRST) == needed(content, shares, 0, FIRST)
    with pytest.raises(BuildError, match="single characters alone are"):
        needed(content, shares, len(always) - 1, FIRST)


def test_nothing_before_an_id_that_must_not_move_goes(tmp_path: Path) -> None:
    content = read_unigram(ours(tmp_path))
    kept = needed(content, np.zeros(1_000), 0, (0, 1, 20))
    assert kept[:21] == list(range(21)) and len(kept) < 30


def test_what_changes_is_told(tmp_path: Path) -> None:
    file, poorer = tmp_path / "tokenizer.json", tmp_path / "poorer.json"
    whole = tokenizer(NER_WORDS)
    whole.save(str(file))
    gone = {whole.token_to_id("▁Kano"), whole.token_to_id("z")}
    kept = [each for each in range(whole.get_vocab_size()) if each not in gone]
    poorer.write_text(json.dumps(trimmed(read_unigram(file), kept)))
    old, new = (Encoder(each, WINDOWS) for each in (file, poorer))
    change = changed(old, new, ["Kano", "Sani", "z", "ya"])
    assert change == Change(share=0.5, pieces=(1.25, 2.25), unknown=(0, 0.25))
    assert changed(old, new, []) == Change(share=0, pieces=(0, 0), unknown=(0, 0))


# --- checkpoints ------------------------------------------------------------------------------


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus", sentences=12)


def write_source(folder: Path, task: Task) -> Path:
    """A fine-tuned checkpoint with many pieces that the corpus does not have."""
    folder.mkdir()
    pieces = Tokenizer.from_file(str(ours(folder))).get_vocab_size()
    names = dict(enumerate(CORPUS_LABELS[task]))
    numbers = {each: number for number, each in names.items()}
    network(task, vocab_size=pieces, id2label=names, label2id=numbers).save_pretrained(folder)
    purpose = Purpose(
        task=task, labels=CORPUS_LABELS[task], languages=("swa", "hau"), windows=WINDOWS
    )
    write_purpose(folder, purpose)
    return folder


def write_encoder(folder: Path, **changes: Any) -> Path:
    """As Pretrain leaves one: the head of its training on it, no task."""
    folder.mkdir()
    pieces = Tokenizer.from_file(str(ours(folder))).get_vocab_size()
    config = network(Task.NER, vocab_size=pieces, **changes).config
    XLMRobertaForMaskedLM(config).save_pretrained(folder)
    return folder


def run(step: TrimVocabulary, source: Path, corpus: Path) -> Path:
    target = source.parent / "target"
    target.mkdir()
    trim_vocabulary(step, source, target, corpus)
    return target


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("task", list(Task))
def test_logits_are_exactly_the_old_ones_for_texts_read_alike(
    tmp_path: Path, corpus: Path, task: Task, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_source(tmp_path / "source", task)
    target = run(TrimVocabulary(languages=("hau",)), source, corpus)
    out = capsys.readouterr().out
    assert "pieces are kept for hau" in out and "of 6 dev texts 0.00% become other pieces" in out
    purpose = read_purpose(target)
    assert purpose == msgspec.structs.replace(read_purpose(source), languages=("hau",))
    old, new = (load(folder, purpose) for folder in (source, target))
    before, after = (Encoder(each / "tokenizer.json", WINDOWS) for each in (source, target))
    assert after.vocabulary < before.vocabulary / 2
    for sentence in data.sentences(corpus, "hau", "dev", raw=True):
        one, other = (
            torch.from_numpy(each.encode(sentence.text).windows[0].ids)[None]
            for each in (before, after)
        )
        with torch.inference_mode():
            assert torch.equal(old(one).logits, new(other).logits)


@pytest.mark.parametrize("task", list(Task))
def test_only_rows_of_the_word_embedding_go(tmp_path: Path, corpus: Path, task: Task) -> None:
    source = write_source(tmp_path / "source", task)
    target = run(TrimVocabulary(), source, corpus)
    before, after = weights_of(source), weights_of(target)
    (words,) = [name for name in before if name.endswith(WHOLE)]
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before if name != words)
    old, new = (Tokenizer.from_file(str(each / "tokenizer.json")) for each in (source, target))
    assert len(after[words]) == new.get_vocab_size() < old.get_vocab_size()
    for piece, row in new.get_vocab().items():
        assert torch.equal(after[words][row], before[words][old.token_to_id(piece)])
    config, was = (json.loads((each / "config.json").read_bytes()) for each in (target, source))
    assert config == {**was, "vocab_size": len(after[words])}
    assert read_purpose(target) == read_purpose(source)


def test_sixteen_bits_and_weights_nobody_knows_stay_as_they_are(
    tmp_path: Path, corpus: Path
) -> None:
    from safetensors.torch import save_file

    source = write_source(tmp_path / "source", Task.NER)
    strange = {"roberta.encoder.layer.0.odd": torch.randn(3, 5), "adapter": torch.tensor([7])}
    halves = {name: weight.half() for name, weight in weights_of(source).items()}
    save_file({**halves, **strange}, source / "model.safetensors", metadata={"format": "pt"})
    after = weights_of(run(TrimVocabulary(), source, corpus))
    assert torch.equal(after["adapter"], strange["adapter"])
    assert torch.equal(after["roberta.encoder.layer.0.odd"], strange["roberta.encoder.layer.0.odd"])
    assert after[f"roberta.embeddings.{WHOLE}"].dtype == torch.float16


@pytest.mark.parametrize("tied", [True, False])
def test_an_encoder_loses_the_rows_of_its_training_head_too(
    tmp_path: Path, corpus: Path, tied: bool
) -> None:
    source = write_encoder(tmp_path / "source", tie_word_embeddings=tied)
    target = run(TrimVocabulary(languages=("swa", "hau")), source, corpus)
    assert not (target / "task.json").exists()
    old, new = (XLMRobertaForMaskedLM.from_pretrained(each).eval() for each in (source, target))
    before, after = (Tokenizer.from_file(str(each / "tokenizer.json")) for each in (source, target))
    text = "Sani Bello ya isa Kano ranar Litinin."
    one, other = before.encode(text), after.encode(text)
    assert one.tokens == other.tokens and one.ids != other.ids
    kept = [before.token_to_id(after.id_to_token(row)) for row in range(after.get_vocab_size())]
    with torch.inference_mode():
        wanted = old(torch.tensor([one.ids])).logits[..., kept]
        torch.testing.assert_close(new(torch.tensor([other.ids])).logits, wanted)


def test_transformers_reads_the_trimmed_tokenizer(tmp_path: Path, corpus: Path) -> None:
    source = write_source(tmp_path / "source", Task.NER)
    mask = Tokenizer.from_file(str(source / "tokenizer.json")).token_to_id("<mask>")
    file = source / "tokenizer_config.json"
    saved = json.loads(file.read_bytes())
    added = {"0": {"content": "<s>", "special": True}, str(mask): {"content": "<mask>"}}
    file.write_text(json.dumps({**saved, "added_tokens_decoder": added}))
    target = run(TrimVocabulary(), source, corpus)
    last = Tokenizer.from_file(str(target / "tokenizer.json")).get_vocab_size() - 1
    written = json.loads((target / "tokenizer_config.json").read_bytes())
    assert {**written, "added_tokens_decoder": 0} == {**saved, "added_tokens_decoder": 0}
    assert {key: each["content"] for key, each in written["added_tokens_decoder"].items()} == {
        "0": "<s>",
        str(last): "<mask>",
    }
    theirs = AutoTokenizer.from_pretrained(target)
    assert (theirs.pad_token_id, theirs.mask_token_id) == (1, last)
    encoded = Encoder(target / "tokenizer.json", WINDOWS).encode("Amina ta isa Kano.")
    assert theirs("Amina ta isa Kano.")["input_ids"] == encoded.windows[0].ids.tolist()


def test_a_trimmed_checkpoint_is_exported_quantized_and_published(
    tmp_path: Path, corpus: Path
) -> None:
    source = write_source(tmp_path / "source", Task.NER)
    steps = (TrimVocabulary(languages=("swa",)), Export(weights="float16"), Quantize())
    done = cook(Checkpoint(source, ()), steps, Kitchen(corpus, "cpu", tmp_path))
    licence = Licence(name="none", sources=())
    title = Title(name="toy", description="A toy", licence=licence, command="none")
    variant, _ = publish(done, tmp_path / "catalog", title, golden=False)
    pieces = catalog.open_variant(tmp_path / "catalog" / "toy").encoder.vocabulary
    assert variant.languages == ("swa",) and variant.lineage == tuple(map(str, steps))
    before = weights_of(source)
    rows, hidden = before[f"roberta.embeddings.{WHOLE}"].shape
    assert pieces < rows / 2
    whole = sum(weight.numel() for weight in before.values())
    assert variant.parameters == whole - (rows - pieces) * hidden


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (TrimVocabulary(pieces=40), "specials and single characters alone are"),
        (TrimVocabulary(languages=("hau", "zul")), r"is not for zul: keep some of swa\+hau"),
    ],
)
def test_wishes_that_cannot_be_had_are_refused(
    tmp_path: Path, corpus: Path, step: TrimVocabulary, said: str
) -> None:
    with pytest.raises(BuildError, match=said):
        run(step, write_source(tmp_path / "source", Task.NER), corpus)


def test_an_encoders_languages_must_be_named_and_have_text(tmp_path: Path, corpus: Path) -> None:
    source = write_encoder(tmp_path / "source")
    with pytest.raises(BuildError, match="name the languages"):
        run(TrimVocabulary(), source, corpus)
    (tmp_path / "target").rmdir()
    with pytest.raises(DataError, match="no text in zul"):
        run(TrimVocabulary(languages=("zul",)), source, corpus)


def test_steps_in_the_wrong_order_are_refused(tmp_path: Path, corpus: Path) -> None:
    source = write_source(tmp_path / "source", Task.NER)
    (source / "model.onnx").touch()
    with pytest.raises(BuildError, match="trim the vocabulary before Export"):
        run(TrimVocabulary(), source, corpus)
    (source / "model.onnx").unlink()
    (source / "model.safetensors").unlink()
    (tmp_path / "target").rmdir()
    with pytest.raises(BuildError, match="made smaller by TrainTokenizer's vocabulary"):
        run(TrimVocabulary(), source, corpus)


def test_a_network_with_fewer_rows_than_pieces_is_refused(tmp_path: Path, corpus: Path) -> None:
    source = write_source(tmp_path / "source", Task.NER)
    network(Task.NER, vocab_size=20).save_pretrained(source)
    with pytest.raises(BuildError, match="pieces, the network knows 20"):
        run(TrimVocabulary(), source, corpus)


def test_other_kinds_of_tokenizer_are_refused(tmp_path: Path, corpus: Path) -> None:
    source = write_source(tmp_path / "source", Task.NER)
    Tokenizer(models.BPE({"a": 0}, [])).save(str(source / "tokenizer.json"))
    with pytest.raises(BuildError, match="the tokenizer is BPE: only a Unigram"):
        run(TrimVocabulary(), source, corpus)


def test_ids_with_gaps_are_refused(tmp_path: Path, corpus: Path) -> None:
    source = write_source(tmp_path / "source", Task.NER)
    content = read_unigram(source / "tokenizer.json")
    content["model"]["vocab"].pop()
    content["added_tokens"][-1]["id"] += 5
    (source / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(BuildError, match="does not number its pieces one after the other"):
        run(TrimVocabulary(), source, corpus)

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import sentencepiece
import torch
from tokenizers import Tokenizer

from build.__main__ import main
from build.checkpoint import read_purpose
from build.errors import BuildError
from build.importing import (
    HUB_ID,
    Origin,
    Wishes,
    adopt_encoder,
    adopt_finetuned,
    convert_sentencepiece,
    find,
    stored_at_half,
)
from models import catalog
from models.spec import Task
from tests.tiny import NER_WORDS, tokenizer
from tests.tiny_checkpoint import finetuned, network

GOLDEN = Path(__file__).parent.parent / "build" / "golden.json"
TOPICS = ("business", "health", "sports")


def write_theirs(folder: Path, task: Task, *, pickled: bool = False, **changes: Any) -> Path:
    """A checkpoint as its owner has it: no task.json."""
    theirs = network(task, **changes)
    theirs.save_pretrained(folder)
    if pickled:
        torch.save(theirs.state_dict(), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    tokenizer(NER_WORDS).save(str(folder / "tokenizer.json"))
    return folder


def nameless(labels: int) -> dict[str, Any]:
    return {
        "id2label": {index: f"LABEL_{index}" for index in range(labels)},
        "label2id": {f"LABEL_{index}": index for index in range(labels)},
    }


def change_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def adopt(folder: Path, task: Task, cache: Path, **wishes: Any) -> Path:
    return adopt_finetuned(find(str(folder)), Wishes(task=task, **wishes), cache).folder


# --- what is served ---------------------------------------------------------------------------


def test_a_pickled_classifier_is_served_in_two_sizes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_theirs(tmp_path / "mine", Task.CLASSIFICATION, pickled=True, **nameless(3))
    command = ["import", str(source), "--task", "classification", "--name", "mood"]
    folders = ["--catalog", str(tmp_path / "catalog"), "--cache", str(tmp_path / "cache")]
    assert main([*command, *folders]) == 2
    assert "give --labels with 3 names" in capsys.readouterr().err
    assert main([*command, *folders, "--labels", "bad,good,so-so", "--languages", "hau"]) == 0
    out = capsys.readouterr().out
    assert "logits within" in out and "mood-int8 answers" in out
    loaded = catalog.load(tmp_path / "catalog")
    assert sorted(loaded.variants) == ["mood-base", "mood-int8"] and not loaded.quarantined
    base, int8 = (loaded.manifests[name] for name in ("mood-base", "mood-int8"))
    assert base.labels == ("bad", "good", "so-so") and base.languages == ("hau",)
    assert base.weights.keys() == {"float32"} and int8.weights["int8"] > 0
    assert int8.parent == "mood-base" and int8.bytes < base.bytes
    assert base.evidence is not None and base.evidence.parity is not None
    assert base.evidence.parity < 1e-4
    said = "import mine --task classification --name mood --labels bad,good,so-so --languages hau"
    assert base.evidence.command == f"python -m build {said}"
    assert int8.evidence is not None and int8.evidence.parity is not None
    assert base.lineage[0].startswith("Import classification(mine, sha256=")
    answer = loaded.variants["mood-base"].answer(["Sani Bello ya je Kano."])[0]
    with torch.inference_mode():
        ids = torch.tensor(
            [
                Tokenizer.from_file(str(source / "tokenizer.json"))
                .encode("Sani Bello ya je Kano.")
                .ids
            ]
        )
        scores = network(Task.CLASSIFICATION)(ids).logits[0].softmax(0)
    assert answer.labels[0].score == pytest.approx(float(scores.max()), abs=1e-5)


def test_a_tagger_keeps_its_labels_and_gets_overlapping_windows(tmp_path: Path) -> None:
    folder = adopt(write_theirs(tmp_path / "mine", Task.NER), Task.NER, tmp_path / "cache")
    purpose = read_purpose(folder)
    assert purpose.labels[:3] == ("O", "B-PER", "I-PER")
    assert (purpose.windows.tokens, purpose.windows.overlap) == (128, 32)
    assert purpose.languages == ("und",)


def test_several_labels_at_once_are_read_from_the_config(tmp_path: Path) -> None:
    source = write_theirs(
        tmp_path / "mine", Task.CLASSIFICATION, problem_type="multi_label_classification"
    )
    purpose = read_purpose(adopt(source, Task.CLASSIFICATION, tmp_path / "cache"))
    assert purpose.multi_label and purpose.windows.overlap == 0


def test_sixteen_bit_checkpoints_are_known(tmp_path: Path) -> None:
    network(Task.NER).half().save_pretrained(tmp_path)
    assert stored_at_half(Origin(tmp_path, "mine"))
    assert not stored_at_half(Origin(finetuned(Task.NER), "ours"))


def test_adopting_twice_is_adopting_once(tmp_path: Path) -> None:
    source = write_theirs(tmp_path / "mine", Task.NER)
    first = adopt(source, Task.NER, tmp_path / "cache")
    assert adopt(source, Task.NER, tmp_path / "cache") == first
    assert adopt(source, Task.NER, tmp_path / "cache", languages=("hau",)) != first


def test_an_encoder_is_adopted_with_its_own_tokenizer(tmp_path: Path) -> None:
    source = write_theirs(tmp_path / "base", Task.NER, pickled=True)
    checkpoint = adopt_encoder(find(str(source)), tmp_path / "cache")
    assert checkpoint.lineage[0].startswith("Base(base, sha256=")
    assert checkpoint.folder.parent == tmp_path / "cache"
    assert (checkpoint.folder / "model.safetensors").is_file()
    own = (source / "tokenizer.json").read_bytes()
    assert (checkpoint.folder / "tokenizer.json").read_bytes() == own


# --- what is refused --------------------------------------------------------------------------


def test_other_architectures_are_refused(tmp_path: Path) -> None:
    source = write_theirs(tmp_path / "mine", Task.NER)
    change_config(source, model_type="bert")
    with pytest.raises(BuildError, match="is of type bert; accepted is xlm-roberta"):
        adopt(source, Task.NER, tmp_path / "cache")


@pytest.mark.parametrize(
    ("labels", "count"), [(("good", "bad"), 2), (("good", "bad", "bad"), 2), (tuple("abcd"), 4)]
)
def test_a_wrong_number_of_labels_is_refused(
    tmp_path: Path, labels: tuple[str, ...], count: int
) -> None:
    source = write_theirs(tmp_path / "mine", Task.CLASSIFICATION)
    with pytest.raises(BuildError, match=f"tells 3 labels apart, --labels names {count}"):
        adopt(source, Task.CLASSIFICATION, tmp_path / "cache", labels=labels)


def test_labels_the_config_miscounts_are_asked_for(tmp_path: Path) -> None:
    source = write_theirs(tmp_path / "mine", Task.CLASSIFICATION)
    change_config(source, id2label={"0": "business"}, label2id={"business": 0})
    with pytest.raises(BuildError, match="give --labels with 3 names"):
        adopt(source, Task.CLASSIFICATION, tmp_path / "cache")
    folder = adopt(source, Task.CLASSIFICATION, tmp_path / "cache", labels=TOPICS)
    assert read_purpose(folder).labels == TOPICS


def test_the_other_tasks_head_is_recognised(tmp_path: Path) -> None:
    source = write_theirs(tmp_path / "mine", Task.NER)
    with pytest.raises(BuildError, match="has a head for ner: give --task ner"):
        adopt(source, Task.CLASSIFICATION, tmp_path / "cache")


def test_an_encoder_without_a_head_is_refused(tmp_path: Path) -> None:
    network(Task.NER).roberta.save_pretrained(tmp_path / "mine")
    with pytest.raises(BuildError, match="no trained head: fine-tune it first"):
        adopt(tmp_path / "mine", Task.NER, tmp_path / "cache")


def test_missing_files_are_named(tmp_path: Path) -> None:
    source = write_theirs(tmp_path / "mine", Task.NER)
    (source / "tokenizer.json").unlink()
    with pytest.raises(BuildError, match=r"neither tokenizer\.json nor sentencepiece"):
        adopt(source, Task.NER, tmp_path / "cache")
    (source / "model.safetensors").unlink()
    with pytest.raises(BuildError, match="holds no weights"):
        adopt(source, Task.NER, tmp_path / "cache")
    (source / "config.json").unlink()
    with pytest.raises(BuildError, match=r"no config\.json"):
        adopt(source, Task.NER, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []  # no half folder


def test_a_tokenizer_with_more_pieces_than_the_network_is_refused(tmp_path: Path) -> None:
    source = write_theirs(tmp_path / "mine", Task.NER, vocab_size=20)
    with pytest.raises(BuildError, match="pieces, the network knows 20"):
        adopt(source, Task.NER, tmp_path / "cache")


def test_cut_weights_are_refused(tmp_path: Path) -> None:
    source = write_theirs(tmp_path / "mine", Task.NER)
    whole = (source / "model.safetensors").read_bytes()
    (source / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BuildError, match="mine"):
        adopt(source, Task.NER, tmp_path / "cache")


# --- sentencepiece ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as AfriBERTa's: a SentencePiece model and no tokenizer.json."""
    folder = tmp_path_factory.mktemp("pieces")
    texts = [each["text"] for each in json.loads(GOLDEN.read_text(encoding="utf-8"))]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_prefix=str(folder / "trained"),
        vocab_size=600,
        minloglevel=2,
    )
    (folder / "trained.model").rename(folder / "sentencepiece.bpe.model")
    return folder


def test_a_converted_tokenizer_reads_as_sentencepiece_does(pieces: Path) -> None:
    converted = convert_sentencepiece(pieces)
    theirs = sentencepiece.SentencePieceProcessor(
        model_file=str(pieces / "sentencepiece.bpe.model")
    )
    texts = [each["text"] for each in json.loads(GOLDEN.read_text(encoding="utf-8"))]
    for text in [*texts, "o\u0323\u0301 ko\u0323\u0301", "  two  spaces ", "\u1ecd\u0301"]:
        # XLM-R's ids: one more than SentencePiece's, whose unknown is 0.
        expected = [3 if piece == 0 else piece + 1 for piece in theirs.encode(text)]
        assert converted.encode(text).ids == [0, *expected, 2]


def test_an_encoder_with_only_sentencepiece_is_adopted(pieces: Path, tmp_path: Path) -> None:
    source = write_theirs(tmp_path / "base", Task.NER, vocab_size=602)
    (source / "tokenizer.json").unlink()
    model = (pieces / "sentencepiece.bpe.model").read_bytes()
    (source / "sentencepiece.bpe.model").write_bytes(model)
    folder = adopt_encoder(find(str(source)), tmp_path / "cache").folder
    made = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert made.get_vocab_size() == 602 and made.token_to_id("<mask>") == 601


# --- the hub ----------------------------------------------------------------------------------


def write_hub_cache(root: Path, source: Path) -> Path:
    """The layout huggingface_hub keeps: refs name a commit, snapshots link to blobs."""
    folder = root / "models--somebody--tagger"
    (folder / "refs").mkdir(parents=True)
    commit = "0123456789abcdef0123456789abcdef01234567"
    (folder / "refs" / "main").write_text(commit)
    snapshot = folder / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (folder / "blobs").mkdir()
    for number, file in enumerate(sorted(source.iterdir())):
        blob = folder / "blobs" / f"{number:064x}"
        blob.write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(blob)
    return root


@pytest.mark.parametrize("pickled", [False, True])
def test_a_hub_id_is_found_in_the_hubs_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pickled: bool
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    source = write_theirs(tmp_path / "theirs", Task.NER, pickled=pickled)
    origin = find("somebody/tagger", hub_cache=write_hub_cache(tmp_path / "hub", source))
    assert origin.name == "somebody/tagger@0123456789ab"
    checkpoint = adopt_finetuned(origin, Wishes(task=Task.NER), tmp_path / "cache")
    assert checkpoint.lineage[0].startswith("Import ner(somebody/tagger@0123456789ab")


def test_an_unreachable_hub_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BuildError, match="the hub is not reached") as failure:
        find("castorini/afriberta_base", hub_cache=tmp_path)
    assert "\n" not in str(failure.value) and "give its path" in str(failure.value)


def test_neither_a_folder_nor_a_hub_id_is_said_so() -> None:
    assert HUB_ID.fullmatch("castorini/afriberta_base")
    with pytest.raises(BuildError, match="neither a folder nor a hub id"):
        find("/no/such/folder")

from __future__ import annotations

import errno
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from build import cooccurrence, losses, pretrain, schedule, stream, tokenizer, training
from build.checkpoint import read_purpose
from build.data import DataError, Span
from build.examples import Reading, gold, gold_of, piece_tags
from build.finetune import finetune
from build.steps import CountEmbeddings, Finetune, Pretrain
from models.encode import Encoder
from models.spec import Task, Windows
from tests.tiny import NER_WORDS
from tests.tiny import tokenizer as tiny_tokenizer
from tests.tiny_checkpoint import network
from tests.tiny_corpus import write_corpus


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


# --- the loop ---------------------------------------------------------------------------------


def batch(number: int) -> training.Batch:
    torch.manual_seed(number)
    inputs = torch.randn(8, 4)
    return {"inputs": inputs, "attention_mask": torch.ones(8, 4), "wanted": inputs.sum(1)}


def loss(network: torch.nn.Module, inputs: training.Batch) -> torch.Tensor:
    return ((network(inputs["inputs"])[:, 0] - inputs["wanted"]) ** 2).mean()


def fit(
    resume: Path, batch: Callable[[int], training.Batch] = batch, steps: int = 30
) -> torch.nn.Module:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Dropout(0.1), torch.nn.Linear(4, 1))
    training.fit(
        network,
        batch,
        loss,
        steps=steps,
        peak=0.05,
        warmup=0.1,
        device="cpu",
        resume=resume,
        title="toy",
    )
    return network


def test_training_learns(tmp_path: Path) -> None:
    network = fit(tmp_path / "resume.pt", steps=200)
    assert not network.training
    assert loss(network, batch(999)).item() < 0.3


@pytest.mark.parametrize(
    ("has", "seen"),
    [
        ({"avx512_f": True, "avx512_bf16": True, "amx_bf16": False}, torch.bfloat16),
        ({"architecture": "aarch64", "neon": True, "bf16": True}, torch.bfloat16),
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, torch.float32),
    ],
)
def test_bfloat16_is_for_processors_that_have_it(
    has: dict[str, Any], seen: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    with training.autocast("cpu"):
        assert torch.nn.Linear(2, 2)(torch.ones(1, 2)).dtype == seen


def test_a_killed_run_ends_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit(tmp_path / "whole.pt")
    monkeypatch.setattr(training, "SAVE_EVERY_S", 0.0)
    asked: list[int] = []

    def failing(number: int) -> training.Batch:
        asked.append(number)
        if number == 17 and asked.count(17) == 1:
            raise KeyboardInterrupt
        return batch(number)

    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "resume.pt", failing)
    continued = fit(tmp_path / "resume.pt", failing)
    assert asked == [*range(18), *range(17, 30)]
    for one, other in zip(whole.parameters(), continued.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")
def test_a_full_disk_is_named_and_leaves_no_half_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SAVE_EVERY_S", 0.0)
    (tmp_path / "resume.writing").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as raised:
        fit(tmp_path / "resume.pt")
    assert raised.value.errno == errno.ENOSPC and not list(tmp_path.iterdir())


@given(st.lists(st.integers(1, 60), min_size=1, max_size=80), st.integers(60, 300), st.randoms())
def test_batches_hold_every_text_once_within_the_budget(
    lengths: list[int], budget: int, chance: object
) -> None:
    order = list(range(len(lengths)))
    chance.shuffle(order)  # type: ignore[attr-defined]
    groups = training.cut_by_length(lengths, budget, order)
    assert sorted(index for group in groups for index in group) == sorted(order)
    assert all(len(group) * max(lengths[i] for i in group) <= budget for group in groups)


def test_rows_are_padded_to_the_longest() -> None:
    assert training.pad([[5], [6, 7]], 1).tolist() == [[5, 1], [6, 7]]


def test_rates_go_straight_up_and_straight_down() -> None:
    rates = [schedule.linear(step, warmup=2, total=6) for step in range(7)]
    assert rates == [0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]


# --- masked language modelling ----------------------------------------------------------------


def test_bert_corrupts_a_share_of_the_positions_and_asks_for_those_alone() -> None:
    rows = np.random.default_rng(1).integers(4, 99, (64, 126))
    found = pretrain.masked(rows, 99, 0.15, seed=1)
    ids, labels = found["input_ids"].numpy(), found["labels"].numpy()
    chosen = labels != losses.IGNORED
    assert ids.shape == (64, 128) and (ids[:, 0] == 0).all() and (ids[:, -1] == 2).all()
    assert not chosen[:, [0, -1]].any()
    assert chosen.mean() == pytest.approx(0.15 * 126 / 128, abs=0.01)
    assert (ids[chosen] == 99).mean() == pytest.approx(0.8, abs=0.03)
    inner, asked = ids[:, 1:-1], chosen[:, 1:-1]
    assert np.array_equal(inner[~asked], rows[~asked])
    assert np.array_equal(labels[:, 1:-1][asked], rows[asked])
    assert torch.equal(found["labels"], pretrain.masked(rows, 99, 0.15, seed=1)["labels"])


def test_small_languages_are_read_again_until_the_largest_is_done() -> None:
    blocks = {"large": [f"l{i}" for i in range(90)], "small": ["s1", "s2"]}
    read = list(stream.mixed(blocks, seed=1))
    assert {block for block in read if block.startswith("l")} == set(blocks["large"])
    assert read.count("s1") > 1
    assert read == list(stream.mixed(blocks, seed=1))
    assert read == list(stream.mixed(blocks | {"void": []}, seed=1))


def test_an_encoder_is_counted_and_then_pretrained_in_the_asked_shape(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", sentences=20)
    source, counted, target = (tmp_path / name for name in ("source", "counted", "target"))
    for folder in (source, counted, target):
        folder.mkdir()
    lines = [line for lines in stream.sentences(corpus).values() for line in lines]
    tokenizer.save(tokenizer.train(lines, 200), source)
    shape = CountEmbeddings(layers=1, hidden=16, heads=2, inner=32, tokens=5_000)
    cooccurrence.count_embeddings(shape, source, counted, corpus)
    pretrain.pretrain(
        Pretrain(tokens=2_000, window=32, batch_tokens=256), counted, target, corpus, "cpu"
    )
    config = msgspec.json.decode((target / "config.json").read_bytes())
    assert (config["num_hidden_layers"], config["hidden_size"]) == (1, 16)
    assert (
        config["vocab_size"]
        == Encoder(target / "tokenizer.json", Windows(tokens=32, overlap=0)).vocabulary
    )
    assert (config["pad_token_id"], config["max_position_embeddings"]) == (1, 514)


# --- fine-tuning ------------------------------------------------------------------------------


def test_a_piece_belongs_to_the_entity_it_begins_in() -> None:
    offsets = [(0, 4), (5, 8), (8, 10), (11, 13), (14, 18), (18, 20)]
    spans = [Span("PER", 0, 10), Span("LOC", 14, 18), Span("LOC", 18, 20)]
    assert piece_tags(offsets, spans) == ["B-PER", "I-PER", "I-PER", "O", "B-LOC", "B-LOC"]


def write_encoder(folder: Path) -> Path:
    """What pretraining leaves, as far as fine-tuning reads it."""
    network(Task.NER).roberta.save_pretrained(folder)
    tiny_tokenizer(NER_WORDS).save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize(
    ("task", "labels"),
    [
        (Task.NER, ("O", "B-DATE", "I-DATE", "B-LOC", "I-LOC", "B-PER", "I-PER")),
        (Task.CLASSIFICATION, ("business", "health", "sports")),
    ],
)
def test_fine_tuning_names_its_labels_and_says_how_to_read(
    tmp_path: Path, task: Task, labels: tuple[str, ...]
) -> None:
    corpus = write_corpus(tmp_path / "corpus", sentences=8)
    source = write_encoder(tmp_path / "source")
    target = tmp_path / "target"
    target.mkdir()
    step = Finetune(task=task, languages=("hau", "swa"), epochs=1, window=64, overlap=16)
    finetune(step, source, target, corpus, "cpu")
    config = msgspec.json.decode((target / "config.json").read_bytes())
    assert tuple(config["id2label"].values()) == labels
    purpose = read_purpose(target)
    assert purpose.labels == labels and purpose.languages == ("hau", "swa")
    assert purpose.windows == Windows(tokens=64, overlap=16)
    assert not (target / "resume.pt").exists()


@pytest.mark.parametrize(("headlines", "read"), [(False, "kasuwa"), (True, "likita")])
def test_articles_are_learnt_from_whole_or_by_their_headlines(
    tmp_path: Path, headlines: bool, read: str
) -> None:
    row = {"headline": "likita", "text": "kasuwa", "label": "health"}
    file = tmp_path / "news" / "hau" / "train.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(row) + "\n")
    encoder = Encoder(
        write_encoder(tmp_path / "source") / "tokenizer.json", Windows(tokens=64, overlap=0)
    )
    reading = Reading(
        task=Task.CLASSIFICATION,
        languages=("hau",),
        window=64,
        batch_tokens=512,
        epochs=1,
        seed=1,
        headlines=headlines,
    )
    _, (draw,) = gold(reading, tmp_path, encoder)
    ids, _ = draw(random.Random(1))
    assert ids[-len(read) :] == encoder.encode(read).ids.tolist()[-len(read) :]


@pytest.mark.parametrize("task", Task)
def test_a_network_of_more_languages_keeps_its_labels_in_fewer(tmp_path: Path, task: Task) -> None:
    corpus = write_corpus(tmp_path / "corpus", sentences=12)
    for file in (corpus / "ner" / "swa", corpus / "news" / "swa"):
        for split in file.glob("train.*"):
            kept = [line for line in split.read_text().split("\n") if "health" not in line]
            split.write_text("\n".join(kept).replace("B-DATE", "O"))
    encoder = Encoder(
        write_encoder(tmp_path / "source") / "tokenizer.json", Windows(tokens=64, overlap=0)
    )
    both = Reading(
        task=task, languages=("hau", "swa"), window=64, batch_tokens=512, epochs=1, seed=1
    )
    one = replace(both, languages=("swa",))
    labels, draws = gold(both, corpus, encoder)
    fewer, _ = gold(one, corpus, encoder)
    assert set(fewer) < set(labels)
    alone = gold_of(labels, one, corpus, encoder)
    of_swahili = draws[-len(alone) :]
    assert [draw(random.Random(1)) for draw in alone] == [
        draw(random.Random(1)) for draw in of_swahili
    ]
    with pytest.raises(DataError, match=r"the data has .*; the checkpoint "):
        gold_of(fewer, both, corpus, encoder)


def test_an_empty_training_split_is_said_so(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", sentences=2)
    (corpus / "ner" / "hau" / "train.txt").write_text("")
    source = write_encoder(tmp_path / "source")
    step = Finetune(task=Task.NER, languages=("hau",), epochs=1, window=64, overlap=16)
    with pytest.raises(DataError, match="no training examples for hau"):
        finetune(step, source, tmp_path, corpus, "cpu")

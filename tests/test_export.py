from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto

from build import graph
from build.checkpoint import read_purpose, write_purpose
from build.errors import BuildError
from build.export import HALVES, export, round_to_half
from build.graph import MODEL, PARITY, Parity, compare, operators, runner
from build.steps import Export
from models.runtime_onnx import OnnxSession
from models.session import SessionOptions
from models.spec import Runtime, Task
from models.weights import census
from tests.tiny_checkpoint import LAYERS, exported, finetuned, network

TASKS = list(Task)


def batch(texts: int, tokens: int, *, left: bool = False) -> dict[str, np.ndarray]:
    """Random ids of several lengths, padded on either side."""
    chance = np.random.default_rng(5)
    ids = np.ones((texts, tokens), np.int64)
    mask = np.zeros_like(ids)
    for row in range(texts):
        length = int(chance.integers(2, tokens + 1))
        place = slice(tokens - length, tokens) if left else slice(length)
        ids[row, place], mask[row, place] = chance.integers(4, 30, length), 1
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("left", [False, True])
def test_logits_are_those_of_torch_under_any_padding(task: Task, left: bool) -> None:
    feed = batch(5, 37, left=left)
    found = runner(exported(task))(feed)
    with torch.inference_mode():
        tensors = {name: torch.from_numpy(array) for name, array in feed.items()}
        expected = network(task)(**tensors).logits.numpy()
    if task is Task.NER:
        found, expected = found[feed["attention_mask"] == 1], expected[feed["attention_mask"] == 1]
    assert np.abs(found - expected).max() < 1e-4


@pytest.mark.parametrize("task", TASKS)
def test_the_step_records_its_parity(task: Task) -> None:
    parity = msgspec.json.decode((exported(task) / PARITY).read_bytes(), type=Parity)
    assert 0 < parity.logits < 1e-4
    assert (1, 2) in parity.batches and any(tokens == 64 for _, tokens in parity.batches)


@pytest.mark.parametrize("weights", HALVES)
def test_sixteen_bit_weights_are_the_rounded_network(weights: str) -> None:
    rounded = network(Task.NER)
    round_to_half(rounded, HALVES[weights])
    feed = batch(3, 20)
    with torch.inference_mode():
        tensors = {name: torch.from_numpy(array) for name, array in feed.items()}
        expected = rounded(**tensors).logits.numpy()
    found = runner(exported(Task.NER, weights))(feed)
    assert np.abs(found - expected)[feed["attention_mask"] == 1].max() < 1e-4


@pytest.mark.parametrize("weights", HALVES)
def test_sixteen_bit_files_store_every_weight_in_sixteen_bits(weights: str) -> None:
    stored = census(exported(Task.NER, weights), Runtime.ONNX)
    parameters = sum(weight.numel() for weight in network(Task.NER).parameters())
    assert stored[weights] == parameters
    assert stored["float32"] < 10  # scalars of the arithmetic


def test_the_graph_is_small_and_its_norms_and_activations_are_whole() -> None:
    kinds = operators(exported(Task.NER) / MODEL)
    assert not kinds.keys() & {"Expand", "GatherND", "Range", "Where", "IsNaN", "If", "Loop"}
    assert sum(kinds.values()) < 90  # of which a layer is 32
    assert kinds["LayerNormalization"] == 2 * LAYERS + 1
    assert kinds["Gelu"] == kinds["Softmax"] == LAYERS


def test_the_file_carries_no_traces_of_the_machine_it_was_made_on() -> None:
    content = (exported(Task.NER) / MODEL).read_bytes()
    assert b".py" not in content and b"site-packages" not in content


def test_the_tokenizer_and_the_purpose_come_along() -> None:
    folder = exported(Task.NER)
    source = finetuned(Task.NER)
    assert (folder / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    assert read_purpose(folder) == read_purpose(source)


def test_windows_longer_than_the_positions_are_refused(tmp_path: Path) -> None:
    source = tmp_path / "source"
    network(Task.NER).save_pretrained(source)
    purpose = read_purpose(finetuned(Task.NER))
    windows = msgspec.structs.replace(purpose.windows, tokens=200)
    write_purpose(source, msgspec.structs.replace(purpose, windows=windows))
    with pytest.raises(BuildError, match="200 tokens pass the network's 128 positions"):
        export(Export(), source, tmp_path)


def test_the_halves_differ_and_float16_is_the_nearer() -> None:
    feed = batch(4, 30)
    floats, half, brain = (
        runner(exported(Task.NER, weights))(feed)[feed["attention_mask"] == 1]
        for weights in ("float32", "float16", "bfloat16")
    )
    assert 0 < np.abs(half - floats).mean() < np.abs(brain - floats).mean() < floats.std() / 10


def test_sixteen_bit_weights_are_widened_once_when_the_file_is_loaded(tmp_path: Path) -> None:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / MODEL)
    ort.InferenceSession(exported(Task.NER, "bfloat16") / MODEL, options)
    kept = onnx.load(tmp_path / MODEL).graph
    assert not any(tensor.data_type == TensorProto.BFLOAT16 for tensor in kept.initializer)


def test_a_graph_that_says_something_else_is_noticed() -> None:
    folder = exported(Task.NER)
    run = runner(folder)
    purpose = read_purpose(folder)
    apart = compare(run, lambda feed: run(feed) + np.float32(0.5), folder, purpose)
    assert apart.logits == pytest.approx(0.5, abs=1e-3)
    lost = compare(run, lambda feed: run(feed) * np.float32(np.nan), folder, purpose)
    assert np.isnan(lost.logits)


def test_weights_too_large_for_one_file_lie_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph, "LARGEST_FILE", 1_000)
    graph.save(onnx.load(exported(Task.NER) / MODEL), tmp_path)
    assert (tmp_path / f"{MODEL}.data").is_file()
    feed = batch(2, 9)
    assert np.array_equal(runner(tmp_path)(feed), runner(exported(Task.NER))(feed))
    assert census(tmp_path, Runtime.ONNX) == census(exported(Task.NER), Runtime.ONNX)


def test_the_file_serves(tmp_path: Path) -> None:
    session = OnnxSession(None, exported(Task.NER), SessionOptions())  # type: ignore[arg-type]
    feed = batch(2, 9)
    assert session.run(feed["input_ids"], feed["attention_mask"]).shape == (2, 9, 9)

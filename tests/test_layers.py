"""The forms of layers: every one is written, read, exported and quantized as what it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from build.checkpoint import read_purpose
from build.export import export
from build.factorize import replace
from build.graph import MODEL, operators, runner
from build.layers import NoAttention, NoFeedForward, linears, near_square
from build.networks import load, load_encoder, save
from build.quantize import quantize
from build.steps import Export, Factorize, Quantize
from build.structure import Importance, keep
from build.sublayers import leave_out_attention, leave_out_feed_forward
from models.spec import Task
from tests.tiny_checkpoint import HIDDEN, finetuned, network

HEADS = 4


def without_heads_and_columns(net: Any) -> None:
    chance = torch.Generator().manual_seed(1)
    sizes = (HEADS, 64)
    found = [
        Importance(*(torch.rand(n, generator=chance) for n in sizes))
        for _ in net.base_model.encoder.layer
    ]
    keep(net, found, 0.5, 0.5, HIDDEN // HEADS)


FORMS: dict[str, Callable[[Any], None]] = {
    "svd": lambda net: replace(Factorize(method="svd", bond=5), net),
    "mpo": lambda net: replace(Factorize(method="mpo", bond=5), net),
    "one part": lambda net: replace(Factorize(bond=3, layers=(1,), parts=("output.dense",)), net),
    "embedding": lambda net: replace(Factorize(embedding=7), net),
    "without attention": lambda net: leave_out_attention(net, 1),
    "without a feed-forward half": lambda net: leave_out_feed_forward(net, (0,)),
    "without heads and columns": without_heads_and_columns,
}


def changed(form: str, task: Task = Task.NER) -> Any:
    net = network(task)
    FORMS[form](net)
    return net.eval()


def ids() -> torch.Tensor:
    return torch.randint(5, 40, (3, 11), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("task", list(Task))
@pytest.mark.parametrize("form", FORMS)
def test_a_network_of_any_form_is_read_as_it_was_written(
    form: str, task: Task, tmp_path: Path
) -> None:
    net = changed(form, task)
    save(net, finetuned(task), tmp_path)
    again = load(tmp_path, read_purpose(tmp_path))
    assert again.state_dict().keys() == net.state_dict().keys()
    with torch.inference_mode():
        torch.testing.assert_close(again(ids()).logits, net(ids()).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_a_network_of_any_form_is_exported_and_quantized(form: str, tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("torch", "onnx", "int8")}
    for folder in folders.values():
        folder.mkdir()
    save(changed(form), finetuned(Task.NER), folders["torch"])
    export(Export(weights="float16"), folders["torch"], folders["onnx"])  # compares with torch
    quantize(Quantize(), folders["onnx"], folders["int8"])
    feed = {"input_ids": ids().numpy(), "attention_mask": torch.ones_like(ids()).numpy()}
    floats, whole = (runner(folders[name])(feed) for name in ("onnx", "int8"))
    assert abs(whole - floats).mean() < 0.1 * floats.std()
    # The same answer alone and in company.
    alone = {name: array[:1] for name, array in feed.items()}
    assert (runner(folders["int8"])(alone)[0] == whole[0]).all()


def test_both_halves_of_a_factored_layer_become_int8(tmp_path: Path) -> None:
    plain, halves = tmp_path / "plain", tmp_path / "halves"
    for folder, form in ((plain, None), (halves, "svd")):
        net = changed(form) if form else network(Task.NER)
        for name in ("torch", "onnx", "int8"):
            (folder / name).mkdir(parents=True)
        save(net, finetuned(Task.NER), folder / "torch")
        export(Export(), folder / "torch", folder / "onnx")
        quantize(Quantize(), folder / "onnx", folder / "int8")
    products = [
        operators(each / "int8" / MODEL)["MatMulIntegerToFloat"] for each in (plain, halves)
    ]
    assert products == [12, 24]


def test_an_encoder_of_any_form_is_read_too(tmp_path: Path) -> None:
    net = network(Task.NER).roberta
    net.save_pretrained(tmp_path)
    again = load_encoder(tmp_path)
    with torch.inference_mode():
        torch.testing.assert_close(again(ids()).last_hidden_state, net(ids()).last_hidden_state)


def test_a_layer_without_attention_has_no_linear_layers_of_it() -> None:
    net = changed("without attention")
    first, last = net.base_model.encoder.layer
    assert isinstance(last.attention, NoAttention)
    assert [*linears(last)] == ["intermediate.dense", "output.dense"]
    assert len([*linears(first)]) == 6


def test_a_layer_without_a_feed_forward_half_has_no_linear_layers_of_it() -> None:
    first, last = changed("without a feed-forward half").base_model.encoder.layer
    assert isinstance(first.output, NoFeedForward)
    assert [*linears(first)] == [*linears(last)][:4]


@pytest.mark.parametrize(
    ("size", "factors"), [(384, (16, 24)), (1536, (32, 48)), (768, (24, 32)), (7, (1, 7))]
)
def test_sizes_are_split_nearest_to_a_square(size: int, factors: tuple[int, int]) -> None:
    assert near_square(size) == factors

"""Products of smaller layers: exact at the full bond, nearest below it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from build.checkpoint import read_purpose
from build.errors import BuildError
from build.factorize import factored, factorize, replace
from build.layers import TensorProduct
from build.networks import load
from build.steps import Factorize
from models.spec import Task
from tests.tiny_checkpoint import finetuned, network

SIZES = st.sampled_from([4, 6, 8, 12])


def dense(inputs: int, outputs: int) -> torch.nn.Linear:
    torch.manual_seed(inputs * 100 + outputs)
    return torch.nn.Linear(inputs, outputs)


@settings(max_examples=20, deadline=None)
@given(SIZES, SIZES, st.sampled_from(["svd", "mpo"]))
def test_the_full_bond_changes_nothing(inputs: int, outputs: int, method: str) -> None:
    layer, rows = dense(inputs, outputs), torch.randn(2, 3, inputs)
    torch.testing.assert_close(
        factored(layer, method, 1_000)(rows), layer(rows), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("method", ["svd", "mpo"])
def test_a_larger_bond_is_nearer(method: str) -> None:
    layer, rows = dense(12, 12), torch.randn(50, 12)
    apart = [
        (factored(layer, method, bond)(rows) - layer(rows)).pow(2).mean().item()
        for bond in (1, 3, 6, 9)
    ]
    assert apart == sorted(apart, reverse=True) and apart[0] > 2 * apart[-1]


def test_parameters_are_those_of_the_two_factors() -> None:
    layer = dense(12, 8)
    counted = [sum(p.numel() for p in factored(layer, m, 3).parameters()) for m in ("svd", "mpo")]
    # 12 is 3 x 4 and 8 is 2 x 4.
    assert counted == [3 * (12 + 8) + 8, 3 * (2 * 3 + 4 * 4) + 8]


def test_a_tensor_product_is_the_sum_of_its_cores_products() -> None:
    layer = TensorProduct((2, 2, 3), (2, 4, 5))
    torch.nn.init.normal_(layer.left)
    torch.nn.init.normal_(layer.right)
    matrix = sum(torch.kron(layer.left[k], layer.right[k]) for k in range(2))
    rows = torch.randn(7, 15)
    torch.testing.assert_close(layer(rows), rows @ matrix.T, rtol=1e-5, atol=1e-5)


def test_the_embedding_of_full_rank_is_the_same(tmp_path: Path) -> None:
    source = finetuned(Task.NER)
    step = Factorize(embedding=1_000)
    factorize(step, source, tmp_path, Path("unread"), "cpu")
    ids = torch.randint(5, 40, (3, 11))
    purpose = read_purpose(source)
    with torch.inference_mode():
        before, after = (load(each, purpose)(ids).logits for each in (source, tmp_path))
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)


def test_the_padding_row_stays_zero() -> None:
    net = network(Task.NER)
    with torch.no_grad():
        net.roberta.embeddings.word_embeddings.weight[1] = 0
    replace(Factorize(embedding=3), net)
    assert not net.roberta.embeddings.word_embeddings[0].weight[1].abs().max() > 1e-6


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(BuildError, match="there is no layer 7: they are 0 to 1"):
        replace(Factorize(bond=2, layers=(7,)), network(Task.NER))


def test_a_layer_is_not_factorized_twice() -> None:
    net = network(Task.NER)
    replace(Factorize(bond=2), net)
    with pytest.raises(BuildError, match="is factorized already"):
        replace(Factorize(bond=2), net)

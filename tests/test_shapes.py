"""AfriBERTa's shapes with random weights, whole and compressed as a recipe compresses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from build import shapes, structure
from build.checkpoint import read_purpose
from build.errors import BuildError
from build.networks import load
from build.recipes import RECIPES
from build.shapes import compressed, random_checkpoint, scaled
from build.steps import (
    Calibrate,
    CountEmbeddings,
    Distill,
    Export,
    Factorize,
    Finetune,
    Pretrain,
    PruneStructure,
    QuantizeBlocks,
    Restore,
    SkipAttention,
    SkipFeedForward,
    TrainTokenizer,
    TrimPositions,
    TrimVocabulary,
)
from models.spec import Task
from tests.tiny_checkpoint import finetuned


def test_the_real_shapes_are_afribertas() -> None:
    assert shapes.LAYERS == {"afriberta-small": 4, "afriberta-base": 8, "afriberta-large": 10}
    assert (shapes.SIZES["vocab_size"], shapes.SIZES["hidden_size"]) == (70_006, 768)
    layer = 4 * (768 * 768 + 768) + 2 * 768 * 3072 + 3072 + 768 + 4 * 768
    tables = (70_006 + 514 + 1) * 768 + 2 * 768
    assert tables + 8 * layer == pytest.approx(111e6, rel=0.01)  # the paper's 111 million


def test_a_shape_has_random_weights_and_the_tokenizer_given(tmp_path: Path) -> None:
    file = finetuned(Task.NER) / "tokenizer.json"
    small = {**shapes.SIZES, "vocab_size": 200, "hidden_size": 48, "intermediate_size": 64}
    checkpoint = random_checkpoint("afriberta-small", Task.NER, file, tmp_path, sizes=small)
    assert "Random(afriberta-small" in checkpoint.lineage[0]
    assert (checkpoint.folder / "tokenizer.json").read_bytes() == file.read_bytes()
    config = json.loads((checkpoint.folder / "config.json").read_text())
    assert config["num_hidden_layers"] == 4 and config["num_attention_heads"] == 6
    assert np.isfinite(read_purpose(checkpoint.folder).windows.tokens)


RECIPE = (
    TrainTokenizer(vocabulary=20_000),
    CountEmbeddings(layers=4, hidden=384),
    Finetune(task=Task.NER, languages=("hau",), epochs=1),
    Calibrate(),
    Export(),
    Restore(),
    Distill(layers=(1, 3), epochs=1),
    Distill(layers=(1,), epochs=1),
    TrimVocabulary(pieces=10_000),
    Factorize(embedding=128, epochs=1),
    PruneStructure(heads=0.5, columns=0.75, epochs=1),
    TrimPositions(),
    Export(),
)


def test_a_recipe_is_scaled_to_another_shape() -> None:
    half, one, trim, factorize, cut, last = scaled(RECIPE, layers=10, hidden=768, vocabulary=70_000)
    assert isinstance(half, Distill) and half.layers == (1, 3, 5, 7, 9)
    assert isinstance(one, Distill) and one.layers == (1, 4)  # half of five, rounded to even
    assert isinstance(trim, TrimVocabulary) and trim.pieces == 35_000
    assert isinstance(factorize, Factorize)
    assert (factorize.embedding, factorize.epochs) == (256, 0)
    assert cut == PruneStructure(heads=0.5, columns=0.75, epochs=1) and last == TrimPositions()


def test_what_leaves_the_form_as_it_is_is_passed_over() -> None:
    recipe = (*RECIPE[:2], Pretrain(tokens=1_000), *RECIPE[2:], QuantizeBlocks())
    sizes = {"layers": 10, "hidden": 768, "vocabulary": 70_000}
    assert scaled(recipe, **sizes) == scaled(RECIPE, **sizes)


def test_what_has_no_fraction_is_refused() -> None:
    with pytest.raises(BuildError, match="a shape cannot be compressed by Factorize"):
        scaled((*RECIPE[:2], Factorize(bond=2)), layers=4, hidden=8, vocabulary=9)


def test_halves_of_layers_are_left_out_of_as_many_in_proportion() -> None:
    skipped = (SkipAttention(last=1, epochs=1), SkipFeedForward(layers=(0,), epochs=1))
    *_, attention, forward = scaled((*RECIPE[:7], *skipped), layers=10, hidden=768, vocabulary=9)
    assert attention == SkipAttention(last=2)  # of five, where one of two was
    assert forward == SkipFeedForward(layers=(0, 1, 2))
    second = SkipFeedForward(layers=(1,))
    assert not any(step == second for step in scaled((*RECIPE[:7], second), 2, 768, 9))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_its_like_in_another_shape(name: str) -> None:
    assert scaled(RECIPES[name], layers=10, hidden=768, vocabulary=70_006) is not None


def test_a_shape_is_the_same_from_a_cache_and_from_scratch(tmp_path: Path) -> None:
    file = finetuned(Task.NER) / "tokenizer.json"
    small = {**shapes.SIZES, "vocab_size": 200, "hidden_size": 48, "intermediate_size": 64}
    found = []
    for seed in (5, 6):
        whole = random_checkpoint("afriberta-small", Task.NER, file, tmp_path, sizes=small)
        torch.manual_seed(seed)
        made = compressed(whole, RECIPE).folder
        found.append(load_file(made / "model.safetensors"))
        shutil.rmtree(made)
    one, other = found
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_shape_is_compressed_as_the_recipe_compresses(tmp_path: Path) -> None:
    file = finetuned(Task.NER) / "tokenizer.json"
    small = {**shapes.SIZES, "vocab_size": 200, "hidden_size": 48, "intermediate_size": 64}
    whole = random_checkpoint("afriberta-small", Task.NER, file, tmp_path, sizes=small)
    made = compressed(whole, RECIPE)
    network = load(made.folder, read_purpose(made.folder))
    (layer,) = network.base_model.encoder.layer
    assert structure.widths(layer, 8) == (3, 16)
    table, wider = network.base_model.embeddings.word_embeddings
    assert table.weight.shape == (100, 16) and wider.weight.shape == (48, 16)
    assert network.config.max_position_embeddings == 514

"""LLM.int8(), where bitsandbytes is installed; where it is not, what to install."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from build.errors import BuildError
from build.llm_int8 import stored_bytes, to_llm_int8
from models.spec import Task
from tests.tiny_checkpoint import network

INSTALLED = importlib.util.find_spec("bitsandbytes") is not None


@pytest.mark.skipif(INSTALLED, reason="bitsandbytes is there")
def test_what_is_missing_is_named() -> None:
    with pytest.raises(BuildError, match=r"pip install -r requirements/bitsandbytes\.txt"):
        to_llm_int8(network(Task.NER))


@pytest.mark.skipif(not INSTALLED, reason="needs requirements/bitsandbytes.txt")
def test_answers_stay_near_in_a_quarter_of_the_bytes() -> None:
    ids = torch.randint(5, 40, (3, 11), generator=torch.Generator().manual_seed(1))
    floats, whole = network(Task.NER), to_llm_int8(network(Task.NER))
    with torch.inference_mode():
        wanted, given = (each(ids).logits for each in (floats, whole))
    assert 0 < (given - wanted).abs().mean() < 0.1 * wanted.std()
    assert stored_bytes(whole) < stored_bytes(floats)


@pytest.mark.parametrize("threshold", [0.0, -1.0])
def test_outliers_are_beyond_a_positive_number(threshold: float) -> None:
    with pytest.raises(BuildError, match="beyond a positive number"):
        to_llm_int8(network(Task.NER), threshold=threshold)

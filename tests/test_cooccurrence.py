"""Embeddings counted from text: near pieces are counted, like pieces come out alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from build import cooccurrence
from build.cooccurrence import REACH, counts, embeddings, positive_information


@given(st.lists(st.integers(0, 6), max_size=40), st.integers(1, 12))
def test_counts_are_those_of_the_definition(ids: list[int], chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cooccurrence, "CHUNK", chunk)
        found = counts(np.array(ids, np.int32), 7)
    wanted = np.zeros((7, 7))
    for i, one in enumerate(ids):
        for j, other in enumerate(ids):
            if 0 < abs(i - j) <= REACH:
                wanted[one, other] += 1 / abs(i - j)
    assert np.allclose(found.numpy(), wanted, atol=1e-4)


def test_information_is_nothing_where_pieces_meet_by_chance_and_never_negative() -> None:
    assert positive_information(torch.ones(4, 4)).abs().max() < 1e-6
    apart = positive_information(torch.tensor([[9.0, 1.0], [1.0, 9.0]]))
    assert (apart >= 0).all() and apart[0, 0] > apart[0, 1]


def test_pieces_with_like_neighbours_come_out_alike() -> None:
    # 0 and 1 stand between 2 and 3, 4 and 5 between 6 and 7; 8 never occurs.
    chance = np.random.default_rng(1)
    phrases = [(2, x, 3) for x in (0, 1)] + [(6, x, 7) for x in (4, 5)]
    groups = [phrases[i] for side in (0, 2) for i in side + chance.integers(0, 2, 400)]
    ids = np.array([piece for phrase in groups for piece in phrase], np.int32)
    rows = embeddings(ids, 9, 4, deviation=0.02, seed=1)
    alike = torch.nn.functional.normalize(rows, dim=1)
    likeness = alike @ alike.T
    assert likeness[0, 1] > 0.9 and likeness[4, 5] > 0.9
    assert likeness[0, 4] < 0.5 and likeness[1, 5] < 0.5
    assert rows.norm(dim=1)[:8] == pytest.approx(0.04, rel=1e-3)
    assert rows[8].norm() > 0 and torch.isfinite(rows).all()
    assert torch.equal(rows, embeddings(ids, 9, 4, deviation=0.02, seed=1))

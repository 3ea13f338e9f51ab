"""Grouping by length: every item once, within the budget."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from models.batches import cut

LENGTHS = st.lists(st.integers(2, 200), max_size=60)


def test_the_worked_example():
    assert cut([9, 2, 3, 2], max_items=8, max_padded_tokens=9) == [[1, 3, 2], [0]]


@given(lengths=LENGTHS, items=st.integers(1, 16), budget=st.integers(1, 600))
def test_every_item_is_in_one_group_within_the_budget(lengths, items, budget):
    groups = cut(lengths, max_items=items, max_padded_tokens=budget)
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    for group in groups:
        assert 0 < len(group) <= items
        longest = max(lengths[index] for index in group)
        assert len(group) == 1 or len(group) * longest <= budget


@given(lengths=LENGTHS)
def test_groups_run_from_short_to_long(lengths):
    groups = cut(lengths, max_items=4, max_padded_tokens=400)
    flat = [lengths[index] for group in groups for index in group]
    assert flat == sorted(lengths)

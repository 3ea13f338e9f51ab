"""
Which items to run together: near in length, within a budget of padded tokens.

Knows numbers only, nothing of texts or models.
"""

from __future__ import annotations

from collections.abc import Sequence


def cut(lengths: Sequence[int], *, max_items: int, max_padded_tokens: int) -> list[list[int]]:
    """
    Group the indices of `lengths`, shortest first; every index is in exactly one group.

    A group holds at most `max_items`, and its size times its longest item is at most
    `max_padded_tokens`. An item longer than the budget goes alone.

    lengths=[9, 2, 3, 2] max_items=8 max_padded_tokens=9  ->  [[1, 3, 2], [0]]
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        group = groups[-1] if groups else []
        fits = (len(group) + 1) * lengths[index] <= max_padded_tokens
        if group and fits and len(group) < max_items:
            group.append(index)
        else:
            groups.append([index])
    return groups

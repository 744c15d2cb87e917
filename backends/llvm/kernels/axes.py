"""Axes of arrays that are walked together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

Axis: TypeAlias = tuple[int, tuple[int, ...]]
"""The size of an axis, and the distance between its neighbours in each of the arrays."""


def joined(axes: Iterable[Axis]) -> list[Axis]:
    """As few axes as can be that walk the same elements in the same order: those of size 1 are left out, and one that
    continues the axis before it in all arrays is joined to that.

    >>> joined([(2, (12, 0)), (3, (4, 0)), (1, (1, 1)), (4, (1, 1))])
    [(6, (4, 0)), (4, (1, 1))]
    """
    found: list[Axis] = []
    for size, steps in axes:
        if size == 1:
            continue
        if found and found[-1][1] == tuple(size * step for step in steps):
            found[-1] = found[-1][0] * size, steps
        else:
            found.append((size, steps))
    return found

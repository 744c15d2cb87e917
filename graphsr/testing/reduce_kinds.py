"""Strategies for the other reductions and the running sum."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st

from graphsr.ops import (
    CumulativeSum,
    ReduceL1,
    ReduceL2,
    ReduceLogSum,
    ReduceLogSumExp,
    ReduceMin,
    ReduceProd,
    ReduceSumSquare,
)
from graphsr.ops.reduce import Reduction
from graphsr.testing.cases import Case, arrays, distinct_arrays, layer
from graphsr.testing.elementwise import nonzero_arrays
from graphsr.testing.reduce import some_axes

SHAPE = st.one_of(
    st.tuples(*[st.integers(1, 3)] * 4),  # images, half of the time
    st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple),
)
FEW = ((1,), (3,), (4,), (2, 2), (2, 1, 2), (1, 2, 1, 2), (1, 1, 2, 2))
"""Shapes with at most four factors: the product varies no faster than they do."""


def _case_of(kind: type[Reduction]) -> Callable[[st.DrawFn], Case]:
    def draw_case(draw: st.DrawFn) -> Case:
        shape = draw(SHAPE)
        if kind is ReduceProd:
            shape = draw(st.sampled_from(FEW))
        op = kind(draw(some_axes(len(shape))), draw(st.booleans()))
        if kind is ReduceMin:
            return Case(op, (draw(distinct_arrays(shape)),))
        away_from_zero = kind in (ReduceL2, ReduceLogSum)
        x = draw(nonzero_arrays(shape) if away_from_zero else arrays(shape, 0.5 if kind is ReduceProd else 1.0))
        return Case(op, (np.abs(x) if kind is ReduceLogSum else x,))

    return draw_case


for _kind in (ReduceL1, ReduceL2, ReduceLogSum, ReduceLogSumExp, ReduceMin, ReduceProd, ReduceSumSquare):
    layer(_kind.name)(_case_of(_kind))


@layer("cumulative_sum")
def cumulative_sum(draw: st.DrawFn) -> Case:
    shape = draw(SHAPE)
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    return Case(CumulativeSum(axis, draw(st.booleans()), draw(st.booleans())), (draw(arrays(shape)),))

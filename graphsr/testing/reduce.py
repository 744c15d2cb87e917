"""Strategies for reductions: any subset of the axes, some of them counted from the last."""

from __future__ import annotations

from hypothesis import strategies as st

from graphsr.op import Op
from graphsr.ops import ReduceMax, ReduceMean, ReduceSum
from graphsr.testing.cases import Case, arrays, distinct_arrays, layer

SHAPE = st.one_of(
    st.tuples(*[st.integers(1, 4)] * 4),  # images, half of the time
    st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple),
)


@st.composite
def some_axes(draw: st.DrawFn, rank: int) -> tuple[int, ...]:
    """Different axes in any order, each as a position from the front or from the end."""
    axes = draw(st.lists(st.integers(0, rank - 1), unique=True))
    return tuple(draw(st.sampled_from([axis, axis - rank])) for axis in axes)


@layer("reduce_mean")
def reduce_mean(draw: st.DrawFn) -> Case:
    return _reduction(draw, ReduceMean)


@layer("reduce_sum")
def reduce_sum(draw: st.DrawFn) -> Case:
    return _reduction(draw, ReduceSum)


@layer("reduce_max")
def reduce_max(draw: st.DrawFn) -> Case:
    shape = draw(SHAPE)
    op = ReduceMax(draw(some_axes(len(shape))), draw(st.booleans()))
    return Case(op, (draw(distinct_arrays(shape)),))


def _reduction(draw: st.DrawFn, op: type[ReduceMean] | type[ReduceSum]) -> Case:
    shape = draw(SHAPE)
    made: Op = op(draw(some_axes(len(shape))), draw(st.booleans()))
    return Case(made, (draw(arrays(shape)),))

"""Strategies for the ops that move elements: any rank, negative axes, positions outside the array."""

from __future__ import annotations

import math

from hypothesis import strategies as st

from graphsr.ops import Concat, Pad, Reshape, Slice, Split, Transpose
from graphsr.testing.cases import Case, arrays, layer

SHAPE = st.one_of(
    st.tuples(*[st.integers(1, 4)] * 4),  # images, half of the time
    st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple),
)


@st.composite
def an_axis(draw: st.DrawFn, rank: int) -> int:
    """An axis, counted from the front or from the end."""
    return draw(st.integers(-rank, rank - 1))


@layer("reshape")
def reshape(draw: st.DrawFn) -> Case:
    """The prime factors of the number of elements, dealt to the axes of the new shape."""
    shape = draw(SHAPE)
    left, new = math.prod(shape), [1] * draw(st.integers(1, 5))
    while left > 1:
        factor = next(f for f in (2, 3, left) if left % f == 0)
        left //= factor
        new[draw(st.integers(0, len(new) - 1))] *= factor
    if draw(st.booleans()):
        new[draw(st.integers(0, len(new) - 1))] = -1
    return Case(Reshape(tuple(new)), (draw(arrays(shape)),))


@layer("transpose")
def transpose(draw: st.DrawFn) -> Case:
    shape = draw(SHAPE)
    axes = draw(st.permutations(range(len(shape))))
    return Case(
        Transpose(tuple(axis - draw(st.sampled_from([0, len(shape)])) for axis in axes)), (draw(arrays(shape)),)
    )


@layer("concat")
def concat(draw: st.DrawFn) -> Case:
    shape = list(draw(SHAPE))
    axis = draw(an_axis(len(shape)))
    inputs = []
    for size in draw(st.lists(st.integers(1, 3), min_size=1, max_size=4)):
        shape[axis] = size
        inputs.append(draw(arrays(tuple(shape))))
    return Case(Concat(axis), tuple(inputs))


@layer("split")
def split(draw: st.DrawFn) -> Case:
    shape = list(draw(SHAPE))
    axis = draw(an_axis(len(shape)))
    sizes = tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=4)))
    shape[axis] = sum(sizes)
    return Case(Split(axis, sizes, draw(st.integers(0, len(sizes) - 1))), (draw(arrays(tuple(shape))),))


@layer("slice")
def slice_(draw: st.DrawFn) -> Case:
    shape = draw(SHAPE)
    position = st.none() | st.integers(-6, 6)
    axes = draw(st.lists(st.integers(0, len(shape) - 1), unique=True))
    starts, stops = (tuple(draw(position) for _ in axes) for _ in range(2))
    steps = tuple(draw(st.sampled_from([1, 1, 2, 3, -1, -2])) for _ in axes)
    named = tuple(axis - draw(st.sampled_from([0, len(shape)])) for axis in axes)
    return Case(Slice(starts, stops, named, steps), (draw(arrays(shape)),))


@layer("pad")
def pad(draw: st.DrawFn) -> Case:
    outer = draw(st.sampled_from([(2, 1), (1, 2), (2,), ()]))
    h, w = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    mode = draw(st.sampled_from(["constant", "reflect", "edge"]))
    top, left, bottom, right = (
        draw(st.integers(0, min(3, size - 1) if mode == "reflect" else 3)) for size in (h, w, h, w)
    )
    op = Pad((top, left, bottom, right), mode, draw(st.sampled_from([0.0, -1.5])))
    return Case(op, (draw(arrays((*outer, h, w))),))

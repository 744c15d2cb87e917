"""Strategies for repeating, moving and masking elements, padding and conversion."""

from __future__ import annotations

from hypothesis import strategies as st

from graphsr.ops import Cast, Expand, PadNd, Roll, Tile, Triangle
from graphsr.ops.expand import PAD_MODES
from graphsr.testing.cases import Case, arrays, integers, layer
from graphsr.testing.elementwise import broadcast_shapes
from graphsr.testing.shape import SHAPE

SMALL = st.integers(0, 3)


@layer("expand")
def expand(draw: st.DrawFn) -> Case:
    a, b = draw(broadcast_shapes())
    return Case(Expand(b), (draw(arrays(a)),))


@layer("tile")
def tile(draw: st.DrawFn) -> Case:
    shape = draw(SHAPE)
    return Case(Tile(tuple(draw(SMALL) for _ in shape)), (draw(arrays(shape)),))


@layer("roll")
def roll(draw: st.DrawFn) -> Case:
    shape = draw(SHAPE)
    axes = draw(st.lists(st.integers(0, len(shape) - 1), unique=True))
    shifts = tuple(draw(st.integers(-5, 5)) for _ in axes)
    return Case(
        Roll(shifts, tuple(axis - draw(st.sampled_from([0, len(shape)])) for axis in axes)), (draw(arrays(shape)),)
    )


@layer("triangle")
def triangle(draw: st.DrawFn) -> Case:
    shape = (*draw(st.lists(st.integers(1, 2), max_size=2)), draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    return Case(Triangle(draw(st.integers(-4, 4)), draw(st.booleans())), (draw(arrays(shape)),))


@layer("cast")
def cast(draw: st.DrawFn) -> Case:
    """Numbers that every dtype of the target can hold."""
    shape = draw(SHAPE)
    x = draw(st.one_of(arrays(shape, 4.0), integers(shape, -8, 8), integers(shape, 0, 1).map(lambda x: x > 0)))
    targets = ["float64", "int64", "int32", "int8", "bool"] if x.dtype.kind == "f" else ["float32", "int64", "bool"]
    return Case(Cast(draw(st.sampled_from(targets))), (x,))


@layer("pad_nd")
def pad_nd(draw: st.DrawFn) -> Case:
    """Far over the edge, or inwards as long as something is left."""
    shape = draw(SHAPE)
    before = [draw(st.integers(1 - n, 5)) for n in shape]
    behind = [draw(st.integers(max(1 - n, 1 - n - b), 5)) for n, b in zip(shape, before, strict=True)]
    op = PadNd((*before, *behind), draw(st.sampled_from(PAD_MODES)), draw(st.sampled_from([0.0, -1.5])))
    return Case(op, (draw(arrays(shape)),))

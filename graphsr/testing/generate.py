"""Strategies for the generated arrays, empty ones among them."""

from __future__ import annotations

from hypothesis import strategies as st

from graphsr.ops import Arange, Eye, Full, ShapeOf
from graphsr.testing.cases import Case, arrays, layer
from graphsr.testing.shape import SHAPE

SMALL = st.integers(0, 3)


@layer("full")
def full(draw: st.DrawFn) -> Case:
    shape = tuple(draw(st.lists(SMALL, max_size=3)))
    return Case(Full(shape, draw(st.sampled_from([0.0, 1.0, -2.5])), draw(st.sampled_from(["float32", "int64"]))), ())


@layer("arange")
def arange(draw: st.DrawFn) -> Case:
    position = st.integers(-9, 9)
    return Case(Arange(draw(position), draw(position), draw(st.sampled_from([1, 2, -1, -3]))), ())


@layer("eye")
def eye(draw: st.DrawFn) -> Case:
    op = Eye(draw(SMALL), draw(SMALL), draw(st.integers(-3, 3)), draw(st.sampled_from(["float32", "int64", "bool"])))
    return Case(op, ())


@layer("shape_of")
def shape_of(draw: st.DrawFn) -> Case:
    op = ShapeOf(draw(st.integers(-5, 5)), draw(st.none() | st.integers(-5, 5)))
    return Case(op, (draw(arrays(draw(SHAPE))),))

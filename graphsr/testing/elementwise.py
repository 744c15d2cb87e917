"""Strategies for arithmetic, with every kind of broadcasting."""

from __future__ import annotations

from hypothesis import strategies as st

from graphsr.op import Array
from graphsr.ops import Add, Div, Mul, Shortcut, Sub
from graphsr.testing.cases import Case, arrays, layer

SHAPE = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)


@st.composite
def nonzero_arrays(draw: st.DrawFn, shape: tuple[int, ...]) -> Array:
    """An array with absolute values in (1, 3): for divisors, whose reciprocal varies fast near zero."""
    x = draw(arrays(shape))
    return x + (x > 0) - (x < 0)


@st.composite
def broadcast_shapes(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two shapes that are broadcast against each other: leading axes left out, others of size 1."""
    shape = draw(SHAPE)
    first, second = (
        tuple(draw(st.sampled_from([n, n, 1])) for n in shape[draw(st.integers(0, len(shape))) :]) for _ in range(2)
    )
    return first, second


@layer("shortcut")
def shortcut(draw: st.DrawFn) -> Case:
    shape = draw(SHAPE)
    factor = st.sampled_from([1.0, 0.1, -0.5, 2.0])
    return Case(Shortcut(draw(factor), draw(factor)), (draw(arrays(shape)), draw(arrays(shape))))


@layer("add")
def add(draw: st.DrawFn) -> Case:
    a, b = draw(broadcast_shapes())
    return Case(Add(), (draw(arrays(a)), draw(arrays(b))))


@layer("sub")
def sub(draw: st.DrawFn) -> Case:
    a, b = draw(broadcast_shapes())
    return Case(Sub(), (draw(arrays(a)), draw(arrays(b))))


@layer("mul")
def mul(draw: st.DrawFn) -> Case:
    a, b = draw(broadcast_shapes())
    return Case(Mul(), (draw(arrays(a)), draw(arrays(b))))


@layer("div")
def div(draw: st.DrawFn) -> Case:
    a, b = draw(broadcast_shapes())
    return Case(Div(), (draw(arrays(a)), draw(nonzero_arrays(b))))

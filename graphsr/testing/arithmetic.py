"""Strategies for extrema, powers and remainders, with every kind of broadcasting."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from graphsr.op import Array
from graphsr.ops import Maximum, Minimum, Mod, Pow, Quotient
from graphsr.testing.cases import Case, arrays, distinct_arrays, integers, layer
from graphsr.testing.elementwise import broadcast_shapes, nonzero_arrays


@st.composite
def apart(draw: st.DrawFn) -> tuple[Array, Array]:
    """Two arrays of which no element of one is within 1/32 of one of the other."""
    a, b = draw(broadcast_shapes())
    return draw(distinct_arrays(a)), np.asarray(draw(distinct_arrays(b)) + np.float32(0.03125))


@layer("maximum")
def maximum(draw: st.DrawFn) -> Case:
    return Case(Maximum(), draw(apart()))


@layer("minimum")
def minimum(draw: st.DrawFn) -> Case:
    return Case(Minimum(), draw(apart()))


@layer("pow")
def pow_(draw: st.DrawFn) -> Case:
    """Positive bases with any exponent, and any base with a whole exponent."""
    a, b = draw(broadcast_shapes())
    if draw(st.booleans()):
        return Case(Pow(), (np.asarray(np.abs(draw(nonzero_arrays(a)))), draw(arrays(b))))
    return Case(Pow(), (draw(nonzero_arrays(a)), draw(integers(b, -2, 3))))


@layer("mod")
def mod(draw: st.DrawFn) -> Case:
    """Dividends with halves and divisors that are whole: the quotient is nowhere an integer."""
    a, b = draw(broadcast_shapes())
    truncated = draw(st.booleans())
    if draw(st.booleans()):
        return Case(Mod(truncated), (draw(integers(a, -9, 9)), draw(divisors(b))))
    return Case(Mod(truncated), (draw(arrays(a, 8.0)), draw(divisors(b)).astype(np.float32)))


@layer("quotient")
def quotient(draw: st.DrawFn) -> Case:
    a, b = draw(broadcast_shapes())
    return Case(Quotient(), (draw(integers(a, -9, 9)), draw(divisors(b))))


@st.composite
def divisors(draw: st.DrawFn, shape: tuple[int, ...]) -> Array:
    """Integers that are not 0."""
    x = draw(integers(shape, -3, 2))
    return np.asarray(x + (x >= 0))

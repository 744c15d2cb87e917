"""Strategies for arithmetic and activations."""

from __future__ import annotations

from hypothesis import strategies as st

from graphsr.ops import Relu, Shortcut
from graphsr.testing.cases import Case, arrays, layer

SHAPE = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)


@layer("relu")
def relu(draw: st.DrawFn) -> Case:
    return Case(Relu(), (draw(arrays(draw(SHAPE), scale=4)),))


@layer("shortcut")
def shortcut(draw: st.DrawFn) -> Case:
    shape = draw(SHAPE)
    factor = st.sampled_from([1.0, 0.1, -0.5, 2.0])
    return Case(Shortcut(draw(factor), draw(factor)), (draw(arrays(shape)), draw(arrays(shape))))

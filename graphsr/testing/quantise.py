"""Strategies for the pixels of pictures: numbers below black and above white, and infinite ones."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from graphsr.op import Array
from graphsr.ops import AllFinite, Quantise
from graphsr.testing.cases import Case, arrays, layer
from graphsr.testing.shape import SHAPE


@st.composite
def with_some(draw: st.DrawFn, values: Array, odd_ones: tuple[float, ...]) -> Array:
    """The same array with some of these numbers in up to three places."""
    changed = values.copy()
    for _ in range(draw(st.integers(0, 3))):
        changed.reshape(-1)[draw(st.integers(0, values.size - 1))] = draw(st.sampled_from(odd_ones))
    return changed


@layer("quantise")
def quantise(draw: st.DrawFn) -> Case:
    """Values lie at least 1/128 of a step of the pixels from where two integers are equally near."""
    white = draw(st.sampled_from([1.0, 2.0, 255.0]))
    x = draw(arrays(draw(SHAPE), white))
    last = x.ndim >= 2 and draw(st.booleans())
    op = Quantise(white, draw(st.sampled_from(["uint8", "uint16"])), last)
    return Case(op, (draw(with_some(x, (np.inf, -np.inf))),))


@layer("all_finite")
def all_finite(draw: st.DrawFn) -> Case:
    x = draw(arrays(draw(SHAPE), 1e38))
    return Case(AllFinite(), (draw(with_some(x, (np.nan, np.inf, -np.inf, 0.0))),))

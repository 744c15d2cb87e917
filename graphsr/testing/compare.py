"""Strategies for comparisons of numbers that are often equal, logic, and choice."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st

from graphsr.op import OPS, Array
from graphsr.ops import IsInf, IsNan, Not, Where
from graphsr.ops.compare import Comparison, Logic
from graphsr.testing.cases import Case, arrays, integers, layer
from graphsr.testing.elementwise import SHAPE, broadcast_shapes


@st.composite
def booleans(draw: st.DrawFn, shape: tuple[int, ...]) -> Array:
    return draw(arrays(shape)) > 0


def _case_of(kind: type[Comparison]) -> Callable[[st.DrawFn], Case]:
    def draw_case(draw: st.DrawFn) -> Case:
        a, b = draw(broadcast_shapes())
        if issubclass(kind, Logic):
            return Case(kind(), (draw(booleans(a)), draw(booleans(b))))
        dtype = draw(st.sampled_from([np.float32, np.int64]))
        return Case(kind(), (draw(integers(a, -2, 2)).astype(dtype), draw(integers(b, -2, 2)).astype(dtype)))

    return draw_case


for _name, _kind in OPS.items():
    if issubclass(_kind, Comparison):
        layer(_name)(_case_of(_kind))


@layer("not")
def not_(draw: st.DrawFn) -> Case:
    return Case(Not(), (draw(booleans(draw(SHAPE))),))


@st.composite
def with_extremes(draw: st.DrawFn) -> Array:
    """NaN, both infinities and numbers."""
    chosen = draw(integers(draw(SHAPE), 0, 4))
    return np.array([np.nan, np.inf, -np.inf, 0.0, 1.5], np.float32)[chosen]


@layer("is_nan")
def is_nan(draw: st.DrawFn) -> Case:
    return Case(IsNan(), (draw(with_extremes()),))


@layer("is_inf")
def is_inf(draw: st.DrawFn) -> Case:
    return Case(IsInf(draw(st.booleans()), draw(st.booleans())), (draw(with_extremes()),))


@layer("where")
def where(draw: st.DrawFn) -> Case:
    a, b = draw(broadcast_shapes())
    condition = draw(st.sampled_from([a, b, (1,)]))
    return Case(Where(), (draw(booleans(condition)), draw(arrays(a)), draw(arrays(b))))

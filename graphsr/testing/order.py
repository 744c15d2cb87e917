"""Strategies for places of extrema: with ties where only the place is asked for, without where values matter."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st

from graphsr.ops import ArgMax, ArgMin, Hardmax, TopK
from graphsr.ops.order import Place
from graphsr.testing.cases import Case, distinct_arrays, integers, layer
from graphsr.testing.shape import SHAPE, an_axis


def _case_of(kind: type[Place]) -> Callable[[st.DrawFn], Case]:
    def draw_case(draw: st.DrawFn) -> Case:
        shape = draw(SHAPE)
        x = draw(integers(shape, -2, 2)).astype(draw(st.sampled_from([np.float32, np.int64])))
        return Case(kind(draw(an_axis(len(shape))), draw(st.booleans()), draw(st.booleans())), (x,))

    return draw_case


for _kind in (ArgMax, ArgMin):
    layer(_kind.name)(_case_of(_kind))


@layer("hardmax")
def hardmax(draw: st.DrawFn) -> Case:
    shape = draw(SHAPE)
    return Case(Hardmax(draw(an_axis(len(shape)))), (draw(distinct_arrays(shape)),))


@layer("top_k")
def top_k(draw: st.DrawFn) -> Case:
    shape = draw(SHAPE)
    axis = draw(an_axis(len(shape)))
    k, output = draw(st.integers(0, shape[axis])), draw(st.sampled_from(["values", "indices"]))
    ties = integers(shape, -2, 2).map(lambda x: x.astype(np.float32))
    x = draw(ties if output == "indices" else distinct_arrays(shape))
    return Case(TopK(k, axis, draw(st.booleans()), output), (x,))

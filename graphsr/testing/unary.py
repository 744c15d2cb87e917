"""Strategies for elementary functions, away from their poles."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st

from graphsr.op import OPS
from graphsr.ops.unary import Log, Reciprocal, Shrink, Sqrt, ThresholdedRelu, Unary
from graphsr.testing.cases import Case, arrays, layer
from graphsr.testing.elementwise import nonzero_arrays

SHAPE = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)
ATTRIBUTES: dict[type[Unary], st.SearchStrategy[Unary]] = {
    ThresholdedRelu: st.builds(ThresholdedRelu, st.sampled_from([1.0, 0.5, -0.5])),
    Shrink: st.builds(Shrink, st.sampled_from([0.5, 1.0]), st.sampled_from([0.0, 0.5, 2.0])),
}


def _case_of(kind: type[Unary]) -> Callable[[st.DrawFn], Case]:
    def draw_case(draw: st.DrawFn) -> Case:
        shape = draw(SHAPE)
        if kind is Reciprocal:
            return Case(kind(), (draw(nonzero_arrays(shape)),))
        x = draw(nonzero_arrays(shape) if kind in (Log, Sqrt) else arrays(shape))
        return Case(draw(ATTRIBUTES.get(kind, st.builds(kind))), (np.abs(x) if kind in (Log, Sqrt) else x,))

    return draw_case


for _name, _kind in OPS.items():
    if issubclass(_kind, Unary):
        layer(_name)(_case_of(_kind))

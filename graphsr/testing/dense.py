"""Strategies for the fully connected layer and softmax."""

from __future__ import annotations

from hypothesis import strategies as st

from graphsr.ops import Dense, Softmax
from graphsr.testing.cases import Case, arrays, layer

SIZE = st.integers(1, 4)
OUTER = st.lists(st.integers(1, 3), max_size=3)


@layer("dense")
def dense(draw: st.DrawFn) -> Case:
    outputs, inputs = draw(SIZE), draw(SIZE)
    x, weight = draw(arrays((*draw(OUTER), inputs))), draw(arrays((outputs, inputs)))
    bias = (draw(arrays((outputs,))),) if draw(st.booleans()) else ()
    return Case(Dense(), (x, weight, *bias))


@layer("softmax")
def softmax(draw: st.DrawFn) -> Case:
    shape = (*draw(OUTER), draw(SIZE))
    op = Softmax(draw(st.integers(-len(shape), len(shape) - 1)), draw(st.sampled_from([1.0, 0.5, 2.0])))
    return Case(op, (draw(arrays(shape, draw(st.sampled_from([1.0, 4.0])))),))

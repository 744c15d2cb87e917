"""Strategies for recurrent layers: a few steps, small weights, smooth activations."""

from __future__ import annotations

from hypothesis import strategies as st

from graphsr.op import Array
from graphsr.ops import Gru, Logistic, Lstm, Rnn, SimpleRnn, Tanh
from graphsr.testing.cases import Case, arrays, layer

SMALL = st.integers(1, 3)
SMOOTH = st.sampled_from([Tanh(), Logistic()])


@st.composite
def sequence(draw: st.DrawFn, gates: int, biases: int, states: int) -> tuple[Array, ...]:
    """x, the two weights, the biases and the states."""
    t, n, i, h = (draw(SMALL) for _ in range(4))
    shapes = [(t, n, i), (gates * h, i), (gates * h, h), *[(gates * h,)] * biases, *[(n, h)] * states]
    return tuple(draw(arrays(shape, 0.5)) for shape in shapes)


@layer("simple_rnn")
def simple_rnn(draw: st.DrawFn) -> Case:
    return Case(SimpleRnn(draw(SMOOTH)), draw(sequence(1, 1, 1)))


@layer("rnn")
def rnn(draw: st.DrawFn) -> Case:
    return Case(Rnn(draw(SMOOTH), draw(st.booleans())), draw(sequence(1, 2, 1)))


@layer("lstm")
def lstm(draw: st.DrawFn) -> Case:
    order = "".join(draw(st.permutations("ifgo")))
    return Case(Lstm(order, draw(st.sampled_from(["hidden", "cell"]))), draw(sequence(4, 1, 2)))


@layer("gru")
def gru(draw: st.DrawFn) -> Case:
    order = "".join(draw(st.permutations("zrh")))
    return Case(Gru(order, draw(st.sampled_from(["before", "after"])), draw(SMOOTH)), draw(sequence(3, 2, 1)))

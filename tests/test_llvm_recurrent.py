"""Recurrent layers in the llvm backend."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphsr.ir import Graph, Node, TensorType
from graphsr.op import Array, Op
from graphsr.ops import Gru, Logistic, Lstm, Relu, Rnn, SimpleRnn, Tanh
from graphsr.testing import LAYERS
from graphsr.testing.check import layer_graph
from graphsr.testing.graphs import GraphCase
from graphsr.testing.wide import repeated

pytest.importorskip("llvmlite")

from llvm_layers import BACKEND, Draw, assert_has_kernel, assert_same_nans, several, with_nans

CELLS: dict[str, tuple[Op, int, int, int]] = {
    "simple_rnn": (SimpleRnn(), 1, 1, 1),
    "simple_rnn relu": (SimpleRnn(Relu()), 1, 1, 1),
    "rnn": (Rnn(Logistic()), 1, 2, 1),
    "rnn shortcut": (Rnn(Tanh(), shortcut=True), 1, 2, 1),
    "lstm": (Lstm("iofg"), 4, 1, 2),
    "lstm cell": (Lstm("figo", "cell"), 4, 1, 2),
    "gru before": (Gru("zrh", "before"), 3, 2, 1),
    "gru after": (Gru("rzh", "after", Logistic()), 3, 2, 1),
}
"""(op, gates, biases, states)"""


def sequence_case(draw: Draw, op: Op, gates: int, biases: int, states: int) -> GraphCase:
    """A layer on x and states that are given, at the sizes where vectors, panels and units begin and end. Weights are
    small, as those of a network that does not explode."""
    t, n = draw(st.integers(1, 4)), draw(st.sampled_from([1, 2, 3, 7, 8, 9, 31, 33]))
    i, h = (draw(st.sampled_from([1, 3, 15, 16, 17, 33, 50])) for _ in "ih")
    x = Node.input("x", TensorType("float32", (t, n, i)))
    given_states = [Node.input(f"s{s}", TensorType("float32", (n, h))) for s in range(states)]
    shapes = [(gates * h, i), (gates * h, h), *[(gates * h,)] * biases]
    parameters: list[Array] = [draw(repeated(shape)) / np.float32(4 * max(i, h)) for shape in shapes]
    node = Node(op, (x, *map(Node.const, parameters), *given_states), "layer")
    inputs = {given.name: draw(repeated(given.type.dims)) for given in (x, *given_states)}
    return GraphCase(Graph((x, *given_states), {"y": node}), inputs)


@st.composite
def sequences(draw: Draw) -> GraphCase:
    """Any of the cells."""
    return sequence_case(draw, *CELLS[draw(st.sampled_from(sorted(CELLS)))])


@pytest.mark.parametrize("name", ["simple_rnn", "rnn", "lstm", "gru"])
@several
@given(st.data())
def test_every_strategy(name: str, data: st.DataObject) -> None:
    assert_has_kernel(layer_graph(data.draw(LAYERS[name]()).astype("float32"), constant=True))


@pytest.mark.parametrize("name", CELLS)
@several
@given(st.data())
def test_wide_states(name: str, data: st.DataObject) -> None:
    case = sequence_case(data.draw, *CELLS[name])
    assert_has_kernel(case)
    assert_same_nans(with_nans(case))


def test_both_outputs_of_an_lstm_are_one_scan() -> None:
    """Importers make a node for the states and one for the cells."""
    rng = np.random.default_rng(0)
    shapes: list[tuple[int, ...]] = [(80, 7), (80, 20), (80,), (3, 20), (3, 20)]
    arrays: list[Array] = [np.asarray(rng.standard_normal(shape), np.float32) / 4 for shape in shapes]
    x, constants = Node.input("x", TensorType("float32", (5, 3, 7))), tuple(map(Node.const, arrays))
    hidden = Node(Lstm(), (x, *constants), "hidden")
    cell = Node(replace(Lstm(), output="cell"), (x, *constants), "cell")
    run = BACKEND.compile(Graph((x,), {"h": hidden, "c": cell}))
    steps = run.bind({"x": (5, 3, 7)}).steps()
    assert sum(step.kernel == "recurrent step" for step in steps) == 5
    array: Array = rng.standard_normal((5, 3, 7)).astype(np.float32)
    got = run({"x": array})
    for name, output in (("h", "hidden"), ("c", "cell")):
        want = Lstm(output=output).forward(*(a.astype(np.float64) for a in [array, *arrays]))
        np.testing.assert_allclose(got[name], want, atol=32 * np.finfo(np.float32).eps)


def test_weights_that_are_given_run_through_forward() -> None:
    shapes = [(2, 1, 3), (4, 3), (4, 1), (4,), (1, 1), (1, 1)]
    nodes = tuple(Node.input(f"x{i}", TensorType("float32", shape)) for i, shape in enumerate(shapes))
    run = BACKEND.compile(Graph(nodes, {"y": Node(Lstm(), nodes, "layer")}))
    assert "weights are not constant" in run.explain({node.name: node.type.dims for node in nodes})

"""Places of extrema in the llvm backend: every bit as NumPy has them, with ties, zeros of both signs, NaN and ±∞."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphsr.ir import Graph, Node, TensorType
from graphsr.op import Op
from graphsr.ops import ArgMax, ArgMin
from graphsr.testing import LAYERS
from graphsr.testing.check import layer_graph

pytest.importorskip("llvmlite")

from llvm_layers import BACKEND, SIZES, assert_has_kernel, several

FEW = st.sampled_from([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, 1e-45])
VALUES = st.lists(FEW | st.just(np.nan), min_size=1, max_size=40) | st.lists(FEW, min_size=1, max_size=40)


@pytest.mark.parametrize("name", ["arg_max", "arg_min"])
@several
@given(st.data())
def test_every_strategy(name: str, data: st.DataObject) -> None:
    case = data.draw(LAYERS[name]())
    graph = layer_graph(case, constant=False)
    if case.inputs[0].dtype == np.float32:
        assert_has_kernel(graph)
    else:
        reasons = [step.note for step in BACKEND.compile(graph.graph).bind(graph.shapes).steps()]
        assert reasons == [f"only float32, not {case.inputs[0].dtype}"]


@several
@given(st.data(), st.lists(st.sampled_from(SIZES), min_size=1, max_size=3), st.sampled_from([ArgMax, ArgMin]))
def test_first_and_last(data: st.DataObject, shape: list[int], kind: type[ArgMax | ArgMin]) -> None:
    x = np.resize(np.array(data.draw(VALUES), np.float32), shape)
    op: Op = kind(data.draw(st.integers(-x.ndim, x.ndim - 1)), data.draw(st.booleans()), data.draw(st.booleans()))
    node = Node.input("x", TensorType("float32", x.shape))
    graph = Graph((node,), {"y": Node(op, (node,), "place")})
    for threads in (1, 3):
        run = BACKEND.compile(graph, threads=threads)
        assert "forward" not in run.explain({"x": x.shape})
        np.testing.assert_array_equal(run({"x": x})["y"], op.forward(x))

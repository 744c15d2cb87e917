"""Layers over one, two and three axes take up what follows them, as layers of images do, on every backend."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("llvmlite")

from llvm_layers import several
from test_llvm_volumes import convolutions, transposed_convolutions

from graphsr.backend import get_backend
from graphsr.ir import Graph, Node
from graphsr.op import Op
from graphsr.ops import Add, BatchNorm, Leaky, Relu, Shortcut, Sub, Tanh
from graphsr.testing.cases import LAYERS
from graphsr.testing.check import assert_agrees
from graphsr.testing.graphs import GraphCase
from graphsr.testing.wide import repeated

ACTIVATIONS: list[Op | None] = [None, Relu(), Leaky(0.1), Tanh()]
SUMS: list[Op | None] = [None, Add(), Sub(), Shortcut(0.5, 2.0)]


@st.composite
def small(draw: st.DrawFn) -> GraphCase:
    """A layer of the table: one to three axes, few channels, every attribute."""
    case = draw(LAYERS[draw(st.sampled_from(["conv_nd", "conv_transpose_nd"]))]()).astype("float32")
    x = Node.input("x0", case.types[0])
    node = Node(case.op, (x, *map(Node.const, case.inputs[1:])), "layer")
    return GraphCase(Graph((x,), {"y": node}), {"x0": case.inputs[0]})


@st.composite
def with_epilogue(draw: st.DrawFn, layers: st.SearchStrategy[GraphCase]) -> GraphCase:
    """activation(α·batch_norm(layer(x)) + β·r), each part if drawn."""
    case = draw(layers)
    y, inputs = case.graph.outputs["y"], dict(case.inputs)
    nodes = list(case.graph.inputs)
    channels = y.type.dims[1]
    if draw(st.booleans()):
        scale, bias, mean, deviation = (draw(repeated((channels,))) for _ in range(4))
        y = Node(
            BatchNorm(1e-5), (y, *map(Node.const, (scale, bias, mean, np.abs(deviation) + np.float32(0.5)))), "norm"
        )
    if (total := draw(st.sampled_from(SUMS))) is not None:
        residual = Node.input("r", y.type)
        nodes.append(residual)
        inputs["r"] = draw(repeated(y.type.dims))
        y = Node(total, (y, residual) if draw(st.booleans()) else (residual, y), "sum")
    if (activation := draw(st.sampled_from(ACTIVATIONS))) is not None:
        y = Node(activation, (y,), "activation")
    return GraphCase(Graph(tuple(nodes), {"y": y}), inputs)


@pytest.mark.parametrize("backend", ["reference", "numpy", "llvm"])
@several
@given(with_epilogue(small()))
def test_small_layers(backend: str, case: GraphCase) -> None:
    assert_agrees(get_backend(backend).compile(case.graph, threads=2), case)


@pytest.mark.parametrize("layers", [convolutions(), transposed_convolutions()], ids=["convolution", "transposed"])
@several
@given(st.data())
def test_volumes_are_one_step(layers: st.SearchStrategy[GraphCase], data: st.DataObject) -> None:
    """In the llvm backend nothing is left of what follows, and nothing runs through `forward`."""
    case = data.draw(with_epilogue(layers))
    run = get_backend("llvm").compile(case.graph, threads=1)
    (y,) = run.graph.outputs.values()
    arguments = {type(child.op).__name__ for child in y.inputs}
    assert arguments <= {"Input", "Const"}, run.graph
    explained = run.explain(case.shapes)
    assert "forward" not in explained, explained
    assert_agrees(run, case)
    several_threads = get_backend("llvm").compile(case.graph, threads=3)
    assert run(case.inputs)["y"].tobytes() == several_threads(case.inputs)["y"].tobytes()

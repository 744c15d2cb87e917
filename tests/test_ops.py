"""One walk over the table of ops: strategy, oracle, gradient, text form, float32 and NaN for each."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsr.errors import GraphError
from graphsr.ir import Graph, Node, TensorType
from graphsr.op import OPS, Op
from graphsr.ops import Conv2d, Fused, Leaky, Relu, Slice, Softmax
from graphsr.testing import LAYERS, Case, arrays, growth, tolerance
from graphsr.textform import parse_graph

from oracles import ORACLES

NAMES = sorted(set(OPS) - {"input", "const"})
INPUT = tuple[Case, st.DataObject]


def test_the_tables_are_complete() -> None:
    assert sorted(LAYERS) == NAMES, "every op has a strategy"
    assert sorted(ORACLES) == NAMES, "every op has an oracle"


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_agrees_with_its_oracle(name: str, data: st.DataObject) -> None:
    case = data.draw(LAYERS[name]())
    want = ORACLES[name](case.astype("float64"))
    magnitude = max([1.0, *(float(np.abs(x).max()) for x in case.inputs if x.size)]) ** 2 * growth(case.op)
    for dtype in ("float64", "float32"):
        got = case.astype(dtype).forward()
        type_ = case.op.infer(*case.astype(dtype).types)
        assert (got.dtype.name, got.shape) == (type_.dtype, type_.shape) == (type_.dtype, want.shape)
        atol = tolerance(got.dtype, case.terms, magnitude) if got.dtype.kind == "f" else 0
        np.testing.assert_allclose(got, want, rtol=0, atol=atol)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_gradient_by_finite_differences(name: str, data: st.DataObject) -> None:
    """⟨vjp(c), v⟩ = d/dt ⟨c, f(x + t·v)⟩ for a drawn cotangent c and direction v, each input on its own.

    Central differences with step ε^(1/3) are right to ε^(2/3) times the third derivative, which is of the size of
    the values themselves for these ops.
    """
    case = data.draw(LAYERS[name]()).astype("float64")
    output = case.forward()
    cotangent = data.draw(arrays(output.shape)).astype("float64")
    gradients = case.op.vjp(case.inputs, output, cotangent)
    assert len(gradients) == len(case.inputs)
    step = float(np.finfo("float64").eps) ** (1 / 3)
    for i, (x, gradient) in enumerate(zip(case.inputs, gradients, strict=True)):
        if gradient is None:
            continue
        assert gradient.shape == x.shape
        direction = data.draw(arrays(x.shape)).astype("float64")
        ahead, behind = (
            float(np.sum(cotangent * case.op.forward(*case.inputs[:i], x + t * direction, *case.inputs[i + 1 :])))
            for t in (step, -step)
        )
        scale = max(1.0, float(np.abs(cotangent).sum() * np.abs(output).max(initial=1))) * growth(case.op)
        expected = (ahead - behind) / (2 * step)
        assert float(np.sum(gradient * direction)) == pytest.approx(expected, rel=0, abs=100 * step**2 * scale)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_prints_and_parses(name: str, data: st.DataObject) -> None:
    case = data.draw(LAYERS[name]())
    nodes = tuple(Node.input(f"x{i}", type_) for i, type_ in enumerate(case.types))
    graph = Graph(nodes, {"y": Node(case.op, nodes, "layer", "drawn by a test")})
    again = parse_graph(str(graph))
    assert str(again) == str(graph)
    assert again.outputs["y"].op == case.op


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_inputs_are_not_written(name: str, data: st.DataObject) -> None:
    case = data.draw(LAYERS[name]())
    for x in case.inputs:
        x.setflags(write=False)
    output = case.forward()
    assert not any(np.shares_memory(output, x) and output.flags.writeable for x in case.inputs)


@pytest.mark.parametrize(
    "op",
    [
        Leaky(slope="a"),  # type: ignore[arg-type]
        Softmax(axis=1.5),  # type: ignore[arg-type]
        Softmax(axis=True),
        Conv2d(stride=(1, 1, 1)),  # type: ignore[arg-type]
        Conv2d(padding=[0, 0, 0, 0]),  # type: ignore[arg-type]
        Fused(base=Relu(), activation=Conv2d()),  # type: ignore[arg-type]
        Slice((0,), ("a",), (0,), (1,)),  # type: ignore[arg-type]
    ],
    ids=str,
)
def test_attributes_of_a_wrong_type_are_refused(op: Op) -> None:
    """Attributes come from files: each has the type that its class declares, or there is no node."""
    x = Node.input("x", TensorType("float32", (1, 2, 4, 4)))
    with pytest.raises(GraphError, match=r"attribute .* must be"):
        Node(op, (x,))

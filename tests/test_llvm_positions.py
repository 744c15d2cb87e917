"""triangle, one_hot and hardmax in the llvm backend: every bit as NumPy has them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphsr.ir import Graph, Node, TensorType
from graphsr.op import Array, Op
from graphsr.ops import Hardmax, OneHot, Triangle
from graphsr.testing import LAYERS
from graphsr.testing.check import layer_graph

pytest.importorskip("llvmlite")

from llvm_layers import BACKEND, SIZES, assert_has_kernel, several

DTYPES = ("float32", "float64", "int32", "int64", "bool")
SHAPE = st.lists(st.sampled_from(SIZES), min_size=1, max_size=3)
FEW = st.sampled_from([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, 1e-45])
VALUES = st.lists(FEW | st.just(np.nan), min_size=1, max_size=40) | st.lists(FEW, min_size=1, max_size=40)


@pytest.mark.parametrize("name", ["triangle", "one_hot", "hardmax"])
@several
@given(st.data(), st.booleans())
def test_every_strategy(name: str, data: st.DataObject, constant: bool) -> None:
    assert_has_kernel(layer_graph(data.draw(LAYERS[name]()), constant))


def assert_same_bits(op: Op, *arrays: Array) -> None:
    nodes = tuple(Node.input(f"x{i}", TensorType(x.dtype.name, x.shape)) for i, x in enumerate(arrays))
    graph = Graph(nodes, {"y": Node(op, nodes, "chosen")})
    inputs = {node.name: x for node, x in zip(nodes, arrays, strict=True)}
    want = op.forward(*arrays)
    for threads in (1, 3):
        run = BACKEND.compile(graph, threads=threads)
        assert "forward" not in run.explain({name: x.shape for name, x in inputs.items()})
        y = run(inputs)["y"]
        assert y.dtype == want.dtype
        np.testing.assert_array_equal(y, want)
        if y.dtype.kind == "f":
            np.testing.assert_array_equal(np.signbit(y), np.signbit(want))


@several
@given(st.data(), SHAPE, st.sampled_from(SIZES), st.sampled_from(DTYPES))
def test_triangle(data: st.DataObject, shape: list[int], height: int, dtype: str) -> None:
    x = np.resize(np.array(data.draw(VALUES), np.float32), (*shape[:-1], height, shape[-1]))
    with np.errstate(invalid="ignore"):
        x = x.astype(dtype)
    assert_same_bits(Triangle(data.draw(st.integers(-60, 60)), data.draw(st.booleans())), x)


@several
@given(st.data(), SHAPE, st.sampled_from(SIZES), st.sampled_from(DTYPES), st.sampled_from(DTYPES[:-1]))
def test_one_hot(data: st.DataObject, shape: list[int], depth: int, dtype: str, index: str) -> None:
    """Also where indices are outside −depth … depth − 1, or no integers."""
    whole = st.integers(-depth - 2, depth + 1)
    given_ = st.one_of(whole, st.floats(-3, 3, width=32), st.just(np.nan)) if "float" in index else whole
    indices = np.resize(np.array(data.draw(st.lists(given_, min_size=1, max_size=40)), index), shape)
    op = OneHot(depth, data.draw(st.integers(-len(shape) - 1, len(shape))))
    assert_same_bits(op, indices, np.array(data.draw(st.sampled_from([(0, 1), (1, 0)])), dtype))


@several
@given(st.data(), SHAPE)
def test_hardmax(data: st.DataObject, shape: list[int]) -> None:
    """With ties, zeros of both signs, NaN and ±∞."""
    x = np.resize(np.array(data.draw(VALUES), np.float32), shape)
    assert_same_bits(Hardmax(data.draw(st.integers(-x.ndim, x.ndim - 1))), x)


def test_hardmax_of_float64_runs_through_forward() -> None:
    x = Node.input("x", TensorType("float64", (2, 3)))
    (step,) = BACKEND.compile(Graph((x,), {"y": Node(Hardmax(), (x,), "most")})).bind({"x": (2, 3)}).steps()
    assert step.note == "only float32, not float64"

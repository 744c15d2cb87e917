"""Tile, roll and gather in the llvm backend, and moves of elements of eight bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphsr.ir import Graph, Node, TensorType
from graphsr.op import Array, Op
from graphsr.ops import Concat, Gather, Roll, Slice, Split, Tile, Transpose
from graphsr.testing import LAYERS
from graphsr.testing.check import layer_graph

pytest.importorskip("llvmlite")

from llvm_layers import BACKEND, SIZES, assert_has_kernel, several

DTYPES = ("float32", "float64", "int32", "int64")


@pytest.mark.parametrize("name", ["tile", "roll", "gather"])
@several
@given(st.data())
def test_every_strategy(name: str, data: st.DataObject) -> None:
    case = data.draw(LAYERS[name]())
    if case.forward().size:
        assert_has_kernel(layer_graph(case, constant=True))


def assert_moves(op: Op, *arrays: Array, constants: tuple[Array, ...] = ()) -> None:
    """The backend moves what `forward` moves, bit by bit, for one thread and for three, through kernels alone."""
    nodes = tuple(Node.input(f"x{i}", TensorType(x.dtype.name, x.shape)) for i, x in enumerate(arrays))
    graph = Graph(nodes, {"y": Node(op, (*nodes, *map(Node.const, constants)), "moved")})
    inputs = {node.name: x for node, x in zip(nodes, arrays, strict=True)}
    for threads in (1, 3):
        run = BACKEND.compile(graph, threads=threads)
        assert "forward" not in run.explain({name: x.shape for name, x in inputs.items()})
        np.testing.assert_array_equal(run(inputs)["y"], op.forward(*arrays, *constants))


@st.composite
def numbered(draw: st.DrawFn, most: int = 4) -> Array:
    """An array whose elements are all different, of any rank and dtype that has a kernel."""
    shape: Any = tuple(draw(st.lists(st.sampled_from(SIZES), min_size=1, max_size=most)))
    return np.arange(np.prod(shape)).reshape(shape).astype(draw(st.sampled_from(DTYPES)))


@several
@given(st.data(), numbered(3))
def test_tile(data: st.DataObject, x: Array) -> None:
    assert_moves(Tile(tuple(data.draw(st.integers(1, 3)) for _ in x.shape)), x)


@several
@given(st.data(), numbered())
def test_roll(data: st.DataObject, x: Array) -> None:
    axes = tuple(data.draw(st.lists(st.integers(0, x.ndim - 1), unique=True)))
    assert_moves(Roll(tuple(data.draw(st.integers(-20, 70)) for _ in axes), axes), x)


@several
@given(st.data(), numbered())
def test_gather(data: st.DataObject, x: Array) -> None:
    axis = data.draw(st.integers(0, x.ndim - 1))
    n = x.shape[axis]
    places = st.lists(st.integers(-n, n - 1), min_size=1, max_size=20)
    even = st.builds(lambda first, step: list(range(first, n, step)), st.integers(0, n - 1), st.integers(1, 3))
    indices = np.array(data.draw(places | even | st.just([[0], [n - 1]]) | st.integers(-n, n - 1)))
    assert_moves(Gather(axis - x.ndim), x, constants=(indices,))


@several
@given(st.data(), numbered())
def test_elements_of_eight_bytes(data: st.DataObject, x: Array) -> None:
    axis = data.draw(st.integers(0, x.ndim - 1))
    first = data.draw(st.integers(0, x.shape[axis] - 1))
    assert_moves(Transpose(tuple(data.draw(st.permutations(range(x.ndim))))), x)
    assert_moves(Concat(axis), x, x[::-1].copy())
    assert_moves(Slice((first,), (None,), (axis,), (data.draw(st.sampled_from([1, 2])),)), x)
    assert_moves(Split(axis, (first, x.shape[axis] - first), 1), x)


def test_one_of_several_is_no_copy() -> None:
    """What attention does with its queries, keys and values."""
    x = Node.input("x", TensorType("float32", (3, 2, 5)))
    one = Node(Gather(0), (Node(Transpose((0, 2, 1)), (x,), "turned"), Node.const(np.array(1))), "one")
    y = Node(Transpose((1, 0)), (one,), "back")
    run = BACKEND.compile(Graph((x,), {"y": y}))
    assert run.explain({"x": (3, 2, 5)}).count("move") == 2
    array = np.arange(30, dtype=np.float32).reshape(3, 2, 5)
    np.testing.assert_array_equal(run({"x": array})["y"], array[1])


def test_indices_that_leave_the_axis_are_an_error_of_the_call() -> None:
    from graphsr.errors import GraphError

    x = Node.input("x", TensorType("float32", (3, 2)))
    run = BACKEND.compile(Graph((x,), {"y": Node(Gather(0), (x, Node.const(np.array([0, 3]))), "taken")}))
    with pytest.raises(GraphError, match="leave an axis of 3"):
        run({"x": np.zeros((3, 2), np.float32)})

"""Gather and scatter by computed indices in the llvm backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphsr.errors import GraphError
from graphsr.ir import Graph, Node, TensorType
from graphsr.op import Array, Op
from graphsr.ops import Gather, GatherElements, GatherND, ScatterElements, ScatterND
from graphsr.testing import LAYERS
from graphsr.testing.check import layer_graph

pytest.importorskip("llvmlite")

from llvm_layers import BACKEND, SIZES, assert_has_kernel, several

OPS = ("gather", "gather_elements", "gather_nd", "scatter_elements", "scatter_nd")
DTYPES = ("float32", "float64", "int32", "int64")


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("constant", [False, True])
@several
@given(st.data())
def test_every_strategy(name: str, constant: bool, data: st.DataObject) -> None:
    case = data.draw(LAYERS[name]())
    if case.forward().size:
        assert_has_kernel(layer_graph(case, constant=constant))


def results(op: Op, *arrays: Array, threads: int) -> Array:
    """The op through kernels alone, all of its inputs given."""
    nodes = tuple(Node.input(f"x{i}", TensorType(x.dtype.name, x.shape)) for i, x in enumerate(arrays))
    run = BACKEND.compile(Graph(nodes, {"y": Node(op, nodes, "layer")}), threads=threads)
    assert "forward" not in run.explain({node.name: x.shape for node, x in zip(nodes, arrays, strict=True)})
    return run({node.name: x for node, x in zip(nodes, arrays, strict=True)})["y"]


def assert_same_bits(op: Op, *arrays: Array) -> None:
    want = op.forward(*arrays)
    for threads in (1, 3):
        got = results(op, *arrays, threads=threads)
        assert got.shape == want.shape
        assert got.tobytes() == want.tobytes()


@st.composite
def data_of(draw: st.DrawFn, *dtypes: str) -> Array:
    """An array of numbers that are all different and no integers, where the dtype has others; one in eight is NaN."""
    shape: Any = tuple(draw(st.lists(st.sampled_from(SIZES), min_size=1, max_size=3)))
    x = np.arange(np.prod(shape)).reshape(shape).astype(draw(st.sampled_from(dtypes)))
    if x.dtype.kind == "f":
        x = np.where(x % 8 == 7, np.nan, x / 7).astype(x.dtype)
    return x


def indices_of(data: st.DataObject, shape: tuple[int, ...], size: int) -> Array:
    """Positions on an axis from both ends, a few of them many times."""
    few = data.draw(st.lists(st.integers(-size, size - 1), min_size=1, max_size=9))
    dtype = data.draw(st.sampled_from([np.int32, np.int64]))
    return np.resize(np.array(few, dtype), shape)


@several
@given(st.data(), data_of(*DTYPES))
def test_gather(data: st.DataObject, x: Array) -> None:
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    shape = tuple(data.draw(st.lists(st.sampled_from(SIZES), max_size=2)))
    assert_same_bits(Gather(axis), x, indices_of(data, shape, x.shape[axis]))


def lines(data: st.DataObject, x: Array) -> tuple[int, Array]:
    """An axis, and indices along it that reach less far along the others than x does."""
    axis = data.draw(st.integers(0, x.ndim - 1))
    shape = [data.draw(st.sampled_from([n, max(1, n - 2)])) for n in x.shape]
    shape[axis] = data.draw(st.sampled_from(SIZES))
    return axis, indices_of(data, tuple(shape), x.shape[axis])


@several
@given(st.data(), data_of(*DTYPES))
def test_gather_elements(data: st.DataObject, x: Array) -> None:
    axis, indices = lines(data, x)
    assert_same_bits(GatherElements(axis), x, indices)


def rows(data: st.DataObject, x: Array, shared: int) -> Array:
    """Rows of indices for the axes of x behind the shared ones."""
    depth = data.draw(st.integers(1, x.ndim - shared))
    outer = (*x.shape[:shared], *data.draw(st.lists(st.sampled_from(SIZES), min_size=1 - shared, max_size=2)))
    return np.stack([indices_of(data, outer, n).astype(np.int64) for n in x.shape[shared : shared + depth]], axis=-1)


@several
@given(st.data(), data_of(*DTYPES))
def test_gather_nd(data: st.DataObject, x: Array) -> None:
    shared = data.draw(st.integers(0, min(1, x.ndim - 1)))
    assert_same_bits(GatherND(shared), x, rows(data, x, shared))


@several
@given(st.data(), data_of(*DTYPES))
def test_of_several_values_for_one_place_the_last_is_written(data: st.DataObject, x: Array) -> None:
    axis, indices = lines(data, x)
    assert_same_bits(
        ScatterElements("none", axis), x, indices, np.arange(indices.size).reshape(indices.shape).astype(x.dtype)
    )
    indices = rows(data, x, 0)
    shape = (*indices.shape[:-1], *x.shape[indices.shape[-1] :])
    assert_same_bits(ScatterND("none"), x, indices, np.arange(np.prod(shape)).reshape(shape).astype(x.dtype))


@several
@given(st.data(), data_of("float32"))
def test_sums_are_taken_in_the_order_of_the_indices(data: st.DataObject, x: Array) -> None:
    axis, indices = lines(data, x)
    updates = (np.arange(indices.size).reshape(indices.shape) / 3).astype(np.float32)
    assert_same_bits(ScatterElements("add", axis), x, indices, updates)
    indices = rows(data, x, 0)
    shape = (*indices.shape[:-1], *x.shape[indices.shape[-1] :])
    assert_same_bits(ScatterND("add"), x, indices, (np.arange(np.prod(shape)).reshape(shape) / 3).astype(np.float32))


@several
@given(st.data(), st.sampled_from(OPS), st.integers(1, 9), st.sampled_from([np.int32, np.int64]))
def test_an_index_outside_is_the_error_of_forward(data: st.DataObject, name: str, size: int, dtype: type) -> None:
    """However far it is outside; and the next call works."""
    most = np.iinfo(dtype)
    outside = data.draw(st.integers(int(most.min), -size - 1) | st.integers(size, int(most.max)))
    x = np.arange(size * 3, dtype=np.float32).reshape(size, 3)
    indices: Array = np.zeros((5, 1), dtype)
    op: Op = {
        "gather": Gather(0),
        "gather_elements": GatherElements(0),
        "gather_nd": GatherND(),
        "scatter_elements": ScatterElements("none", 0),
        "scatter_nd": ScatterND("add"),
    }[name]
    arrays = [x, indices]
    if "scatter" in name:
        arrays.append(np.ones((5, 1) if name == "scatter_elements" else (5, 3), np.float32))
    nodes = tuple(Node.input(f"x{i}", TensorType(a.dtype.name, a.shape)) for i, a in enumerate(arrays))
    run = BACKEND.compile(Graph(nodes, {"y": Node(op, nodes, "layer")}), threads=2)
    inputs = {f"x{i}": a for i, a in enumerate(arrays)}
    wrong = indices.copy()
    wrong[data.draw(st.integers(0, 4))] = outside
    with pytest.raises(GraphError) as expected:
        op.forward(x, wrong, *arrays[2:])
    with pytest.raises(GraphError) as got:
        run({**inputs, "x1": wrong})
    assert str(got.value) == str(expected.value)
    np.testing.assert_array_equal(run(inputs)["y"], op.forward(*arrays))

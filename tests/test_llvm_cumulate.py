"""Cumulative sums in the llvm backend: bit by bit as NumPy has them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphsr.ir import Graph, Node, TensorType
from graphsr.op import Array
from graphsr.ops import CumulativeSum
from graphsr.testing import LAYERS
from graphsr.testing.check import layer_graph

pytest.importorskip("llvmlite")

from llvm_layers import BACKEND, SIZES, assert_has_kernel, several

VALUES = st.sampled_from([0.0, -0.0, 1.0, -1.5, 0.1, 3e38, -3e38, 1e-45, np.inf, -np.inf, np.nan])


@several
@given(st.data())
def test_every_strategy(data: st.DataObject) -> None:
    assert_has_kernel(layer_graph(data.draw(LAYERS["cumulative_sum"]()), constant=False))


def assert_same_bits(op: CumulativeSum, x: Array) -> None:
    node = Node.input("x", TensorType(x.dtype.name, x.shape))
    graph = Graph((node,), {"y": Node(op, (node,), "sums")})
    with np.errstate(all="ignore"):
        want = op.forward(x)
    for threads in (1, 3):
        run = BACKEND.compile(graph, threads=threads)
        assert "forward" not in run.explain({"x": x.shape})
        y = run({"x": x})["y"]
        np.testing.assert_array_equal(y, want)
        if x.dtype.kind == "f":
            numbers = ~np.isnan(want)
            np.testing.assert_array_equal(np.signbit(y[numbers]), np.signbit(want[numbers]))


@several
@given(st.data(), st.lists(st.sampled_from([*SIZES, 70]), min_size=1, max_size=3), st.booleans(), st.booleans())
def test_same_bits_as_numpy(data: st.DataObject, shape: list[int], exclusive: bool, reverse: bool) -> None:
    values = data.draw(st.lists(VALUES, min_size=1, max_size=40))
    x = np.resize(np.array(values, data.draw(st.sampled_from(["float32", "float64"]))), shape)
    assert_same_bits(CumulativeSum(data.draw(st.integers(-x.ndim, x.ndim - 1)), exclusive, reverse), x)


@several
@given(st.data(), st.sampled_from(["int32", "int64"]), st.booleans(), st.booleans())
def test_integers_wrap_around(data: st.DataObject, dtype: str, exclusive: bool, reverse: bool) -> None:
    limits = np.iinfo(dtype)
    values = data.draw(st.lists(st.integers(int(limits.min), int(limits.max)), min_size=1, max_size=40))
    x = np.resize(np.array(values, dtype), (7, 19))
    assert_same_bits(CumulativeSum(data.draw(st.integers(-2, 1)), exclusive, reverse), x)

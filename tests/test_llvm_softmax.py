"""Softmax, its logarithms, and batch normalisation with statistics of the batch in the llvm backend."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphsr.ir import Graph, Node, TensorType
from graphsr.ops import BatchNormTrain, LogSoftmax, ReduceLogSumExp, Softmax
from graphsr.testing import LAYERS
from graphsr.testing.check import layer_graph
from graphsr.testing.wide import repeated

pytest.importorskip("llvmlite")

from llvm_layers import BACKEND, SIZES, assert_has_kernel, layer_case, several, with_nans


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "batch_norm_train"])
@several
@given(st.data())
def test_every_strategy(name: str, data: st.DataObject) -> None:
    assert_has_kernel(layer_graph(data.draw(LAYERS[name]()), constant=False))


@several
@given(st.data(), st.lists(st.sampled_from(SIZES), min_size=1, max_size=4))
def test_softmax_along_any_axis(data: st.DataObject, shape: list[int]) -> None:
    axis, temperature = data.draw(st.integers(-len(shape), len(shape) - 1)), data.draw(st.sampled_from([1.0, 0.5]))
    case = layer_case(data.draw, Softmax(axis, temperature), tuple(shape))
    assert_has_kernel(case)
    assert_has_kernel(with_nans(case))


@several
@given(st.data(), st.lists(st.sampled_from(SIZES), min_size=1, max_size=4))
def test_logarithms_along_any_axis(data: st.DataObject, shape: list[int]) -> None:
    first = data.draw(st.integers(0, len(shape) - 1))
    axes = tuple(range(first, data.draw(st.integers(first + 1, len(shape)))))
    for op in (LogSoftmax(first - len(shape)), ReduceLogSumExp(axes, data.draw(st.booleans()))):
        case = layer_case(data.draw, op, tuple(shape))
        assert_has_kernel(case)
        assert_has_kernel(with_nans(case))


@pytest.mark.parametrize("axis", [0, 1])
def test_infinities(axis: int) -> None:
    x = np.zeros((3, 18), np.float32)
    x[0, 1:], x[1, 3], x[2] = -np.inf, np.inf, -np.inf
    for op in (Softmax(axis), LogSoftmax(axis), ReduceLogSumExp((axis,))):
        node = Node.input("x", TensorType("float32", x.shape))
        graph = Graph((node,), {"y": Node(op, (node,), "softmax")})
        np.testing.assert_allclose(BACKEND.compile(graph)({"x": x})["y"], op.forward(x), rtol=1e-6)


def test_large_numbers_neither_overflow_nor_vanish() -> None:
    x = np.array([[1000.0, 0.0, 999.0], [-1000.0, -1001.0, -1e30]], np.float32)
    for op in (LogSoftmax(), ReduceLogSumExp((1,))):
        node = Node.input("x", TensorType("float32", x.shape))
        graph = Graph((node,), {"y": Node(op, (node,), "softmax")})
        np.testing.assert_allclose(BACKEND.compile(graph)({"x": x})["y"], op.forward(x.astype(np.float64)), rtol=1e-6)


@several
@given(st.data(), st.tuples(*[st.sampled_from(SIZES)] * 4))
def test_batch_norm(data: st.DataObject, shape: tuple[int, ...]) -> None:
    scale, bias = (data.draw(repeated(shape[1:2])) for _ in range(2))
    assert_has_kernel(layer_case(data.draw, BatchNormTrain(0.25), shape, constants=(scale, bias)))

"""Softmax, its logarithms, and batch normalisation with statistics of the batch in the llvm backend."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphsr.ir import Graph, Node, TensorType
from graphsr.op import Op
from graphsr.ops import BatchNormTrain, LogSoftmax, ReduceLogSumExp, Softmax
from graphsr.testing import LAYERS
from graphsr.testing.check import layer_graph
from graphsr.testing.wide import repeated

pytest.importorskip("llvmlite")

from llvm_layers import BACKEND, SIZES, assert_has_kernel, layer_case, several, with_nans

from graphsr.backends.llvm.kernels.reduce import FEW_ROWS, LONG_ROW, PART


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


ALONG_ROWS = (Softmax(1), Softmax(1, 0.5), LogSoftmax(1), ReduceLogSumExp((1,)))


@several
@given(
    st.data(),
    st.sampled_from(ALONG_ROWS),
    st.sampled_from([1, 2, FEW_ROWS]),
    st.sampled_from([LONG_ROW - 1, LONG_ROW, LONG_ROW + 1, LONG_ROW + PART + 17]),
)
def test_long_rows(data: st.DataObject, op: Op, rows: int, size: int) -> None:
    case = layer_case(data.draw, op, (rows, size))
    assert_has_kernel(case)
    assert_has_kernel(with_nans(case, every=rows * size // 2 + 1))


@pytest.mark.parametrize("op", ALONG_ROWS)
def test_long_rows_have_the_same_bits_for_any_number_of_threads(op: Op) -> None:
    x = np.random.default_rng(0).random((2, LONG_ROW + 3), np.float32)
    node = Node.input("x", TensorType("float32", x.shape))
    graph = Graph((node,), {"y": Node(op, (node,), "softmax")})
    one, two, three = (BACKEND.compile(graph, threads=n)({"x": x})["y"].tobytes() for n in (1, 2, 3))
    assert one == two == three


@pytest.mark.parametrize(("axis", "size"), [(0, 18), (1, 18), (1, LONG_ROW)])
def test_infinities(axis: int, size: int) -> None:
    x = np.zeros((3, size), np.float32)
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

"""Softmax and batch normalisation with statistics of the batch in the llvm backend."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphsr.ir import Graph, Node, TensorType
from graphsr.ops import BatchNormTrain, Softmax
from graphsr.testing import LAYERS
from graphsr.testing.check import layer_graph
from graphsr.testing.wide import repeated

pytest.importorskip("llvmlite")

from llvm_layers import BACKEND, SIZES, assert_has_kernel, layer_case, several, with_nans


@pytest.mark.parametrize("name", ["softmax", "batch_norm_train"])
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


def test_softmax_of_infinities() -> None:
    x = np.zeros((3, 18), np.float32)
    x[0, 1:], x[1, 3], x[2] = -np.inf, np.inf, -np.inf
    for axis in (0, 1):
        node = Node.input("x", TensorType("float32", x.shape))
        graph = Graph((node,), {"y": Node(Softmax(axis), (node,), "softmax")})
        np.testing.assert_allclose(BACKEND.compile(graph)({"x": x})["y"], Softmax(axis).forward(x), rtol=1e-6)


@several
@given(st.data(), st.tuples(*[st.sampled_from(SIZES)] * 4))
def test_batch_norm(data: st.DataObject, shape: tuple[int, ...]) -> None:
    scale, bias = (data.draw(repeated(shape[1:2])) for _ in range(2))
    assert_has_kernel(layer_case(data.draw, BatchNormTrain(0.25), shape, constants=(scale, bias)))

"""Layers over one axis in the llvm backend, and those over two that do not say that they are of images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphsr.dim import Dim
from graphsr.ir import Graph, Node, TensorType
from graphsr.op import Array
from graphsr.ops import AvgPoolNd, ConvNd, ConvTransposeNd, MaxPoolNd
from graphsr.testing import LAYERS
from graphsr.testing.check import layer_graph
from graphsr.testing.graphs import GraphCase
from graphsr.testing.wide import repeated

pytest.importorskip("llvmlite")

from llvm_layers import BACKEND, CHANNELS, assert_has_kernel, layer_case, several

from graphsr.backends.llvm.backend import LlvmBackend
from graphsr.backends.weights import WeightCache


@pytest.mark.parametrize("name", ["conv_nd", "conv_transpose_nd", "max_pool_nd", "avg_pool_nd"])
@several
@given(st.data())
def test_every_strategy(name: str, data: st.DataObject) -> None:
    case = data.draw(LAYERS[name]())
    graph = layer_graph(case, constant=True)
    reasons = [
        step.note for step in BACKEND.compile(graph.graph).bind(graph.shapes).steps() if step.kernel == "forward"
    ]
    grouped = isinstance(case.op, ConvTransposeNd) and case.op.groups > 1 and case.inputs[0].ndim < 5
    if grouped:
        assert reasons
    else:
        assert_has_kernel(graph)


@st.composite
def signals(draw: st.DrawFn) -> GraphCase:
    """Wider than a vector, with channels that fill blocks or do not."""
    n, ci, co = draw(st.integers(1, 2)), draw(st.sampled_from(CHANNELS)), draw(st.sampled_from(CHANNELS))
    kernel, stride = draw(st.integers(1, 5)), draw(st.integers(1, 2))
    op = ConvNd((stride,), (kernel // 2, kernel // 2), (1,))
    weights = draw(repeated((co, ci, kernel))), draw(repeated((co,)))
    return layer_case(draw, op, (n, ci, draw(st.sampled_from([5, 16, 33, 100]))), constants=weights)


@several
@given(signals())
def test_convolution_of_signals(case: GraphCase) -> None:
    assert_has_kernel(case)


@several
@given(st.data(), st.sampled_from([5, 16, 33, 100]), st.integers(2, 4))
def test_pools_of_signals(data: st.DataObject, width: int, kernel: int) -> None:
    window = (kernel,), (data.draw(st.integers(1, 3)),), (kernel // 2, kernel - 1), (1,)
    op = data.draw(
        st.sampled_from([MaxPoolNd(*window), AvgPoolNd(*window), AvgPoolNd(*window, count_include_pad=True)])
    )
    assert_has_kernel(layer_case(data.draw, op, (2, 3, width)))


def test_weights_of_signals_are_packed_once() -> None:
    """However often the network is planned: their form as weights of images is one array."""
    x = Node.input("x", TensorType("float32", (1, 16, 40)))
    weight = Node.const(np.ones((16, 16, 3), np.float32))
    graph = Graph((x,), {"y": Node(ConvNd((1,), (1, 1), (1,)), (x, weight), "layer")})
    backend = LlvmBackend()
    sizes = []
    for _ in range(2):
        backend.compile(graph, threads=1).bind({"x": (1, 16, 40)})
        sizes.append(backend.weights.nbytes)
    assert sizes[0] == sizes[1] > 0


@pytest.mark.parametrize("axes", [1, 3])
def test_a_new_size_packs_nothing(axes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where the size is open, and kernels for all sizes are looked for when the first one is bound."""
    made: list[str] = []
    get = WeightCache.get

    def noted(cache: WeightCache, weight: Array, form: str, make: Callable[[Array], Array]) -> Array:
        def packed_now(array: Array) -> Array:
            made.append(form)
            return make(array)

        return get(cache, weight, form, packed_now)

    monkeypatch.setattr(WeightCache, "get", noted)
    x = Node.input("x", TensorType("float32", (1, 16, *(4,) * (axes - 1), Dim.symbol("W"))))
    weights = Node.const(np.ones((16, 16, *(3,) * axes), np.float32)), Node.const(np.ones(16, np.float32))
    op = ConvNd((1,) * axes, (1,) * (2 * axes), (1,) * axes)
    run = LlvmBackend().compile(Graph((x,), {"y": Node(op, (x, *weights), "layer")}), threads=1)
    packed = []
    for width in (40, 41, 57):
        run.bind({"x": (1, 16, *(4,) * (axes - 1), width)})
        packed.append(len(made))
    assert packed[0] == packed[1] == packed[2] > 0

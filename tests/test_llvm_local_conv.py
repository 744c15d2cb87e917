"""Local connections of the llvm backend, at the sizes where blocks, panels and register tiles begin and end."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphsr.ir import Graph, Node, TensorType
from graphsr.op import Array, Op
from graphsr.ops import Fused, Gelu, Leaky, LocalConv2d, Relu, Shortcut
from graphsr.testing import LAYERS
from graphsr.testing.cases import Case
from graphsr.testing.check import layer_graph
from graphsr.testing.graphs import GraphCase
from graphsr.testing.wide import repeated

pytest.importorskip("llvmlite")

from llvm_layers import BACKEND, assert_has_kernel, assert_same_nans, layer_case, several, with_nans

IMAGES = (1, 1, 2, 4, 5, 11, 13, 17)
CHANNELS = (1, 2, 3, 8, 15, 16, 17, 21, 33)
OUTPUTS = (1, 5, 16, 17, 33, 64, 80)
ACTIVATIONS = (None, None, Relu(), Leaky(0.25), Gelu())


@st.composite
def local_layers(draw: st.DrawFn) -> GraphCase:
    padding = tuple(draw(st.integers(0, 2)) for _ in range(4))
    stride = draw(st.sampled_from([1, 1, 2, 3])), draw(st.sampled_from([1, 1, 2, 3]))
    kernel = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    size = [max(1, kernel[a] - padding[a] - padding[a + 2]) + draw(st.integers(0, 3)) for a in (0, 1)]
    out = [(size[a] + padding[a] + padding[a + 2] - kernel[a]) // stride[a] + 1 for a in (0, 1)]
    n, ci, co = (draw(st.sampled_from(choices)) for choices in (IMAGES, CHANNELS, OUTPUTS))
    weight, bias = draw(repeated((*out, co, ci, *kernel))), draw(repeated((co, *out)))
    base = LocalConv2d(stride, (padding[0], padding[1], padding[2], padding[3]))
    activation = draw(st.sampled_from(ACTIVATIONS))
    op: Op = base if activation is None else Fused(base, activation)
    blocked = ci >= 8 and draw(st.booleans())
    return layer_case(draw, op, (n, ci, *size), constants=(weight, bias), blocked=blocked)


@several
@given(LAYERS["local_conv2d"]())
def test_every_strategy(case: Case) -> None:
    assert_has_kernel(layer_graph(case, constant=True))


@several
@given(local_layers())
def test_whatever_the_channels_and_images(case: GraphCase) -> None:
    assert_has_kernel(case)


@several
@given(local_layers())
def test_nan_stays_where_it_is_read(case: GraphCase) -> None:
    """In none of the lanes beyond the channels either, which the next layer would read."""
    if all(node.name != "id" for node in case.graph.nodes()):
        assert_same_nans(with_nans(case))


def explained(op: Op, arrays: list[Array], constants: tuple[int, ...]) -> str:
    """What the backend says of a layer of which these inputs are constants."""
    nodes = tuple(
        Node.const(x) if i in constants else Node.input(f"x{i}", TensorType(x.dtype.name, x.shape))
        for i, x in enumerate(arrays)
    )
    inputs = tuple(node for node in nodes if not node.is_const)
    run = BACKEND.compile(Graph(inputs, {"y": Node(op, nodes, "layer")}))
    return run.explain({node.name: node.type.dims for node in inputs})


def test_what_has_no_kernel_is_told() -> None:
    arrays = [np.ones(shape, np.float32) for shape in ((1, 2, 2, 2), (2, 2, 3, 2, 1, 1), (3, 2, 2), (1, 3, 2, 2))]
    assert "weights are not constant" in explained(LocalConv2d(), arrays[:3], (1,))
    assert "only float32, not float64" in explained(LocalConv2d(), [x.astype(float) for x in arrays[:3]], (1, 2))
    assert "a residual is added" in explained(Fused(LocalConv2d(), residual=Shortcut()), arrays, (1, 2))

"""Regions of images, resized by the llvm backend: planar and in blocks, inside the image, outside, and turned round."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphsr.ir import Graph, Node, TensorType
from graphsr.ops import CropAndResize
from graphsr.testing import LAYERS
from graphsr.testing.cases import Case
from graphsr.testing.check import layer_graph
from graphsr.testing.graphs import GraphCase

pytest.importorskip("llvmlite")

from llvm_layers import BACKEND, CHANNELS, SIZES, assert_has_kernel, assert_same_nans, layer_case, several, with_nans

EDGES = (-2.0, -0.3, 0.0, 0.2, 0.5, 0.7, 1.0, 1.1, 3.0)


@several
@given(LAYERS["crop_and_resize"]())
def test_every_strategy(case: Case) -> None:
    assert_has_kernel(layer_graph(case, constant=False))


@st.composite
def crops(draw: st.DrawFn, blocked: bool) -> GraphCase:
    top, left, bottom, right = (draw(st.sampled_from(EDGES)) for _ in range(4))
    size = draw(st.sampled_from(SIZES)), draw(st.sampled_from(SIZES))
    op = CropAndResize((top, left, bottom, right), size, draw(st.sampled_from([0.0, -2.0])))
    channels = draw(st.sampled_from([c for c in CHANNELS[:9] if c >= 8 or not blocked]))
    h, w = draw(st.sampled_from(SIZES)), draw(st.sampled_from(SIZES))
    return layer_case(draw, op, (draw(st.integers(1, 2)), channels, h, w), blocked=blocked)


@several
@given(crops(blocked=False))
def test_planar(case: GraphCase) -> None:
    assert_has_kernel(case)
    assert_same_nans(with_nans(case))


@several
@given(crops(blocked=True))
def test_in_blocks(case: GraphCase) -> None:
    assert_has_kernel(case)


@several
@given(crops(blocked=False))
def test_roundings_are_those_of_forward(case: GraphCase) -> None:
    (node,) = case.graph.outputs.values()
    np.testing.assert_array_equal(BACKEND.compile(case.graph)(case.inputs)["y"], node.op.forward(case.inputs["x0"]))


def test_what_has_no_kernel_is_told() -> None:
    x = Node.input("x", TensorType("float64", (1, 1, 2, 2)))
    run = BACKEND.compile(Graph((x,), {"y": Node(CropAndResize((0, 0, 1, 1), (1, 1)), (x,), "layer")}))
    assert "only float32, not float64" in run.explain({"x": (1, 1, 2, 2)})

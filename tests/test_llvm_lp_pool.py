"""Pools of p-norms in the llvm backend, planar and in blocks, beside the reference."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphsr.ops import LpPoolNd
from graphsr.testing import LAYERS
from graphsr.testing.check import layer_graph
from graphsr.testing.graphs import GraphCase

pytest.importorskip("llvmlite")

from llvm_layers import BACKEND, SIZES, assert_has_kernel, assert_same_nans, layer_case, several, with_nans


@several
@given(st.data())
def test_every_strategy(data: st.DataObject) -> None:
    """Signals, images and volumes."""
    assert_has_kernel(layer_graph(data.draw(LAYERS["lp_pool_nd"]()), constant=False))


@st.composite
def pools(draw: st.DrawFn, blocked: bool) -> GraphCase:
    kernel = draw(st.sampled_from([1, 2, 3, 7])), draw(st.sampled_from([1, 2, 3, 7]))
    stride, dilation = draw(st.sampled_from([(1, 1), (2, 3)])), draw(st.sampled_from([(1, 1), (2, 3)]))
    span = [dilation[a] * (kernel[a] - 1) + 1 for a in (0, 1)]
    padding = tuple(draw(st.integers(0, span[a] - 1)) for a in (0, 1, 0, 1))
    op = LpPoolNd(kernel, stride, padding, dilation, draw(st.booleans()), p=draw(st.sampled_from([1, 2, 2, 3, 8])))
    h, w = (span[a] + draw(st.sampled_from(SIZES)) - 1 for a in (0, 1))
    channels = draw(st.sampled_from([16, 25]) if blocked else st.sampled_from([1, 3, 17]))
    return layer_case(draw, op, (draw(st.integers(1, 2)), channels, h, w), blocked=blocked)


@several
@given(pools(blocked=False))
def test_planar(case: GraphCase) -> None:
    assert_has_kernel(case)
    assert_same_nans(with_nans(case))


@several
@given(pools(blocked=True))
def test_in_blocks(case: GraphCase) -> None:
    assert_has_kernel(case)
    explained = BACKEND.compile(case.graph).explain({"x0": case.inputs["x0"].shape})
    assert explained.count("layout") <= 2, explained  # in front of the first layer, and behind the last one

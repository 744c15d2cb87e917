"""Heads of detectors in the llvm backend."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphsr.ops import GaussianYoloHead, GridHead, RegionHead, YoloHead
from graphsr.ops.detection import AnchorHead
from graphsr.testing import LAYERS
from graphsr.testing.check import layer_graph
from graphsr.testing.graphs import GraphCase

pytest.importorskip("llvmlite")

from llvm_layers import SIZES, Draw, assert_has_kernel, assert_same_nans, layer_case, several, with_nans

ANCHORS = ((10.0, 14.0), (23.0, 27.0), (37.0, 58.0))
HEADS: dict[str, AnchorHead] = {
    "yolo": YoloHead(ANCHORS, 80, scale_xy=1.05),
    "new coordinates": YoloHead(ANCHORS[:1], 3, scale_xy=2.0, new_coords=True),
    "gaussian": GaussianYoloHead(ANCHORS, 2, scale_xy=1.1),
    "region": RegionHead(ANCHORS, 20, softmax=True),
    "background": RegionHead(ANCHORS, 4, softmax=True, background=True),
    "tree": RegionHead(ANCHORS[:2], 6, tree=(2, 3, 1), parents=(-1, -1, 0, 0, 0, 1)),
}


@pytest.mark.parametrize("name", ["yolo_head", "gaussian_yolo_head", "region_head", "grid_head"])
@several
@given(st.data())
def test_every_strategy(name: str, data: st.DataObject) -> None:
    assert_has_kernel(layer_graph(data.draw(LAYERS[name]()).astype("float32"), constant=True))


def head_case(draw: Draw, head: AnchorHead) -> GraphCase:
    n, h, w = draw(st.integers(1, 2)), *(draw(st.sampled_from(SIZES)) for _ in "hw")
    return layer_case(draw, head, (n, len(head.anchors) * head.entries, h, w))


@st.composite
def heads(draw: Draw) -> GraphCase:
    """Any of the heads."""
    return head_case(draw, HEADS[draw(st.sampled_from(sorted(HEADS)))])


@pytest.mark.parametrize("name", HEADS)
@several
@given(st.data())
def test_heads_on_anchors(name: str, data: st.DataObject) -> None:
    check(head_case(data.draw, HEADS[name]))


@several
@given(st.data())
def test_heads_on_a_grid(data: st.DataObject) -> None:
    head = GridHead(data.draw(st.sampled_from([1, 3, 7])), 2, data.draw(st.sampled_from([1, 5, 20])), softmax=True)
    shape = (data.draw(st.integers(1, 2)), head.side**2 * (head.classes + 5 * head.boxes), 1, 1)
    check(layer_case(data.draw, head, shape))


def check(case: GraphCase) -> None:
    assert_has_kernel(case)
    assert_same_nans(with_nans(case))

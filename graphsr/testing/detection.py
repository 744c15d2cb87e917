"""Strategies for the heads of detectors."""

from __future__ import annotations

from hypothesis import strategies as st

from graphsr.ops import GaussianYoloHead, GridHead, RegionHead, YoloHead
from graphsr.ops.detection import POINTS, SUPPRESSION, AnchorHead
from graphsr.testing.cases import Case, arrays, layer

SMALL = st.integers(1, 3)
ANCHORS = st.lists(st.tuples(st.sampled_from([0.5, 10.0]), st.sampled_from([1.25, 30.0])), min_size=1, max_size=2)
STRETCH = st.sampled_from([1.0, 1.05, 2.0])


@st.composite
def on_anchors(draw: st.DrawFn, head: AnchorHead) -> Case:
    channels = len(head.anchors) * head.entries
    return Case(head, (draw(arrays((draw(SMALL), channels, draw(SMALL), draw(SMALL)))),))


@layer("yolo_head")
def yolo_head(draw: st.DrawFn) -> Case:
    kind = draw(st.sampled_from(SUPPRESSION))
    head = YoloHead(tuple(draw(ANCHORS)), draw(st.integers(0, 3)), draw(STRETCH), draw(st.booleans()), kind)
    return draw(on_anchors(head))


@layer("gaussian_yolo_head")
def gaussian_yolo_head(draw: st.DrawFn) -> Case:
    point = draw(st.sampled_from(POINTS))
    return draw(on_anchors(GaussianYoloHead(tuple(draw(ANCHORS)), draw(st.integers(0, 3)), draw(STRETCH), point)))


@layer("region_head")
def region_head(draw: st.DrawFn) -> Case:
    tree = tuple(draw(st.lists(SMALL, max_size=3)))
    classes = sum(tree) if tree else draw(SMALL)
    parents = tuple(draw(st.integers(-1, i - 1)) for i in range(classes)) if tree else ()
    softmax, background = draw(st.booleans()), draw(st.booleans()) and not tree
    head = RegionHead(tuple(draw(ANCHORS)), classes, draw(st.integers(4, 5)), softmax, background, tree, parents)
    return draw(on_anchors(head))


@layer("grid_head")
def grid_head(draw: st.DrawFn) -> Case:
    head = GridHead(draw(SMALL), draw(SMALL), draw(SMALL), draw(st.booleans()), draw(st.booleans()))
    values = head.side**2 * (head.classes + 5 * head.boxes)
    return Case(head, (draw(arrays((draw(SMALL), values, 1, 1))),))

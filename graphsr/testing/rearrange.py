"""Strategies for depth to space and back."""

from __future__ import annotations

from hypothesis import strategies as st

from graphsr.ops import DepthToSpace, SpaceToDepth
from graphsr.testing.cases import Case, arrays, layer

MODE = st.sampled_from(["crd", "dcr"])
SMALL = st.integers(1, 3)


@layer("depth_to_space")
def depth_to_space(draw: st.DrawFn) -> Case:
    b = draw(SMALL)
    shape = (draw(SMALL), draw(SMALL) * b * b, draw(SMALL), draw(SMALL))
    return Case(DepthToSpace(b, draw(MODE)), (draw(arrays(shape)),))


@layer("space_to_depth")
def space_to_depth(draw: st.DrawFn) -> Case:
    b = draw(SMALL)
    shape = (draw(SMALL), draw(SMALL), draw(SMALL) * b, draw(SMALL) * b)
    return Case(SpaceToDepth(b, draw(MODE)), (draw(arrays(shape)),))

"""Resizing of the llvm backend: every mode and convention, planar and in blocks, larger and smaller."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphsr.ops import Resize
from graphsr.ops.resize import SUPPORT
from graphsr.testing import LAYERS
from graphsr.testing.cases import Case
from graphsr.testing.check import layer_graph
from graphsr.testing.graphs import GraphCase

pytest.importorskip("llvmlite")

from llvm_layers import CHANNELS, SIZES, assert_has_kernel, layer_case, several, with_nans

SCALES = (0.2, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)


@st.composite
def resizes(draw: st.DrawFn, blocked: bool) -> GraphCase:
    h, w = (draw(st.sampled_from(SIZES[3:])) + 2 for _ in range(2))
    mode = draw(st.sampled_from(sorted(SUPPORT)))
    scale = draw(st.sampled_from(SCALES)), draw(st.sampled_from(SCALES))
    op = Resize(scale, mode=mode, antialias=mode != "nearest" and draw(st.booleans()))
    channels = draw(st.sampled_from([c for c in CHANNELS[:8] if c >= 8 or not blocked]))
    return layer_case(draw, op, (draw(st.integers(1, 2)), channels, h, w), blocked=blocked)


@several
@given(LAYERS["resize"]())
def test_every_strategy(case: Case) -> None:
    assert_has_kernel(layer_graph(case, constant=False))


@several
@given(resizes(blocked=False))
def test_planar(case: GraphCase) -> None:
    assert_has_kernel(case)
    assert_has_kernel(with_nans(case))


@several
@given(resizes(blocked=True))
def test_in_blocks(case: GraphCase) -> None:
    assert_has_kernel(case)

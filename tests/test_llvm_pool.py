"""Pooling of the llvm backend: every attribute, planar and in blocks, from tiny windows to such that are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphsr.ops import AvgPool2d, MaxPool2d
from graphsr.testing.graphs import GraphCase

pytest.importorskip("llvmlite")

from llvm_layers import CHANNELS, SIZES, assert_has_kernel, layer_case, several, with_nans

WINDOWS = (1, 2, 3, 3, 4, 5, 7, 16, 21, 30)


@st.composite
def pools(draw: st.DrawFn, blocked: bool) -> GraphCase:
    kernel = draw(st.sampled_from(WINDOWS)), draw(st.sampled_from(WINDOWS))
    stride, dilation = draw(st.sampled_from([(1, 1), (1, 1), (2, 3), (5, 1)])), draw(st.sampled_from([(1, 1), (2, 3)]))
    span = [dilation[a] * (kernel[a] - 1) + 1 for a in (0, 1)]
    top, left, bottom, right = (draw(st.integers(0, min(span[a] // 2, 20))) for a in (0, 1, 0, 1))
    h, w = (max(span[a], dilation[a]) + draw(st.sampled_from(SIZES)) - 1 for a in (0, 1))
    channels = draw(st.sampled_from([c for c in CHANNELS[:8] if c >= 8 or not blocked]))
    padding, ceil_mode = (top, left, bottom, right), draw(st.booleans())
    op = draw(
        st.sampled_from(
            [
                MaxPool2d(kernel, stride, padding, dilation, ceil_mode),
                AvgPool2d(kernel, stride, padding, ceil_mode, draw(st.booleans()), dilation),
            ]
        )
    )
    return layer_case(draw, op, (draw(st.integers(1, 2)), channels, h, w), blocked=blocked)


@several
@given(pools(blocked=False))
def test_planar(case: GraphCase) -> None:
    assert_has_kernel(case)
    assert_has_kernel(with_nans(case))


@several
@given(pools(blocked=True))
def test_in_blocks(case: GraphCase) -> None:
    assert_has_kernel(case)


@pytest.mark.parametrize(
    "op", [MaxPool2d((30, 30)), AvgPool2d((30, 30)), MaxPool2d((3, 3), (2, 2), (1, 1, 1, 1))], ids=str
)
@several
@given(st.data())
def test_window_of_the_thesis(op: MaxPool2d | AvgPool2d, data: st.DataObject) -> None:
    assert_has_kernel(layer_case(data.draw, op, (2, 3, 61, 97)))

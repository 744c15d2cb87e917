"""Strategies for pooling: every attribute; every window holds at least one pixel of the input."""

from __future__ import annotations

from typing import TypeAlias

from hypothesis import strategies as st

from graphsr.ops import AvgPool2d, GlobalAvgPool, GlobalMaxPool, MaxPool2d
from graphsr.testing.cases import Case, arrays, distinct_arrays, layer

PAIR = st.tuples(st.integers(1, 3), st.integers(1, 3))
IMAGE = st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 5), st.integers(1, 5))

Pair: TypeAlias = "tuple[int, int]"
Padding: TypeAlias = "tuple[int, int, int, int]"


@layer("max_pool2d")
def max_pool2d(draw: st.DrawFn) -> Case:
    kernel, stride, padding, dilation, ceil_mode, shape = draw(windows())
    return Case(MaxPool2d(kernel, stride, padding, dilation, ceil_mode), (draw(distinct_arrays(shape)),))


@layer("avg_pool2d")
def avg_pool2d(draw: st.DrawFn) -> Case:
    kernel, stride, padding, dilation, ceil_mode, shape = draw(windows())
    op = AvgPool2d(kernel, stride, padding, ceil_mode, draw(st.booleans()), dilation)
    return Case(op, (draw(arrays(shape)),))


@layer("global_avg_pool")
def global_avg_pool(draw: st.DrawFn) -> Case:
    return Case(GlobalAvgPool(), (draw(arrays(draw(IMAGE))),))


@layer("global_max_pool")
def global_max_pool(draw: st.DrawFn) -> Case:
    return Case(GlobalMaxPool(), (draw(distinct_arrays(draw(IMAGE))),))


@st.composite
def windows(draw: st.DrawFn) -> tuple[Pair, Pair, Padding, Pair, bool, tuple[int, ...]]:
    """(kernel, stride, padding, dilation, ceil mode, input shape). The input is at least as large as the dilation, so
    that no window falls between its pixels; padding is half of the time the same on both sides, as in PyTorch."""
    kernel, stride, dilation = draw(PAIR), draw(PAIR), draw(PAIR)
    symmetric, before, after, size = draw(st.booleans()), [0, 0], [0, 0], [0, 0]
    for a in (0, 1):
        widest = dilation[a] * (kernel[a] - 1)
        before[a] = draw(st.integers(0, widest // 2 if symmetric else widest))
        after[a] = before[a] if symmetric else draw(st.integers(0, widest))
        low = max(dilation[a], widest + 1 - before[a] - after[a])
        size[a] = low + draw(st.integers(0, 4))
    padding = (before[0], before[1], after[0], after[1])
    return kernel, stride, padding, dilation, draw(st.booleans()), (draw(st.integers(1, 2)), 2, *size)

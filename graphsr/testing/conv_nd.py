"""Strategies for convolutions and pooling over one, two or three spatial axes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from graphsr.ops import AvgPoolNd, ConvNd, ConvTransposeNd, LpPoolNd, MaxPoolNd
from graphsr.ops.conv import ALGORITHMS
from graphsr.ops.conv_nd import winograd_fits_nd
from graphsr.testing.cases import Case, arrays, distinct_arrays, layer
from graphsr.testing.elementwise import nonzero_arrays

SMALL = st.integers(1, 2)


@st.composite
def numbers(draw: st.DrawFn, count: int, low: int, high: int) -> tuple[int, ...]:
    return tuple(draw(st.integers(low, high)) for _ in range(count))


@layer("conv_nd")
def conv_nd(draw: st.DrawFn) -> Case:
    axes = draw(st.integers(1, 3))
    kernel, stride, dilation = draw(numbers(axes, 1, 3)), draw(numbers(axes, 1, 2)), draw(numbers(axes, 1, 2))
    padding, groups = draw(numbers(2 * axes, 0, 2)), draw(SMALL)
    if axes == 3 and draw(st.booleans()):  # what Winograd can compute
        kernel, stride, dilation, groups = (kernel[0], 3, 3), (stride[0], 1, 1), (dilation[0], 1, 1), 1
    size = []
    for a in range(axes):
        least = dilation[a] * (kernel[a] - 1) + 1 - padding[a] - padding[a + axes]
        size.append(max(1, least) + draw(st.integers(0, 2)))
    ci, co = draw(SMALL), draw(SMALL) * groups
    bias = (draw(arrays((co,))),) if draw(st.booleans()) else ()
    x, weight = draw(arrays((draw(SMALL), ci * groups, *size))), draw(arrays((co, ci, *kernel)))
    op = ConvNd(stride, padding, dilation, groups)
    if winograd_fits_nd(op, kernel):
        op = replace(op, algorithm=draw(st.sampled_from(ALGORITHMS)))
    return Case(op, (x, weight, *bias))


@layer("conv_transpose_nd")
def conv_transpose_nd(draw: st.DrawFn) -> Case:
    """The output padding is less than the stride, so that PyTorch has it, too."""
    axes = draw(st.integers(1, 3))
    kernel, stride, dilation = draw(numbers(axes, 1, 3)), draw(numbers(axes, 1, 3)), draw(numbers(axes, 1, 2))
    groups, size, before, behind, extra = draw(SMALL), draw(numbers(axes, 1, 3)), [], [], []
    for a in range(axes):
        span = stride[a] * (size[a] - 1) + dilation[a] * (kernel[a] - 1) + 1
        before.append(draw(st.integers(0, min(2, span - 1))))
        behind.append(draw(st.integers(0, min(2, span - 1 - before[a]))))
        extra.append(draw(st.integers(0, stride[a] - 1)))
    ci, co = draw(SMALL) * groups, draw(SMALL)
    bias = (draw(arrays((co * groups,))),) if draw(st.booleans()) else ()
    op = ConvTransposeNd(stride, (*before, *behind), dilation, groups, draw(st.sampled_from([(), tuple(extra)])))
    return Case(op, (draw(arrays((draw(SMALL), ci, *size))), draw(arrays((ci, co, *kernel))), *bias))


@st.composite
def windows(draw: st.DrawFn) -> tuple[dict[str, Any], tuple[int, ...]]:
    """(attributes of a pool, shape of its input). The input is at least as large as the dilation, so that no window
    falls between its elements."""
    axes = draw(st.integers(1, 3))
    kernel, stride, dilation = draw(numbers(axes, 1, 3)), draw(numbers(axes, 1, 3)), draw(numbers(axes, 1, 2))
    symmetric, before, behind, size = draw(st.booleans()), [], [], []
    for a in range(axes):
        widest = dilation[a] * (kernel[a] - 1)
        before.append(draw(st.integers(0, widest // 2 if symmetric else widest)))
        behind.append(before[a] if symmetric else draw(st.integers(0, widest)))
        size.append(max(dilation[a], widest + 1 - before[a] - behind[a]) + draw(st.integers(0, 2)))
    padding, ceil_mode = (*before, *behind), draw(st.booleans())
    attributes = {
        "kernel": kernel,
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "ceil_mode": ceil_mode,
    }
    return attributes, (draw(SMALL), draw(SMALL), *size)


@layer("max_pool_nd")
def max_pool_nd(draw: st.DrawFn) -> Case:
    attributes, shape = draw(windows())
    output = draw(st.sampled_from(["values", "values", "indices"]))
    op = MaxPoolNd(**attributes, output=output, column_major=draw(st.booleans()))
    return Case(op, (draw(distinct_arrays(shape)),))


@layer("avg_pool_nd")
def avg_pool_nd(draw: st.DrawFn) -> Case:
    attributes, shape = draw(windows())
    return Case(AvgPoolNd(**attributes, count_include_pad=draw(st.booleans())), (draw(arrays(shape)),))


@layer("lp_pool_nd")
def lp_pool_nd(draw: st.DrawFn) -> Case:
    attributes, shape = draw(windows())
    return Case(LpPoolNd(**attributes, p=draw(st.integers(1, 3))), (draw(nonzero_arrays(shape)),))

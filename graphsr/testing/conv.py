"""Strategies for the convolution family: every attribute, odd sizes, small enough to be quick."""

from __future__ import annotations

from hypothesis import strategies as st

from graphsr.ops import Conv2d, ConvTranspose2d
from graphsr.testing.cases import Case, arrays, layer

PAIR = st.tuples(st.integers(1, 3), st.integers(1, 3))
PADDING = st.tuples(*[st.integers(0, 2)] * 4)


WINOGRAD = ["winograd_f2", "winograd_f4", "winograd_f6"]


@layer("conv2d")
def conv2d(draw: st.DrawFn) -> Case:
    """Half of the cases fit Winograd, and may use it, on images of several tiles."""
    groups, cig, cog, padding = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(PADDING)
    if fits := draw(st.booleans()):
        kernel, stride, dilation, groups = (3, 3), (1, 1), (1, 1), 1
    else:
        kernel, stride, dilation = draw(PAIR), draw(PAIR), draw(PAIR)
    low = [max(1, dilation[a] * (kernel[a] - 1) + 1 - padding[a] - padding[a + 2]) for a in (0, 1)]
    size = tuple(low[a] + draw(st.integers(0, 8 if fits else 5)) for a in (0, 1))
    algorithm = draw(st.sampled_from(["direct", "im2col", *(WINOGRAD if fits else [])]))
    op = Conv2d(stride, padding, dilation, groups, algorithm)
    x = draw(arrays((draw(st.integers(1, 2)), groups * cig, *size)))
    weight = draw(arrays((groups * cog, cig, *kernel)))
    bias = (draw(arrays((groups * cog,))),) if draw(st.booleans()) else ()
    return Case(op, (x, weight, *bias))


@layer("conv_transpose2d")
def conv_transpose2d(draw: st.DrawFn) -> Case:
    kernel, stride, dilation = draw(PAIR), draw(PAIR), draw(PAIR)
    groups, cig, cog = draw(st.integers(1, 2)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    size = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    extra = tuple(draw(st.integers(0, max(stride[a], dilation[a]) - 1)) for a in (0, 1))
    full = [stride[a] * (size[a] - 1) + dilation[a] * (kernel[a] - 1) + 1 + extra[a] for a in (0, 1)]
    top, left = (draw(st.integers(0, min(2, full[a] - 1))) for a in (0, 1))
    bottom, right = (draw(st.integers(0, min(2, full[a] - 1 - (top, left)[a]))) for a in (0, 1))
    op = ConvTranspose2d(stride, (top, left, bottom, right), dilation, (extra[0], extra[1]), groups)
    x = draw(arrays((draw(st.integers(1, 2)), groups * cig, *size)))
    weight = draw(arrays((groups * cig, cog, *kernel)))
    bias = (draw(arrays((groups * cog,))),) if draw(st.booleans()) else ()
    return Case(op, (x, weight, *bias))

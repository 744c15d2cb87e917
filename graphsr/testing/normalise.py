"""Strategies for normalisation by the input's own statistics: values differ enough that these vary slowly."""

from __future__ import annotations

from hypothesis import strategies as st

from graphsr.op import Array
from graphsr.ops import (
    GroupNorm,
    InstanceNorm,
    L1Norm,
    L2Norm,
    LayerNorm,
    LocalResponseNorm,
    LogSoftmax,
    RmsNorm,
)
from graphsr.testing.cases import Case, arrays, distinct_arrays, layer
from graphsr.testing.elementwise import nonzero_arrays
from graphsr.testing.reduce import some_axes
from graphsr.testing.shape import an_axis

SHAPE = st.lists(st.integers(1, 3), min_size=2, max_size=4).map(tuple)
EPS = st.sampled_from([1e-5, 1e-3])


@st.composite
def spread_arrays(draw: st.DrawFn, shape: tuple[int, ...]) -> Array:
    """Values that all differ by at least 1."""
    return 8 * draw(distinct_arrays(shape))


@layer("layer_norm")
def layer_norm(draw: st.DrawFn) -> Case:
    shape = draw(SHAPE)
    axis = draw(an_axis(len(shape)))
    parameters = [draw(arrays(shape[axis:])) for _ in range(draw(st.integers(1, 2)))]
    return Case(LayerNorm(axis, draw(EPS)), (draw(spread_arrays(shape)), *parameters))


@layer("rms_norm")
def rms_norm(draw: st.DrawFn) -> Case:
    shape = draw(SHAPE)
    axis = draw(an_axis(len(shape)))
    return Case(RmsNorm(axis, draw(EPS)), (draw(nonzero_arrays(shape)), draw(arrays(shape[axis:]))))


@layer("group_norm")
def group_norm(draw: st.DrawFn) -> Case:
    groups = draw(st.integers(1, 2))
    n, c, *image = draw(SHAPE)
    scale, bias = draw(arrays((c * groups,))), draw(arrays((c * groups,)))
    return Case(GroupNorm(groups, draw(EPS)), (draw(spread_arrays((n, c * groups, *image))), scale, bias))


@layer("instance_norm")
def instance_norm(draw: st.DrawFn) -> Case:
    shape = draw(SHAPE)
    return Case(
        InstanceNorm(draw(EPS)), (draw(spread_arrays(shape)), draw(arrays(shape[1:2])), draw(arrays(shape[1:2])))
    )


@layer("l1_norm")
def l1_norm(draw: st.DrawFn) -> Case:
    shape = draw(SHAPE)
    return Case(L1Norm(draw(some_axes(len(shape))), draw(st.sampled_from([0.0, 1e-8]))), (draw(nonzero_arrays(shape)),))


@layer("l2_norm")
def l2_norm(draw: st.DrawFn) -> Case:
    shape = draw(SHAPE)
    return Case(L2Norm(draw(some_axes(len(shape))), draw(st.sampled_from([0.0, 1e-8]))), (draw(nonzero_arrays(shape)),))


@layer("local_response_norm")
def local_response_norm(draw: st.DrawFn) -> Case:
    n, c, *image = draw(SHAPE)
    op = LocalResponseNorm(
        draw(st.integers(1, 5)),
        draw(st.sampled_from([1e-4, 0.5])),
        draw(st.sampled_from([0.75, 1.0])),
        draw(st.sampled_from([1.0, 2.0])),
    )
    return Case(op, (draw(arrays((n, c + draw(st.integers(0, 3)), *image))),))


@layer("log_softmax")
def log_softmax(draw: st.DrawFn) -> Case:
    shape = draw(SHAPE)
    return Case(LogSoftmax(draw(an_axis(len(shape)))), (draw(arrays(shape, draw(st.sampled_from([1.0, 4.0])))),))

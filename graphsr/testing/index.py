"""Strategies for gathering and scattering: indices from both ends, of any rank."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import strategies as st

from graphsr.op import Array
from graphsr.ops import Gather, GatherElements, GatherND, OneHot, ScatterElements, ScatterND
from graphsr.testing.cases import Case, arrays, integers, layer
from graphsr.testing.shape import SHAPE, an_axis

SMALL = st.lists(st.integers(1, 3), max_size=2).map(tuple)


@st.composite
def places(draw: st.DrawFn, shape: tuple[int, ...], size: int) -> Array:
    """Positions on an axis of this size, from the front or from the end."""
    return np.asarray(draw(integers(shape, -size, size - 1)), draw(st.sampled_from([np.int32, np.int64])))


@layer("gather")
def gather(draw: st.DrawFn) -> Case:
    shape = draw(SHAPE)
    axis = draw(an_axis(len(shape)))
    return Case(Gather(axis), (draw(arrays(shape)), draw(places(draw(SMALL), shape[axis]))))


@layer("gather_elements")
def gather_elements(draw: st.DrawFn) -> Case:
    shape = draw(SHAPE)
    axis = draw(an_axis(len(shape)))
    wanted = [draw(st.integers(1, n)) for n in shape]
    wanted[axis] = draw(st.integers(1, 3))
    return Case(GatherElements(axis), (draw(arrays(shape)), draw(places(tuple(wanted), shape[axis]))))


@st.composite
def rows(draw: st.DrawFn, outer: tuple[int, ...], axes: tuple[int, ...]) -> Array:
    """Indices [outer…, k], each row a place in k axes of these sizes."""
    columns = [draw(integers(outer, -n, n - 1)) for n in axes]
    return np.stack(columns, axis=-1) if columns else np.zeros((*outer, 0), np.int64)


@layer("gather_nd")
def gather_nd(draw: st.DrawFn) -> Case:
    shape = draw(SHAPE)
    shared = draw(st.integers(0, len(shape) - 1))
    depth = draw(st.integers(1, len(shape) - shared))
    indices = draw(rows((*shape[:shared], *draw(SMALL)), shape[shared : shared + depth]))
    return Case(GatherND(shared), (draw(arrays(shape)), indices))


@layer("scatter_nd")
def scatter_nd(draw: st.DrawFn) -> Case:
    """Each place is named once, as the order in which values are written is nobody's business."""
    shape = draw(SHAPE)
    depth = draw(st.integers(1, len(shape)))
    flat = draw(st.lists(st.integers(0, math.prod(shape[:depth]) - 1), unique=True, min_size=1, max_size=4))
    indices = np.stack(np.unravel_index(flat, shape[:depth]), axis=-1)
    updates = draw(arrays((len(flat), *shape[depth:])))
    return Case(ScatterND(draw(st.sampled_from(["none", "add"]))), (draw(arrays(shape)), indices, updates))


@layer("scatter_elements")
def scatter_elements(draw: st.DrawFn) -> Case:
    """Along the axis every line writes different places, each counted from the front or from the end."""
    shape = draw(SHAPE)
    axis = draw(an_axis(len(shape)))
    wanted = [draw(st.integers(1, n)) for n in shape]
    order = draw(st.permutations(range(shape[axis])))[: wanted[axis]]
    line = [place - draw(st.sampled_from([0, shape[axis]])) for place in order]
    indices = np.broadcast_to(
        np.array(line).reshape([-1 if a == axis % len(shape) else 1 for a in range(len(shape))]), wanted
    )
    op = ScatterElements(draw(st.sampled_from(["none", "add"])), axis)
    return Case(op, (draw(arrays(shape)), indices.copy(), draw(arrays(tuple(wanted)))))


@layer("one_hot")
def one_hot(draw: st.DrawFn) -> Case:
    """Some indices lie outside."""
    shape, depth = draw(SMALL), draw(st.integers(1, 4))
    op = OneHot(depth, draw(an_axis(len(shape) + 1)))
    return Case(op, (draw(integers(shape, -6, 6)), draw(arrays((2,)))))

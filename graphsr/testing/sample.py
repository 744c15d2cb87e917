"""Strategy for sampling: inside the image and around it, never where a kernel has a kink."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from graphsr.op import Array
from graphsr.ops import GridSample
from graphsr.ops.sample import PADDINGS, REACH
from graphsr.testing.cases import Case, arrays, integers, layer


@layer("grid_sample")
def grid_sample(draw: st.DrawFn) -> Case:
    return draw(sampling(2, draw(st.sampled_from(sorted(REACH)))))


@st.composite
def sampling(draw: st.DrawFn, axes: int, mode: str) -> Case:
    """Images with so many axes of pixels."""
    images, channels = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    pixels = tuple(draw(st.integers(1, 4)) for _ in range(axes))
    samples = tuple(draw(st.integers(1, 2)) for _ in range(axes))
    op = GridSample(mode, draw(st.sampled_from(PADDINGS)), draw(st.booleans()))
    places = [draw(places_along(op, n, (images, *samples))) for n in reversed(pixels)]
    return Case(op, (draw(arrays((images, channels, *pixels))), np.stack(places, axis=-1)))


@st.composite
def places_along(draw: st.DrawFn, op: GridSample, n: int, shape: tuple[int, ...]) -> Array:
    """v of places u that are quarters of a pixel away from a pixel and an eighth from the middle of two."""
    whole = draw(integers(shape, -6, n + 5))
    part = np.where(draw(integers(shape, 0, 1)), 0.25, 0.625)
    u = whole + part
    v = 2 * u / max(n - 1, 1) - 1 if op.align_corners else (2 * u + 1) / n - 1
    return np.asarray(v, np.float32)

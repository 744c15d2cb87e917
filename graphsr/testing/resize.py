"""Strategy for resizing: every mode with every convention, larger and smaller."""

from __future__ import annotations

from hypothesis import strategies as st

from graphsr.ops import Resize
from graphsr.ops.resize import COORDINATES, ROUNDING, SUPPORT
from graphsr.testing.cases import Case, arrays, layer

SCALES = (1.0, 2.0, 3.0, 4.0, 1.5, 4 / 3, 0.75, 0.6, 0.5, 1 / 3)


@layer("resize")
def resize(draw: st.DrawFn) -> Case:
    shape = draw(st.tuples(st.integers(1, 2), st.integers(1, 2), st.integers(1, 6), st.integers(1, 6)))
    mode = draw(st.sampled_from(sorted(SUPPORT)))
    usable = [[s for s in SCALES if s * n >= 1] for n in shape[2:]]
    scale = (draw(st.sampled_from(usable[0])), draw(st.sampled_from(usable[1])))
    size = draw(st.none() | st.tuples(st.integers(1, 9), st.integers(1, 9)))
    op = Resize(
        scale if size is None else (1.0, 1.0),
        size,
        mode,
        draw(st.sampled_from(COORDINATES)),
        draw(st.sampled_from(sorted(ROUNDING))),
        draw(st.sampled_from([-0.75, -0.5])),
        antialias=mode != "nearest" and draw(st.booleans()),
        exclude_outside=mode != "nearest" and draw(st.booleans()),
    )
    return Case(op, (draw(arrays(shape)),))

"""`Op.needs`, on which receptive fields and exact tiling rest: no pixel outside the window plays a part."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsr.op import OPS, Array
from graphsr.ops import Concat
from graphsr.testing import LAYERS, Case, tolerance

from support import SPATIAL_FAMILIES

NAMES = sorted(name for name, op in OPS.items() if op.__module__.rsplit(".", 1)[-1] in SPATIAL_FAMILIES)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_pixels_outside_the_window_play_no_part(name: str, data: st.DataObject) -> None:
    case = data.draw(LAYERS[name]()).astype("float64")
    y, axis = case.forward(), data.draw(st.sampled_from([2, 3]))
    if y.ndim != 4 or case.inputs[0].ndim != 4 or not y.size:
        return
    low = data.draw(st.integers(0, y.shape[axis] - 1))
    high = data.draw(st.integers(low, y.shape[axis] - 1))
    window = case.op.needs(low, high, axis, *case.types)
    if window is None:
        return  # all pixels may play a part
    images = len(case.inputs) if isinstance(case.op, Concat) else 1  # the others may be weights
    changed = tuple(changed_outside(x, window, axis) for x in case.inputs[:images])
    again = Case(case.op, changed + case.inputs[images:]).forward()
    kept = np.arange(low, high + 1)
    # Winograd's transforms read whole tiles and cancel what lies outside, up to rounding
    atol = tolerance("float64", case.terms, 64 * max(1.0, float(np.abs(np.stack([y, again])).max())))
    np.testing.assert_allclose(again.take(kept, axis), y.take(kept, axis), rtol=0, atol=atol)


def changed_outside(x: Array, window: tuple[int, int], axis: int) -> Array:
    pixels = np.arange(x.shape[axis])
    outside = (pixels < window[0]) | (pixels > window[1])
    return x + 3 * np.expand_dims(outside, tuple(range(1, x.ndim - axis)))

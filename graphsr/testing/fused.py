"""Strategy for layers with an epilogue."""

from __future__ import annotations

from hypothesis import strategies as st

from graphsr.ops import Fused, Relu, Shortcut
from graphsr.testing.cases import LAYERS, Case, arrays, layer


@layer("fused")
def fused(draw: st.DrawFn) -> Case:
    base = draw(LAYERS[draw(st.sampled_from(["conv2d", "conv_transpose2d"]))]())
    activation = draw(st.sampled_from([None, Relu()]))
    if not draw(st.booleans()):
        return Case(Fused(base.op, activation), base.inputs)
    shape = base.op.infer(*base.types).dims
    return Case(Fused(base.op, activation, Shortcut(0.5, 2.0)), (*base.inputs, draw(arrays(shape))))

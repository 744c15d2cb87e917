"""Strategy for layers with an epilogue: every base that the passes fuse, with every activation."""

from __future__ import annotations

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from graphsr.op import Array
from graphsr.ops import Activation, Fused, Shortcut
from graphsr.testing.activation import activations
from graphsr.testing.cases import LAYERS, Case, arrays, layer

BASES = ("conv2d", "conv_transpose2d", "dense")
MARGIN = 1e-3
"""How far what enters the activation stays away from a kink: more than the step of finite differences moves it."""


@layer("fused")
def fused(draw: st.DrawFn) -> Case:
    """The inputs of the base are 1/32 of the usual, so that a step in one of them moves the activation's input by a few
    units at most, the range for which finite differences of it are right."""
    base = draw(LAYERS[draw(st.sampled_from(BASES))]())
    inputs = tuple(x / np.float32(32) for x in base.inputs[:2]) + base.inputs[2:]
    shape = base.op.infer(*base.types).dims
    residual = Shortcut(0.5, 2.0) if draw(st.booleans()) else None
    if residual:
        inputs = (*inputs, draw(arrays(shape)))
    activation = draw(st.none() | activations())
    if activation:
        assume(_is_smooth(activation, Fused(base.op, None, residual).forward(*inputs)))
    return Case(Fused(base.op, activation, residual), inputs)


def _is_smooth(activation: Activation, x: Array) -> bool:
    """Whether the slope is the same on both sides of every element of x."""
    left, right = (activation.derivative(moved, activation.forward(moved)) for moved in (x - MARGIN, x + MARGIN))
    return bool((np.abs(left - right) < 0.05).all())

"""Activations on one vector, with NumPy's NaN: a NaN stays one."""

from __future__ import annotations

from graphsr.op import Op
from graphsr.ops import Clip, Leaky, Relu

from ..loops import Function, Value


def has_activation(op: Op) -> bool:
    """Whether `emit_activation` knows this activation."""
    return isinstance(op, Relu | Leaky | Clip)


def emit_activation(k: Function, op: Op, x: Value) -> Value:
    """activation(x)"""
    zero = k.vector(0.0)
    match op:
        case Relu():
            return k.select(k.compare("lt", x, zero), zero, x)  # a comparison with NaN is false: NaN goes through
        case Leaky(slope):
            return k.select(k.compare("lt", x, zero), x * k.vector(slope), x)
        case Clip(low, high):
            x = k.select(k.compare("lt", x, k.vector(low)), k.vector(low), x)
            return k.select(k.compare("gt", x, k.vector(high)), k.vector(high), x)
    raise NotImplementedError(f"no code for {op!r}")

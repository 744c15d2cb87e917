"""Activations on one vector: the formulas of `graphsr.ops.activation` again, with NumPy's NaN.

A comparison with NaN is false, so `select` is written such that NaN takes the branch that hands it on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphsr.op import Op
from graphsr.ops import (
    Celu,
    Clip,
    Elliot,
    Elu,
    Gelu,
    HardSigmoid,
    HardSwish,
    HardTan,
    Leaky,
    LhTan,
    Linear,
    Loggy,
    Logistic,
    Mish,
    Plse,
    Ramp,
    Relie,
    Relu,
    Relu6,
    Selu,
    Silu,
    SoftPlus,
    SoftSign,
    Stair,
    SymmElliot,
    Tanh,
)
from graphsr.ops.activation import SELU_ALPHA, SELU_LAMBDA

from ..loops import Function, Value
from .math import (
    LARGEST,
    at_least,
    at_most,
    clip,
    constant,
    expm1,
    gelu,
    gelu_tanh,
    logistic,
    mish,
    silu,
    softplus,
    tanh,
)

Emitter = Callable[[Function, Any, Value], Value]
"""(k, op, x) -> activation(x)"""


def has_activation(op: Op) -> bool:
    """Whether `emit_activation` knows this activation."""
    return type(op) in EMITTERS


def emit_activation(k: Function, op: Op, x: Value) -> Value:
    """activation(x), for an op that `has_activation` accepts."""
    return EMITTERS[type(op)](k, op, x)


def above(k: Function, x: Value) -> Value:
    """x with the lowest finite number in place of −∞, where f goes to 0 and the formula would become −∞·0."""
    return at_least(k, x, -LARGEST)


def leaky(k: Function, slope: Value, x: Value) -> Value:
    """x for x > 0, else slope·x"""
    return k.select(x > k.vector(0.0), x, slope * x)


def softsign(k: Function, x: Value) -> Value:
    """x / (1 + |x|), with the limits ±1"""
    x = clip(k, x, -LARGEST, LARGEST)
    return x / (k.vector(1.0) + k.intrinsic("fabs", x))


def elu(k: Function, x: Value, positive: float, negative: float) -> Value:
    """positive·x for x > 0, else negative·(e^x − 1)"""
    right = x if positive == 1 else constant(k, positive) * x
    return k.select(x > k.vector(0.0), right, constant(k, negative) * expm1(k, at_most(k, x, 0)))


def _celu(k: Function, op: Celu, x: Value) -> Value:
    alpha = constant(k, op.alpha)
    return k.select(x > k.vector(0.0), x, alpha * expm1(k, at_most(k, x, 0) / alpha))


def _plse(k: Function, op: Plse, x: Value) -> Value:
    four, slope = k.vector(4.0), constant(k, 0.01)
    middle = constant(k, 0.125) * x + k.vector(0.5)
    right = k.select(x > four, slope * (x - four) + k.vector(1.0), middle)
    return k.select(x < -four, slope * (x + four), right)


def _lhtan(k: Function, op: LhTan, x: Value) -> Value:
    one, slope = k.vector(1.0), constant(k, 0.001)
    right = k.select(x > one, slope * (x - one) + one, x)
    return k.select(x < k.vector(0.0), slope * x, right)


def _stair(k: Function, op: Stair, x: Value) -> Value:
    """h + max(0, r − 1), where x = 2·h + r, 0 ≤ r < 2; all steps but the last are exact"""
    h = k.intrinsic("floor", k.vector(0.5) * k.intrinsic("floor", x))
    finite = clip(k, x, -LARGEST, LARGEST)
    r = finite - clip(k, h + h, -LARGEST, LARGEST)
    return h + at_least(k, r - k.vector(1.0), 0)


def _hard_sigmoid(k: Function, op: HardSigmoid, x: Value) -> Value:
    return clip(k, constant(k, op.alpha) * x + constant(k, op.beta), 0, 1)


def _hard_swish(k: Function, op: HardSwish, x: Value) -> Value:
    return above(k, x) * clip(k, x / k.vector(6.0) + k.vector(0.5), 0, 1)


EMITTERS: dict[type[Op], Emitter] = {
    Celu: _celu,
    Clip: lambda k, op, x: clip(k, x, op.low, op.high),
    Elliot: lambda k, op, x: k.vector(0.5) * softsign(k, constant(k, op.steepness) * x) + k.vector(0.5),
    Elu: lambda k, op, x: elu(k, x, 1, op.alpha),
    Gelu: lambda k, op, x: gelu_tanh(k, x) if op.approximate == "tanh" else gelu(k, x),
    HardSigmoid: _hard_sigmoid,
    HardSwish: _hard_swish,
    HardTan: lambda k, op, x: clip(k, x, -1, 1),
    Leaky: lambda k, op, x: leaky(k, constant(k, op.slope), x),
    LhTan: _lhtan,
    Linear: lambda k, op, x: x,
    Loggy: lambda k, op, x: tanh(k, k.vector(0.5) * x),
    Logistic: lambda k, op, x: logistic(k, x),
    Mish: lambda k, op, x: mish(k, x),
    Plse: _plse,
    Ramp: lambda k, op, x: at_least(k, x, 0) + constant(k, 0.1) * x,
    Relie: lambda k, op, x: leaky(k, constant(k, 0.01), x),
    Relu: lambda k, op, x: at_least(k, x, 0),
    Relu6: lambda k, op, x: clip(k, x, 0, 6),
    Selu: lambda k, op, x: elu(k, x, SELU_LAMBDA, SELU_LAMBDA * SELU_ALPHA),
    Silu: lambda k, op, x: silu(k, x),
    SoftPlus: lambda k, op, x: softplus(k, x),
    SoftSign: lambda k, op, x: softsign(k, x),
    Stair: _stair,
    SymmElliot: lambda k, op, x: softsign(k, constant(k, op.steepness) * x),
    Tanh: lambda k, op, x: tanh(k, x),
}
"""The code of every activation, by its class."""

"""What element-wise ops compute, on vectors: the formulas of their `forward`, in the same order of operations.

Numbers are float vectors, truth values are masks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graphsr.op import Op
from graphsr.ops import (
    Abs,
    Add,
    And,
    BatchNorm,
    Cast,
    Ceil,
    Cos,
    Div,
    Equal,
    Erf,
    Exp,
    Expand,
    Floor,
    Greater,
    GreaterEqual,
    Less,
    LessEqual,
    Log,
    Maximum,
    Minimum,
    Mul,
    Neg,
    Not,
    Or,
    Pow,
    PRelu,
    Reciprocal,
    Round,
    Shortcut,
    Shrink,
    Sign,
    Sin,
    Sqrt,
    Sub,
    ThresholdedRelu,
    Where,
    Xor,
)

from ..loops import LANES, MASK, Function, Value
from .activation import EMITTERS, emit_activation, leaky
from .math import constant, erf, exp, log_, power
from .trigonometry import cos, sin


@dataclass(frozen=True)
class Step:
    """One op of a chain. Its operands are numbered: first the inputs of the chain, then the earlier steps."""

    op: Op
    operands: tuple[int, ...]


def evaluate(k: Function, steps: Sequence[Step], inputs: Sequence[Value]) -> Value:
    """The value of the last step."""
    values = list(inputs)
    for step in steps:
        values.append(FORMULAS[type(step.op)](k, step.op, *(values[i] for i in step.operands)))
    return values[-1]


Formula = Callable[..., Value]
"""(k, op, *operands) -> the op of these vectors"""


def _shortcut(k: Function, op: Shortcut, a: Value, b: Value) -> Value:
    return scaled(k, op.alpha, a) + scaled(k, op.beta, b)


def scaled(k: Function, factor: float, x: Value) -> Value:
    """factor·x"""
    return x if factor == 1 else constant(k, factor) * x


def _batch_norm(k: Function, op: BatchNorm, x: Value, scale: Value, bias: Value, mean: Value, var: Value) -> Value:
    eps = constant(k, op.eps)
    deviation = k.intrinsic("sqrt", var + eps) if op.form == "inside" else k.intrinsic("sqrt", var) + eps
    return scale * ((x - mean) / deviation) + bias


def _extreme(how: str) -> Formula:
    """max ("ge") or min ("le"), NaN where either is NaN."""

    def formula(k: Function, op: Op, a: Value, b: Value) -> Value:
        return k.select(k.compare(how, a, b) | k.compare("uno", a, a), a, b)

    return formula


def _compare(how: str) -> Formula:
    return lambda k, op, a, b: k.compare(how, a, b)


def _intrinsic(name: str) -> Formula:
    return lambda k, op, x: k.intrinsic(name, x)


def _thresholded_relu(k: Function, op: ThresholdedRelu, x: Value) -> Value:
    return k.select(x <= constant(k, op.threshold), k.vector(0.0), x)


def _shrink(k: Function, op: Shrink, x: Value) -> Value:
    small = k.intrinsic("fabs", x) <= constant(k, op.threshold)
    return k.select(small, k.vector(0.0), x - constant(k, op.bias) * _sign(k, op, x))


def _cast(k: Function, op: Cast, x: Value) -> Value:
    """Between float32 and bool."""
    if (x.type == MASK) == (op.dtype == "bool"):
        return x
    if x.type == MASK:
        return k.select(x, k.vector(1.0), k.vector(0.0))
    return k.compare("ne", x, k.vector(0.0))


def _sign(k: Function, op: Op, x: Value) -> Value:
    zero = k.vector(0.0)
    y = k.select(x < zero, k.vector(-1.0), k.select(x.equals(zero), zero, x))
    return k.select(x > zero, k.vector(1.0), y)


FORMULAS: dict[type[Op], Formula] = {
    Abs: _intrinsic("fabs"),
    Add: lambda k, op, a, b: a + b,
    And: lambda k, op, a, b: a & b,
    BatchNorm: _batch_norm,
    Cast: _cast,
    Ceil: _intrinsic("ceil"),
    Cos: lambda k, op, x: cos(k, x),
    Div: lambda k, op, a, b: a / b,
    Equal: _compare("eq"),
    Erf: lambda k, op, x: erf(k, x),
    Exp: lambda k, op, x: exp(k, x),
    Expand: lambda k, op, x: x,
    Floor: _intrinsic("floor"),
    Greater: _compare("gt"),
    GreaterEqual: _compare("ge"),
    Less: _compare("lt"),
    LessEqual: _compare("le"),
    Log: lambda k, op, x: log_(k, x),
    Maximum: _extreme("ge"),
    Minimum: _extreme("le"),
    Mul: lambda k, op, a, b: a * b,
    Neg: lambda k, op, x: -x,
    Not: lambda k, op, x: x ^ k.lanes([True] * LANES, x.type),
    Or: lambda k, op, a, b: a | b,
    PRelu: lambda k, op, x, slope: leaky(k, slope, x),
    Pow: lambda k, op, a, b: power(k, a, b),
    Reciprocal: lambda k, op, x: k.vector(1.0) / x,
    Round: _intrinsic("roundeven"),
    Shortcut: _shortcut,
    Shrink: _shrink,
    Sign: _sign,
    Sin: lambda k, op, x: sin(k, x),
    Sqrt: _intrinsic("sqrt"),
    Sub: lambda k, op, a, b: a - b,
    ThresholdedRelu: _thresholded_relu,
    Where: lambda k, op, condition, a, b: k.select(condition, a, b),
    Xor: lambda k, op, a, b: a ^ b,
    **dict.fromkeys(EMITTERS, emit_activation),
}
"""The code of every element-wise op, by its class."""

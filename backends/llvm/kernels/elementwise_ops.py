"""What element-wise ops compute, on vectors: the formulas of their `forward`, in the same order of operations.

Numbers are vectors of float32, truth values are masks; the ops of `ANY_NUMBER` take other numbers too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from math import inf
from typing import ClassVar

import numpy as np

from graphsr.op import Array, Op
from graphsr.ops import (
    Abs,
    Add,
    And,
    BatchNorm,
    Cast,
    Ceil,
    Celu,
    Cos,
    Div,
    Elu,
    Equal,
    Erf,
    Exp,
    Expand,
    Floor,
    Gelu,
    Greater,
    GreaterEqual,
    IsInf,
    IsNan,
    Less,
    LessEqual,
    Linear,
    Log,
    Loggy,
    Logistic,
    Maximum,
    Minimum,
    Mish,
    Mod,
    Mul,
    Neg,
    Not,
    Or,
    Pow,
    PRelu,
    Reciprocal,
    Round,
    Selu,
    Shortcut,
    Shrink,
    Sign,
    Silu,
    Sin,
    SoftPlus,
    Sqrt,
    Sub,
    Tanh,
    ThresholdedRelu,
    Where,
    Xor,
)
from graphsr.ops.unary import Unary

from ..loops import IVECTOR, LANES, MASK, VECTOR, Function, Value, is_float
from .activation import EMITTERS, emit_activation, leaky
from .integers import remainder, to_integer
from .math import DOUBLES, LONGS, constant, erf, exp, log1p, log_, power
from .trigonometry import cos, sin


@dataclass(frozen=True, slots=True)
class Log1p(Unary):
    """ln(1 + x): a part of costs, which no graph has."""

    name: ClassVar[str] = "log1p"

    def forward(self, x: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.log1p(x)


FUNCTIONS = (Celu, Cos, Elu, Erf, Exp, Gelu, Log, Log1p, Loggy, Logistic, Mish, Pow, Selu, Silu, Sin, SoftPlus, Tanh)
"""Ops whose formulas have many constants."""
IN_DOUBLES = (Cos, Gelu, Mod, Pow, Sin)
"""Those that hold many numbers of float64 at a time."""


@dataclass(frozen=True)
class Step:
    """One op of a chain. Its operands are numbered: first the inputs of the chain, then the earlier steps."""

    op: Op
    operands: tuple[int, ...]


def evaluate(k: Function, steps: Sequence[Step], inputs: Sequence[Value]) -> Value:
    """The value of the last step."""
    values, crowded = list(inputs), is_crowded(k, steps)
    for step in steps:
        operands = (values[i] for i in step.operands)
        with k.sparing() if crowded and not isinstance(step.op, IN_DOUBLES) else nullcontext():
            values.append(FORMULAS[type(step.op)](k, step.op, *operands))
        if crowded:
            k.fence()
    return values[-1]


def is_crowded(k: Function, steps: Sequence[Step]) -> bool:
    """Whether a chain may have more constants than there are registers: they are read where they are needed, then."""
    many = FUNCTIONS if k.register < LANES else IN_DOUBLES
    return len(steps) > 1 and any(isinstance(step.op, many) for step in steps)


def lanes_for(k: Function, steps: Sequence[Step]) -> int:
    """How long the vectors of a chain should be: a register, or one of doubles where many of those are held."""
    many: tuple[type[Op], ...] = (Mod,)
    if k.register < LANES:
        many = IN_DOUBLES if len(steps) > 1 else (Cos, Gelu, Mod, Sin)
    return k.register // 2 if any(isinstance(step.op, many) for step in steps) else k.register


def holds_many(steps: Sequence[Step]) -> bool:
    """Whether a chain may leave no registers for operands that are the same in every round of a loop."""
    return any(isinstance(step.op, FUNCTIONS) for step in steps)


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
        first = k.compare(how, a, b)
        return k.select(first | k.compare("uno", a, a) if is_float(a.type) else first, a, b)

    return formula


def _compare(how: str) -> Formula:
    return lambda k, op, a, b: k.compare(how, a, b)


def _intrinsic(name: str) -> Formula:
    """Of float32 or float64."""
    return lambda k, op, x: k.call(f"llvm.{name}.v{LANES}f{64 if x.type == DOUBLES else 32}", x.type, x)


def _abs(k: Function, op: Abs, x: Value) -> Value:
    return _intrinsic("fabs")(k, op, x) if is_float(x.type) else k.select(x < 0, -x, x)


def _pow(k: Function, op: Pow, a: Value, b: Value) -> Value:
    return power(k, a, convert(k, b, VECTOR))


def _is_inf(k: Function, op: IsInf, x: Value) -> Value:
    signs = [sign for sign, asked in ((-1, op.negative), (1, op.positive)) if asked]
    found = [k.compare("eq", x, k.literal(sign * inf, x.type)) for sign in signs]
    return found[0] | found[-1] if found else k.literal(False, MASK)


def _thresholded_relu(k: Function, op: ThresholdedRelu, x: Value) -> Value:
    return k.select(x <= constant(k, op.threshold), k.vector(0.0), x)


def _shrink(k: Function, op: Shrink, x: Value) -> Value:
    small = k.intrinsic("fabs", x) <= constant(k, op.threshold)
    return k.select(small, k.vector(0.0), x - constant(k, op.bias) * _sign(k, op, x))


def _cast(k: Function, op: Cast, x: Value) -> Value:
    """From any number or truth value."""
    if op.dtype == "bool":
        return x if x.type == MASK else k.compare("ne", x, k.literal(0, x.type))
    type_ = {"float32": VECTOR, "float64": DOUBLES, "int32": IVECTOR, "int64": LONGS}[op.dtype]
    return to_integer(k, x, type_) if is_float(x.type) and not is_float(type_) else convert(k, x, type_)


def convert(k: Function, x: Value, type_: str) -> Value:
    """The same numbers as another type; true is 1."""
    if x.type == type_:
        return x
    if x.type == MASK:
        return k.select(x, k.literal(1, type_), k.literal(0, type_))
    widens = type_ in (DOUBLES, LONGS)
    if is_float(x.type) and is_float(type_):
        return k.convert("fpext" if widens else "fptrunc", x, type_)
    if is_float(type_):
        return k.convert("sitofp", x, type_)
    return k.convert("sext" if widens else "trunc", x, type_)


def _sign(k: Function, op: Op, x: Value) -> Value:
    zero = k.vector(0.0)
    y = k.select(x < zero, k.vector(-1.0), k.select(x.equals(zero), zero, x))
    return k.select(x > zero, k.vector(1.0), y)


FORMULAS: dict[type[Op], Formula] = {
    Abs: _abs,
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
    IsInf: _is_inf,
    IsNan: lambda k, op, x: k.compare("uno", x, x),
    Less: _compare("lt"),
    LessEqual: _compare("le"),
    Log: lambda k, op, x: log_(k, x),
    Log1p: lambda k, op, x: log1p(k, x),
    Maximum: _extreme("ge"),
    Minimum: _extreme("le"),
    Mod: remainder,
    Mul: lambda k, op, a, b: a * b,
    Neg: lambda k, op, x: -x,
    Not: lambda k, op, x: x ^ k.literal(True, x.type),
    Or: lambda k, op, a, b: a | b,
    PRelu: lambda k, op, x, slope: leaky(k, slope, x),
    Pow: _pow,
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

ANY_NUMBER: frozenset[type[Op]] = frozenset(
    (
        Abs,
        Add,
        Cast,
        Equal,
        Expand,
        Greater,
        GreaterEqual,
        Less,
        LessEqual,
        Linear,
        Maximum,
        Minimum,
        Mul,
        Neg,
        Sub,
        Where,
    )
)
"""Ops that integers and float64 have, too."""
ANY_FLOAT: frozenset[type[Op]] = frozenset((Ceil, Div, Floor, IsInf, IsNan, Round, Sqrt))
"""Ops that float64 has, too."""


def has_formula(op: Op, operands: Sequence[str], result: str) -> bool:
    """Whether the op is computed here for operands and a result of these dtypes, all of them among those of `convert`
    and bool."""
    dtypes = {*operands, result} - {"float32", "bool"}
    if isinstance(op, Cast):
        return True
    if isinstance(op, Mod):
        return result != "float64"
    if isinstance(op, Pow):
        return (operands[0], "float64" in operands) == ("float32", False)
    return not dtypes or type(op) in ANY_NUMBER or (type(op) in ANY_FLOAT and dtypes == {"float64"})

"""How arithmetic, elementary functions, comparisons and choices are written as ONNX."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphsr.ops import (
    Abs,
    Add,
    And,
    Cast,
    Ceil,
    Cos,
    Div,
    Equal,
    Erf,
    Exp,
    Floor,
    Greater,
    GreaterEqual,
    IsInf,
    IsNan,
    Less,
    LessEqual,
    Log,
    Maximum,
    Minimum,
    Mod,
    Mul,
    Neg,
    Not,
    Or,
    Pow,
    Quotient,
    Reciprocal,
    Round,
    Shortcut,
    Sign,
    Sin,
    Sqrt,
    Sub,
    Where,
    Xor,
)

from .onnx_export_writer import Operand, Rule, Rules, Site, plain


def _shortcut(s: Site, op: Shortcut, x1: str, x2: str) -> str:
    """α·x₁ + β·x₂ as Mul, where the factor is not one, and Add."""
    terms = (x if factor == 1 else s("Mul", x, s.number(factor)) for x, factor in ((x1, op.alpha), (x2, op.beta)))
    return s("Add", *terms)


def _ordered(operator: str) -> Rule:
    """A comparison that ONNX has for numbers only: false and true are 0 and 1."""

    def rule(s: Site, op: object, a: str, b: str) -> str:
        return s(operator, s.cast(a, "uint8"), s.cast(b, "uint8")) if s.dtype == "bool" else s(operator, a, b)

    return rule


def _neg(s: Site, op: Neg, x: str) -> str:
    return s("Sub", s.number(0), x) if s.dtype.startswith("u") else s("Neg", x)


def _pow(s: Site, op: Pow, a: str, b: str) -> str:
    """In the dtype of the base; integers in float64."""
    base, exponent = (type_.dtype for type_ in s.types)
    if "int" in base:
        return s.cast(s("Pow", s.cast(a, "float64"), s.cast(b, "float64")), base)
    return s("Pow", a, b if exponent == base else s.cast(b, base))


def _by_integers(s: Site, divide: Callable[[Operand], str], b: str) -> str:
    """A division of integers that gives 0 where b is 0, which ONNX leaves undefined."""
    known = s.inputs[1].array
    if known is not None and known.all():
        return divide(b)
    zero = s("Equal", b, s.number(0))
    return s("Where", zero, s.number(0), divide(s("Where", zero, s.number(1), b)))


def _mod(s: Site, op: Mod, a: str, b: str) -> str:
    """For real numbers ONNX has fmod alone; what has the other sign than b is one b away."""
    if "int" in s.dtype:
        return _by_integers(s, lambda divisor: s("Mod", a, divisor, fmod=int(op.truncated)), b)
    rest = s("Mod", a, b, fmod=1)
    if op.truncated:
        return rest
    opposite = s("Less", s("Mul", s("Sign", rest), s("Sign", b)), s.number(0))
    return s("Where", opposite, s("Add", rest, b), rest)


def _quotient(s: Site, op: Quotient, a: str, b: str) -> str:
    return _by_integers(s, lambda divisor: s("Div", a, divisor), b)


def _is_inf(s: Site, op: IsInf, x: str) -> str:
    return s("IsInf", x, detect_negative=int(op.negative), detect_positive=int(op.positive))


def _floating(operator: str) -> Rule:
    """An operator that engines have for floating-point numbers and the larger integers; others go through int32."""

    def rule(s: Site, op: object, *x: str) -> str:
        if np.dtype(s.dtype).itemsize >= 4 or "float" in s.dtype:
            return s(operator, *x)
        return s.cast(s(operator, *(s.cast(a, "int32") for a in x)), s.dtype)

    return rule


ELEMENTWISE: Rules = {
    Shortcut: _shortcut,
    Add: plain("Add"),
    Sub: plain("Sub"),
    Mul: plain("Mul"),
    Div: plain("Div"),
    Maximum: _floating("Max"),
    Minimum: _floating("Min"),
    Pow: _pow,
    Mod: _mod,
    Quotient: _quotient,
    Abs: plain("Abs"),
    Neg: _neg,
    Sign: plain("Sign"),
    Exp: plain("Exp"),
    Log: plain("Log"),
    Sqrt: plain("Sqrt"),
    Reciprocal: plain("Reciprocal"),
    Sin: plain("Sin"),
    Cos: plain("Cos"),
    Erf: plain("Erf"),
    Floor: plain("Floor"),
    Ceil: plain("Ceil"),
    Round: plain("Round"),
    Equal: plain("Equal"),
    Less: _ordered("Less"),
    LessEqual: _ordered("LessOrEqual"),
    Greater: _ordered("Greater"),
    GreaterEqual: _ordered("GreaterOrEqual"),
    And: plain("And"),
    Or: plain("Or"),
    Xor: plain("Xor"),
    Not: plain("Not"),
    IsNan: plain("IsNaN"),
    IsInf: _is_inf,
    Where: plain("Where"),
    Cast: lambda s, op, x: s.cast(x, op.dtype),
}

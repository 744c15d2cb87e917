"""Where numbers become whole: remainders of divisions, and floats as integers. Of one vector each.

The remainder of floats is exact, as C's fmod: a long division in float64 whose digits have 24 bits, so that a digit
times the divisor has 48 and what is left of the dividend never more than 25.
"""

from __future__ import annotations

from functools import cache
from math import inf, nan

import numpy as np

from graphsr.ops import Mod

from ..loops import I32, I64, IVECTOR, LANES, VECTOR, Function, Value, is_float
from .math import DOUBLES, LONGS, constant, narrow, widen

DIGIT = 24
"""Bits of a digit."""
BIAS, NOT_FINITE = 1023, 2047
"""Of exponents in float64, and that of ∞ and NaN."""


def remainder(k: Function, op: Mod, a: Value, b: Value) -> Value:
    """a mod b with the sign of a, or that of b; of integers and float32."""
    if a.type == VECTOR:
        y = _of_floats(k, a, b)
        return y if op.truncated else _with_sign_of(k, y, b)
    zero = k.literal(0, b.type)
    useless = b.equals(zero) | b.equals(k.literal(-1, b.type))  # a machine may trap where the quotient has no place
    divisor = k.select(useless, k.literal(1, b.type), b)
    y = _of_short(k, a, divisor) if a.type == IVECTOR else k.binary("srem", a, divisor)
    if op.truncated:
        return y
    wrong = k.compare("ne", y, zero) & ((y < zero) ^ (b < zero))
    return k.select(wrong, y + b, y)


def _of_short(k: Function, a: Value, b: Value) -> Value:
    """Of integers of 32 bits: their quotients in float64 are rounded to no other integer part."""
    x, d = k.convert("sitofp", a, DOUBLES), k.convert("sitofp", b, DOUBLES)
    return k.convert("fptosi", x - _trunc(k, x / d) * d, IVECTOR)


def _of_floats(k: Function, a: Value, b: Value) -> Value:
    """fmod: |a| mod |b| with the sign of a; NaN where a is infinite or b is 0"""
    x, d = (widen(k, k.intrinsic("fabs", value)) for value in (a, b))
    q = x / d
    exponent = k.convert("trunc", (k.bitcast(q, LONGS) >> 52) & NOT_FINITE, IVECTOR)
    finite = exponent < k.literal(NOT_FINITE, IVECTOR)
    largest = _largest(k, k.select(finite, exponent, k.literal(0, IVECTOR)))

    def less(_: Value, left: list[Value]) -> list[Value]:
        return [left[0] - _digit(k, left[0] / d) * d]

    rest = x - _digit(k, q) * d
    (rest,) = k.fold(k.maximum(largest - BIAS, 0) // DIGIT, [rest])(less)
    rest = k.select(rest < constant(k, 0.0, DOUBLES), rest + d, rest)  # a quotient was rounded up to a digit
    rest = k.select(x < d, x, rest)  # also where b is infinite
    return k.intrinsic("copysign", k.select(finite, narrow(k, rest), k.vector(nan)), a)


def _with_sign_of(k: Function, y: Value, b: Value) -> Value:
    """A remainder with the sign of a as that with the sign of b, in the roundings of NumPy."""
    zero = k.vector(0.0)
    moved = k.select((y < zero) ^ (b < zero), y + b, y)
    return k.select(y.equals(zero), k.intrinsic("copysign", zero, b), moved)


def _digit(k: Function, q: Value) -> Value:
    """The first 24 bits of a quotient, as far as they stand before the point."""
    first = k.bitcast(q, LONGS) & -(1 << (53 - DIGIT))
    return _trunc(k, k.bitcast(first, DOUBLES))


def _trunc(k: Function, x: Value) -> Value:
    """Toward zero."""
    bits = 64 if x.type == DOUBLES else 32
    return k.call(f"llvm.trunc.v{LANES}f{bits}", x.type, x)


def _largest(k: Function, x: Value) -> Value:
    """Of the lanes of a vector of 32-bit integers."""
    return k.convert("sext", k.call(f"llvm.vector.reduce.smax.v{LANES}i32", I32, x), I64)


def to_integer(k: Function, x: Value, type_: str) -> Value:
    """Floats without what follows the point. What has no place in the integers becomes what NumPy makes of it on this
    machine."""
    assert is_float(x.type)
    limit = constant(k, 2.0**31 if type_ == IVECTOR else 2.0**63, x.type)
    whole = _trunc(k, x)
    inside = (whole >= -limit) & (whole < limit)
    y = k.convert("fptosi", k.select(inside, whole, constant(k, 0.0, x.type)), type_)
    return k.select(inside, y, _outside(k, x, type_))


def _outside(k: Function, x: Value, type_: str) -> Value:
    """What becomes of numbers that are too large or too small, and of NaN."""
    large, small, undefined = (k.literal(value, type_) for value in _limits(x.type == DOUBLES, type_ == LONGS))
    if large.text == small.text == undefined.text:
        return large
    some = k.select(x < constant(k, 0.0, x.type), small, large)
    return k.select(k.compare("uno", x, x), undefined, some)


@cache
def _limits(from_double: bool, to_long: bool) -> tuple[int, int, int]:
    """NumPy's integers for ∞, −∞ and NaN."""
    floats = np.array([inf, -inf, nan], np.float64 if from_double else np.float32)
    with np.errstate(invalid="ignore"):
        large, small, undefined = floats.astype(np.int64 if to_long else np.int32).tolist()
    return large, small, undefined

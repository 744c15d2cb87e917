"""Elementary functions on one vector of floats, by our own range reduction and minimax polynomials (Remez).

Largest errors against the exact value, in units in the last place, over all floats where a function is more than a
constant or its argument, and every 257th of the others; in brackets for targets without fused multiply-add. What they
are is tested by tests/test_llvm_math.py (GRAPHSR_EXHAUSTIVE=1: with every single float).

exp 1.00 (0.97), expm1 1.43 (1.54), log 0.83 (0.82), log1p 1.39, softplus 1.66, tanh 1.64 (2.43), logistic 1.50 (2.41),
silu 2.4 (3.1), mish 4.7, erf 1.00 (1.23), erfc, gelu and powers 0.51.

±∞, NaN, −0 and denormal numbers as in NumPy. What loses accuracy in float32 is computed in float64 and rounded once.
Sources of the reductions: Cody & Waite, "Software Manual for the Elementary Functions", 1980; Muller, "Elementary
Functions", 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import inf, log, nan, pi, sqrt

import numpy as np

from ..loops import IVECTOR, LANES, VECTOR, Function, Value

DOUBLES, LONGS = f"<{LANES} x double>", f"<{LANES} x i64>"
LARGEST = float(np.finfo(np.float32).max)
SMALLEST_NORMAL = float(np.finfo(np.float32).tiny)

LOG2_E = 1 / log(2)
LN2_HIGH, LN2_LOW = 0.693359375, -2.12194440e-4
"""ln 2 in two parts; the first has few digits, so that its product with an exponent is exact."""

# fmt: off
EXP = (0.5, 0.166666672, 0.0416662544, 0.00833326299, 0.00139472249, 0.000199193804)
"""(e^r − 1 − r) / r² for |r| ≤ ln(2)/2, lowest power first; the relative error of e^r is 2⁻³⁴."""
LOG = (0.333333105, -0.249999866, 0.200022265, -0.166692495, 0.142186552, -0.1238437, 0.118730165, -0.117896959,
       0.0691514686)
"""(ln(1 + f) − f + f²/2) / f³ for 1/√2 ≤ 1 + f ≤ √2; the relative error of the logarithm is 2⁻³⁰."""
EXP_WIDE = (0.49999999999516004, 0.16666666787295048, 0.04166666705634285, 0.008333281078344777, 0.0013888796079805715,
            0.00019909369317569874, 2.4887771381667215e-05)
"""As `EXP`; the relative error is 2⁻³⁹."""
ERF_NEAR = (0.128379166, -0.37612626, 0.112835854, -0.0268538129, 0.00518832775, -0.000801019371, 7.85386073e-05)
"""erf(x) / x − 1 as a polynomial in x² for |x| ≤ 1; the relative error of erf is 2⁻²⁹."""
ERF_FAR = (0.128490552, 0.635797262, 0.105159611, -0.0228254385, 0.0031951135, -0.000211607825)
"""−ln(1 − erf(x)) / x − 1 for 1 ≤ x ≤ 4; the relative error of erf is 2⁻²⁸."""
ERFC = (1.2530080582714924, -0.13562110705412186, -0.047562294741257546, 0.12964520771912733, -0.11927362877866161,
        0.06830730103585317, -0.023771307871774346, 0.002533688851764917, 0.0018953350888611755,
        -0.0007894874651257293, -0.00012807596079728059, 0.00012502501619633834, 3.254205428354365e-05)
"""erfc(a)·e^(a²)·(1 + 2·a) as a polynomial in t = (a − 3) / (a + 3) for 0 ≤ a ≤ 10.6; the relative error is 2⁻³⁴."""
LOG_WIDE = (0.6666666667584664, 0.3999999560458302, 0.28572111153075114, 0.22176098898728094, 0.19585531186855754)
"""(ln((1 + s) / (1 − s)) − 2·s) / s³ as a polynomial in s² for |s| ≤ 0.172; the relative error is 2⁻⁴⁴."""
SILU_ZERO = -110.0
"""Down to here x·e^x is rounded to 0."""
MOST_IN_REGISTERS = 12
"""Coefficients of a polynomial that a loop may keep there. More wait in memory."""
ERFC_ZERO = 10.5
"""From here on erfc, and every product of it with an argument that far out, is less than the smallest float."""
# fmt: on


def constant(k: Function, value: float, type_: str = VECTOR) -> Value:
    """A number in every lane, rounded as NumPy rounds the number in a formula: too large ones become ±∞."""
    with np.errstate(over="ignore"):
        return k.literal(float(np.float32(value)) if type_ == VECTOR else value, type_)


def coefficient(k: Function, value: float, type_: str = VECTOR) -> Value:
    """A number that a formula reads once: in memory where registers are few."""
    return k.stored(value, type_) if k.register < LANES else k.literal(value, type_)


def at_least(k: Function, x: Value, low: float) -> Value:
    """max(x, low); NaN stays."""
    bound = constant(k, low, x.type)
    return k.select(x < bound, bound, x)


def at_most(k: Function, x: Value, high: float) -> Value:
    """min(x, high); NaN stays."""
    bound = constant(k, high, x.type)
    return k.select(x > bound, bound, x)


def clip(k: Function, x: Value, low: float, high: float) -> Value:
    """min(max(x, low), high); NaN stays."""
    return at_most(k, at_least(k, x, low), high)


def exp(k: Function, x: Value) -> Value:
    """e^x = 2^n · e^r, n = round(x / ln 2), in two factors of 2 so that denormal results are rounded once."""
    y, scale = _exp_in_two(k, clip(k, x, -104, 89))
    return y * scale


def expm1(k: Function, x: Value) -> Value:
    """e^x − 1 = 2·(s·(e^r − 1) + (s − 1/2)), s = 2^(n−1), n = round(x / ln 2)"""
    n, r = _reduce(k, clip(k, x, -20, 89))
    s = _power_of_two(k, n - 1)
    y = k.fma(s, _expm1_near_zero(k, r), s - k.vector(0.5))
    return k.select(k.intrinsic("fabs", x) < coefficient(k, 2.0**-25), x, y + y)


def tanh(k: Function, x: Value) -> Value:
    """tanh |x| = m / (m + 2), m = e^(2·|x|) − 1, with the sign of x"""
    a = at_most(k, k.intrinsic("fabs", x), 10)
    m = expm1(k, a + a)
    return k.intrinsic("copysign", _over_sum(k, m, k.vector(2.0), m), x)


def logistic(k: Function, x: Value) -> Value:
    """1 / (1 + e^−x), by the exponential of −|x|, which cannot overflow."""
    e, one = exp(k, -k.intrinsic("fabs", x)), k.vector(1.0)
    return _over_sum(k, k.select(x > k.vector(0.0), one, e), one, e)


def silu(k: Function, x: Value) -> Value:
    """x·σ(x) with the logistic function σ. Where e^x is denormal the product is not: so its small factor comes last."""
    one, positive = k.vector(1.0), x > k.vector(0.0)
    near = at_least(k, x, SILU_ZERO)
    y, scale = _exp_in_two(k, -at_most(k, k.intrinsic("fabs", near), -SILU_ZERO))
    share = _over_sum(k, k.select(positive, one, y), one, y * scale)
    return near * share * k.select(positive, one, scale)


def log_(k: Function, x: Value) -> Value:
    """ln x = e·ln 2 + ln m, x = 2^e · m, 1/√2 ≤ m < √2"""
    denormal = x < k.vector(SMALLEST_NORMAL)
    e, m = _split(k, k.select(denormal, x * k.vector(2.0**23), x))
    exponent = k.convert("sitofp", e, VECTOR)
    exponent = k.select(denormal, exponent - k.vector(23.0), exponent)
    return _log_limits(k, x, _log_of_parts(k, exponent, m - k.vector(1.0)))


def log1p(k: Function, x: Value) -> Value:
    """ln(1 + x) as ln of u = 1 + x = 2^e · m, but with m − 1 from x itself: x·2^−e + (2^−e − 1)"""
    one = k.vector(1.0)
    u = one + x
    e, m = _split(k, u)
    scale = _power_of_two(k, 0 - e)
    near = x * scale + (scale - one)
    f = k.select(x < k.vector(2.0**25), near, m - one)
    y = _log_limits(k, u, _log_of_parts(k, k.convert("sitofp", e, VECTOR), f))
    return k.select(x.equals(k.vector(0.0)), x, y)


def softplus(k: Function, x: Value) -> Value:
    """ln(1 + e^x) = max(x, 0) + ln(1 + e), e = e^−|x|; where 1 + e exceeds √2, ln 2 + ln((1 + e) / 2)"""
    e = exp(k, -k.intrinsic("fabs", x))
    one, half = k.vector(1.0), k.vector(0.5)
    halved = e > k.vector(sqrt(2) - 1)
    f = k.select(halved, half * e - half, e)
    return at_least(k, x, 0) + _log_of_parts(k, k.select(halved, one, k.vector(0.0)), f)


def mish(k: Function, x: Value) -> Value:
    """x·tanh(ln(1 + e^x)) = x·n / (n + 2), n = e^x·(e^x + 2); the small factor of e^x comes last, as in `silu`"""
    two, near = k.vector(2.0), at_least(k, x, SILU_ZERO)
    y, scale = _exp_in_two(k, at_most(k, near, 20))
    e = y * scale
    return near * (y * (e + two) / (k.fma(e, e, e + e) + two)) * scale


def erf(k: Function, x: Value) -> Value:
    """A polynomial near 0, elsewhere 1 − e^(−q(|x|)) with the sign of x."""
    one, a = k.vector(1.0), k.intrinsic("fabs", x)
    near = k.fma(x, polynomial(k, x * x, ERF_NEAR, stored=True), x)
    t = at_most(k, a, 4)
    far = one - exp(k, -k.fma(t, polynomial(k, t, ERF_FAR, stored=True), t))
    return k.select(a < one, near, k.intrinsic("copysign", far, x))


def erfc(k: Function, x: Value) -> Value:
    """1 − erf x, accurate also where it is tiny."""
    return narrow(k, _erfc_of_any_sign(k, widen(k, x)))


def gelu(k: Function, x: Value) -> Value:
    """x·Φ(x), Φ(x) = erfc(−x/√2) / 2"""
    wide = widen(k, at_least(k, x, -LARGEST))
    return narrow(
        k, coefficient(k, 0.5, DOUBLES) * wide * _erfc_of_any_sign(k, wide * coefficient(k, -sqrt(0.5), DOUBLES))
    )


def gelu_tanh(k: Function, x: Value) -> Value:
    """x·σ(2·u), u = √(2/π)·(x + 0.044715·x³) with the logistic function σ"""
    one = constant(k, 1.0, DOUBLES)
    wide = widen(k, at_least(k, x, -LARGEST))
    near = clip(k, wide, -20, 20)
    u = near * polynomial(k, near * near, (-2 * sqrt(2 / pi), -2 * sqrt(2 / pi) * 0.044715))
    return narrow(k, wide / (one + exp_wide(k, u)))


def power(k: Function, a: Value, b: Value) -> Value:
    """a^b = e^(b·ln |a|) with the sign of a where b is odd, and the special values of IEEE 754's pow."""
    size = absolute(k, a)
    exponent = widen(k, b) * _log_wide(k, size)
    y = narrow(k, exp_wide(k, clip(k, exponent, -700, 700)))

    @k.rarely(k.any((k.bitcast(a, IVECTOR) < 0) | k.compare("uno", y, y)), [y])
    def result() -> list[Value]:
        return [_power_of_any(k, a, b, y)]

    return result[0]


def _power_of_any(k: Function, a: Value, b: Value, y: Value) -> Value:
    """a^b of any numbers, y = |a|^b but for 1^±∞, 1^NaN and everything to the power of 0"""
    zero, one, infinity = k.vector(0.0), k.stored(1.0), k.stored(inf)
    size, half, floor = absolute(k, a), k.stored(0.5) * b, k.intrinsic("floor", b)
    y = k.select(size.equals(one) & b.equals(b), one, y)
    odd = floor.equals(b) & k.compare("ne", k.intrinsic("floor", half), half)
    y = k.select(odd & (k.bitcast(a, IVECTOR) < 0), -y, y)
    y = k.select((a < zero) & (size < infinity) & k.compare("ne", floor, b), k.stored(nan), y)
    return k.select(b.equals(zero) | a.equals(one), one, y)


def widen(k: Function, x: Value) -> Value:
    """In float64."""
    return k.convert("fpext", x, DOUBLES)


def narrow(k: Function, x: Value) -> Value:
    """In float32."""
    return k.convert("fptrunc", x, VECTOR)


def exp_wide(k: Function, x: Value) -> Value:
    """e^x of doubles, accurate to 2⁻³⁹, for |x| ≤ 700 and NaN"""
    n, whole = nearest(k, x * coefficient(k, LOG2_E, DOUBLES))
    r = fma(k, whole, coefficient(k, -log(2), DOUBLES), x)
    y = fma(k, r * r, polynomial(k, r, EXP_WIDE), r) + coefficient(k, 1.0, DOUBLES)
    return y * k.bitcast((n + coefficient(k, 1023, LONGS)) << 52, DOUBLES)


def polynomial(k: Function, x: Value, coefficients: Sequence[float], *, stored: bool = False) -> Value:
    """Σ c[i]·xⁱ by Horner's rule. Where x takes two registers, coefficients wait in memory: each would take one."""
    takes_two = x.type == DOUBLES and k.lanes_now > k.register // 2
    number = k.stored if stored or takes_two or len(coefficients) > MOST_IN_REGISTERS else partial(coefficient, k)
    y = number(coefficients[-1], x.type)
    for c in reversed(coefficients[:-1]):
        y = fma(k, y, x, number(c, x.type))
    return y


def fma(k: Function, a: Value, b: Value, c: Value) -> Value:
    """a·b + c of floats or doubles, rounded once where the target can."""
    if a.type == DOUBLES and k.has_fma:
        return k.call(f"llvm.fma.v{LANES}f64", DOUBLES, a, b, c)
    return k.fma(a, b, c)


def absolute(k: Function, x: Value) -> Value:
    """|x| of floats or doubles"""
    integers, bits = (LONGS, 63) if x.type == DOUBLES else (IVECTOR, 31)
    return k.bitcast(k.bitcast(x, integers) & coefficient(k, (1 << bits) - 1, integers), x.type)


def nearest(k: Function, x: Value) -> tuple[Value, Value]:
    """The nearest integer, as an integer and as a float: adding 1.5·2²³ leaves it in the last bits of the sum. |x| up
    to 2²¹; no NaN becomes poison here, as it would in a conversion."""
    shift, integers = (1.5 * 2.0**52, LONGS) if x.type == DOUBLES else (1.5 * 2.0**23, IVECTOR)
    big = constant(k, shift, x.type)
    moved = x + big
    return k.bitcast(moved, integers) - k.bitcast(big, integers), moved - big


def _exp_in_two(k: Function, x: Value) -> tuple[Value, Value]:
    """Two factors of e^x, the second a power of 2 that may make the product denormal, for −110 ≤ x ≤ 89"""
    n, r = _reduce(k, x)
    half = k.binary("ashr", n, 1)
    return (_expm1_near_zero(k, r) + k.vector(1.0)) * _power_of_two(k, half), _power_of_two(k, n - half)


def _reduce(k: Function, x: Value) -> tuple[Value, Value]:
    """n = round(x / ln 2) and r = x − n·ln 2"""
    n, whole = nearest(k, x * coefficient(k, LOG2_E))
    r = k.fma(whole, coefficient(k, -LN2_HIGH), x)
    return n, k.fma(whole, coefficient(k, -LN2_LOW), r)


def _expm1_near_zero(k: Function, r: Value) -> Value:
    """e^r − 1 for |r| ≤ ln(2)/2"""
    return fma(k, r * r, polynomial(k, r, EXP), r)


def _over_sum(k: Function, x: Value, a: Value, b: Value) -> Value:
    """x / (a + b), a a power of 2, without the rounding error of the sum where there is fused multiply-add: what
    q = x·r, r = 1 / (a + b), leaves over is divided once more."""
    total = a + b
    if not k.has_fma:
        return x / total
    lost = k.select(b > a, a - (total - b), b - (total - a))
    r = k.vector(1.0) / total
    q = x * r
    return k.fma(k.fma(-q, total, x) - q * lost, r, q)


def _power_of_two(k: Function, n: Value) -> Value:
    """2^n of integers, for −127 < n < 128"""
    return k.bitcast((n + coefficient(k, 127, IVECTOR)) << 23, VECTOR)


def _erfc(k: Function, a: Value) -> Value:
    """erfc of doubles a ≥ 0; a² of a float is exact"""
    one, three = constant(k, 1.0, DOUBLES), coefficient(k, 3.0, DOUBLES)
    near = at_most(k, a, ERFC_ZERO)
    over, under = near + three, one + near + near
    r = one / (over * under)
    p = polynomial(k, (near - three) * under * r, ERFC)
    y = p * (over * r) * exp_wide(k, -(near * near))
    return k.select(near < constant(k, ERFC_ZERO, DOUBLES), y, near - near)  # NaN − NaN is NaN


def _erfc_of_any_sign(k: Function, x: Value) -> Value:
    """erfc(−a) = 2 − erfc(a)"""
    y = _erfc(k, absolute(k, x))
    return k.select(k.bitcast(x, LONGS) < 0, constant(k, 2.0, DOUBLES) - y, y)


def _split(k: Function, x: Value) -> tuple[Value, Value]:
    """e and m with x = 2^e · m, 1/√2 ≤ m < √2, of positive normal numbers"""
    bits = k.bitcast(x, IVECTOR)
    e = k.binary("ashr", bits - int(np.float32(sqrt(0.5)).view(np.int32)), 23)
    return e, k.bitcast(bits - (e << 23), VECTOR)


def _log_of_parts(k: Function, e: Value, f: Value) -> Value:
    """e·ln 2 + ln(1 + f)"""
    square = f * f
    y = f * square * polynomial(k, f, LOG)
    y = k.fma(e, coefficient(k, LN2_LOW), y)
    y = k.fma(coefficient(k, -0.5), square, y)
    return k.fma(e, coefficient(k, LN2_HIGH), f + y)


def _log_wide(k: Function, x: Value) -> Value:
    """ln x of non-negative floats, in float64 and accurate to 2⁻⁴⁴: e·ln 2 + ln m, m = (1 + s) / (1 − s)"""
    one, least = coefficient(k, 1.0, DOUBLES), _bits(sqrt(0.5))
    wide = widen(k, x)
    moved = k.bitcast(wide, LONGS) + coefficient(k, (1023 << 52) - least, LONGS)
    m = k.bitcast((moved & coefficient(k, (1 << 52) - 1, LONGS)) + coefficient(k, least, LONGS), DOUBLES)
    in_last_bits = (moved >> 52) | coefficient(k, _bits(2.0**52), LONGS)
    e = k.bitcast(in_last_bits, DOUBLES) - coefficient(k, 2.0**52 + 1023, DOUBLES)
    s = (m - one) / (m + one)
    square = s * s
    y = fma(k, s * square, polynomial(k, square, LOG_WIDE), s + s)
    y = fma(k, e, coefficient(k, log(2), DOUBLES), y)
    y = k.select(x < coefficient(k, inf), y, wide)
    return k.select(x.equals(k.vector(0.0)), coefficient(k, -inf, DOUBLES), y)


def _log_limits(k: Function, x: Value, y: Value) -> Value:
    """y = ln x, but ∞ for ∞, −∞ for 0, NaN for negative numbers and NaN"""
    zero = k.vector(0.0)
    y = k.select(x < k.vector(inf), y, x)
    y = k.select(x.equals(zero), k.vector(-inf), y)
    return k.select(x < zero, k.vector(nan), y)


def _bits(x: float) -> int:
    """Of a double, as an integer."""
    return int(np.float64(x).view(np.int64))

"""Sine and cosine on one vector of floats, of any size, in float64 and rounded once: 0.51 units in the last place.

sin x and cos x follow from x in quarter turns, x·2/π = n + r with |r| ≤ 1/2: n mod 4 says which of ± sin, ± cos of
r·π/2 it is. For large x the product needs digits of 2/π far behind the point, and those before them, which give whole
turns, are dropped (Payne & Hanek, "Radian reduction for trigonometric functions", 1983).
"""

from __future__ import annotations

from math import ldexp, pi

from ..loops import Function, Value
from .math import DOUBLES, coefficient, constant, fma, narrow, nearest, polynomial, widen

# fmt: off
SIN = (0.9999999999954273, -0.16666666630300428, 0.008333328676183402, -0.00019839174173590492, 2.7171143783750883e-06)
"""sin(a) / a as a polynomial in a² for |a| ≤ π/4; the relative error is 2⁻³⁷."""
COS = (0.9999999999999338, -0.4999999999926716, 0.04166666653309931, -0.0013888879903825593, 2.4798837886916298e-05,
       -2.716752188739289e-07)
"""cos(a) likewise; the relative error is 2⁻⁴³."""
# fmt: on

DIGITS = 256
TWO_OVER_PI = 0xA2F9836E4E441529FC2757D1F534DDC0DB6295993C439041FE5163ABDEBBC561
"""2/π · 2²⁵⁶, rounded down."""
RANGE = 24
"""Binary digits of a float: 2/π is cut anew for every factor of 2²⁴ in x."""
PART = 29
"""Binary digits whose product with a float is an exact double."""


def sin(k: Function, x: Value) -> Value:
    """sin x; NaN for ±∞"""
    return _wave(k, x, 0)


def cos(k: Function, x: Value) -> Value:
    """cos x = sin(x + a quarter turn); NaN for ±∞"""
    return _wave(k, x, 1)


def _wave(k: Function, x: Value, turns: int) -> Value:
    """sin of x and so many quarter turns"""
    n, r = _quarter_turns(k, x)
    n = n + turns
    a = r * coefficient(k, pi / 2, DOUBLES)
    square = a * a
    y = k.select(k.compare("eq", n & 1, 0), a * polynomial(k, square, SIN), polynomial(k, square, COS))
    return narrow(k, k.select(k.compare("eq", n & 2, 0), y, -y))


def _quarter_turns(k: Function, x: Value) -> tuple[Value, Value]:
    """n, right but for multiples of 4, and r with x·2/π = n + r, |r| ≤ 1/2. Where x is nearly a whole number of quarter
    turns, r keeps its digits: the products with the first two parts are exact, and so is what `_cut` leaves of them."""
    size, wide = k.intrinsic("fabs", x), widen(k, x)
    near = [coefficient(k, part, DOUBLES) for part in parts(0)]

    @k.rarely(k.any(size >= constant(k, 2.0**RANGE)), near)
    def digits() -> list[Value]:
        chosen = near
        for step in range(1, 6):
            far = size >= k.stored(ldexp(1, RANGE * step))
            chosen = [k.select(far, k.stored(a, DOUBLES), b) for a, b in zip(parts(step), chosen, strict=True)]
        return chosen

    high, middle, low = digits
    n, first = _cut(k, wide * high)
    more, second = _cut(k, wide * middle)
    last, r = _cut(k, fma(k, wide, low, first + second))
    return n + more + last, r


def _cut(k: Function, t: Value) -> tuple[Value, Value]:
    """The nearest whole number, and what is left."""
    n, whole = nearest(k, t)
    return n, t - whole


def parts(step: int) -> tuple[float, float, float]:
    """2/π as three doubles, the first two of 29 digits, without the digits whose products with all floats from
    2^(24·step) on are multiples of 4.

    >>> sum(parts(0)) == 2 / pi
    True
    """
    top = DIGITS + 1 + RANGE - RANGE * step
    rest = TWO_OVER_PI % (1 << top) if top < DIGITS else TWO_OVER_PI
    result = []
    for shift in (top - PART, top - 2 * PART):
        part = rest >> shift << shift
        result.append(ldexp(float(part >> shift), shift - DIGITS))
        rest -= part
    return result[0], result[1], ldexp(float(rest), -DIGITS)

"""erfc(x) = 2/√π · ∫ₓ^∞ e^(−t²) dt, the complementary error function, and erf(x) = 1 − erfc(x): NumPy lacks both.

W. J. Cody, "Rational Chebyshev approximations for the error function", Mathematics of Computation 23 (1969), with the
coefficients of his Fortran program CALERF (1990): three rational functions, each nearly best in its interval of |x|.
The relative error is a few units in the last place of a double, also where erfc(x) is tiny.
"""

from __future__ import annotations

from math import pi, sqrt

import numpy as np

from graphsr.op import Array

# fmt: off
# |x| ≤ 0.46875: erf(x) ≈ x · SMALL(x²). Numerator and denominator, highest power first.
SMALL = ((1.85777706184603153e-1, 3.16112374387056560e00, 1.13864154151050156e02, 3.77485237685302021e02,
          3.20937758913846947e03),
         (1.0, 2.36012909523441209e01, 2.44024637934444173e02, 1.28261652607737228e03, 2.84423683343917062e03))
# 0.46875 < |x| ≤ 4: erfc(|x|) ≈ e^(−x²) · MEDIUM(|x|)
MEDIUM = ((2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594e00, 6.61191906371416295e01,
           2.98635138197400131e02, 8.81952221241769090e02, 1.71204761263407058e03, 2.05107837782607147e03,
           1.23033935479799725e03),
          (1.0, 1.57449261107098347e01, 1.17693950891312499e02, 5.37181101862009858e02, 1.62138957456669019e03,
           3.29079923573345963e03, 4.36261909014324716e03, 3.43936767414372164e03, 1.23033935480374942e03))
# |x| > 4: erfc(|x|) ≈ e^(−x²) / |x| · (1/√π − x⁻² · LARGE(x⁻²))
LARGE = ((1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1, 1.25781726111229246e-1,
          1.60837851487422766e-2, 6.58749161529837803e-4),
         (1.0, 2.56852019228982242e00, 1.87295284992346725e00, 5.27905102951428412e-1, 6.05183413124413191e-2,
          2.33520497626869185e-3))
# fmt: on

SMALL_TO = 0.46875
ZERO_FROM = 28.0
"""erfc(x) is less than the smallest double from here on."""


def erfc(x: Array) -> Array:
    """erfc of every element, in the dtype of x (float32 or float64); NaN stays NaN.

    >>> erfc(np.array([-np.inf, 0.0, 0.5, 10.0]))
    array([2.00000000e+00, 1.00000000e+00, 4.79500122e-01, 2.08848758e-45])
    """
    a = np.minimum(np.abs(x), ZERO_FROM)
    y = np.empty_like(a)
    small, large = a <= SMALL_TO, a > 4
    medium = ~(small | large)  # and NaN
    near, middle, far = a[small], a[medium], a[large]
    y[small] = 1 - near * _ratio(SMALL, near * near)
    y[medium] = _gauss(middle) * _ratio(MEDIUM, middle)
    square = 1 / (far * far)
    y[large] = _gauss(far) / far * (1 / sqrt(pi) - square * _ratio(LARGE, square))
    return np.where(x < 0, 2 - y, y)


def erf(x: Array) -> Array:
    """erf of every element, in the dtype of x: 1 − erfc(x), but near 0, where the difference would keep few digits.

    >>> erf(np.array([1e-10, -0.0, 1.0]))
    array([ 1.12837917e-10, -0.00000000e+00,  8.42700793e-01])
    """
    square = np.minimum(x * x, SMALL_TO**2)
    return np.where(np.abs(x) <= SMALL_TO, x * _ratio(SMALL, square), 1 - erfc(x))


def _ratio(coefficients: tuple[tuple[float, ...], tuple[float, ...]], t: Array) -> Array:
    """A rational function of t, both polynomials by Horner's rule."""
    numerator, denominator = np.full_like(t, coefficients[0][0]), np.full_like(t, coefficients[1][0])
    for p, q in zip(coefficients[0][1:], coefficients[1][1:], strict=True):
        numerator *= t
        numerator += p
        denominator *= t
        denominator += q
    return numerator / denominator


def _gauss(a: Array) -> Array:
    """e^(−a²), where the rounding of a² does not cost accuracy: with z = a cut off after four binary digits, z² is
    exact and a² = z² + (a − z)·(a + z)."""
    z = np.trunc(16 * a) / 16
    return np.exp(-z * z) * np.exp(-(a - z) * (a + z))

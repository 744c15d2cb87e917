"""Elementary functions of every element: y = f(x) with the derivative f'.

They are not activations: no pass fuses them into the layer before. Outside the domain of f the result is NaN, at a
pole ±∞, both without a warning.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, sqrt

import numpy as np

from graphsr.ir import TensorType
from graphsr.op import Array, expect, op
from graphsr.ops.elementary import Elementary
from graphsr.ops.erf import erf


class Unary(Elementary):
    """Base of the elementary functions."""

    __slots__ = ()


class Signed(Unary):
    """Base of the functions that integers have, too."""

    __slots__ = ()

    def infer(self, x: TensorType) -> TensorType:
        expect(x.dtype != "bool", f"{self.name} of bool is not defined")
        return x


class Stepped(Unary):
    """Base of the functions that are constant between their steps: f' = 0."""

    __slots__ = ()

    def derivative(self, x: Array, y: Array) -> Array:
        return np.zeros_like(x)


@op("abs")
@dataclass(frozen=True, slots=True)
class Abs(Signed):
    """f(x) = |x|; f' = sign x

    >>> Abs().forward(np.array([-2, 3]))
    array([2, 3])
    """

    def forward(self, x: Array) -> Array:
        return np.abs(x)

    def derivative(self, x: Array, y: Array) -> Array:
        return np.sign(x)


@op("neg")
@dataclass(frozen=True, slots=True)
class Neg(Signed):
    """f(x) = −x; f' = −1

    >>> Neg().forward(np.array([-2, 3]))
    array([ 2, -3])
    """

    def forward(self, x: Array) -> Array:
        return -x

    def derivative(self, x: Array, y: Array) -> Array:
        return -np.ones_like(x)


@op("sign")
@dataclass(frozen=True, slots=True)
class Sign(Signed):
    """f(x) = −1, 0 or 1 for x < 0, x = 0, x > 0; f' = 0

    >>> Sign().forward(np.array([-2.0, 0.0, np.nan]))
    array([-1.,  0., nan])
    """

    def forward(self, x: Array) -> Array:
        return np.sign(x)

    def derivative(self, x: Array, y: Array) -> Array:
        return np.zeros_like(x)


@op("exp")
@dataclass(frozen=True, slots=True)
class Exp(Unary):
    """f(x) = e^x; f' = y

    >>> Exp().forward(np.array([-np.inf, 0.0, 1e4]))
    array([ 0.,  1., inf])
    """

    def forward(self, x: Array) -> Array:
        with np.errstate(over="ignore"):
            return np.exp(x)

    def derivative(self, x: Array, y: Array) -> Array:
        return y


@op("log")
@dataclass(frozen=True, slots=True)
class Log(Unary):
    """f(x) = ln x; f' = 1/x

    >>> Log().forward(np.array([-1.0, 0.0, 1.0]))
    array([ nan, -inf,   0.])
    """

    def forward(self, x: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.log(x)

    def derivative(self, x: Array, y: Array) -> Array:
        return _reciprocal(x)


@op("sqrt")
@dataclass(frozen=True, slots=True)
class Sqrt(Unary):
    """f(x) = √x; f' = 1/(2·y)

    >>> Sqrt().forward(np.array([-1.0, 0.0, 4.0]))
    array([nan,  0.,  2.])
    """

    def forward(self, x: Array) -> Array:
        with np.errstate(invalid="ignore"):
            return np.sqrt(x)

    def derivative(self, x: Array, y: Array) -> Array:
        return _reciprocal(2 * y)


@op("reciprocal")
@dataclass(frozen=True, slots=True)
class Reciprocal(Unary):
    """f(x) = 1/x; f' = −y²

    >>> Reciprocal().forward(np.array([0.0, 4.0]))
    array([ inf, 0.25])
    """

    def forward(self, x: Array) -> Array:
        return _reciprocal(x)

    def derivative(self, x: Array, y: Array) -> Array:
        return -y * y


@op("sin")
@dataclass(frozen=True, slots=True)
class Sin(Unary):
    """f(x) = sin x, x in radians; f' = cos x

    >>> Sin().forward(np.array([0.0, np.pi / 2]))
    array([0., 1.])
    """

    def forward(self, x: Array) -> Array:
        with np.errstate(invalid="ignore"):
            return np.sin(x)

    def derivative(self, x: Array, y: Array) -> Array:
        return np.cos(x)


@op("cos")
@dataclass(frozen=True, slots=True)
class Cos(Unary):
    """f(x) = cos x, x in radians; f' = −sin x

    >>> Cos().forward(np.array([0.0, np.pi]))
    array([ 1., -1.])
    """

    def forward(self, x: Array) -> Array:
        with np.errstate(invalid="ignore"):
            return np.cos(x)

    def derivative(self, x: Array, y: Array) -> Array:
        return -np.sin(x)


@op("erf")
@dataclass(frozen=True, slots=True)
class Erf(Unary):
    """f(x) = 2/√π · ∫₀ˣ e^(−t²) dt = 1 − erfc(x); f' = 2/√π · e^(−x²)

    >>> Erf().forward(np.array([-np.inf, 0.0, 1.0]))
    array([-1.        ,  0.        ,  0.84270079])
    """

    def forward(self, x: Array) -> Array:
        with np.errstate(over="ignore"):  # the square of a large x
            return erf(x)

    def derivative(self, x: Array, y: Array) -> Array:
        return 2 / sqrt(pi) * np.exp(-x * x)


@op("floor")
@dataclass(frozen=True, slots=True)
class Floor(Stepped):
    """f(x) = ⌊x⌋; f' = 0

    >>> Floor().forward(np.array([-1.5, 1.5]))
    array([-2.,  1.])
    """

    def forward(self, x: Array) -> Array:
        return np.floor(x)


@op("ceil")
@dataclass(frozen=True, slots=True)
class Ceil(Stepped):
    """f(x) = ⌈x⌉; f' = 0

    >>> Ceil().forward(np.array([-1.5, 1.5]))
    array([-1.,  2.])
    """

    def forward(self, x: Array) -> Array:
        return np.ceil(x)


@op("round")
@dataclass(frozen=True, slots=True)
class Round(Stepped):
    """f(x) = the nearest integer, of two equally near ones the even (IEEE 754); f' = 0

    >>> Round().forward(np.array([0.5, 1.5, -2.6]))
    array([ 0.,  2., -3.])
    """

    def forward(self, x: Array) -> Array:
        return np.rint(x)


@op("thresholded_relu")
@dataclass(frozen=True, slots=True)
class ThresholdedRelu(Unary):
    """f(x) = x for x > θ, else 0; f' = 1 or 0 (Konda et al. 2015)

    >>> ThresholdedRelu().forward(np.array([0.5, 2.0]))
    array([0., 2.])
    """

    threshold: float = 1.0

    def forward(self, x: Array) -> Array:
        return np.where(x <= self.threshold, x.dtype.type(0), x)

    def derivative(self, x: Array, y: Array) -> Array:
        return (x > self.threshold).astype(x.dtype)


@op("shrink")
@dataclass(frozen=True, slots=True)
class Shrink(Unary):
    """f(x) = x + b for x < −λ, x − b for x > λ, else 0; f' = 1 for |x| > λ, else 0. Bias 0 gives the hard, b = λ the
    soft shrinkage of wavelet denoising (Donoho 1995).

    >>> Shrink(bias=0.5).forward(np.array([-2.0, 0.25, 2.0]))
    array([-1.5,  0. ,  1.5])
    """

    threshold: float = 0.5
    bias: float = 0.0

    def forward(self, x: Array) -> Array:
        return np.where(np.abs(x) <= self.threshold, x.dtype.type(0), x - self.bias * np.sign(x))

    def derivative(self, x: Array, y: Array) -> Array:
        return (np.abs(x) > self.threshold).astype(x.dtype)


def _reciprocal(x: Array) -> Array:
    with np.errstate(divide="ignore"):
        return np.reciprocal(x)

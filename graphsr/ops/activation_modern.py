"""Activations that came after those of the thesis, and the two that are not fixed functions: clipping to given bounds,
and PReLU, whose slopes are learnt."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, sqrt

import numpy as np

from graphsr.ir import TensorType
from graphsr.op import Array, Op, expect, expect_float, expect_size, op, same_dtype, unbroadcast
from graphsr.ops.activation import Activation, finite, logistic, softplus, step
from graphsr.ops.erf import erfc
from graphsr.ops.norm import per_channel


@op("relu6")
@dataclass(frozen=True, slots=True)
class Relu6(Activation):
    """f(x) = min(max(x, 0), 6); f' = 1 for 0 < x < 6, else 0

    >>> Relu6().forward(np.array([-1.0, 2.0, 7.0]))
    array([0., 2., 6.])
    """

    def forward(self, x: Array) -> Array:
        return np.clip(x, 0, 6)

    def derivative(self, x: Array, y: Array) -> Array:
        return step((x > 0) & (x < 6), 1, 0, x)


@op("clip")
@dataclass(frozen=True, slots=True)
class Clip(Activation):
    """f(x) = min(max(x, low), high); f' = 1 for low < x < high, else 0

    >>> Clip(low=0.0).forward(np.array([-1.0, 2.0, np.nan]))
    array([ 0.,  2., nan])
    """

    low: float = -np.inf
    high: float = np.inf

    def infer(self, x: TensorType) -> TensorType:
        expect(self.low <= self.high, f"the bounds of clip must be in order, got {self.low} and {self.high}")
        return Activation.infer(self, x)

    def forward(self, x: Array) -> Array:
        return np.clip(x, self.low, self.high)

    def derivative(self, x: Array, y: Array) -> Array:
        return step((x > self.low) & (x < self.high), 1, 0, x)


@op("silu")
@dataclass(frozen=True, slots=True)
class Silu(Activation):
    """f(x) = x·σ(x) with the logistic σ; f' = σ(x)·(1 + x·σ(−x)) (Elfwing et al. 2018; darknet's swish)

    >>> Silu().forward(np.array([-np.inf, 0.0, 1e4]))
    array([   -0.,     0., 10000.])
    """

    def forward(self, x: Array) -> Array:
        return above(x) * logistic(x)

    def derivative(self, x: Array, y: Array) -> Array:
        x = finite(x)
        return logistic(x) * (1 + x * logistic(-x))


@op("gelu")
@dataclass(frozen=True, slots=True)
class Gelu(Activation):
    """f(x) = x·Φ(x), Φ(x) = erfc(−x/√2) / 2; f' = Φ(x) + x·φ(x), φ(x) = e^(−x²/2) / √(2π) (Hendrycks & Gimpel 2016)

    With approximate="tanh", Φ(x) = (1 + tanh u) / 2 = σ(2·u), where u = √(2/π)·(x + 0.044715·x³) and σ is the
    logistic function; then φ = Φ' = 2·σ(2·u)·σ(−2·u)·u', u' = √(2/π)·(1 + 3·0.044715·x²).

    >>> Gelu().forward(np.array([-np.inf, 0.0, 1.0]))
    array([-0.        ,  0.        ,  0.84134475])
    >>> Gelu("tanh").forward(np.array([1.0]))
    array([0.84119199])
    """

    approximate: str = "none"

    def infer(self, x: TensorType) -> TensorType:
        expect(self.approximate in ("none", "tanh"), f"approximate must be 'none' or 'tanh', got {self.approximate!r}")
        return Activation.infer(self, x)

    def forward(self, x: Array) -> Array:
        return above(x) * self._distribution(x)

    def derivative(self, x: Array, y: Array) -> Array:
        near = np.clip(x, -GELU_FAR, GELU_FAR)
        return self._distribution(x) + near * self._density(near)

    def _distribution(self, x: Array) -> Array:
        """Φ(x)"""
        if self.approximate == "none":
            return 0.5 * erfc(-x / sqrt(2))
        near = np.clip(x, -GELU_FAR, GELU_FAR)
        return logistic(2 * sqrt(2 / pi) * (near + 0.044715 * near * near * near))

    def _density(self, x: Array) -> Array:
        """φ(x) for |x| up to GELU_FAR"""
        if self.approximate == "none":
            return np.exp(-0.5 * x * x) / sqrt(2 * pi)
        slope = sqrt(2 / pi) * (1 + 3 * 0.044715 * x * x)
        distribution = self._distribution(x)
        return 2 * distribution * self._distribution(-x) * slope


GELU_FAR = 40.0
"""From here on Φ(x) is 1, and Φ(−x) and φ(x) are 0 in double precision: a bound that keeps x² and x³ finite."""


@op("mish")
@dataclass(frozen=True, slots=True)
class Mish(Activation):
    """f(x) = x·t, t = tanh(ln(1 + e^x)); f' = t + x·(1 − t²)·σ(x) with the logistic σ (Misra 2020)

    >>> Mish().forward(np.array([-np.inf, 0.0, 1.0]))
    array([-0.        ,  0.        ,  0.86509839])
    """

    def forward(self, x: Array) -> Array:
        return above(x) * np.tanh(softplus(x))

    def derivative(self, x: Array, y: Array) -> Array:
        t = np.tanh(softplus(x))
        return t + finite(x) * (1 - t * t) * logistic(x)


@op("celu")
@dataclass(frozen=True, slots=True)
class Celu(Activation):
    """f(x) = x for x > 0, else α·(e^(x/α) − 1); f' = 1, or e^(x/α) = y/α + 1 (Barron 2017)

    >>> Celu(alpha=2.0).forward(np.array([-np.inf, -2 * np.log(2), 3.0]))
    array([-2., -1.,  3.])
    """

    alpha: float = 1.0

    def infer(self, x: TensorType) -> TensorType:
        expect(self.alpha > 0, f"alpha must be positive, got {self.alpha}")
        return Activation.infer(self, x)

    def forward(self, x: Array) -> Array:
        return np.where(x > 0, x, self.alpha * np.expm1(np.minimum(x, 0) / self.alpha))

    def derivative(self, x: Array, y: Array) -> Array:
        return np.where(x > 0, x.dtype.type(1), y / self.alpha + 1)


@op("hardsigmoid")
@dataclass(frozen=True, slots=True)
class HardSigmoid(Activation):
    """f(x) = min(max(α·x + β, 0), 1); f' = α for 0 < α·x + β < 1, else 0 (the defaults are PyTorch's; ONNX and
    Keras 2 have α = 0.2)

    >>> HardSigmoid().forward(np.array([-4.0, 0.0, 1.5]))
    array([0.  , 0.5 , 0.75])
    """

    alpha: float = 1 / 6
    beta: float = 0.5

    def forward(self, x: Array) -> Array:
        return np.clip(self.alpha * x + self.beta, 0, 1)

    def derivative(self, x: Array, y: Array) -> Array:
        return step((y > 0) & (y < 1), self.alpha, 0, x)


@op("hardswish")
@dataclass(frozen=True, slots=True)
class HardSwish(Activation):
    """f(x) = x·min(max(x + 3, 0), 6) / 6; f' = 0 for x ≤ −3, 1 for x ≥ 3, else x/3 + 1/2 (Howard et al. 2019)

    >>> HardSwish().forward(np.array([-4.0, 1.0, 4.0]))
    array([-0.        ,  0.66666667,  4.        ])
    """

    def forward(self, x: Array) -> Array:
        return above(x) * np.clip(x / 6 + 0.5, 0, 1)

    def derivative(self, x: Array, y: Array) -> Array:
        return np.where(x <= -3, x.dtype.type(0), np.where(x >= 3, x.dtype.type(1), x / 3 + 0.5))


@op("prelu")
@dataclass(frozen=True, slots=True)
class PRelu(Op):
    """y[n,c,…] = x[n,c,…] for x > 0, else slope[c]·x[n,c,…] (He et al. 2015)

    slope is a vector with one value per channel, or a single one for all. It is an input because it is learnt;
    `Leaky` is the activation with a slope that is known.

    >>> PRelu().forward(np.array([[-1.0, -1.0]]), np.array([0.25, 0.5]))
    array([[-0.25, -0.5 ]])
    """

    def infer(self, x: TensorType, slope: TensorType) -> TensorType:
        same_dtype(x, slope)
        expect_float(x)
        expect(slope.rank == 1, f"slope must be a vector, got {slope}")
        if slope.shape != (1,):
            expect(x.rank >= 2, f"one slope per channel needs an input [N, C, ...], got {x}")
            expect_size("channels of the input and of slope", x.shape[1], slope.shape[0])
        return x

    def forward(self, x: Array, slope: Array) -> Array:
        return np.where(x > 0, x, per_channel(slope, x) * x)

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array, Array]:
        """dx = dy for x > 0, else slope·dy; dslope = Σ dy·min(x, 0)"""
        x, slope = inputs
        factor = per_channel(slope, x)
        d_factor = unbroadcast(cotangent * np.minimum(x, 0), factor.shape)
        return np.where(x > 0, cotangent, factor * cotangent), d_factor.reshape(slope.shape)


def above(x: Array) -> Array:
    """x with the lowest finite number in place of −∞, where f goes to 0 and the formula would become −∞·0."""
    return np.maximum(x, np.finfo(x.dtype).min)

"""Costs: one number for how far an output is from the truth, to be made small by training.

Symbols: x output of the network, t truth, both of any one shape; d = x − t; ℓ the loss of one element, m the number of
elements. The names are those of darknet and NumPyNet. NumPyNet's smooth cost has the wrong sign in its outer zone.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import numpy as np

from graphsr.ir import TensorType
from graphsr.op import Array, Op, expect, expect_float, expect_positive, expect_size, op, same_dtype
from graphsr.ops.activation import logistic


@dataclass(frozen=True, slots=True)
class Cost(Op):
    """Base of the costs: y = scale · Σ w·ℓ(x, t') / m, a single number.

    t' = (1 − smoothing)·t + smoothing/n is the truth of n numbers per sample with smoothed labels (Szegedy et al.
    2016). The weight w is `noobject_scale` where t = 0, else 1; but w = 0, the element does not count, where w·|∂ℓ/∂x|
    is less than `threshold` or not among the largest `ratio` of all (0: no such choice). To the gradient w is constant.
    """

    scale: float = 1.0
    smoothing: float = 0.0
    noobject_scale: float = 1.0
    threshold: float = 0.0
    ratio: float = 0.0

    def infer(self, x: TensorType, t: TensorType) -> TensorType:
        dtype = same_dtype(x, t)
        expect_float(x)
        expect(0 <= self.smoothing <= 1, f"smoothing {self.smoothing} must be from 0 to 1")
        expect(0 <= self.ratio <= 1, f"ratio {self.ratio} must be from 0 to 1")
        expect(x.rank >= 1 and t.rank == x.rank, f"output and truth must have one shape, got {x} and {t}")
        for a, (got, size) in enumerate(zip(t.shape, x.shape, strict=True)):
            expect_size(f"size of axis {a} of the truth", got, size)
            expect_positive(f"size of axis {a}", size)
        return TensorType(dtype, ())

    def loss(self, x: Array, t: Array) -> Array:
        """ℓ, element by element"""
        raise NotImplementedError

    def slopes(self, x: Array, t: Array) -> tuple[Array, Array]:
        """(∂ℓ/∂x, ∂ℓ/∂t), element by element"""
        raise NotImplementedError

    def forward(self, x: Array, t: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            smooth = self._smoothed(t)
            total = (self._weights(x, t) * self.loss(x, smooth)).mean()
        return np.asarray(total * x.dtype.type(self.scale))

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        x, t = inputs
        factor = cotangent * self._weights(x, t) * x.dtype.type(self.scale / x.size)
        dx, dt = self.slopes(x, self._smoothed(t))
        return factor * dx, factor * dt * t.dtype.type(1 - self.smoothing)

    def _smoothed(self, t: Array) -> Array:
        """t'"""
        return (1 - self.smoothing) * t + self.smoothing * len(t) / t.size

    def _weights(self, x: Array, t: Array) -> Array:
        """w"""
        w = np.where(t == 0, x.dtype.type(self.noobject_scale), x.dtype.type(1))
        if not self.threshold and not self.ratio:
            return w
        slope = w * np.abs(self.slopes(x, self._smoothed(t))[0])
        least = self.threshold
        if self.ratio:
            ranked = np.sort(slope, axis=None)
            least = max(least, ranked[min(int((1 - self.ratio) * slope.size), slope.size - 1)])
        return np.where(slope < least, x.dtype.type(0), w)

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        return None


@op("mse_cost")
@dataclass(frozen=True, slots=True)
class MseCost(Cost):
    """ℓ = d²; ∂ℓ/∂x = 2·d

    >>> MseCost().forward(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    array(2.)
    """

    def loss(self, x: Array, t: Array) -> Array:
        return np.square(x - t)

    def slopes(self, x: Array, t: Array) -> tuple[Array, Array]:
        return 2 * (x - t), 2 * (t - x)


@op("mae_cost")
@dataclass(frozen=True, slots=True)
class MaeCost(Cost):
    """ℓ = |d|; ∂ℓ/∂x = sign d

    >>> MaeCost().forward(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    array(1.)
    """

    def loss(self, x: Array, t: Array) -> Array:
        return np.abs(x - t)

    def slopes(self, x: Array, t: Array) -> tuple[Array, Array]:
        return np.sign(x - t), np.sign(t - x)


@op("smooth_cost")
@dataclass(frozen=True, slots=True)
class SmoothCost(Cost):
    """ℓ = d² for |d| < 1, else 2·|d| − 1: twice Huber's loss; ∂ℓ/∂x = 2·min(max(d, −1), 1)

    >>> SmoothCost().forward(np.array([0.5, 3.0]), np.zeros(2))
    array(2.625)
    """

    def loss(self, x: Array, t: Array) -> Array:
        d = np.abs(x - t)
        return np.where(d < 1, d * d, 2 * d - 1)

    def slopes(self, x: Array, t: Array) -> tuple[Array, Array]:
        slope = 2 * np.clip(x - t, -1, 1)
        return slope, -slope


@op("masked_cost")
@dataclass(frozen=True, slots=True)
class MaskedCost(Cost):
    """ℓ = d², but 0 where t is the number that marks what is unknown (12345 in NumPyNet, −1234 in darknet).

    It has no smoothed labels, and no gradient in t, as the mark is one number alone.

    >>> MaskedCost().forward(np.array([1.0, 2.0]), np.array([3.0, 12345.0]))
    array(2.)
    """

    mark: float = 12345.0

    def infer(self, x: TensorType, t: TensorType) -> TensorType:
        expect(self.smoothing == 0, "the masked cost has no smoothed labels: the mark would not be recognised")
        return Cost.infer(self, x, t)

    def loss(self, x: Array, t: Array) -> Array:
        return np.square(self._difference(x, t))

    def slopes(self, x: Array, t: Array) -> tuple[Array, Array]:
        slope = 2 * self._difference(x, t)
        return slope, -slope

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        return Cost.vjp(self, inputs, output, cotangent)[0], None

    def _difference(self, x: Array, t: Array) -> Array:
        return np.where(t == self.mark, x.dtype.type(0), x - t)


@op("seg_cost")
@dataclass(frozen=True, slots=True)
class SegCost(Cost):
    """ℓ = −t·ln x − (1 − t)·ln(1 − x): the cross-entropy of probabilities; ∂ℓ/∂x = (x − t) / (x·(1 − x)).
    (`LogisticCost` has the logistic function inside, and no poles.)

    >>> SegCost().forward(np.array([0.5, 0.5]), np.array([0.0, 1.0]))
    array(0.69314718)
    """

    def loss(self, x: Array, t: Array) -> Array:
        return -t * np.log(x) - (1 - t) * np.log1p(-x)

    def slopes(self, x: Array, t: Array) -> tuple[Array, Array]:
        return (x - t) / (x * (1 - x)), np.log1p(-x) - np.log(x)


@op("wgan_cost")
@dataclass(frozen=True, slots=True)
class WganCost(Cost):
    """ℓ = −x where t ≠ 0 (real), x where t = 0 (made): the critic of Arjovsky et al. 2017; t is a label, ∂ℓ/∂t = 0

    >>> WganCost().forward(np.array([5.0, 1.0]), np.array([1.0, 0.0]))
    array(-2.)
    """

    def loss(self, x: Array, t: Array) -> Array:
        return x * self.slopes(x, t)[0]

    def slopes(self, x: Array, t: Array) -> tuple[Array, Array]:
        return 1 - 2 * np.sign(np.abs(t)), np.zeros_like(t)


@op("hellinger_cost")
@dataclass(frozen=True, slots=True)
class HellingerCost(Cost):
    """ℓ = (√t − √x)²; ∂ℓ/∂x = 1 − √(t/x)

    >>> HellingerCost().forward(np.array([4.0]), np.array([9.0]))
    array(1.)
    """

    def loss(self, x: Array, t: Array) -> Array:
        return np.square(np.sqrt(t) - np.sqrt(x))

    def slopes(self, x: Array, t: Array) -> tuple[Array, Array]:
        return 1 - np.sqrt(t / x), 1 - np.sqrt(x / t)


@op("hinge_cost")
@dataclass(frozen=True, slots=True)
class HingeCost(Cost):
    """ℓ = max(0, 1 − t·x), t = ±1; ∂ℓ/∂x = −t where t·x < 1, else 0

    >>> HingeCost().forward(np.array([2.0, 0.5]), np.array([1.0, -1.0]))
    array(0.75)
    """

    def loss(self, x: Array, t: Array) -> Array:
        return np.maximum(1 - t * x, 0)

    def slopes(self, x: Array, t: Array) -> tuple[Array, Array]:
        inside = t * x < 1
        return np.where(inside, -t, 0), np.where(inside, -x, 0)


@op("logcosh_cost")
@dataclass(frozen=True, slots=True)
class LogCoshCost(Cost):
    """ℓ = ln cosh d = |d| + ln(1 + e^(−2|d|)) − ln 2, where nothing overflows; ∂ℓ/∂x = tanh d

    >>> LogCoshCost().forward(np.array([1000.0, 0.0]), np.zeros(2))
    array(499.65342641)
    """

    def loss(self, x: Array, t: Array) -> Array:
        d = np.abs(x - t)
        return d + np.log1p(np.exp(-2 * d)) - log(2)

    def slopes(self, x: Array, t: Array) -> tuple[Array, Array]:
        slope = np.tanh(x - t)
        return slope, -slope


@op("logistic_cost")
@dataclass(frozen=True, slots=True)
class LogisticCost(Op):
    """y = Σ −t·ln σ(x) − (1 − t)·ln(1 − σ(x)) = Σ max(x, 0) − t·x + ln(1 + e^−|x|), σ the logistic function: what
    darknet's logistic layer costs; dx = σ(x) − t, dt = −x

    >>> LogisticCost().forward(np.array([0.0, 1e4]), np.array([1.0, 1.0]))
    array(0.69314718)
    """

    def infer(self, x: TensorType, t: TensorType) -> TensorType:
        return MseCost().infer(x, t)

    def forward(self, x: Array, t: Array) -> Array:
        return np.asarray((np.maximum(x, 0) - t * x + np.log1p(np.exp(-np.abs(x)))).sum())

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        x, t = inputs
        return cotangent * (logistic(x) - t), -cotangent * x

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        return None

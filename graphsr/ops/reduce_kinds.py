"""More reductions: minimum, product, norms, logarithms of sums; and the running sum.

Symbols: x input, y output, A the set of reduced axes. No elements along A give the value that an empty sum or product
has.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphsr.ir import TensorType
from graphsr.op import Array, Op, expect, expect_float, op
from graphsr.ops.reduce import ReduceMax, Reduction, normal_axes


@op("reduce_min")
@dataclass(frozen=True, slots=True)
class ReduceMin(Reduction):
    """y = min_A x, NaN where any of them is NaN; the whole of dy goes to the first minimum in row-major order.

    >>> ReduceMin(axes=(-1,)).forward(np.array([[1.0, 2.0], [3.0, np.nan]]))
    array([[ 1.],
           [nan]])
    """

    def infer(self, x: TensorType) -> TensorType:
        return ReduceMax(self.axes, self.keepdims).infer(x)

    def forward(self, x: Array) -> Array:
        return np.asarray(x.min(self.axes, keepdims=self.keepdims))

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        """min x = −max(−x), and the two signs cancel in the gradient."""
        return ReduceMax(self.axes, self.keepdims).vjp((-inputs[0],), -output, cotangent)


@op("reduce_prod")
@dataclass(frozen=True, slots=True)
class ReduceProd(Reduction):
    """y = Π_A x; dx = dy · the product of the other factors, right also where one of them is zero. Integers stay in
    their dtype.

    >>> ReduceProd(axes=(1,), keepdims=False).forward(np.array([[1, 2], [3, 4]]))
    array([ 2, 12])
    """

    def forward(self, x: Array) -> Array:
        return np.asarray(x.prod(self.axes, dtype=x.dtype, keepdims=self.keepdims))

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        """The others are those before and those behind a factor: two running products, shifted by one."""
        (x,) = inputs
        reduced = normal_axes(self.axes, x.ndim)
        order = [i for i in range(x.ndim) if i not in reduced] + list(reduced)
        rows = x.transpose(order).reshape(output.size, -1)  # one row for each output
        one = np.ones((len(rows), 1), x.dtype)
        before = np.cumprod(np.hstack([one, rows[:, :-1]]), axis=1)
        behind = np.cumprod(np.hstack([one, rows[:, :0:-1]]), axis=1)[:, ::-1]
        others = (before * behind).reshape([x.shape[i] for i in order]).transpose(np.argsort(order))
        return (self.expand(cotangent, x) * others,)


@dataclass(frozen=True, slots=True)
class RealReduction(Reduction):
    """Base of the reductions of real numbers."""

    def infer(self, x: TensorType) -> TensorType:
        expect_float(x)
        return Reduction.infer(self, x)

    def sum(self, x: Array) -> Array:
        return np.asarray(x.sum(self.axes, keepdims=self.keepdims))


@op("reduce_l1")
@dataclass(frozen=True, slots=True)
class ReduceL1(RealReduction):
    """y = Σ_A |x|; dx = dy·sign x

    >>> ReduceL1(axes=(0,)).forward(np.array([3.0, -4.0]))
    array([7.])
    """

    def forward(self, x: Array) -> Array:
        return self.sum(np.abs(x))

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        (x,) = inputs
        return (self.expand(cotangent, x) * np.sign(x),)


@op("reduce_l2")
@dataclass(frozen=True, slots=True)
class ReduceL2(RealReduction):
    """y = √(Σ_A x²); dx = dy·x/y, 0 where y = 0

    >>> ReduceL2(axes=(0,)).forward(np.array([3.0, -4.0]))
    array([5.])
    """

    def forward(self, x: Array) -> Array:
        return np.sqrt(self.sum(x * x))

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        (x,) = inputs
        y = self.expand(output, x)
        return (self.expand(cotangent, x) * x / np.where(y == 0, y.dtype.type(1), y),)


@op("reduce_sum_square")
@dataclass(frozen=True, slots=True)
class ReduceSumSquare(RealReduction):
    """y = Σ_A x²; dx = 2·dy·x

    >>> ReduceSumSquare(axes=(0,)).forward(np.array([3.0, -4.0]))
    array([25.])
    """

    def forward(self, x: Array) -> Array:
        return self.sum(x * x)

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        (x,) = inputs
        return (2 * self.expand(cotangent, x) * x,)


@op("reduce_log_sum")
@dataclass(frozen=True, slots=True)
class ReduceLogSum(RealReduction):
    """y = ln Σ_A x; dx = dy / Σ_A x. A sum of 0 gives −∞, one below NaN.

    >>> ReduceLogSum(axes=(0,)).forward(np.array([0.25, 0.75]))
    array([0.])
    """

    def forward(self, x: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.log(self.sum(x))

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        (x,) = inputs
        with np.errstate(divide="ignore"):
            return (self.expand(cotangent / self.sum(x), x),)


@op("reduce_log_sum_exp")
@dataclass(frozen=True, slots=True)
class ReduceLogSumExp(RealReduction):
    """y = ln Σ_A e^x = m + ln Σ_A e^(x − m) with the maximum m, so that nothing overflows; dx = dy·e^(x − y)

    >>> ReduceLogSumExp(axes=(0,)).forward(np.array([1000.0, 1000.0]))
    array([1000.69314718])
    """

    def forward(self, x: Array) -> Array:
        largest = x.max(self.axes, keepdims=True, initial=-np.inf)
        m = np.where(np.isinf(largest), x.dtype.type(0), largest)
        with np.errstate(divide="ignore"):
            y = m + np.log(np.exp(x - m).sum(self.axes, keepdims=True))
        return np.asarray(y if self.keepdims else y.squeeze(self.axes))

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        (x,) = inputs
        return (self.expand(cotangent, x) * np.exp(x - self.expand(output, x)),)


@op("cumulative_sum")
@dataclass(frozen=True, slots=True)
class CumulativeSum(Op):
    """y[i] = Σ_{j ≤ i} x[j] along `axis`; j < i when `exclusive`; from the last element backwards when `reverse`.
    dx is the same sum of dy in the other direction.

    >>> CumulativeSum(axis=0).forward(np.array([1.0, 2.0, 3.0]))
    array([1., 3., 6.])
    >>> CumulativeSum(axis=0, exclusive=True, reverse=True).forward(np.array([1.0, 2.0, 3.0]))
    array([5., 3., 0.])
    """

    axis: int
    exclusive: bool = False
    reverse: bool = False

    def infer(self, x: TensorType) -> TensorType:
        normal_axes((self.axis,), x.rank)
        expect(x.dtype != "bool", "sums of bool are not defined")
        return x

    def forward(self, x: Array) -> Array:
        x = np.flip(x, self.axis) if self.reverse else x
        y = np.cumsum(x, self.axis, dtype=x.dtype)
        if self.exclusive:
            y = np.roll(y, 1, self.axis)
            np.moveaxis(y, self.axis, 0)[:1] = 0
        return np.flip(y, self.axis) if self.reverse else y

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        return (CumulativeSum(self.axis, self.exclusive, not self.reverse).forward(cotangent),)

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        return None if axis == self.axis % types[0].rank else (low, high)

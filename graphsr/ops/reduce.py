"""Reductions: one value from all elements along some axes.

Symbols: x input, y output, A the set of reduced axes, |A| the number of elements along them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphsr.ir import TensorType
from graphsr.op import Array, Op, expect, expect_float, expect_positive, op


@dataclass(frozen=True, slots=True)
class Reduction(Op):
    """Base of the reductions. Negative axes count from the last; no axes reduce nothing. With `keepdims` a reduced
    axis stays as an axis of size 1."""

    axes: tuple[int, ...]
    keepdims: bool = True

    def infer(self, x: TensorType) -> TensorType:
        reduced = normal_axes(self.axes, x.rank)
        if not self.keepdims:
            return TensorType(x.dtype, tuple(n for i, n in enumerate(x.shape) if i not in reduced))
        return TensorType(x.dtype, tuple(1 if i in reduced else n for i, n in enumerate(x.shape)))

    def expand(self, y: Array, x: Array) -> Array:
        """An array shaped like the output, as a read-only view shaped like x."""
        if not self.keepdims:
            y = np.expand_dims(y, normal_axes(self.axes, x.ndim))
        return np.broadcast_to(y, x.shape)

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        reduced = normal_axes(self.axes, types[0].rank)
        moved = not self.keepdims and reduced
        return None if axis in reduced or moved else (low, high)


@op("reduce_sum")
@dataclass(frozen=True, slots=True)
class ReduceSum(Reduction):
    """y = Σ_A x; dx = dy for every summand. Integers stay in their dtype.

    >>> ReduceSum(axes=(1,), keepdims=False).forward(np.array([[1.0, 2.0], [3.0, 4.0]]))
    array([3., 7.])
    """

    def forward(self, x: Array) -> Array:
        return np.asarray(x.sum(self.axes, dtype=x.dtype, keepdims=self.keepdims))

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        return (self.expand(cotangent, inputs[0]),)


@op("reduce_mean")
@dataclass(frozen=True, slots=True)
class ReduceMean(Reduction):
    """y = Σ_A x / |A|; dx = dy / |A|.

    >>> ReduceMean(axes=(0,)).forward(np.array([[1.0, 2.0], [3.0, 4.0]]))
    array([[2., 3.]])
    """

    def infer(self, x: TensorType) -> TensorType:
        expect_float(x)
        _expect_elements(x, self.axes)
        return Reduction.infer(self, x)

    def forward(self, x: Array) -> Array:
        return np.asarray(x.mean(self.axes, keepdims=self.keepdims))

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        (x,) = inputs
        count = x.size // max(output.size, 1)
        return (self.expand(cotangent, x) / cotangent.dtype.type(count),)


@op("reduce_max")
@dataclass(frozen=True, slots=True)
class ReduceMax(Reduction):
    """y = max_A x, NaN where any of them is NaN; the whole of dy goes to the first maximum in row-major order.

    >>> ReduceMax(axes=(-1,)).forward(np.array([[1.0, 2.0], [3.0, np.nan]]))
    array([[ 2.],
           [nan]])
    """

    def infer(self, x: TensorType) -> TensorType:
        _expect_elements(x, self.axes)
        return Reduction.infer(self, x)

    def forward(self, x: Array) -> Array:
        return np.asarray(x.max(self.axes, keepdims=self.keepdims))

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        (x,) = inputs
        reduced = normal_axes(self.axes, x.ndim)
        order = [i for i in range(x.ndim) if i not in reduced] + list(reduced)
        rows = x.transpose(order).reshape(output.size, -1)  # one row for each output
        first = np.zeros(rows.shape, bool)
        first[np.arange(output.size), rows.argmax(axis=1)] = True  # argmax takes NaN for the largest
        shape = [x.shape[i] for i in order]
        mask = first.reshape(shape).transpose(np.argsort(order))
        return (np.where(mask, self.expand(cotangent, x), cotangent.dtype.type(0)),)


def normal_axes(axes: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """Axes as positions 0 … rank−1 in ascending order; negative ones count from the last.

    Raises `GraphError` for an axis that does not exist or is named twice.
    """
    for axis in axes:
        expect(-rank <= axis < rank, f"axis {axis} does not exist in {rank} dimensions")
    normal = tuple(sorted(axis % rank for axis in axes))
    expect(len(set(normal)) == len(normal), f"axes {axes} name an axis of {rank} dimensions twice")
    return normal


def _expect_elements(x: TensorType, axes: tuple[int, ...]) -> None:
    for axis in normal_axes(axes, x.rank):
        expect_positive(f"number of elements to reduce along axis {axis}", x.shape[axis])

"""Arrays that follow from sizes alone: constants of a given shape, ranges, unit matrices, and the shape of an input.

Their attributes may be open sizes, so that shape arithmetic of an imported graph is folded when sizes are bound.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphsr.dim import Dim, Size
from graphsr.errors import GraphError
from graphsr.ir import DTYPES, TensorType
from graphsr.op import Array, Op, expect, op


class Generated(Op):
    """Base of the ops without a differentiable input."""

    __slots__ = ()

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        return (None,) * len(inputs)


@op("full")
@dataclass(frozen=True, slots=True)
class Full(Generated):
    """An array of this shape and dtype with one value everywhere (ONNX's ConstantOfShape).

    >>> Full(shape=(2,), value=0.5).forward()
    array([0.5, 0.5], dtype=float32)
    """

    shape: tuple[Size, ...]
    value: float = 0.0
    dtype: str = "float32"

    def infer(self) -> TensorType:
        return TensorType(self.dtype, self.shape)

    def forward(self) -> Array:
        return np.full(self.infer().dims, self.value, self.dtype)


@op("arange")
@dataclass(frozen=True, slots=True)
class Arange(Generated):
    """start, start + step, … as long as they lie before stop (behind it, with a negative step): int64.

    While sizes are open the range is taken not to be empty.

    >>> Arange(stop=7, start=1, step=2).forward()
    array([1, 3, 5])
    """

    stop: Size
    start: Size = 0
    step: int = 1

    def infer(self) -> TensorType:
        expect(self.step != 0, "step must not be zero")
        distance = self.stop - self.start if self.step > 0 else self.start - self.stop
        length = (distance + abs(self.step) - 1) // abs(self.step)
        return TensorType("int64", (max(length, 0) if isinstance(length, int) else length,))

    def forward(self) -> Array:
        (length,) = self.infer().dims
        return known(self.start) + self.step * np.arange(length, dtype=np.int64)


@op("eye")
@dataclass(frozen=True, slots=True)
class Eye(Generated):
    """y[i, j] = 1 on the diagonal j = i + k, else 0.

    >>> Eye(rows=2, columns=3, k=1).forward()
    array([[0., 1., 0.],
           [0., 0., 1.]], dtype=float32)
    """

    rows: Size
    columns: Size
    k: int = 0
    dtype: str = "float32"

    def infer(self) -> TensorType:
        expect(self.dtype in DTYPES, f"dtype {self.dtype!r} is not one of {', '.join(DTYPES)}")
        return TensorType(self.dtype, (self.rows, self.columns))

    def forward(self) -> Array:
        return np.eye(known(self.rows), known(self.columns), self.k, dtype=self.dtype)


@op("shape_of")
@dataclass(frozen=True, slots=True)
class ShapeOf(Generated):
    """The sizes of the axes start … stop−1 of x, as int64; by the rules of Python's slices.

    >>> ShapeOf(start=1).forward(np.zeros((4, 3, 2)))
    array([3, 2])
    """

    start: int = 0
    stop: int | None = None

    def infer(self, x: TensorType) -> TensorType:
        return TensorType("int64", (len(x.shape[self.start : self.stop]),))

    def forward(self, x: Array) -> Array:
        return np.array(x.shape[self.start : self.stop], np.int64)

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        return None


def known(size: Size) -> int:
    """An attribute that has been bound, for use in `forward`."""
    if isinstance(size, Dim):
        raise GraphError(f"size {size} is still open: bind the graph first")
    return size

"""Which element is largest: the place of an extremum, the k largest, and the largest as 1 among zeros."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphsr.dim import Dim
from graphsr.ir import TensorType
from graphsr.op import Array, Op, expect, expect_float, expect_positive, op
from graphsr.ops.reduce import normal_axes


@dataclass(frozen=True, slots=True)
class Place(Op):
    """Base of the places of extrema along one axis: int64, counted from 0. A NaN counts as the extremum. Of equal
    elements the first is taken, or the last with `last`."""

    axis: int
    keepdims: bool = True
    last: bool = False

    def infer(self, x: TensorType) -> TensorType:
        (axis,) = normal_axes((self.axis,), x.rank)
        expect_positive(f"number of elements along axis {axis}", x.shape[axis])
        return TensorType("int64", (*x.shape[:axis], *([1] if self.keepdims else []), *x.shape[axis + 1 :]))

    def place(self, x: Array) -> Array:
        """The place of the first extremum."""
        raise NotImplementedError

    def forward(self, x: Array) -> Array:
        if not self.last:
            return self.place(x)
        return x.shape[self.axis] - 1 - self.place(np.flip(x, self.axis))

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        return (None,)

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        return None if axis == self.axis % types[0].rank or not self.keepdims else (low, high)


@op("arg_max")
@dataclass(frozen=True, slots=True)
class ArgMax(Place):
    """y = argmax x along `axis`

    >>> ArgMax(axis=0, keepdims=False).forward(np.array([1.0, 3.0, 3.0]))
    array(1)
    """

    def place(self, x: Array) -> Array:
        return np.asarray(np.argmax(x, self.axis, keepdims=self.keepdims))


@op("arg_min")
@dataclass(frozen=True, slots=True)
class ArgMin(Place):
    """y = argmin x along `axis`

    >>> ArgMin(axis=0, last=True).forward(np.array([1.0, 3.0, 1.0]))
    array([2])
    """

    def place(self, x: Array) -> Array:
        return np.asarray(np.argmin(x, self.axis, keepdims=self.keepdims))


@op("hardmax")
@dataclass(frozen=True, slots=True)
class Hardmax(Op):
    """y = 1 at the first maximum along `axis`, else 0; constant between its steps, so dx = 0.

    >>> Hardmax().forward(np.array([1.0, 3.0, 3.0]))
    array([0., 1., 0.])
    """

    axis: int = -1

    def infer(self, x: TensorType) -> TensorType:
        expect_float(x)
        normal_axes((self.axis,), x.rank)
        return x

    def forward(self, x: Array) -> Array:
        y = np.zeros_like(x)
        if x.size:
            np.put_along_axis(y, x.argmax(self.axis, keepdims=True), 1, self.axis)
        nan = np.isnan(x).any(self.axis, keepdims=True)
        return np.where(nan, x.dtype.type(np.nan), y)

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        return (np.zeros_like(inputs[0]),)

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        return None if axis == self.axis % types[0].rank else (low, high)


@op("top_k")
@dataclass(frozen=True, slots=True)
class TopK(Op):
    """The k largest elements along `axis` in descending order, or the k smallest in ascending order.

    Of equal elements the one that comes first is first; NaN is larger than every number. `output="values"` gives the
    elements themselves, `"indices"` their places (int64): one node for each. dy goes back to where the values were.

    >>> TopK(k=2).forward(np.array([1.0, 3.0, 2.0]))
    array([3., 2.])
    >>> TopK(k=2, output="indices").forward(np.array([1.0, 3.0, 2.0]))
    array([1, 2])
    """

    k: int
    axis: int = -1
    largest: bool = True
    output: str = "values"

    def infer(self, x: TensorType) -> TensorType:
        (axis,) = normal_axes((self.axis,), x.rank)
        n = x.shape[axis]
        expect(self.output in ("values", "indices"), f"output {self.output!r} is neither 'values' nor 'indices'")
        expect(self.k >= 0 and (isinstance(n, Dim) or self.k <= n), f"k = {self.k} of {n} elements cannot be taken")
        shape = (*x.shape[:axis], self.k, *x.shape[axis + 1 :])
        return TensorType("int64" if self.output == "indices" else x.dtype, shape)

    def forward(self, x: Array) -> Array:
        places = self._places(x)
        return places if self.output == "indices" else np.take_along_axis(x, places, self.axis)

    def _places(self, x: Array) -> Array:
        """A stable sort keeps equal elements in order; backwards it needs the array backwards, too."""
        if self.largest:
            n = x.shape[self.axis]
            order = n - 1 - np.flip(np.argsort(np.flip(x, self.axis), self.axis, kind="stable"), self.axis)
        else:
            order = np.argsort(x, self.axis, kind="stable")
        return order.take(np.arange(self.k), self.axis)

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        (x,) = inputs
        if self.output == "indices":
            return (None,)
        dx = np.zeros(x.shape, cotangent.dtype)
        np.put_along_axis(dx, self._places(x), cotangent, self.axis)
        return (dx,)

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        return None if axis == self.axis % types[0].rank else (low, high)

"""Pooling over any number of spatial axes: the maximum and where it lies, the mean, the p-norm of a sliding window.

`MaxPool2d` and `AvgPool2d` are the same for images; the windows lie as there, also in ceil mode. `padding` is (before
axis 1, before axis 2, …, behind axis 1, behind axis 2, …), as in ONNX.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from math import prod

import numpy as np

from graphsr.dim import Size, smaller
from graphsr.ir import TensorType
from graphsr.op import Array, Op, expect, expect_float, expect_positive, expect_rank, op
from graphsr.ops.conv_nd import last, taps_nd

Sizes = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PoolNd(Op):
    """Base of the pools: where their windows lie."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    ceil_mode: bool = False

    def infer(self, x: TensorType) -> TensorType:
        axes = len(self.kernel)
        lengths = (len(self.stride), len(self.dilation), len(self.padding))
        expect(axes >= 1 and lengths == (axes, axes, 2 * axes), f"the attributes of {self} do not fit together")
        expect_rank("input", x, axes + 2)
        expect_float(x)
        for name in ("kernel", "stride", "dilation"):
            expect(min(getattr(self, name)) >= 1, f"{name} {getattr(self, name)} must be at least 1")
        expect(min(self.padding) >= 0, f"padding {self.padding} must not be negative")
        for a in range(axes):
            widest = max(self.padding[a], self.padding[a + axes])
            expect(widest < self.span(a), f"padding {widest} must be less than the {self.span(a)} elements of a window")
        return TensorType(x.dtype, (*x.shape[:2], *(self._windows(n, a) for a, n in enumerate(x.shape[2:]))))

    def span(self, a: int) -> int:
        """How many elements a window reaches over along spatial axis a."""
        return self.dilation[a] * (self.kernel[a] - 1) + 1

    def _windows(self, n: Size, a: int) -> Size:
        s, before, behind = self.stride[a], self.padding[a], self.padding[a + len(self.kernel)]
        room = n + before + behind - self.span(a)
        windows = room // s + 1
        if self.ceil_mode:
            starts = (n + before - 1) // s + 1  # the windows that start before the end of the input
            windows = smaller((room + s - 1) // s + 1, starts)
        expect_positive("output size", windows)
        return windows

    def windows(self, x: Array) -> Sizes:
        """The number of windows along each axis of an array shaped like the input, of any dtype."""
        return self.infer(TensorType("float32", x.shape)).dims[2:]

    def padded(self, x: Array, fill: float) -> Array:
        """x with `fill` around it, as far as the windows reach; ceil mode may reach further than the padding."""
        widths = [(0, 0), (0, 0)]
        for a, m in enumerate(self.windows(x)):
            end = self.stride[a] * (m - 1) + self.span(a)
            widths.append((self.padding[a], max(0, end - self.padding[a] - x.shape[2 + a])))
        return np.pad(x, widths, constant_values=fill)

    def unpadded(self, padded: Array, x: Array) -> Array:
        return padded[last(slice(p, p + n) for p, n in zip(self.padding, x.shape[2:], strict=False))]

    def taps(self, padded: Array, x: Array) -> Iterator[Array]:
        """For each position in the window, in row-major order, the view [n, c, windows…] that it covers."""
        return (t for _, t in taps_nd(padded, self.kernel, self.stride, self.dilation, self.windows(x)))

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        if types[0].rank != 4:
            return None
        s, p = self.stride[axis - 2], self.padding[axis - 2]
        return low * s - p, high * s - p + self.span(axis - 2) - 1


@op("max_pool_nd")
@dataclass(frozen=True, slots=True)
class MaxPoolNd(PoolNd):
    """y[n,c,h…] = max_i… x[n, c, s·h + d·i − p…], positions outside x being −∞; NaN where the window has a NaN.

    `output="values"` gives these, `output="indices"` where they lie (int64): the place of the first maximum among all
    elements of x in row-major order or, with `column_major`, in the order in which the first spatial axis of each
    channel is the fastest (ONNX's storage_order 1). The whole of dy goes to the first maximum.

    >>> x = np.array([[[1.0, 3.0, 2.0]]])
    >>> MaxPoolNd((2,), (1,), (0, 0), (1,)).forward(x)
    array([[[3., 3.]]])
    >>> MaxPoolNd((2,), (1,), (0, 0), (1,), output="indices").forward(x)
    array([[[1, 1]]])
    """

    output: str = "values"
    column_major: bool = False

    def infer(self, x: TensorType) -> TensorType:
        expect(self.output in ("values", "indices"), f"output {self.output!r} is neither 'values' nor 'indices'")
        y = PoolNd.infer(self, x)
        return TensorType("int64", y.shape) if self.output == "indices" else y

    def forward(self, x: Array) -> Array:
        if self.output == "values":
            return reduce(np.maximum, self.taps(self.padded(x, -np.inf), x)).copy()
        image = x.shape[2:]
        pixels = np.arange(prod(image))
        within = pixels.reshape(image[::-1]).T if self.column_major else pixels.reshape(image)
        planes = np.arange(0, x.size, prod(image)).reshape(*x.shape[:2], *[1] * len(image))
        return np.take_along_axis(self._stack(within + planes, -1), self._first(x), 0)[0]

    def _stack(self, x: Array, fill: float) -> Array:
        """[positions in the window, n, c, windows…]"""
        return np.stack(list(self.taps(self.padded(x, fill), x)))

    def _first(self, x: Array) -> Array:
        """The position in each window of its first maximum, or of its first NaN, with an axis of size 1 before it."""
        return self._stack(x, -np.inf).argmax(axis=0, keepdims=True)

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        (x,) = inputs
        if self.output == "indices":
            return (None,)
        first, d_padded = self._first(x)[0], np.zeros_like(self.padded(x, 0))
        for position, d_tap in enumerate(self.taps(d_padded, x)):
            d_tap += np.where(first == position, cotangent, cotangent.dtype.type(0))
        return (self.unpadded(d_padded, x),)


@op("avg_pool_nd")
@dataclass(frozen=True, slots=True)
class AvgPoolNd(PoolNd):
    """y[n,c,h…] = Σ_i… x[n, c, s·h + d·i − p…] / count[h…], positions outside x being zero.

    count is the number of positions of the window that lie in x or, with `count_include_pad`, in x and its padding;
    what ceil mode adds behind the padding never counts.

    >>> AvgPoolNd((2,), (1,), (1, 0), (1,)).forward(np.array([[[2.0, 4.0]]]))
    array([[[2., 3.]]])
    """

    count_include_pad: bool = False

    def forward(self, x: Array) -> Array:
        return sum(self.taps(self.padded(x, 0), x), np.zeros((), x.dtype)) / self._count(x)

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        (x,) = inputs
        share, d_padded = cotangent / self._count(x), np.zeros_like(self.padded(x, 0))
        for d_tap in self.taps(d_padded, x):
            d_tap += share
        return (self.unpadded(d_padded, x),)

    def _count(self, x: Array) -> Array:
        """count[windows…], the product of the counts along each axis; at least 1, so that an empty window is 0."""
        count, axes = np.ones((), np.int64), len(self.kernel)
        for a, m in enumerate(self.windows(x)):
            before, behind = (self.padding[a], self.padding[a + axes]) if self.count_include_pad else (0, 0)
            first = np.arange(m) * self.stride[a] - self.padding[a]
            position = first + self.dilation[a] * np.arange(self.kernel[a])[:, None]
            inside = ((position >= -before) & (position < x.shape[2 + a] + behind)).sum(axis=0)
            count = count[..., None] * inside
        return np.maximum(count, 1).astype(x.dtype)


@op("lp_pool_nd")
@dataclass(frozen=True, slots=True)
class LpPoolNd(PoolNd):
    """y[n,c,h…] = (Σ_i… |x[n, c, s·h + d·i − p…]|^p)^(1/p), positions outside x being zero.

    dx = dy · sign x · (|x|/y)^(p−1), summed over the windows that hold x; 0 where y = 0.

    >>> LpPoolNd((2,), (1,), (0, 0), (1,)).forward(np.array([[[3.0, -4.0]]]))
    array([[[5.]]])
    """

    p: int = 2

    def infer(self, x: TensorType) -> TensorType:
        expect(self.p >= 1, f"p must be at least 1, got {self.p}")
        return PoolNd.infer(self, x)

    def forward(self, x: Array) -> Array:
        powers = np.abs(self.padded(x, 0)) ** self.p
        return sum(self.taps(powers, x), np.zeros((), x.dtype)) ** x.dtype.type(1 / self.p)

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        (x,) = inputs
        padded, y = self.padded(x, 0), np.where(output == 0, output.dtype.type(1), output)
        d_padded = np.zeros_like(padded)
        for tap, d_tap in zip(self.taps(padded, x), self.taps(d_padded, x), strict=True):
            d_tap += cotangent * np.sign(tap) * (np.abs(tap) / y) ** (self.p - 1)
        return (self.unpadded(d_padded, x),)

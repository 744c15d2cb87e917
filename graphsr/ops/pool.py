"""Pooling: the maximum or the mean of a sliding window, or of the whole image.

Symbols: x[n, c, h, w] input, y[n, c, h, w] output; k kernel size, s stride, d dilation, p padding. The windows lie as
in convolution: output h covers the rows s·h + d·i − p_top for i in 0 … Kh−1.

The number of windows along an axis with n pixels, padding p and p' before and after it, and windows that span
e = d·(k−1) + 1 pixels is ⌊(n + p + p' − e) / s⌋ + 1. In ceil mode, ⌈·⌉ replaces ⌊·⌋, so that the last window may
reach over the padded edge; it must still start before the end of the input (PyTorch, ONNX since version 19).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from graphsr.dim import Size, smaller
from graphsr.ir import TensorType
from graphsr.op import Array, Op, expect, expect_float, expect_positive, expect_rank, op
from graphsr.ops.reduce import ReduceMax, ReduceMean
from graphsr.ops.windows import taps


@op("max_pool2d")
@dataclass(frozen=True, slots=True)
class MaxPool2d(Op):
    """y[n,c,h,w] = max_i max_j x[n, c, s·h + d·i − p_top, s·w + d·j − p_left]

    Positions outside x are −∞; a window with a NaN gives NaN. The whole of dy goes to the first maximum of the
    window in row-major order.

    >>> x = np.arange(9.0).reshape(1, 1, 3, 3)
    >>> MaxPool2d(kernel=(2, 2), stride=(2, 2), ceil_mode=True).forward(x)
    array([[[[4., 5.],
             [7., 8.]]]])
    >>> MaxPool2d(kernel=(1, 2)).forward(np.array([[[[1.0, np.nan, 2.0, 3.0]]]]))
    array([[[[nan, nan,  3.]]]])
    """

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, left, bottom, right
    dilation: tuple[int, int] = (1, 1)
    ceil_mode: bool = False

    def infer(self, x: TensorType) -> TensorType:
        return _infer(self, x)

    def forward(self, x: Array) -> Array:
        ho, wo = _output_size(self, x)
        y = np.full((*x.shape[:2], ho, wo), -np.inf, x.dtype)
        for tap in _taps(self, _padded(self, x, (ho, wo), -np.inf), (ho, wo)):
            np.maximum(y, tap, out=y)
        return y

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        (x,), out = inputs, (output.shape[2], output.shape[3])
        padded = _padded(self, x, out, -np.inf)
        d_padded = np.zeros_like(padded)
        waiting = np.ones(output.shape, bool)  # windows whose maximum has not come yet
        for tap, d_tap in zip(_taps(self, padded, out), _taps(self, d_padded, out), strict=True):
            here = waiting & ((tap == output) | np.isnan(tap))
            d_tap += np.where(here, cotangent, cotangent.dtype.type(0))
            waiting &= ~here
        return (_unpadded(self, d_padded, x),)

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        return _needs(self, low, high, axis)


@op("avg_pool2d")
@dataclass(frozen=True, slots=True)
class AvgPool2d(Op):
    """y[n,c,h,w] = Σ_i Σ_j x[n, c, s·h + d·i − p_top, s·w + d·j − p_left] / count[h,w]

    Positions outside x are zero. count is the number of positions of the window that lie in x or, with
    `count_include_pad`, in x and its padding; what ceil mode adds behind the padding never counts.

    >>> AvgPool2d(kernel=(1, 2), padding=(0, 1, 0, 0)).forward(np.array([[[[2.0, 4.0]]]]))
    array([[[[2., 3.]]]])
    """

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    ceil_mode: bool = False
    count_include_pad: bool = False
    dilation: tuple[int, int] = (1, 1)

    def infer(self, x: TensorType) -> TensorType:
        return _infer(self, x)

    def forward(self, x: Array) -> Array:
        ho, wo = _output_size(self, x)
        y = np.zeros((*x.shape[:2], ho, wo), x.dtype)
        for tap in _taps(self, _padded(self, x, (ho, wo), 0), (ho, wo)):
            y += tap
        return y / self._count(x.shape, (ho, wo)).astype(x.dtype)

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        (x,), out = inputs, (output.shape[2], output.shape[3])
        share = cotangent / self._count(x.shape, out).astype(cotangent.dtype)
        d_padded = np.zeros_like(_padded(self, x, out, 0))
        for d_tap in _taps(self, d_padded, out):
            d_tap += share
        return (_unpadded(self, d_padded, x),)

    def _count(self, shape: tuple[int, ...], out: tuple[int, int]) -> Array:
        """count[h, w], the product of the counts along each axis; at least 1, so that an empty window is 0."""
        along = []
        for a in (0, 1):
            before, after = (self.padding[a], self.padding[a + 2]) if self.count_include_pad else (0, 0)
            first = np.arange(out[a]) * self.stride[a] - self.padding[a]
            position = first + self.dilation[a] * np.arange(self.kernel[a])[:, None]
            along.append(((position >= -before) & (position < shape[2 + a] + after)).sum(axis=0))
        return np.maximum(along[0][:, None] * along[1], 1)

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        return _needs(self, low, high, axis)


@op("global_avg_pool")
@dataclass(frozen=True, slots=True)
class GlobalAvgPool(Op):
    """y[n,c,0,0] = Σ_h Σ_w x[n,c,h,w] / (H·W)

    >>> GlobalAvgPool().forward(np.array([[[[1.0, 2.0]], [[3.0, 5.0]]]])).ravel()
    array([1.5, 4. ])
    """

    def infer(self, x: TensorType) -> TensorType:
        expect_rank("input", x, 4)
        return _MEAN.infer(x)

    def forward(self, x: Array) -> Array:
        return _MEAN.forward(x)

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        return _MEAN.vjp(inputs, output, cotangent)

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        return None


@op("global_max_pool")
@dataclass(frozen=True, slots=True)
class GlobalMaxPool(Op):
    """y[n,c,0,0] = max_h max_w x[n,c,h,w]; the whole of dy goes to the first maximum.

    >>> GlobalMaxPool().forward(np.array([[[[1.0, 2.0]], [[3.0, np.nan]]]])).ravel()
    array([ 2., nan])
    """

    def infer(self, x: TensorType) -> TensorType:
        expect_rank("input", x, 4)
        expect_float(x)
        return _MAX.infer(x)

    def forward(self, x: Array) -> Array:
        return _MAX.forward(x)

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        return _MAX.vjp(inputs, output, cotangent)

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        return None


_MEAN, _MAX = ReduceMean(axes=(2, 3)), ReduceMax(axes=(2, 3))

Pool: TypeAlias = "MaxPool2d | AvgPool2d"


def _infer(pool: Pool, x: TensorType) -> TensorType:
    expect_rank("input", x, 4)
    expect_float(x)
    lengths = tuple(map(len, (pool.kernel, pool.stride, pool.dilation, pool.padding)))
    expect(
        lengths == (2, 2, 2, 4), f"kernel, stride and dilation are (h, w), padding (top, left, bottom, right): {pool}"
    )
    expect(min(pool.kernel) >= 1, f"kernel {pool.kernel} must be at least 1")
    expect(min(pool.stride) >= 1, f"stride {pool.stride} must be at least 1")
    expect(min(pool.dilation) >= 1, f"dilation {pool.dilation} must be at least 1")
    expect(min(pool.padding) >= 0, f"padding {pool.padding} must not be negative")
    for a in (0, 1):
        widest = max(pool.padding[a], pool.padding[a + 2])
        expect(widest < _span(pool, a), f"padding {widest} must be less than the {_span(pool, a)} pixels of a window")
    return TensorType(x.dtype, (*x.shape[:2], *(_windows(pool, x.shape[2 + a], a) for a in (0, 1))))


def _span(pool: Pool, a: int) -> int:
    """e: how many pixels a window reaches over, along height (a = 0) or width (1)."""
    return pool.dilation[a] * (pool.kernel[a] - 1) + 1


def _windows(pool: Pool, n: Size, a: int) -> Size:
    """The number of windows along an axis with n pixels."""
    s, before, after = pool.stride[a], pool.padding[a], pool.padding[a + 2]
    room = n + before + after - _span(pool, a)
    windows = room // s + 1
    if pool.ceil_mode:
        starts = (n + before - 1) // s + 1  # the windows that start before the end of the input
        windows = smaller((room + s - 1) // s + 1, starts)
    expect_positive("output size", windows)
    return windows


def _output_size(pool: Pool, x: Array) -> tuple[int, int]:
    ho, wo = _infer(pool, TensorType(x.dtype.name, x.shape)).dims[2:]
    return ho, wo


def _padded(pool: Pool, x: Array, out: tuple[int, int], fill: float) -> Array:
    """x with `fill` around it, as far as the windows reach; ceil mode may reach further than the padding."""
    widths = [(0, 0), (0, 0)]
    for a in (0, 1):
        before = pool.padding[a]
        end = pool.stride[a] * (out[a] - 1) + _span(pool, a)
        widths.append((before, max(0, end - before - x.shape[2 + a])))
    return np.pad(x, widths, constant_values=fill)


def _unpadded(pool: Pool, padded: Array, x: Array) -> Array:
    top, left = pool.padding[:2]
    return padded[:, :, top : top + x.shape[2], left : left + x.shape[3]]


def _taps(pool: Pool, padded: Array, out: tuple[int, int]) -> Iterator[Array]:
    """For each position in the window the view [n, c, ho, wo] of the input that it covers."""
    return (tap for _, _, tap in taps(padded, pool.kernel, pool.stride, pool.dilation, out))


def _needs(pool: Pool, low: int, high: int, axis: int) -> tuple[int, int]:
    a = axis - 2
    s, p = pool.stride[a], pool.padding[a]
    return low * s - p, high * s - p + _span(pool, a) - 1

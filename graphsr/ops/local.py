"""Local connections: a convolution whose weights differ from place to place (LeCun 1989; darknet's [local]).

Symbols: x[n, c, h, w] input, weight[h, w, o, c, i, j], bias[o, h, w], y[n, o, h, w] output; s stride, p padding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from graphsr.dim import Size, product
from graphsr.ir import TensorType
from graphsr.op import Array, Op, expect, expect_float, expect_positive, expect_rank, expect_size, op, same_dtype
from graphsr.ops.windows import taps


@op("local_conv2d")
@dataclass(frozen=True, slots=True)
class LocalConv2d(Op):
    """y[n,o,h,w] = bias[o,h,w] + Σ_c Σ_i Σ_j weight[h,w,o,c,i,j] · x[n, c, s·h + i − p_top, s·w + j − p_left]

    Positions outside x are zero. The weights fix the size of the output, and so that of x up to the stride.

    >>> x, weight = np.array([[[[1.0, 2.0]]]]), np.array([3.0, 4.0]).reshape(1, 2, 1, 1, 1, 1)
    >>> LocalConv2d().forward(x, weight, np.zeros((1, 1, 2)))
    array([[[[3., 8.]]]])
    """

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, left, bottom, right

    def infer(self, x: TensorType, weight: TensorType, bias: TensorType) -> TensorType:
        expect_rank("input", x, 4)
        expect_rank("weight", weight, 6)
        dtype = same_dtype(x, weight, bias)
        expect_float(x)
        expect(min(self.stride) >= 1, f"stride {self.stride} must be at least 1")
        expect(min(self.padding) >= 0, f"padding {self.padding} must not be negative")
        ho, wo, co, ci, kh, kw = weight.dims
        expect_size("input channels", x.shape[1], ci)
        expect(bias.shape == (co, ho, wo), f"bias must have shape ({co}, {ho}, {wo}), got {bias}")
        for a, (kernel, out) in enumerate(((kh, ho), (kw, wo))):
            windows = (x.shape[2 + a] + self.padding[a] + self.padding[a + 2] - kernel) // self.stride[a] + 1
            expect_positive("output size", windows)
            expect_size("output size", out, windows)
        return TensorType(dtype, (x.shape[0], co, ho, wo))

    def forward(self, x: Array, weight: Array, bias: Array) -> Array:
        y = np.zeros((len(x), *bias.shape), x.dtype)
        for i, j, tap in self._taps(self._padded(x), weight):
            y += np.einsum("hwoc,nchw->nohw", weight[..., i, j], tap)
        return y + bias

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        """dx: each tap's gradient added back where the tap was read; dweight: Σ_n dy · tap; dbias: Σ_n dy."""
        x, weight, _ = inputs
        padded = self._padded(x)
        d_padded, d_weight = np.zeros_like(padded), np.zeros_like(weight)
        for (i, j, tap), (_, _, d_tap) in zip(self._taps(padded, weight), self._taps(d_padded, weight), strict=True):
            d_weight[..., i, j] = np.einsum("nohw,nchw->hwoc", cotangent, tap)
            d_tap += np.einsum("hwoc,nohw->nchw", weight[..., i, j], cotangent)
        top, left = self.padding[:2]
        return d_padded[:, :, top : top + x.shape[2], left : left + x.shape[3]], d_weight, cotangent.sum(axis=0)

    def _padded(self, x: Array) -> Array:
        top, left, bottom, right = self.padding
        return np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))

    def _taps(self, padded: Array, weight: Array) -> Iterator[tuple[int, int, Array]]:
        return taps(padded, weight.shape[4:], self.stride, (1, 1), weight.shape[:2])

    def macs(self, inputs: tuple[TensorType, ...], output: TensorType) -> Size:
        return output.size * product(inputs[1].shape[3:])

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        return None  # what a pixel means depends on where it lies: the image cannot be cut

"""Convolution and transposed convolution.

Symbols: x[n, ci, h, w] input, w[co, ci, i, j] weight (OIHW), b[co] bias, y[n, co, h, w] output; s stride,
d dilation, p padding, k kernel size. Cross-correlation, as in every deep-learning library: the kernel is not
flipped (Dumoulin & Visin, "A guide to convolution arithmetic for deep learning", 2016).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from graphsr.dim import Dim, Size, product
from graphsr.errors import GraphError
from graphsr.ir import TensorType
from graphsr.op import (
    Array,
    Op,
    expect,
    expect_float,
    expect_positive,
    expect_rank,
    expect_size,
    op,
    same_dtype,
)
from graphsr.ops.windows import taps
from graphsr.ops.winograd import winograd_conv2d

N = TypeVar("N", int, "int | Dim")
"""A size that is known in `forward` and may be open in `infer`."""

ALGORITHMS = ("direct", "im2col", "winograd_f2", "winograd_f4", "winograd_f6")
"""How a convolution is computed: `winograd_fm` is F(m,3) of Lavin & Gray 2015; the others are exact sums."""


@op("conv2d")
@dataclass(frozen=True, slots=True)
class Conv2d(Op):
    """y[n,o,h,w] = b[o] + Σ_c Σ_i Σ_j weight[o,c,i,j] · x[n, c, s·h + d·i − p_top, s·w + d·j − p_left]

    Positions outside x are zero. With g groups, output channels o of group o // (Co/g) see only the input
    channels of the same group, and weight is [Co, Ci/g, Kh, Kw].

    >>> x = np.arange(9.0).reshape(1, 1, 3, 3)
    >>> Conv2d().forward(x, np.ones((1, 1, 2, 2)))
    array([[[[ 8., 12.],
             [20., 24.]]]])
    """

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, left, bottom, right
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    algorithm: str = "direct"

    def infer(self, x: TensorType, weight: TensorType, bias: TensorType | None = None) -> TensorType:
        _check_attributes(self)
        expect_rank("input", x, 4)
        expect_rank("weight", weight, 4)
        dtype = same_dtype(x, weight, *([bias] if bias else []))
        expect_float(x)
        (n, ci, h, w), (co, cig, kh, kw) = x.shape, weight.dims
        expect_size("input channels", ci, cig * self.groups)
        expect(co % self.groups == 0, f"{co} output channels do not divide into {self.groups} groups")
        _check_bias(bias, co)
        expect(self.algorithm in ALGORITHMS, f"algorithm {self.algorithm!r} is not one of {ALGORITHMS}")
        expect(
            not self.algorithm.startswith("winograd") or winograd_fits(self, (kh, kw)),
            "Winograd needs a 3x3 kernel, stride 1, dilation 1 and one group",
        )
        top, left, bottom, right = self.padding
        ho = _conv_size(h + top + bottom, kh, self.stride[0], self.dilation[0])
        wo = _conv_size(w + left + right, kw, self.stride[1], self.dilation[1])
        return TensorType(dtype, (n, co, ho, wo))

    def forward(self, x: Array, weight: Array, bias: Array | None = None) -> Array:
        if self.algorithm.startswith("winograd"):
            y = winograd_conv2d(x, weight, self.padding, m=int(self.algorithm[-1]))
        else:
            n, (co, ci, kh, kw) = len(x), weight.shape  # ci of a group
            padded = _pad(x, self.padding)
            ho = _conv_size(padded.shape[2], kh, self.stride[0], self.dilation[0])
            wo = _conv_size(padded.shape[3], kw, self.stride[1], self.dilation[1])
            y = np.zeros((n, self.groups, co // self.groups, ho * wo), x.dtype)
            for i, j, tap in self._taps(padded, (kh, kw), (ho, wo)):
                y += _grouped(weight[:, :, i, j], self.groups) @ tap.reshape(n, self.groups, ci, ho * wo)
            y = y.reshape(n, co, ho, wo)
        return y if bias is None else y + bias[:, None, None]

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        """dx: each tap's gradient added back where the tap was read; dw: Σ_n,h,w cotangent · tap; db: Σ cotangent."""
        x, weight = inputs[:2]
        n, (co, ci, kh, kw), (ho, wo) = len(x), weight.shape, output.shape[2:]
        padded = _pad(x, self.padding)
        d_padded, d_weight = np.zeros_like(padded), np.zeros_like(weight)
        dy = cotangent.reshape(n, self.groups, co // self.groups, ho * wo)
        x_taps, d_taps = self._taps(padded, (kh, kw), (ho, wo)), self._taps(d_padded, (kh, kw), (ho, wo))
        for (i, j, tap), (_, _, d_tap) in zip(x_taps, d_taps, strict=True):
            x_tap = tap.reshape(n, self.groups, ci, ho * wo)
            d_weight[:, :, i, j] = (dy @ x_tap.swapaxes(2, 3)).sum(axis=0).reshape(co, ci)
            d_tap += (_grouped(weight[:, :, i, j], self.groups).swapaxes(1, 2) @ dy).reshape(tap.shape)
        gradients = (_unpad(d_padded, self.padding), d_weight, cotangent.sum(axis=(0, 2, 3)))
        return gradients[: len(inputs)]

    def _taps(self, padded: Array, kernel: tuple[int, int], out: tuple[int, int]) -> Iterator[tuple[int, int, Array]]:
        """For each kernel position (i, j) the view [n, ci, ho, wo] of the input that it multiplies."""
        return taps(padded, kernel, self.stride, self.dilation, out)

    def macs(self, inputs: tuple[TensorType, ...], output: TensorType) -> Size:
        return output.size * product(inputs[1].shape[1:])

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        a = axis - 2
        s, p, reach = self.stride[a], self.padding[a], self.dilation[a] * (types[1].dims[axis] - 1)
        return low * s - p, high * s - p + reach


@op("conv_transpose2d")
@dataclass(frozen=True, slots=True)
class ConvTranspose2d(Op):
    """y[n, o, s·h + d·i − p_top, s·w + d·j − p_left] += Σ_c weight[c,o,i,j] · x[n,c,h,w], plus b[o]

    The gradient of `Conv2d` with respect to its input, used forwards ("deconvolution"). weight is
    [Ci, Co/g, Kh, Kw], as in PyTorch and ONNX. `output_padding` adds rows at the bottom and columns at the
    right: y has height s·(H−1) + d·(Kh−1) + 1 − p_top − p_bottom + output_padding.

    >>> x = np.array([[[[1.0, 2.0]]]])
    >>> ConvTranspose2d(stride=(1, 2)).forward(x, np.ones((1, 1, 1, 2)))
    array([[[[1., 1., 2., 2.]]]])
    """

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    output_padding: tuple[int, int] = (0, 0)
    groups: int = 1

    def infer(self, x: TensorType, weight: TensorType, bias: TensorType | None = None) -> TensorType:
        _check_attributes(self)
        expect(min(self.output_padding) >= 0, f"output padding {self.output_padding} must not be negative")
        expect_rank("input", x, 4)
        expect_rank("weight", weight, 4)
        dtype = same_dtype(x, weight, *([bias] if bias else []))
        expect_float(x)
        (n, ci, h, w), (wci, cog, kh, kw) = x.shape, weight.dims
        expect_size("input channels", ci, wci)
        expect(wci % self.groups == 0, f"{wci} input channels do not divide into {self.groups} groups")
        _check_bias(bias, cog * self.groups)
        return TensorType(dtype, (n, cog * self.groups, *self._output_size((h, w), (kh, kw))))

    def _output_size(self, size: tuple[N, N], kernel: tuple[int, int]) -> tuple[N, N]:
        out: list[N] = []
        for a in (0, 1):
            span = self.stride[a] * (size[a] - 1) + self.dilation[a] * (kernel[a] - 1) + 1
            out.append(span - self.padding[a] - self.padding[2 + a] + self.output_padding[a])
            expect_positive("output size", out[a])
        return out[0], out[1]

    def forward(self, x: Array, weight: Array, bias: Array | None = None) -> Array:
        n, ci, h, w = x.shape
        _, cog, kh, kw = weight.shape
        top, left, bottom, right = self.padding
        ho, wo = self._output_size((h, w), (kh, kw))
        full = np.zeros((n, cog * self.groups, ho + top + bottom, wo + left + right), x.dtype)
        flat = x.reshape(n, self.groups, ci // self.groups, h * w)
        for i, j, tap in taps(full, (kh, kw), self.stride, self.dilation, (h, w)):
            tap += (_grouped(weight[:, :, i, j], self.groups).swapaxes(1, 2) @ flat).reshape(tap.shape)
        y = _unpad(full, self.padding)
        return np.ascontiguousarray(y) if bias is None else y + bias[:, None, None]

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        """The adjoint of the adjoint: dx is the convolution of the cotangent, dw the tap products."""
        x, weight = inputs[:2]
        n, ci, h, w = x.shape
        co, kh, kw = weight.shape[1:]  # co of a group
        padded = _pad(cotangent, self.padding)
        dx, dw = np.zeros((n, self.groups, ci // self.groups, h * w), x.dtype), np.zeros_like(weight)
        flat = x.reshape(dx.shape)
        for i, j, tap in taps(padded, (kh, kw), self.stride, self.dilation, (h, w)):
            dy = tap.reshape(n, self.groups, co, h * w)
            dx += _grouped(weight[:, :, i, j], self.groups) @ dy
            dw[:, :, i, j] = (flat @ dy.swapaxes(2, 3)).sum(axis=0).reshape(ci, co)
        return (dx.reshape(x.shape), dw, cotangent.sum(axis=(0, 2, 3)))[: len(inputs)]

    def macs(self, inputs: tuple[TensorType, ...], output: TensorType) -> Size:
        return inputs[0].size * product(inputs[1].shape[1:])

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        a = axis - 2
        s, p, reach = self.stride[a], self.padding[a], self.dilation[a] * (types[1].dims[axis] - 1)
        return -((reach - low - p) // s), (high + p) // s


def winograd_fits(conv: Conv2d, kernel: tuple[int, int]) -> bool:
    """Whether F(m, 3) computes this convolution: 3x3, stride 1, dilation 1, one group."""
    return kernel == (3, 3) and conv.stride == conv.dilation == (1, 1) and conv.groups == 1


def _check_attributes(conv: Conv2d | ConvTranspose2d) -> None:
    expect(min(conv.stride) >= 1, f"stride {conv.stride} must be at least 1")
    expect(min(conv.dilation) >= 1, f"dilation {conv.dilation} must be at least 1")
    expect(min(conv.padding) >= 0, f"padding {conv.padding} must not be negative")
    expect(conv.groups >= 1, f"groups {conv.groups} must be at least 1")


def _check_bias(bias: TensorType | None, co: int) -> None:
    if bias is not None and bias.shape != (co,):
        raise GraphError(f"bias must have shape ({co},), got {bias}")


def _conv_size(padded: N, kernel: int, stride: int, dilation: int) -> N:
    size: N = (padded - dilation * (kernel - 1) - 1) // stride + 1
    expect_positive("output size", size)
    return size


def _pad(x: Array, padding: tuple[int, int, int, int]) -> Array:
    top, left, bottom, right = padding
    return np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))


def _unpad(x: Array, padding: tuple[int, int, int, int]) -> Array:
    top, left, bottom, right = padding
    return x[:, :, top : x.shape[2] - bottom, left : x.shape[3] - right]


def _grouped(matrix: Array, groups: int) -> Array:
    """[rows, columns] -> [groups, rows per group, columns]: the matrix of one kernel tap, group by group."""
    return matrix.reshape(groups, -1, matrix.shape[1])

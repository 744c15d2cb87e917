"""Convolution and transposed convolution over any number of spatial axes: signals (1), images (2), volumes (3).

`Conv2d` and `ConvTranspose2d` are the same for images, with fast algorithms. Symbols as there: x[n, c, h…] input,
w[co, ci, i…] weight, b[co] bias, s stride, d dilation, p padding, k kernel size; h… and i… stand for one index for each
spatial axis.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product as places
from math import prod
from typing import Any

import numpy as np

from graphsr.dim import Size, product
from graphsr.ir import TensorType
from graphsr.op import Array, Op, expect, expect_float, expect_positive, expect_rank, expect_size, op, same_dtype
from graphsr.ops.conv import ALGORITHMS, Conv2d, ConvTranspose2d
from graphsr.ops.winograd import winograd_conv2d

Sizes = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AnyConv(Op):
    """Base of the two. `padding` is (before axis 1, before axis 2, …, behind axis 1, behind axis 2, …), as in ONNX."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1

    def check(self, x: TensorType, weight: TensorType, bias: TensorType | None, outputs: int) -> str:
        """The dtype, once the attributes and the number of axes fit."""
        axes = len(self.stride)
        lengths = (len(self.dilation), len(self.padding))
        expect(axes >= 1 and lengths == (axes, 2 * axes), f"stride, dilation and padding of {self} do not fit together")
        expect(min(self.stride) >= 1, f"stride {self.stride} must be at least 1")
        expect(min(self.dilation) >= 1, f"dilation {self.dilation} must be at least 1")
        expect(min(self.padding) >= 0, f"padding {self.padding} must not be negative")
        expect(self.groups >= 1, f"groups {self.groups} must be at least 1")
        expect_rank("input", x, axes + 2)
        expect_rank("weight", weight, axes + 2)
        expect(bias is None or bias.shape == (outputs,), f"bias must have shape ({outputs},), got {bias}")
        expect_float(x)
        return same_dtype(x, weight, *([bias] if bias else []))

    def pad(self, x: Array) -> Array:
        axes = len(self.stride)
        return np.pad(x, [(0, 0), (0, 0), *zip(self.padding[:axes], self.padding[axes:], strict=True)])

    def unpad(self, x: Array) -> Array:
        axes = len(self.stride)
        return x[last(slice(self.padding[a], x.shape[2 + a] - self.padding[axes + a]) for a in range(axes))]

    def taps(self, padded: Array, kernel: Sizes, windows: Sizes) -> Iterator[tuple[tuple[int, ...], Array]]:
        """For each position in the kernel the view [n, c, windows…] of the padded array that it meets."""
        return taps_nd(padded, kernel, self.stride, self.dilation, windows)


@op("conv_nd")
@dataclass(frozen=True, slots=True)
class ConvNd(AnyConv):
    """y[n,o,h…] = b[o] + Σ_c Σ_i… weight[o,c,i…] · x[n, c, s·h + d·i − p…]

    Positions outside x are zero. With g groups, output channels o of group o // (Co/g) see only the input channels of
    the same group, and weight is [Co, Ci/g, k…]. Inputs: x, weight, and bias or none.

    `algorithm` as for `Conv2d`: over three axes and more, Winograd's transforms take the last two, and what the taps of
    the others meet is summed up.

    >>> x = np.array([[[1.0, 2.0, 3.0]]])
    >>> ConvNd(stride=(1,), padding=(1, 0), dilation=(1,)).forward(x, np.ones((1, 1, 2)))
    array([[[1., 3., 5.]]])
    """

    algorithm: str = "direct"

    def infer(self, x: TensorType, weight: TensorType, bias: TensorType | None = None) -> TensorType:
        co, cig, *kernel = weight.dims
        dtype = self.check(x, weight, bias, co)
        expect_size("input channels", x.shape[1], cig * self.groups)
        expect(co % self.groups == 0, f"{co} output channels do not divide into {self.groups} groups")
        expect(self.algorithm in ALGORITHMS, f"algorithm {self.algorithm!r} is not one of {ALGORITHMS}")
        expect(
            not self.algorithm.startswith("winograd") or winograd_fits_nd(self, tuple(kernel)),
            "Winograd needs three axes or more, the last two with 3x3 taps, stride 1 and dilation 1, and one group",
        )
        return TensorType(dtype, (x.shape[0], co, *(self._size(n, a, k) for a, (n, k) in _paired(x.shape[2:], kernel))))

    def _size(self, n: Size, a: int, kernel: int) -> Size:
        """⌊(n + p + p' − d·(k−1) − 1) / s⌋ + 1"""
        padded = n + self.padding[a] + self.padding[a + len(self.stride)]
        size = (padded - self.dilation[a] * (kernel - 1) - 1) // self.stride[a] + 1
        expect_positive("output size", size)
        return size

    def forward(self, x: Array, weight: Array, bias: Array | None = None) -> Array:
        shape = self.infer(_type(x), _type(weight)).dims
        if self.algorithm.startswith("winograd"):
            return _biased(self._winograd(x, weight, shape), bias)
        y = np.zeros((len(x), self.groups, shape[1] // self.groups, prod(shape[2:])), x.dtype)
        for at, tap in self.taps(self.pad(x), weight.shape[2:], shape[2:]):
            y += _matrices(weight, at, self.groups) @ tap.reshape(len(x), self.groups, weight.shape[1], prod(shape[2:]))
        return _biased(y.reshape(shape), bias)

    def _winograd(self, x: Array, weight: Array, shape: Sizes) -> Array:
        """Σ over the taps of all axes but the last two of a convolution of images."""
        axes = len(self.stride)
        outer = axes - 2
        before, behind = self.padding[:axes], self.padding[axes:]
        edges = [(0, 0), (0, 0), *zip(before[:outer], behind[:outer], strict=True), (0, 0), (0, 0)]
        planes_first = np.moveaxis(np.pad(x, edges), (-2, -1), (2, 3))  # the axes of the taps are the last ones
        kernel, windows = weight.shape[2 : 2 + outer], shape[2 : 2 + outer]
        y = np.zeros((len(x), *windows, shape[1], *shape[-2:]), x.dtype)
        for at, tap in taps_nd(planes_first, kernel, self.stride[:outer], self.dilation[:outer], windows):
            images = np.moveaxis(tap, (1, 2, 3), (-3, -2, -1))
            flat = images.reshape(prod(images.shape[:-3]), *images.shape[-3:])
            weights = np.moveaxis(weight, (-2, -1), (2, 3))[last(at)]
            y += winograd_conv2d(flat, weights, _last_two(self), m=int(self.algorithm[-1])).reshape(y.shape)
        return np.moveaxis(y, -3, 1)

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        """dx: each tap's gradient added back where the tap was read; dw: Σ dy · tap; db: Σ dy."""
        x, weight = inputs[:2]
        co, windows = len(weight), output.shape[2:]
        padded = self.pad(x)
        d_padded, d_weight = np.zeros_like(padded), np.zeros_like(weight)
        dy = cotangent.reshape(len(x), self.groups, co // self.groups, prod(windows))
        x_taps, d_taps = (self.taps(z, weight.shape[2:], windows) for z in (padded, d_padded))
        for (at, tap), (_, d_tap) in zip(x_taps, d_taps, strict=True):
            columns = tap.reshape(len(x), self.groups, weight.shape[1], prod(windows))
            d_weight[last(at)] = (dy @ columns.swapaxes(2, 3)).sum(axis=0).reshape(weight.shape[:2])
            d_tap += (_matrices(weight, at, self.groups).swapaxes(1, 2) @ dy).reshape(tap.shape)
        return (self.unpad(d_padded), d_weight, _channel_sum(cotangent))[: len(inputs)]

    def macs(self, inputs: tuple[TensorType, ...], output: TensorType) -> Size:
        return output.size * product(inputs[1].shape[1:])

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        if types[0].rank != 4:
            return None
        a = axis - 2
        s, p, reach = self.stride[a], self.padding[a], self.dilation[a] * (types[1].dims[axis] - 1)
        return low * s - p, high * s - p + reach


@op("conv_transpose_nd")
@dataclass(frozen=True, slots=True)
class ConvTransposeNd(AnyConv):
    """y[n, o, s·h + d·i − p…] += Σ_c weight[c,o,i…] · x[n,c,h…], plus b[o]

    The gradient of `ConvNd` with respect to its input, used forwards. weight is [Ci, Co/g, k…]. `output_padding` adds
    elements behind each axis (none by default). Inputs: x, weight, and bias or none.

    >>> op = ConvTransposeNd(stride=(2,), padding=(0, 0), dilation=(1,))
    >>> op.forward(np.array([[[1.0, 2.0]]]), np.ones((1, 1, 2)))
    array([[[1., 1., 2., 2.]]])
    """

    output_padding: tuple[int, ...] = ()

    def infer(self, x: TensorType, weight: TensorType, bias: TensorType | None = None) -> TensorType:
        ci, cog, *kernel = weight.dims
        dtype = self.check(x, weight, bias, cog * self.groups)
        extra = len(self.output_padding) in (0, len(self.stride)) and min(self.output_padding, default=0) >= 0
        expect(extra, f"output padding {self.output_padding} does not fit stride {self.stride}")
        expect_size("input channels", x.shape[1], ci)
        expect(ci % self.groups == 0, f"{ci} input channels do not divide into {self.groups} groups")
        sizes = (self._size(n, a, k) for a, (n, k) in _paired(x.shape[2:], kernel))
        return TensorType(dtype, (x.shape[0], cog * self.groups, *sizes))

    def _size(self, n: Size, a: int, kernel: int) -> Size:
        """s·(n − 1) + d·(k − 1) + 1 − p − p' + output padding"""
        span = self.stride[a] * (n - 1) + self.dilation[a] * (kernel - 1) + 1
        extra = self.output_padding[a] if self.output_padding else 0
        size = span - self.padding[a] - self.padding[a + len(self.stride)] + extra
        expect_positive("output size", size)
        return size

    def forward(self, x: Array, weight: Array, bias: Array | None = None) -> Array:
        shape, axes = self.infer(_type(x), _type(weight)).dims, len(self.stride)
        full = (n + self.padding[a] + self.padding[a + axes] for a, n in enumerate(shape[2:]))
        y = np.zeros((*shape[:2], *full), x.dtype)
        flat = x.reshape(len(x), self.groups, x.shape[1] // self.groups, prod(x.shape[2:]))
        for at, tap in self.taps(y, weight.shape[2:], x.shape[2:]):
            tap += (_matrices(weight, at, self.groups).swapaxes(1, 2) @ flat).reshape(tap.shape)
        return _biased(np.ascontiguousarray(self.unpad(y)), bias)

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        """The adjoint of the adjoint: dx is the convolution of dy, dw the products of its taps with x."""
        x, weight = inputs[:2]
        flat = x.reshape(len(x), self.groups, x.shape[1] // self.groups, prod(x.shape[2:]))
        dx, dw = np.zeros_like(flat), np.zeros_like(weight)
        for at, tap in self.taps(self.pad(cotangent), weight.shape[2:], x.shape[2:]):
            dy = tap.reshape(len(x), self.groups, weight.shape[1], flat.shape[3])
            dx += _matrices(weight, at, self.groups) @ dy
            dw[last(at)] = (flat @ dy.swapaxes(2, 3)).sum(axis=0).reshape(weight.shape[:2])
        return (dx.reshape(x.shape), dw, _channel_sum(cotangent))[: len(inputs)]

    def macs(self, inputs: tuple[TensorType, ...], output: TensorType) -> Size:
        return inputs[0].size * product(inputs[1].shape[1:])

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        if types[0].rank != 4:
            return None
        a = axis - 2
        s, p, reach = self.stride[a], self.padding[a], self.dilation[a] * (types[1].dims[axis] - 1)
        return -((reach - low - p) // s), (high + p) // s


def taps_nd(
    padded: Array, kernel: Sizes, stride: Sizes, dilation: Sizes, windows: Sizes
) -> Iterator[tuple[tuple[int, ...], Array]]:
    """For each position i… in the window, in row-major order, the view padded[n, c, s·h + d·i…] [n, c, windows…].
    Writing to the view writes to the array."""
    for at in places(*map(range, kernel)):
        cut = (
            slice(d * i, d * i + s * (m - 1) + 1, s) for i, s, d, m in zip(at, stride, dilation, windows, strict=True)
        )
        yield at, padded[last(cut)]


def last(index: Iterable[int | slice]) -> Any:
    """The index of the last axes of an array, whatever stands before them."""
    return (..., *index)


def winograd_fits_nd(conv: ConvNd, kernel: Sizes) -> bool:
    """Whether F(m, 3) computes the last two of three axes and more: 3x3, stride 1, dilation 1, one group."""
    plain = conv.stride[-2:] == conv.dilation[-2:] == (1, 1) and conv.groups == 1
    return len(kernel) > 2 and kernel[-2:] == (3, 3) and plain


def _last_two(conv: ConvNd) -> tuple[int, int, int, int]:
    """Padding of the last two axes: top, left, bottom, right."""
    axes = len(conv.stride)
    (top, left), (bottom, right) = conv.padding[axes - 2 : axes], conv.padding[-2:]
    return top, left, bottom, right


def _matrices(weight: Array, at: tuple[int, ...], groups: int) -> Array:
    """The matrices [groups, rows of a group, columns] that one position in the kernel multiplies by."""
    matrix = weight[last(at)]
    return matrix.reshape(groups, -1, matrix.shape[1])


def _biased(y: Array, bias: Array | None) -> Array:
    return y if bias is None else y + bias.reshape(-1, *(1,) * (y.ndim - 2))


def _channel_sum(dy: Array) -> Array:
    return dy.sum(axis=(0, *range(2, dy.ndim)))


def _paired(sizes: tuple[Size, ...], kernel: list[int]) -> list[tuple[int, tuple[Size, int]]]:
    """(a, (size, kernel size)) for each spatial axis a."""
    return list(enumerate(zip(sizes, kernel, strict=True)))


def _type(x: Array) -> TensorType:
    return TensorType(x.dtype.name, x.shape)


CONVOLUTIONS = (Conv2d, ConvTranspose2d, ConvNd, ConvTransposeNd)
"""Of images, and of any number of axes."""

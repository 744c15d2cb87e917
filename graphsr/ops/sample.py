"""Sampling an image, or a volume, at places that are computed: warping, deformation, spatial transformers.

Symbols: x[N, C, n…] images with d axes of pixels, n the size along one of them; grid[N, m…, d] places v, from −1 to 1
across the image, the place along the last axis (x before y) first; u(v) the same place in pixels, q a pixel.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from graphsr.dim import Size
from graphsr.ir import TensorType
from graphsr.op import Array, Op, expect, expect_float, expect_positive, expect_rank, expect_size, op, same_dtype

REACH = {"nearest": 1, "linear": 2, "cubic": 4}
"""How many pixels along each axis the kernel of each mode reads."""

PADDINGS = ("zeros", "border", "reflection")

CUBIC = -0.75
"""Coefficient of the cubic kernel in PyTorch and ONNX."""

FAR = 2.0**22
"""Places are held within so many pixels, where float32 still tells a pixel from the next."""


@dataclass(frozen=True)
class Taps:
    """What the samples read along one axis, [N, P, taps] for P samples."""

    index: Array
    inside: Array
    """Whether the pixel counts: with zeros around the image those outside do not."""
    weight: Array
    slope: Array
    """∂ weight / ∂v"""


@op("grid_sample")
@dataclass(frozen=True, slots=True)
class GridSample(Op):
    """y[…, p] = Σ_q Π_k k(u_k(v_k[p]) − q_k) · x[…, q], k over the d axes (Jaderberg et al., "Spatial transformer
    networks", 2015). Inputs: x[N, C, n…], grid[N, m…, d].

    u(v) = ((v + 1)·n − 1)/2: ±1 are the borders of the outermost pixels; with `align_corners` u(v) = (v + 1)·(n − 1)/2:
    ±1 are their centres. With w = |u − q| the kernel is

    nearest: 1 for the pixel next to u, of two the even one
    linear: k = max(0, 1 − w)
    cubic: k = (a+2)w³ − (a+3)w² + 1 for w ≤ 1, a·w³ − 5a·w² + 8a·w − 4a for w < 2, else 0; a = −0.75 (Keys 1981)

    Around the image x is zero, repeats its edge (`padding="border"`) or is mirrored (`"reflection"`): at the borders of
    the outermost pixels or, with `align_corners`, at their centres.

    dx[q] = Σ_p Π_k k(…) · dy[p], dv_k[p] = Σ_q k'(u_k − q_k) · u'(v_k) · Π_{j≠k} k(…) · Σ_c x[q] · dy[p]

    >>> x = np.array([[[[1.0, 2.0]]]])
    >>> GridSample(align_corners=True).forward(x, np.array([[[[-1.0, 0.0], [0.0, 0.0], [2.0, 0.0]]]]))
    array([[[[1. , 1.5, 1. ]]]])
    """

    mode: str = "linear"
    padding: str = "zeros"
    align_corners: bool = False

    def infer(self, x: TensorType, grid: TensorType) -> TensorType:
        expect(self.mode in REACH, f"mode {self.mode!r} is not one of {tuple(REACH)}")
        expect(self.padding in PADDINGS, f"padding {self.padding!r} is not one of {PADDINGS}")
        dtype = same_dtype(x, grid)
        expect_float(x)
        expect(x.rank > 2, f"input must have at least 3 dimensions, got {x}")
        expect_rank("grid", grid, x.rank)
        expect_size("size of the batch", grid.shape[0], x.shape[0])
        expect_size("size of the last axis of the grid", grid.shape[-1], x.rank - 2)
        for n in x.shape[2:]:
            expect_positive("input size", n)
        return TensorType(dtype, (*x.shape[:2], *grid.shape[1:-1]))

    def forward(self, x: Array, grid: Array) -> Array:
        taps, samples = self._taps(x, grid), grid.shape[1:-1]
        y = np.zeros((*x.shape[:2], math.prod(samples)), x.dtype)
        for choice, index, inside in _pixels(taps, x.shape[2:]):
            weight = np.multiply.reduce([tap.weight[..., i] for tap, i in zip(taps, choice, strict=True)])
            y += weight[:, None] * _read(x, index, inside)
        return y.reshape((*x.shape[:2], *samples))

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        x, grid = inputs
        taps, (images, channels) = self._taps(x, grid), x.shape[:2]
        dy = cotangent.reshape(images, channels, math.prod(grid.shape[1:-1]))
        dx = np.zeros((images, channels, math.prod(x.shape[2:])), x.dtype)
        dv = np.zeros((*dy.shape[::2], grid.shape[-1]), grid.dtype)
        for choice, index, inside in _pixels(taps, x.shape[2:]):
            weights = [tap.weight[..., i] for tap, i in zip(taps, choice, strict=True)]
            to_pixel = np.where(inside, np.multiply.reduce(weights), 0)[:, None] * dy
            np.add.at(dx, (*np.ogrid[:images, :channels, :1][:2], index[:, None]), to_pixel)
            read = (_read(x, index, inside) * dy).sum(axis=1)
            for k, (tap, i) in enumerate(zip(taps, choice, strict=True)):
                others = np.multiply.reduce(weights[:k] + weights[k + 1 :])
                dv[..., -1 - k] += tap.slope[..., i] * others * read
        return dx.reshape(x.shape), dv.reshape(grid.shape)

    def _taps(self, x: Array, grid: Array) -> list[Taps]:
        """What is read along each axis, in the order of the axes."""
        places = grid.reshape(len(grid), math.prod(grid.shape[1:-1]), grid.shape[-1])
        return [self._along(places[..., -1 - k], n) for k, n in enumerate(x.shape[2:])]

    def _along(self, v: Array, n: int) -> Taps:
        """Along an axis of size n; a place that is not a number gives weights that are none."""
        u = (v + 1) * (n - 1) / 2 if self.align_corners else ((v + 1) * n - 1) / 2
        u = np.clip(np.where(np.isnan(v), 0, u), -FAR, FAR)
        reach = REACH[self.mode]
        first = np.rint(u) if self.mode == "nearest" else np.floor(u) - (reach // 2 - 1)
        q = first[..., None] + np.arange(reach, dtype=v.dtype)
        weight, slope = _kernel(self.mode, u[..., None] - q)
        scale = (n - 1) / 2 if self.align_corners else n / 2
        index = q.astype(np.int64)
        inside = (index >= 0) & (index < n) if self.padding == "zeros" else np.ones(index.shape, np.bool_)
        weight = np.where(np.isnan(v)[..., None], v.dtype.type(np.nan), weight)
        return Taps(self._within(index, n), inside, weight, slope * v.dtype.type(scale))

    def _within(self, q: Array, n: int) -> Array:
        """The pixel of the image that stands for pixel q."""
        if self.padding != "reflection":
            return q.clip(0, n - 1)
        if not self.align_corners:
            q = q % (2 * n)
            return np.minimum(q, 2 * n - 1 - q)
        q = q % max(2 * n - 2, 1)
        return np.minimum(q, 2 * n - 2 - q)

    def macs(self, inputs: tuple[TensorType, ...], output: TensorType) -> Size:
        """One for each pixel that a sample reads; nearest only moves data."""
        return 0 if self.mode == "nearest" else output.size * REACH[self.mode] ** (inputs[0].rank - 2)

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        return None


def _pixels(taps: list[Taps], shape: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], Array, Array]]:
    """Every choice of a tap along each axis, with the flat index of its pixels [N, P] and whether they count."""
    for choice in itertools.product(*(range(tap.index.shape[-1]) for tap in taps)):
        chosen = list(zip(taps, choice, strict=True))
        index = np.ravel_multi_index(tuple(tap.index[..., i] for tap, i in chosen), shape)
        yield choice, index, np.logical_and.reduce([tap.inside[..., i] for tap, i in chosen])


def _read(x: Array, index: Array, inside: Array) -> Array:
    """x at flat indices [N, P] of its pixels, zero where they do not count: [N, C, P]"""
    flat = x.reshape(*x.shape[:2], math.prod(x.shape[2:]))
    return np.where(inside[:, None], np.take_along_axis(flat, index[:, None], axis=2), x.dtype.type(0))


def _kernel(mode: str, signed: Array) -> tuple[Array, Array]:
    """k and k' at u − q."""
    w, sign, a = np.abs(signed), np.sign(signed), CUBIC
    if mode == "nearest":
        return np.ones_like(w), np.zeros_like(w)
    if mode == "linear":
        return np.maximum(0, 1 - w), -np.where(w == 0, 1, sign)
    near = ((a + 2) * w - (a + 3)) * w**2 + 1, (3 * (a + 2) * w - 2 * (a + 3)) * w
    far = ((a * w - 5 * a) * w + 8 * a) * w - 4 * a, (3 * a * w - 10 * a) * w + 8 * a
    return np.where(w <= 1, near[0], far[0]), np.where(w <= 1, near[1], far[1]) * sign

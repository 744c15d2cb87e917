"""Resizing by interpolation: nearest, linear and cubic, with every convention in use for where pixels lie.

Symbols: n and m input and output size along one axis, s the scale, d an output pixel, u(d) its place among the input
pixels, q an input pixel. Interpolation is separable: with the weights A[d, q] of the rows and B[d, q] of the columns,
Y = A·X·Bᵀ for every image X, and therefore dX = Aᵀ·dY·B. Each row of A and B has a few non-zeros, the taps, and only
these are stored: the work grows with the number of pixels, and a NaN stays where it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from graphsr.dim import Size
from graphsr.errors import GraphError
from graphsr.ir import TensorType
from graphsr.op import Array, Op, expect, expect_float, expect_positive, expect_rank, op
from graphsr.ops.shape import scatter_add

SUPPORT = {"nearest": 0, "linear": 1, "cubic": 2}
"""How far the kernel of each mode reaches, in pixels."""

COORDINATES = ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel", "half_pixel_symmetric")

ROUNDING: dict[str, Callable[[Array], Array]] = {
    "floor": np.floor,
    "ceil": np.ceil,
    "round_prefer_floor": lambda u: np.ceil(u - 0.5),
    "round_prefer_ceil": lambda u: np.floor(u + 0.5),
}

LARGEST_DENOMINATOR = 10_000
"""A scale is the nearest fraction with at most this denominator: exactly 1/3 for the float32 next to 1/3."""


@op("resize")
@dataclass(frozen=True, slots=True)
class Resize(Op):
    """y[d] = Σ_q k((q − u(d)) / t) · x[q], along height and along width

    The output size is m = ⌊s·n⌋ with `scale` s, or `size`, and then s = m/n. `scale` stands for a fraction with a small
    denominator (see `LARGEST_DENOMINATOR`), so that m also follows for an open size n. The place of d is

    half_pixel: u(d) = (d + ½)/s − ½, the pixels are squares and the borders of both images coincide
    align_corners: u(d) = d·(n − 1)/(s·n − 1), the centres of the outermost pixels coincide; PyTorch puts m in the
        place of s·n, as happens here with `size`
    asymmetric: u(d) = d/s, the upper left corners coincide
    pytorch_half_pixel: half_pixel, but u = 0 where m = 1
    half_pixel_symmetric: half_pixel + n/2 − m/(2·s), the centres of both images coincide when s·n is not an integer

    and the kernel k is

    nearest: y[d] = x[q] with q = u(d), rounded as `rounding` says
    linear: k(v) = max(0, 1 − |v|)
    cubic: k(v) = (a+2)|v|³ − (a+3)v² + 1 for |v| ≤ 1, a|v|³ − 5av² + 8a|v| − 4a for |v| < 2, else 0; a is
        `cubic_coefficient`, −0.75 in PyTorch and OpenCV, −0.5 in MATLAB and Pillow (Keys, "Cubic convolution
        interpolation for digital image processing", 1981)

    t = 1, but with `antialias` t = max(1, 1/s), and the weights of each d are divided by their sum: the kernel is
    stretched over all pixels that a smaller image merges (MATLAB, Pillow). Pixels outside x repeat its edge; with
    `exclude_outside` they are left out and the other weights are divided by their sum (Pillow, and PyTorch when it
    antialiases).

    >>> x = np.array([[[[1.0, 2.0]]]])
    >>> Resize(scale=(1.0, 2.0), mode="linear").forward(x)
    array([[[[1.  , 1.25, 1.75, 2.  ]]]])
    >>> Resize(scale=(2.0, 1.0)).forward(x)
    array([[[[1., 2.],
             [1., 2.]]]])
    """

    scale: tuple[float, float] = (1.0, 1.0)
    size: tuple[Size, Size] | None = None
    mode: str = "nearest"
    coordinates: str = "half_pixel"
    rounding: str = "round_prefer_floor"
    cubic_coefficient: float = -0.75
    antialias: bool = False
    exclude_outside: bool = False

    def infer(self, x: TensorType) -> TensorType:
        self._check()
        expect_rank("input", x, 4)
        expect_float(x)
        for n, m in zip(x.shape[2:], self._output_size(x), strict=True):
            expect_positive("input size", n)
            expect_positive("output size", m)
        return TensorType(x.dtype, (*x.shape[:2], *self._output_size(x)))

    def _check(self) -> None:
        expect(self.mode in SUPPORT, f"mode {self.mode!r} is not one of {tuple(SUPPORT)}")
        expect(self.coordinates in COORDINATES, f"coordinates {self.coordinates!r} are not one of {COORDINATES}")
        expect(self.rounding in ROUNDING, f"rounding {self.rounding!r} is not one of {tuple(ROUNDING)}")
        weighted = not (self.antialias or self.exclude_outside) or self.mode != "nearest"
        expect(weighted, "antialias and exclude_outside need mode linear or cubic")
        smallest = 1 / LARGEST_DENOMINATOR
        usable = all(math.isfinite(s) and s >= smallest for s in self.scale)
        expect(usable, f"scale {self.scale} must be finite and at least {smallest}")

    def _output_size(self, x: TensorType) -> tuple[Size, Size]:
        if self.size is not None:
            return self.size
        (sh, sw), (h, w) = map(_fraction, self.scale), x.shape[2:]
        return h * sh.numerator // sh.denominator, w * sw.numerator // sw.denominator

    def forward(self, x: Array) -> Array:
        for axis, index, weight in self.taps_of(x):
            x = _interpolate(x, axis, index, weight)
        return x

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        (x,), dx = inputs, cotangent
        for axis, index, weight in reversed(self.taps_of(x)):
            dx = _interpolate_vjp(dx, axis, index, weight, x.shape[axis])
        return (dx,)

    def taps_of(self, x: Array) -> list[tuple[int, Array, Array]]:
        """For each axis the pixels q[d, tap] that every output pixel reads, and their weights."""
        type_, taps = TensorType(x.dtype.name, x.shape), []
        for axis, m in zip((2, 3), self.infer(type_).dims[2:], strict=True):
            n, line = x.shape[axis], self._places(axis, type_)
            if line is None:
                raise GraphError(f"sizes of {self} are still open: bind the graph first")
            index, weight = self._taps(_place(np.arange(m), *line), self._stretch(axis, type_))
            if self.exclude_outside:
                weight = weight * ((index >= 0) & (index < n))
            if self.exclude_outside or self.antialias:
                weight = weight / weight.sum(axis=1, keepdims=True)
            taps.append((axis, index.clip(0, n - 1), weight.astype(x.dtype)))
        return taps

    def _taps(self, u: Array, stretch: Fraction) -> tuple[Array, Array]:
        """Pixels and weights [len(u), taps] of the kernel at the places u, on a line without ends."""
        if self.mode == "nearest":
            index = ROUNDING[self.rounding](u)[:, None]
            return index.astype(np.int64), np.ones(index.shape)
        reach = SUPPORT[self.mode] * stretch
        index = np.floor(u - float(reach))[:, None] + 1 + np.arange(math.ceil(2 * reach))
        distance = np.abs(index - u[:, None]) / float(stretch)
        weight = _linear(distance) if self.mode == "linear" else _cubic(distance, self.cubic_coefficient)
        return index.astype(np.int64), weight

    def _factor(self, axis: int, x: TensorType) -> Fraction | None:
        """s; None while it depends on an open size."""
        if self.size is None:
            return _fraction(self.scale[axis - 2])
        n, m = x.shape[axis], self.size[axis - 2]
        return Fraction(m, n) if isinstance(n, int) and isinstance(m, int) else None

    def _stretch(self, axis: int, x: TensorType) -> Fraction:
        """t; 1 while it depends on an open size."""
        s = self._factor(axis, x)
        return max(Fraction(1), 1 / s) if s is not None and self.antialias else Fraction(1)

    def _places(self, axis: int, x: TensorType) -> tuple[Fraction, Fraction] | None:
        """(step, start) of u(d) = step·d + start; None while they depend on an open size."""
        n, m, s = x.shape[axis], self._output_size(x)[axis - 2], self._factor(axis, x)
        if s is None:
            return None
        half_pixel = 1 / s, (1 / s - 1) / 2
        match self.coordinates:
            case "half_pixel":
                return half_pixel
            case "pytorch_half_pixel":
                return half_pixel if m != 1 else (Fraction(0), Fraction(0))
            case "asymmetric":
                return 1 / s, Fraction(0)
            case "align_corners" if isinstance(n, int):
                return (n - 1) / (s * n - 1) if s * n != 1 else Fraction(0), Fraction(0)
            case "half_pixel_symmetric" if isinstance(n, int) and isinstance(m, int):
                return half_pixel[0], half_pixel[1] + Fraction(n, 2) - m / (2 * s)
        return None

    def macs(self, inputs: tuple[TensorType, ...], output: TensorType) -> Size:
        """Height first, then width; nearest only moves data."""
        n, c, _, w = inputs[0].shape
        ho, wo = output.shape[2:]
        kh, kw = (math.ceil(2 * SUPPORT[self.mode] * self._stretch(axis, inputs[0])) for axis in (2, 3))
        return n * c * ho * (w * kh + wo * kw)

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        """The taps of the two outermost pixels. Where they lie outside, the edge is read in their place."""
        (x,) = types
        line = self._places(axis, x)
        if line is None:
            return None
        index, _ = self._taps(_place(np.array([low, high]), *line), self._stretch(axis, x))
        first, last = int(index.min()), int(index.max())
        n, m = x.shape[axis], self._output_size(x)[axis - 2]
        if isinstance(n, int) and isinstance(m, int) and high < m:
            first = min(first, n - 1)
        return first, max(last, 0)


def _interpolate(x: Array, axis: int, index: Array, weight: Array) -> Array:
    """y[d] = Σ_tap weight[d, tap] · x[index[d, tap]] along `axis`"""
    along = (-1,) + (1,) * (x.ndim - 1 - axis)
    y = np.zeros((*x.shape[:axis], len(index), *x.shape[axis + 1 :]), x.dtype)
    for q, w in zip(index.T, weight.T, strict=True):
        y += w.reshape(along) * x.take(q, axis)
    return y


def _interpolate_vjp(dy: Array, axis: int, index: Array, weight: Array, n: int) -> Array:
    """dx[index[d, tap]] += weight[d, tap] · dy[d] along `axis`, for all d and taps"""
    along = (-1,) + (1,) * (dy.ndim - 1 - axis)
    dx = np.zeros((*dy.shape[:axis], n, *dy.shape[axis + 1 :]), dy.dtype)
    for q, w in zip(index.T, weight.T, strict=True):
        dx += scatter_add(w.reshape(along) * dy, q, n, axis)
    return dx


def _fraction(scale: float) -> Fraction:
    return Fraction(scale).limit_denominator(LARGEST_DENOMINATOR)


def _place(d: Array, step: Fraction, start: Fraction) -> Array:
    """u(d) = step·d + start with one rounding, the division: pixels and ties between two pixels come out exactly."""
    r = math.lcm(step.denominator, start.denominator)
    return (d * int(step * r) + int(start * r)) / r


def _linear(v: Array) -> Array:
    return np.maximum(0, 1 - v)


def _cubic(v: Array, a: float) -> Array:
    near = ((a + 2) * v - (a + 3)) * v**2 + 1
    far = ((a * v - 5 * a) * v + 8 * a) * v - 4 * a
    return np.where(v <= 1, near, np.where(v < 2, far, 0))

"""A part of an image, resized: what detectors with regions do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphsr.dim import Size
from graphsr.ir import TensorType
from graphsr.op import Array, Op, expect, expect_float, expect_positive, expect_rank, op
from graphsr.ops.generate import known
from graphsr.ops.shape import scatter_add


@op("crop_and_resize")
@dataclass(frozen=True, slots=True)
class CropAndResize(Op):
    """y[n,c,i,j] = x at the place (u(i), v(j)), linear between the four pixels around it; `value` outside x.

    The centres of the outermost pixels of y lie on the border of the region (top, left, bottom, right), in which 0 and
    1 are the centres of the outermost pixels of x: for height n and output height m > 1, u(i) = (n − 1)·(top +
    i·(bottom − top)/(m − 1)), and the middle of the region for m = 1. (TensorFlow's crop_and_resize for one box; ONNX's
    coordinates of the same name. `Resize` has the others.)

    >>> x = np.array([[[[0.0, 10.0, 20.0]]]])
    >>> CropAndResize(region=(0.0, 0.25, 0.0, 1.5), size=(1, 2), value=-1.0).forward(x)
    array([[[[ 5., -1.]]]])
    """

    region: tuple[float, float, float, float]
    size: tuple[Size, Size]
    value: float = 0.0

    def infer(self, x: TensorType) -> TensorType:
        expect_rank("input", x, 4)
        expect_float(x)
        expect(bool(np.isfinite(self.region).all()), f"region {self.region} must be finite")
        for n, m in zip(x.shape[2:], self.size, strict=True):
            expect_positive("input size", n)
            expect_positive("output size", m)
        return TensorType(x.dtype, (*x.shape[:2], *self.size))

    def forward(self, x: Array) -> Array:
        inside = np.ones((), bool)
        for axis in (2, 3):
            low, high, weight, valid = self.taps_of(x, axis)
            x = x.take(low, axis) * (1 - weight) + x.take(high, axis) * weight
            inside = inside[..., None] & valid
        return np.where(inside, x, x.dtype.type(self.value))

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        """The pixels that were mixed get their shares, width first."""
        (x,) = inputs
        taps = {axis: self.taps_of(x, axis) for axis in (2, 3)}
        dx = cotangent * (taps[2][3][:, None] & taps[3][3])
        for axis in (3, 2):
            low, high, weight, _ = taps[axis]
            n = x.shape[axis]
            dx = scatter_add(dx * (1 - weight), low, n, axis) + scatter_add(dx * weight, high, n, axis)
        return (dx,)

    def taps_of(self, x: Array, axis: int) -> tuple[Array, Array, Array, Array]:
        """(pixel before, pixel behind, weight of the latter shaped to multiply along the axis, whether inside x)"""
        n, m = x.shape[axis], known(self.size[axis - 2])
        start, stop = self.region[axis - 2], self.region[axis]
        u = (n - 1) * (np.linspace(start, stop, m) if m > 1 else np.array([(start + stop) / 2]))
        inside = (u >= 0) & (u <= n - 1)
        u = u.clip(0, n - 1)
        low = np.floor(u).astype(np.int64)
        weight = (u - low).astype(x.dtype).reshape(-1, *(1,) * (3 - axis))
        return low, np.where(u > low, low + 1, low), weight, inside

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        return None

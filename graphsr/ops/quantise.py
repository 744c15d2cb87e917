"""Pixels of a picture: numbers become integers, and what integers cannot say of the numbers is said beside them.

Neither op has a gradient: the one is a step function, the other is true or false.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphsr.ir import TensorType
from graphsr.op import Array, Op, expect, expect_float, op

MAXIMUM = {"uint8": 255.0, "uint16": 65535.0}
"""White in pixels of each dtype."""


@op("quantise")
@dataclass(frozen=True, slots=True)
class Quantise(Op):
    """y = round(clip(x / white, 0, 1) · maximum) as uint8 or uint16; of two equally near integers the even one.

    `white` is the value of white in x, and maximum (255 or 65535) that in y. Numbers beyond black and white become
    black and white, ∞ too. NaN becomes black, which nobody can tell from y: see `AllFinite`. With `channels_last`
    y[n, h, w, c] belongs to x[n, c, h, w], as image files have it (whatever the number of spatial axes).

    >>> Quantise(white=1.0).forward(np.array([-0.5, 0.1, 0.5, 2.0, np.nan]))
    array([  0,  26, 128, 255,   0], dtype=uint8)
    """

    white: float = 255.0
    dtype: str = "uint8"
    channels_last: bool = False

    def infer(self, x: TensorType) -> TensorType:
        expect_float(x)
        expect(self.dtype in MAXIMUM, f"pixels are {' or '.join(MAXIMUM)}, not {self.dtype!r}")
        expect(0 < self.white < np.inf, f"white must be a positive number, got {self.white}")
        expect(not self.channels_last or x.rank >= 2, f"an image [N, C, …] expected, got {x}")
        return TensorType(self.dtype, (x.shape[0], *x.shape[2:], x.shape[1]) if self.channels_last else x.shape)

    def forward(self, x: Array) -> Array:
        y = np.fmin(np.fmax(x / x.dtype.type(self.white), 0), 1)  # of a number and NaN the number
        pixels = np.rint(y * x.dtype.type(MAXIMUM[self.dtype])).astype(self.dtype)
        return np.ascontiguousarray(np.moveaxis(pixels, 1, -1)) if self.channels_last else pixels

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        return (None,)

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        return None if self.channels_last else (low, high)


@op("all_finite")
@dataclass(frozen=True, slots=True)
class AllFinite(Op):
    """y = whether no element of x is NaN or infinite; a bool without axes

    >>> AllFinite().forward(np.array([1.0, np.inf]))
    array(False)
    """

    def infer(self, x: TensorType) -> TensorType:
        expect_float(x)
        return TensorType("bool", ())

    def forward(self, x: Array) -> Array:
        return np.array(np.isfinite(x).all())

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        return (None,)

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        return None

"""Resizing by PyTorch for the conventions that it has, else pixel by pixel in exact fractions from the definition."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import ceil, floor
from typing import cast

import numpy as np
import pytest

from graphsr.op import Array
from graphsr.ops import Resize
from graphsr.testing import Case


def resize(case: Case) -> Array:
    op, (x,) = case.op, case.inputs
    assert isinstance(op, Resize)
    mode = torch_mode(op, case.forward().shape[3])
    return by_pixels(op, x) if mode is None else by_torch(op, x, mode)


def torch_mode(op: Resize, width: int) -> str | None:
    """PyTorch's name for this kind of resizing to this width, None where it has none."""
    whole = op.size is None and all(s.is_integer() for s in op.scale)
    match op.mode, op.coordinates, op.rounding:
        # PyTorch finds the nearest pixel in float32, which is safe for whole scales only
        case "nearest", "asymmetric", "floor" if whole:
            return "nearest"
        case "nearest", "half_pixel", "round_prefer_ceil" if whole:
            return "nearest-exact"
    if op.antialias and width == 1:
        return None  # PyTorch 2.13 fills the column with its first pixel (interpolate on the CPU)
    aligned = op.coordinates == "align_corners" and (whole or op.size is not None) and not op.antialias
    if op.mode == "nearest" or op.antialias != op.exclude_outside or not (aligned or op.coordinates == "half_pixel"):
        return None
    if op.mode == "linear":
        return "bilinear"
    return "bicubic" if op.cubic_coefficient == (-0.5 if op.antialias else -0.75) else None


def by_torch(op: Resize, x: Array, mode: str) -> Array:
    torch = pytest.importorskip("torch")
    y = torch.nn.functional.interpolate(
        torch.from_numpy(x),
        size=op.size,
        scale_factor=op.scale if op.size is None else None,
        mode=mode,
        align_corners=None if "nearest" in mode else op.coordinates == "align_corners",
        antialias=op.antialias,
    )
    return y.numpy()


def by_pixels(op: Resize, x: Array) -> Array:
    rows, columns = (weights_along(op, x.shape[2 + a], a) for a in (0, 1))
    y = np.zeros((*x.shape[:2], len(rows), len(columns)))
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            for p, row_weight in row.items():
                for q, column_weight in column.items():
                    y[:, :, i, j] += float(row_weight * column_weight) * x[:, :, p, q]
    return y


def weights_along(op: Resize, n: int, a: int) -> list[dict[int, Fraction]]:
    """{input pixel: weight} for each output pixel along one axis."""
    s = Fraction(op.scale[a]).limit_denominator(100)
    m = floor(s * n)
    if op.size is not None:
        m = cast("tuple[int, int]", op.size)[a]
        s = Fraction(m, n)
    return [weights_of(op, place(op.coordinates, Fraction(d), n, m, s), n, s) for d in range(m)]


def place(coordinates: str, d: Fraction, n: int, m: int, s: Fraction) -> Fraction:
    """The formulas of ONNX's Resize, operator set 19."""
    length = s * n
    match coordinates:
        case "asymmetric":
            return d / s
        case "align_corners":
            return Fraction(0) if length == 1 else d * (n - 1) / (length - 1)
        case "pytorch_half_pixel" if m == 1:
            return Fraction(0)
        case "half_pixel_symmetric":
            adjustment = m / length
            return Fraction(n, 2) * (1 - adjustment) + (d + Fraction(1, 2)) / s - Fraction(1, 2)
    return (d + Fraction(1, 2)) / s - Fraction(1, 2)


def weights_of(op: Resize, u: Fraction, n: int, s: Fraction) -> dict[int, Fraction]:
    half = Fraction(1, 2)
    if op.mode == "nearest":
        rounded = {
            "floor": floor(u),
            "ceil": ceil(u),
            "round_prefer_floor": ceil(u - half),
            "round_prefer_ceil": floor(u + half),
        }[op.rounding]
        return {min(max(rounded, 0), n - 1): Fraction(1)}
    stretch = 1 / s if op.antialias and s < 1 else Fraction(1)
    weights: dict[int, Fraction] = {}
    far = 3 * ceil(stretch)
    for q in range(floor(u) - far, ceil(u) + far + 1):
        pixel = min(max(q, 0), n - 1)
        if pixel == q or not op.exclude_outside:
            weights[pixel] = weights.get(pixel, Fraction(0)) + kernel(op, abs(q - u) / stretch)
    total = sum(weights.values())  # without antialias and with repeated edges this is 1 already
    return {pixel: weight / total for pixel, weight in weights.items()}


def kernel(op: Resize, v: Fraction) -> Fraction:
    """Keys' kernel is the sum of the smoothstep and of `a` times the polynomials with zeros at 0, 1 and at 1, 2."""
    if op.mode == "linear":
        return max(Fraction(0), 1 - v)
    a = Fraction(op.cubic_coefficient)
    if v <= 1:
        return (1 - v) ** 2 * (1 + 2 * v) - a * v**2 * (1 - v)
    return a * (v - 1) * (v - 2) ** 2 if v < 2 else Fraction(0)


ORACLES: dict[str, Callable[[Case], Array]] = {"resize": resize}

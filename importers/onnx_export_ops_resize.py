"""How resizing is written as ONNX: by Resize of set 17, or for what that has no words for by products with the matrices
of the interpolation, Y = A·X·Bᵀ. These need known sizes; of open ones some forms are refused. GridSample is there in
set 17 for images."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np

from graphsr.dim import Size
from graphsr.ir import TensorType
from graphsr.op import Array
from graphsr.ops import CropAndResize, GridSample, Resize
from graphsr.ops.resize import LARGEST_DENOMINATOR

from .onnx_export_writer import Rules, Site, UnwritableError

SYMMETRIC = "half_pixel_symmetric"


def _resize(s: Site, op: Resize, x: str) -> str:
    scale = [_factor(op, s, a) for a in (0, 1)]
    whole = all(factor is not None and factor.denominator == 1 for factor in scale)
    if whole:  # then the weights add up to one already, and the centres coincide
        op = replace(op, antialias=False)
        op = replace(op, coordinates="half_pixel") if op.coordinates == SYMMETRIC else op
    if op.mode == "nearest" and _is_known(s) and not all(map(_is_exact, scale)):
        return _looked_up(s, op, x)
    if not _has_words(op) or _is_rounded(op, s):
        return _products(s, op, x)
    how = {
        "mode": op.mode,
        "coordinate_transformation_mode": op.coordinates,
        "nearest_mode": op.rounding,
        "cubic_coeff_a": op.cubic_coefficient,
        "exclude_outside": int(op.exclude_outside),
    }
    if op.size is None or whole:
        factors = [float(factor) for factor in scale if factor is not None]
        return s("Resize", x, "", np.array([1, 1, *factors], np.float32), **how)
    return s("Resize", x, "", "", s.sizes(s.output.shape), **how)


def _factor(op: Resize, s: Site, axis: int) -> Fraction | None:
    """Output size over input size along height or width; None where that is no number."""
    if op.size is None:
        return Fraction(op.scale[axis]).limit_denominator(LARGEST_DENOMINATOR)
    return _quotient(op.size[axis], s.x.shape[2 + axis])


def _quotient(m: Size, n: Size) -> Fraction | None:
    if isinstance(m, int) and isinstance(n, int):
        return Fraction(m, n)
    if isinstance(m, int) or isinstance(n, int):
        return None
    (_, a), (_, b) = m.terms[0], n.terms[0]
    factor = Fraction(a, b)
    return factor if m * factor.denominator == n * factor.numerator else None


def _is_known(s: Site) -> bool:
    """Whether height and width are known, before and after; the number of images may be open."""
    return all(isinstance(size, int) for size in (*s.x.shape[2:], *s.output.shape[2:]))


def _is_exact(scale: Fraction | None) -> bool:
    """Whether float32, in which engines keep scales, has the number."""
    return scale is not None and Fraction(float(np.float32(scale))) == scale


def _looked_up(s: Site, op: Resize, x: str) -> str:
    """The rows and columns that are nearest: with a rounded scale an engine may take those beside them."""
    for axis, index, _ in op.taps_of(np.empty((1, 1, *_known(s.x)), s.dtype)):
        x = s("Gather", x, index[:, 0], axis=axis)
    return x


def _has_words(op: Resize) -> bool:
    """Whether Resize of set 17 means the same: `antialias` came with 18, half_pixel_symmetric with 19, and engines
    leave out what lies outside for the cubic kernel alone."""
    if op.antialias or op.coordinates == SYMMETRIC:
        return False
    return not (op.exclude_outside and op.mode == "linear")


def _known(image: TensorType) -> tuple[int, int]:
    """Height and width, once they are known."""
    h, w = TensorType(image.dtype, image.shape[2:]).dims
    return h, w


def _is_rounded(op: Resize, s: Site) -> bool:
    """Whether the corners lie at s·n − 1, which is no pixel: there onnxruntime rounds, against the text of ONNX."""
    if op.coordinates != "align_corners" or op.size is not None or not _is_known(s):
        return False
    return any((_factor(op, s, a) or 0) * n % 1 for a, n in enumerate(_known(s.x)))


def _products(s: Site, op: Resize, x: str) -> str:
    if not _is_known(s):
        raise UnwritableError(f"{op} needs known sizes: Resize of operator set 17 has no such form")
    rows, columns = (
        _matrix(replace(op, scale=(op.scale[a], 1.0), size=op.size and (op.size[a], 1)), s, a) for a in (0, 1)
    )
    return s("MatMul", s("MatMul", rows, x), np.ascontiguousarray(columns.T))


def _matrix(op: Resize | CropAndResize, s: Site, axis: int) -> Array:
    """[output size, input size] along height or width, by an op for images one pixel wide: a pixel in each channel."""
    n = _known(s.x)[axis]
    y: Array = op.forward(np.eye(n, dtype=s.dtype)[None, :, :, None])
    return np.ascontiguousarray(y[0, :, :, 0].T)


def _crop(s: Site, op: CropAndResize, x: str) -> str:
    """By products where sizes are known: engines leave out an axis that keeps its size, whatever the region."""
    top, left, bottom, right = op.region
    if not _is_known(s):
        region = np.array([0, 0, top, left, 1, 1, bottom, right], np.float32)
        how = {"mode": "linear", "extrapolation_value": op.value}
        how["coordinate_transformation_mode"] = "tf_crop_and_resize"
        return s("Resize", x, region, "", s.sizes(s.output.shape), **how)
    ho, wo = _known(s.output)
    rows = _matrix(CropAndResize((top, 0.0, bottom, 0.0), (ho, 1)), s, 0)
    columns = _matrix(CropAndResize((left, 0.0, right, 0.0), (wo, 1)), s, 1)
    y = s("MatMul", s("MatMul", rows, x), np.ascontiguousarray(columns.T))
    outside = replace(op, value=-1.0).forward(np.ones((1, 1, *_known(s.x)))) < 0
    return s("Where", outside, s.number(op.value), y) if outside.any() else y


def _grid_sample(s: Site, op: GridSample, x: str, grid: str) -> str:
    if s.x.rank != 4:
        raise UnwritableError("GridSample of operator set 17 samples images alone, of 4 dimensions")
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(op.mode, op.mode)
    return s("GridSample", x, grid, mode=mode, padding_mode=op.padding, align_corners=int(op.align_corners))


RESIZE: Rules = {Resize: _resize, CropAndResize: _crop, GridSample: _grid_sample}

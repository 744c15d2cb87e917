"""Resize, Upsample and GridSample of ONNX. Resizing: our `Resize` for images, axis by axis for everything else.

What our `Resize` has no words for, a region of the input (tf_crop_and_resize) and a scale that is not the quotient of
the sizes (keep_aspect_ratio_policy), becomes the product with the matrix of the interpolation along each axis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from graphsr.dim import Size, product
from graphsr.errors import ModelError
from graphsr.ir import Node
from graphsr.op import Array
from graphsr.ops import Add, Cast, GridSample, MatMul, Mul, Reshape, Resize, Transpose
from graphsr.ops.reduce import normal_axes
from graphsr.ops.resize import ROUNDING

from .onnx_call import Call, operator

CROP = "tf_crop_and_resize"


@dataclass(frozen=True)
class Axis:
    """What happens along one axis: its scale, its output size where the file gives it, the region that is read."""

    axis: int
    scale: float
    size: int | None = None
    region: tuple[float, float] = (0.0, 1.0)


@operator("Upsample")
def upsample(call: Call) -> Node:
    """| since | |
    |---|---|
    | 1 | attributes `height_scale`, `width_scale` |
    | 7 | attribute `scales` |
    | 9 | input `scales` |

    Pixels lie at their upper left corners; nearest rounds down.
    """
    x = call.x()
    if call.version < 7:
        scales: tuple[float, ...] = (1.0, 1.0, call.attr("height_scale"), call.attr("width_scale"))
    else:
        scales = call.attr("scales") if call.version < 9 else _floats(call, 1)
    mode = {"bilinear": "linear"}.get(call.attr("mode"), call.attr("mode"))
    settings = Resize(mode=mode, coordinates="asymmetric", rounding="floor")
    return _along(call, x, _scaled(x, scales), settings)


@operator("GridSample")
def grid_sample(call: Call) -> Node:
    """| since | |
    |---|---|
    | 16 | images; modes bilinear and bicubic |
    | 20 | any number of axes; the modes are called linear and cubic |
    """
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(call.attr("mode"), call.attr("mode"))
    x, grid = call.x(0), call.x(1)
    if grid.type.dtype != x.type.dtype:
        grid = call(Cast(x.type.dtype), grid)
    return call(GridSample(mode, call.attr("padding_mode"), bool(call.attr("align_corners"))), x, grid)


@operator("Resize")
def resize(call: Call) -> Node:
    """| since | |
    |---|---|
    | 10 | as Upsample 9: input `scales`, corners, rounded down |
    | 11 | inputs `roi`, `scales`, `sizes`; coordinate modes; cubic |
    | 13 | empty inputs may be left out |
    | 18 | `antialias`, `axes`, `keep_aspect_ratio_policy` |
    | 19 | half_pixel_symmetric |
    """
    x = call.x()
    mode = call.attr("mode")
    if call.version < 11:
        return _along(
            call, x, _scaled(x, _floats(call, 1)), Resize(mode=mode, coordinates="asymmetric", rounding="floor")
        )
    coordinates = call.attr("coordinate_transformation_mode")
    exclude, antialias = bool(call.attr("exclude_outside")), bool(call.attr("antialias", 0))
    settings = Resize(
        mode=mode,
        coordinates="half_pixel" if coordinates == CROP else coordinates,
        rounding=call.attr("nearest_mode"),
        cubic_coefficient=call.attr("cubic_coeff_a"),
        antialias=antialias and mode != "nearest",
        exclude_outside=exclude and mode != "nearest",
    )
    axes = tuple(normal_axes((a,), x.type.rank)[0] for a in call.attr("axes") or range(x.type.rank))
    steps, kept = _steps(call, x, axes)
    outside = call.attr("extrapolation_value")
    if coordinates == CROP:
        roi = _floats(call, 1)
        if len(roi) != 2 * len(axes):
            raise ModelError(f"{len(roi)} numbers of roi for {len(axes)} axes")
        regions = dict(zip(axes, zip(roi[: len(axes)], roi[len(axes) :], strict=True), strict=True))
        return _products(call, x, [replace(step, region=regions[step.axis]) for step in steps], settings, outside, True)
    if kept:
        return _products(call, x, steps, settings, outside, False)
    return _along(call, x, steps, settings)


def _steps(call: Call, x: Node, axes: tuple[int, ...]) -> tuple[list[Axis], bool]:
    """What happens along each axis, and whether one scale for all of them replaces the quotients of the sizes."""
    sizes = call.sizes(3)
    policy = call.attr("keep_aspect_ratio_policy", "stretch")
    if not sizes:
        scales = _floats(call, 2)
        if len(scales) != len(axes):
            raise ModelError(f"{len(scales)} scales for {len(axes)} axes: one input of scales and sizes must be given")
        return [Axis(a, s) for a, s in zip(axes, scales, strict=True)], False
    if len(sizes) != len(axes) or policy not in ("stretch", "not_larger", "not_smaller"):
        raise ModelError(f"{len(sizes)} sizes for {len(axes)} axes, keep_aspect_ratio_policy {policy!r}")
    steps = []
    for a, m in zip(axes, sizes, strict=True):
        n = x.type.shape[a]
        factor = _factor(m, n)
        if factor is not None and policy == "stretch":
            steps.append(Axis(a, float(factor)))
            continue
        known_n, known_m = call.known(n, f"size of axis {a}"), call.known(m, f"output size of axis {a}")
        if known_n < 1:
            raise ModelError(f"{x.type} is empty")
        steps.append(Axis(a, known_m / known_n, known_m))
    if policy == "stretch":
        return steps, False
    scale = (min if policy == "not_larger" else max)(step.scale for step in steps)
    known = [call.known(x.type.shape[a], f"size of axis {a}") for a in axes]
    return [Axis(a, scale, math.floor(scale * n + 0.5)) for a, n in zip(axes, known, strict=True)], True


def _factor(m: Size, n: Size) -> int | None:
    """m/n, where it is an integer for all open sizes."""
    if isinstance(m, int) or isinstance(n, int) or len(n.terms) != 1 or len(m.terms) != 1:
        return None
    (name, a), (other, b) = n.terms[0], m.terms[0]
    return b // a if name == other and b % a == 0 else None


def _scaled(x: Node, scales: tuple[float, ...]) -> list[Axis]:
    if len(scales) != x.type.rank:
        raise ModelError(f"{len(scales)} scales for {x.type}")
    return [Axis(a, s) for a, s in enumerate(scales)]


def _floats(call: Call, i: int) -> tuple[float, ...]:
    array = call.array(i)
    values = () if array is None else tuple(float(v) for v in array.flat)
    if not all(map(math.isfinite, values)):
        raise ModelError(f"input {i} has numbers that are not finite: {values}")
    return values


def _along(call: Call, x: Node, steps: list[Axis], settings: Resize) -> Node:
    """Resize along the last two axes of an image at once, else along one axis after the other."""
    steps = [s for s in steps if s.scale != 1 or s.size not in (None, x.type.shape[s.axis])]
    if x.type.rank == 4 and {s.axis for s in steps} <= {2, 3} and len({s.size is None for s in steps}) <= 1:
        return _image(call, x, steps, settings) if steps else x
    for s in steps:
        before, n, behind = x.type.shape[: s.axis], x.type.shape[s.axis], x.type.shape[s.axis + 1 :]
        image = call(Reshape((1, product(before), n, product(behind))), x)
        image = _image(call, image, [replace(s, axis=2)], settings)
        x = call(Reshape((*before, image.type.shape[2], *behind)), image)
    return x


def _image(call: Call, x: Node, steps: list[Axis], settings: Resize) -> Node:
    by_axis = {s.axis: s for s in steps}
    if any(s.size is None for s in steps):
        h, w = (by_axis[a].scale if a in by_axis else 1.0 for a in (2, 3))
        return call(replace(settings, scale=(h, w)), x)
    height, width = (by_axis[a].size if a in by_axis else x.type.shape[a] for a in (2, 3))
    return call(replace(settings, size=(height or 0, width or 0)), x)


def _products(call: Call, x: Node, steps: list[Axis], settings: Resize, outside: float, crop: bool) -> Node:
    """Y = A·X along each axis; where the region leaves the input, `outside`."""
    inside: Any = np.ones((), np.bool_)
    for s in steps:
        n = call.known(x.type.shape[s.axis], f"size of axis {s.axis}")
        low, high = s.region
        m = s.size if s.size is not None else math.floor(n * (high - low) * s.scale)
        if m == n and not crop and s.scale == 1:
            continue
        u = _places(n, m, s, settings, crop)
        matrix = _matrix(u, n, settings)
        order = [a for a in range(x.type.rank) if a != s.axis] + [s.axis]
        moved = call(MatMul(), call(Transpose(tuple(order)), x), call.const(matrix.T.astype(x.type.dtype)))
        x = call(Transpose(tuple(int(a) for a in np.argsort(order))), moved)
        if crop:
            row = ((u >= 0) & (u <= n - 1)).reshape([-1 if a == s.axis else 1 for a in range(x.type.rank)])
            inside = inside & row
    if inside.all():
        return x
    mask = inside.astype(x.type.dtype)
    return call(Add(), call(Mul(), x, call.const(mask)), call.const((1 - mask) * mask.dtype.type(outside)))


def _places(n: int, m: int, s: Axis, settings: Resize, crop: bool) -> Array:
    """Where each of the m output pixels lies among the n input pixels."""
    d = np.arange(m)
    if crop:
        low, high = s.region
        if m > 1:
            return low * (n - 1) + d * (high - low) * (n - 1) / (m - 1)
        return np.array([0.5 * (low + high) * (n - 1)])
    match settings.coordinates:
        case "half_pixel":
            return (d + 0.5) / s.scale - 0.5
        case "asymmetric":
            return d / s.scale
    raise ModelError(f"keep_aspect_ratio_policy with coordinates {settings.coordinates!r} is not supported")


def _matrix(u: Array, n: int, settings: Resize) -> Array:
    """A[d, q], the weight of input pixel q in output pixel d."""
    if settings.mode not in ("nearest", "linear") or settings.antialias:
        raise ModelError(f"mode {settings.mode!r} is not supported here, only nearest and linear without antialias")
    q = np.arange(n)
    u = u.clip(0, n - 1)[:, None]
    if settings.mode == "nearest":
        return (ROUNDING[settings.rounding](u).clip(0, n - 1) == q).astype(float)
    return np.maximum(0, 1 - np.abs(q - u))

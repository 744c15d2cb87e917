"""How ops that move, repeat, generate and look up elements are written as ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import numpy_helper

from graphsr.dim import Dim, Size
from graphsr.ops import (
    Arange,
    Concat,
    DepthToSpace,
    Expand,
    Eye,
    Full,
    Gather,
    GatherElements,
    GatherND,
    OneHot,
    Pad,
    PadNd,
    Reshape,
    Roll,
    ScatterElements,
    ScatterND,
    ShapeOf,
    Slice,
    SpaceToDepth,
    Split,
    Tile,
    Transpose,
    Triangle,
)
from graphsr.ops.reduce import normal_axes

from .onnx_export_writer import LEAST, MOST, Rules, Site, UnwritableError, integers, onnx_dtype


def _split(s: Site, op: Split, x: str) -> str:
    """One operator for all pieces of the same value."""
    (axis,) = normal_axes((op.axis,), s.x.rank)
    return str(s.writer.split(x, axis, op.sizes, s.name).output[op.index])


def _slice(s: Site, op: Slice, x: str) -> str:
    """None becomes the number beyond which ONNX clips. It would clip the start of a step backwards to the first one,
    so a slice that is known to be empty is written as one from 0 to 0."""
    starts: list[Size] = []
    stops: list[Size] = []
    for start, stop, axis, step in zip(op.starts, op.stops, op.axes, op.steps, strict=True):
        empty = s.output.shape[axis] == 0
        starts.append(0 if empty else (0 if step > 0 else MOST) if start is None else start)
        stops.append(0 if empty else (MOST if step > 0 else LEAST) if stop is None else stop)
    return s("Slice", x, s.sizes(starts), s.sizes(stops), integers(op.axes), integers(op.steps)) if op.axes else x


def _pad(s: Site, op: Pad, x: str) -> str:
    outer, (top, left, bottom, right) = [0] * (s.x.rank - 2), op.padding
    if not any(op.padding):
        return x
    fill = (s.number(op.value),) if op.mode == "constant" else ()
    return s("Pad", x, integers([*outer, top, left, *outer, bottom, right]), *fill, mode=op.mode)


def _pad_nd(s: Site, op: PadNd, x: str) -> str:
    """ONNX's Pad wraps from set 19 on only, and its mirror image is one wide: the others read at known places."""
    if op.mode == "constant":
        return s("Pad", x, s.sizes(op.padding), s.number(op.value), mode="constant")
    y, ends = x, zip(s.x.shape, op.padding, op.padding[s.x.rank :], strict=False)
    for axis, (n, before, behind) in enumerate(ends):
        if before == 0 and behind == 0:
            continue
        if not (isinstance(n, int) and isinstance(before, int) and isinstance(behind, int)):
            if op.mode == "wrap":
                raise UnwritableError("padding with mode 'wrap' needs known sizes")
            return s("Pad", x, s.sizes(op.padding), mode=op.mode)
        places = PadNd((before, behind), op.mode).forward(np.arange(n, dtype=np.int64))
        y = s("Gather", y, places, axis=axis)
    return y


def _roll(s: Site, op: Roll, x: str) -> str:
    """The last `shift` elements of an axis before the others."""
    for shift, axis in zip(op.shifts, op.axes, strict=True):
        n = s.x.shape[axis]
        start: str | int
        if isinstance(n, Dim):
            size = s.writer.size(n)
            start = s("Sub", size, s("Mod", integers([shift]), size))
        else:
            start = n - shift % max(n, 1)
        x = s("Concat", s.slice(x, axis, start), s.slice(x, axis, 0, start), axis=axis)
    return x


def _space_to_depth(s: Site, op: SpaceToDepth, x: str) -> str:
    """ONNX puts the position in the block first (dcr); crd reorders the channels."""
    y = s("SpaceToDepth", x, blocksize=op.block)
    if op.mode == "dcr":
        return y
    channels = s.x.shape[1]
    if isinstance(channels, Dim):
        raise UnwritableError("the number of channels must be known for mode 'crd'")
    order = np.arange(channels * op.block**2).reshape(op.block**2, channels).T.ravel()
    return s("Gather", y, order.astype(np.int64), axis=1)


def _full(s: Site, op: Full) -> str:
    value = numpy_helper.from_array(np.full(1, op.value, op.dtype))
    return s("ConstantOfShape", s.sizes(op.shape), value=value)


def _eye(s: Site, op: Eye) -> str:
    """Engines have unit matrices of some dtypes only; the others are converted."""
    shape = s("ConstantOfShape", s.sizes((op.rows, op.columns)))
    made = op.dtype if op.dtype in ("float32", "float64", "int64", "int32") else "int64"
    y = s("EyeLike", shape, dtype=onnx_dtype(made), k=op.k)
    return y if made == op.dtype else s.cast(y, op.dtype)


def _shape_of(s: Site, op: ShapeOf, x: str) -> str:
    start, stop, _ = slice(op.start, op.stop).indices(s.x.rank)
    if start >= stop:
        return s("Identity", integers([]))
    return s("Shape", x, start=start, end=stop)


def _one_hot(s: Site, op: OneHot, indices: str, values: str) -> str:
    """ONNX wants an axis among the indices."""
    if s.x.rank:
        return s("OneHot", indices, s.scalar(op.depth), values, axis=op.axis)
    row = s("OneHot", s("Reshape", indices, integers([1])), s.scalar(op.depth), values, axis=1)
    return s("Reshape", row, integers([-1]))


def _scatter(operator: str, s: Site, op: Any, *x: str, **attributes: int) -> str:
    return s(operator, *x, reduction=op.reduction, **attributes)


SHAPE: Rules = {
    Reshape: lambda s, op, x: s.reshape(x, s.output.shape),
    Transpose: lambda s, op, x: s("Transpose", x, perm=[axis % s.x.rank for axis in op.axes]),
    Concat: lambda s, op, *x: s("Concat", *x, axis=op.axis),
    Split: _split,
    Slice: _slice,
    Pad: _pad,
    PadNd: _pad_nd,
    Expand: lambda s, op, x: s("Expand", x, s.sizes(op.shape)),
    Tile: lambda s, op, x: s("Tile", x, s.sizes(op.repeats)),
    Roll: _roll,
    Triangle: lambda s, op, x: s("Trilu", x, np.array(op.k, np.int64), upper=int(op.upper)),
    DepthToSpace: lambda s, op, x: s("DepthToSpace", x, blocksize=op.block, mode=op.mode.upper()),
    SpaceToDepth: _space_to_depth,
    Full: _full,
    Arange: lambda s, op: s("Range", s.scalar(op.start), s.scalar(op.stop), s.scalar(op.step)),
    Eye: _eye,
    ShapeOf: _shape_of,
    Gather: lambda s, op, *x: s("Gather", *x, axis=op.axis),
    GatherElements: lambda s, op, *x: s("GatherElements", *x, axis=op.axis),
    GatherND: lambda s, op, x, i: s("GatherND", x, s.cast(i, "int64"), batch_dims=op.batch_axes),
    ScatterElements: lambda s, op, *x: _scatter("ScatterElements", s, op, *x, axis=op.axis),
    ScatterND: lambda s, op, x, i, u: _scatter("ScatterND", s, op, x, s.cast(i, "int64"), u),
    OneHot: _one_hot,
}

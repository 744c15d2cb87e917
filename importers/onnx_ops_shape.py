"""Operators of ONNX that move, repeat or generate elements, and those of shape code."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphsr.dim import Dim, Size, product
from graphsr.errors import ModelError
from graphsr.ir import Node
from graphsr.ops import (
    Arange,
    Cast,
    Concat,
    DepthToSpace,
    Expand,
    Eye,
    Full,
    Pad,
    PadNd,
    ReduceProd,
    Reshape,
    Roll,
    ShapeOf,
    Slice,
    SpaceToDepth,
    Split,
    Tile,
    Transpose,
)
from graphsr.ops.reduce import normal_axes

from .onnx_call import Call, operator
from .onnx_reader import dtype_of

FAR = 1 << 31
"""Positions from here on mean "to the end": no axis is as long."""
MOST_RANGE = 1 << 24


@operator("Reshape")
def reshape(call: Call) -> Node:
    """| since | |
    |---|---|
    | 1 | attribute `shape` |
    | 5 | input `shape` |
    | 14 | `allowzero`: 0 is a size, not "as in the input" |
    """
    call.ignore("consumed_inputs")
    x = call.x()
    shape: tuple[Size, ...] = (call.attr("shape", ()) if call.version < 5 else call.sizes(1)) or ()
    if not call.attr("allowzero", 0):
        if any(n == 0 and i >= x.type.rank for i, n in enumerate(shape)):
            raise ModelError(f"shape {shape} takes a size from an axis that {x.type} does not have")
        shape = tuple(x.type.shape[i] if n == 0 else n for i, n in enumerate(shape))
    if shape.count(-1) == 1 and 0 in shape and x.type.size == 0:
        shape = tuple(0 if n == -1 else n for n in shape)
    y = call(Reshape(shape), x)
    return _pixel_shuffle(call, y) or y


SHUFFLES = {(0, 1, 4, 2, 5, 3): "crd", (0, 3, 4, 1, 5, 2): "dcr"}
"""How the axes are transposed between the two reshapes of a pixel shuffle, by the order of its channels."""


def _pixel_shuffle(call: Call, y: Node) -> Node | None:
    """Reshape-Transpose-Reshape, as older exporters write a pixel shuffle, is one `DepthToSpace`.

    crd: [N, C·b², H, W] -> [N, C, b, b, H, W] -> [N, C, H, b, W, b] -> [N, C, b·H, b·W]
    dcr: [N, C·b², H, W] -> [N, b, b, C, H, W] -> [N, C, H, b, W, b] -> [N, C, b·H, b·W]
    """
    match y.inputs[:1]:
        case (Node(op=Transpose(axes=axes), inputs=(Node(op=Reshape(), inputs=(x,)) as split_,)) as swapped,):
            pass
        case _:
            return None
    if axes not in SHUFFLES or x.type.rank != 4 or y.type.rank != 4:
        return None
    n, c, h, b, w, b2 = swapped.type.shape
    image = x.type.shape[0] == n and x.type.shape[2:] == split_.type.shape[4:] == (h, w)
    if not image or b != b2 or not isinstance(b, int) or y.type.shape != (n, c, h * b, w * b):
        return None
    return call(DepthToSpace(b, SHUFFLES[axes]), x)


@operator("Flatten")
def flatten(call: Call) -> Node:
    """To a matrix: the axes before `axis`, and the others. Negative axes since version 11."""
    x, axis = call.x(), call.attr("axis")
    if not -x.type.rank <= axis <= x.type.rank:
        raise ModelError(f"attribute axis={axis} does not exist in {x.type}")
    return call(Reshape(flat_shape(x, axis)), x)


def flat_shape(x: Node, axis: int) -> tuple[Size, Size]:
    """[product of the sizes before `axis`, product of the others]"""
    axis = axis if axis >= 0 else axis + x.type.rank
    return product(x.type.shape[:axis]), product(x.type.shape[axis:])


@operator("Squeeze")
def squeeze(call: Call) -> Node:
    """| since | |
    |---|---|
    | 1 | attribute `axes` |
    | 11 | negative axes |
    | 13 | input `axes` |
    """
    x = call.x()
    axes = call.attr("axes") if call.version < 13 else call.ints_from(1)
    if axes is None:
        axes = tuple(i for i, n in enumerate(x.type.shape) if call.known(n, f"size of axis {i}") == 1)
    gone = normal_axes(tuple(axes), x.type.rank)
    wrong = [x.type.shape[i] for i in gone if isinstance(x.type.shape[i], int) and x.type.shape[i] != 1]
    if wrong:
        raise ModelError(f"axes {axes} of {x.type} cannot be removed: sizes of 1 expected, got {wrong}")
    return call(Reshape(tuple(n for i, n in enumerate(x.type.shape) if i not in gone)), x)


@operator("Unsqueeze")
def unsqueeze(call: Call) -> Node:
    """Attribute `axes`, since version 13 an input."""
    x = call.x()
    axes = call.attr("axes") if call.version < 13 else call.ints_from(1)
    if axes is None:
        raise ModelError("input axes is missing")
    new = normal_axes(tuple(axes), x.type.rank + len(axes))
    rest = iter(x.type.shape)
    return call(Reshape(tuple(1 if i in new else next(rest) for i in range(x.type.rank + len(new)))), x)


@operator("Transpose")
def transpose(call: Call) -> Node:
    x = call.x()
    return call(Transpose(call.attr("perm", tuple(reversed(range(x.type.rank))))), x)


@operator("Concat")
def concat(call: Call) -> Node:
    """`axis` is 1 by default in version 1, and must be given since version 4."""
    y = call(Concat(call.attr("axis", 1)), *call.all())
    return _roll(call, y) or y


def _roll(call: Call, y: Node) -> Node | None:
    """Concat(x[k:], x[:k]), as torch.roll is exported, is one `Roll`; k lies within the axis."""
    match y.inputs:
        case (
            Node(op=Slice(starts=(int(k),), stops=(last,), axes=(a,), steps=(1,)), inputs=(x,)),
            Node(op=Slice(starts=(0 | None,), stops=(end,), axes=(b,), steps=(1,)), inputs=(other,)),
        ) if x is other and k == end and a == b and k != 0 and last in (None, x.type.shape[a]):
            pass
        case _:
            return None
    n = x.type.shape[a]
    along = a % x.type.rank == call.attr("axis", 1) % x.type.rank
    return call(Roll((-k,), (a,)), x) if along and (isinstance(n, Dim) or abs(k) <= n) else None


@operator("Split")
def split(call: Call) -> list[Node]:
    """| since | |
    |---|---|
    | 1 | attribute or input `split`, else equal pieces |
    | 2 | attribute only |
    | 13 | input only |
    | 18 | `num_outputs` pieces, of which the last may be smaller |
    """
    x, axis = call.x(), call.attr("axis", 0)
    (axis,) = normal_axes((axis,), x.type.rank)
    n, pieces = x.type.shape[axis], len(call.outputs)
    sizes: tuple[Size, ...] | None = call.attr("split") or (call.sizes(1) if len(call.inputs) > 1 else None)
    if sizes is None:
        pieces = call.attr("num_outputs") or pieces
        each = (n + pieces - 1) // pieces if call.version >= 18 else n // pieces
        sizes = (*[each] * (pieces - 1), n - each * (pieces - 1))
        if call.version < 18 and isinstance(n, int) and n % pieces:
            raise ModelError(f"axis {axis} of {x.type} does not divide into {pieces} equal pieces")
    if len(sizes) != len(call.outputs):
        raise ModelError(f"{len(sizes)} pieces for {len(call.outputs)} outputs")
    if all(isinstance(size, int) for size in sizes):
        known = tuple(call.known(size, "piece") for size in sizes)
        return [call(Split(axis, known, i), x) for i in range(len(known))]
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [call(Slice((end - size,), (end,), (axis,), (1,)), x) for size, end in zip(sizes, ends, strict=True)]


@operator("Slice")
def slice_(call: Call) -> Node:
    """| since | |
    |---|---|
    | 1 | attributes `starts`, `ends`, `axes` |
    | 10 | inputs, and `steps` |
    | 11 | negative axes |
    """
    x = call.x()
    if call.version < 10:
        starts, ends, axes = call.attr("starts"), call.attr("ends"), call.attr("axes")
        steps = None
    else:
        starts, ends = call.sizes(1), call.sizes(2)
        axes, steps = call.ints_from(3), call.ints_from(4)
    if starts is None or ends is None:
        raise ModelError("starts and ends are missing")
    axes = tuple(range(len(starts))) if axes is None else axes
    steps = (1,) * len(axes) if steps is None else steps
    return call(Slice(tuple(map(_position, starts)), tuple(map(_position, ends)), axes, steps), x)


def _position(size: Size) -> Size | None:
    return None if isinstance(size, int) and abs(size) >= FAR - 1 else size


@operator("Expand")
def expand(call: Call) -> Node:
    return call(Expand(call.sizes(1) or ()), call.x())


@operator("Tile")
def tile(call: Call) -> Node:
    """Version 1: `tiles` copies along one `axis`; since version 6 as many as `repeats` says along each."""
    x = call.x()
    if call.version >= 6:
        return call(Tile(call.sizes(1) or ()), x)
    copies, axis = call.ints_from(1), call.ints_from(2)
    if not copies or not axis:
        raise ModelError("tiles and axis are missing")
    return call(Tile(tuple(copies[0] if i == axis[0] else 1 for i in range(x.type.rank))), x)


@operator("Shape")
def shape(call: Call) -> Node:
    """Since version 15 of the axes from `start` to `end` alone."""
    return call(ShapeOf(call.attr("start", 0), call.attr("end")), call.x())


@operator("Size")
def size(call: Call) -> Node:
    return call(ReduceProd((0,), keepdims=False), call(ShapeOf(), call.x()))


@operator("Constant")
def constant(call: Call) -> Node:
    """Since version 12 also as a number, a list of numbers, …"""
    kinds: dict[str, str] = {
        "value_float": "float32",
        "value_floats": "float32",
        "value_int": "int64",
        "value_ints": "int64",
    }
    if len(call.given) != 1:
        raise ModelError(f"one value expected, got {', '.join(sorted(call.given)) or 'none'}")
    ((name, value),) = call.given.items()
    call.ignore(name)
    if name == "value":
        return call.const(value)
    if name not in kinds:
        raise ModelError(f"a constant given as {name} is not supported")
    return call.const(np.array(value, kinds[name]))


@operator("ConstantOfShape")
def constant_of_shape(call: Call) -> Node:
    value: Any = call.attr("value")
    if value is None:
        value = np.zeros(1, np.float32)
    if value.size != 1:
        raise ModelError(f"attribute value must be a single number, got {value.shape}")
    number = value.flat[0].item()
    if isinstance(number, int) and number != int(float(number)):
        raise ModelError(f"attribute value={number} is no number that a float64 holds")
    return call(Full(call.sizes(0) or (), float(number), value.dtype.name))


@operator("Range")
def range_(call: Call) -> Node:
    dtype = call.x(0).type.dtype
    if dtype in ("int64", "int32"):
        start, stop, step = (call.values.sizes(call.x(i), f"input {i}")[0] for i in range(3))
        y = call(Arange(stop, start, call.known(step, "the step")), *())
        return y if dtype == "int64" else call(Cast(dtype), y)
    first, last, width = (float(call.values.array(call.x(i), f"input {i}")) for i in range(3))
    count = (last - first) / width if width else math.nan
    if not count <= MOST_RANGE:
        raise ModelError(f"a range from {first:g} to {last:g} by {width:g} is not supported")
    return call.const((first + width * np.arange(max(0, math.ceil(count)))).astype(dtype))


@operator("EyeLike")
def eye_like(call: Call) -> Node:
    x = call.x()
    if x.type.rank != 2:
        raise ModelError(f"a matrix expected, got {x.type}")
    code = call.attr("dtype")
    dtype = x.type.dtype if code is None else dtype_of(code, "the result")
    return call(Eye(x.type.shape[0], x.type.shape[1], call.attr("k", 0), dtype))


@operator("Dropout")
def dropout(call: Call) -> list[Node]:
    """Inference: the identity, and a mask that is true everywhere.

    | since | |
    |---|---|
    | 1 | attribute `is_test` must be set; the mask has the type of the data |
    | 7 | always inference |
    | 10 | the mask is bool |
    | 12 | inputs `ratio` and `training_mode` |
    """
    call.ignore("ratio", "seed", "consumed_inputs")
    x = call.x()
    if call.version < 7:
        call.only("is_test", 1)
    training = call.array(2) if call.version >= 12 else None
    if training is not None and training.any():
        raise ModelError("training_mode is not supported: export the model for inference")
    mask = Full(x.type.shape, 1.0, "bool" if call.version >= 10 else x.type.dtype)
    return [x, *([call(mask)] if len(call.outputs) > 1 else [])]


@operator("DepthToSpace")
def depth_to_space(call: Call) -> Node:
    """`mode` since version 11, DCR before."""
    return call(DepthToSpace(call.attr("blocksize"), call.attr("mode", "DCR").lower()), call.x())


@operator("SpaceToDepth")
def space_to_depth(call: Call) -> Node:
    """`mode` since version 28, DCR before."""
    return call(SpaceToDepth(call.attr("blocksize"), call.attr("mode", "DCR").lower()), call.x())


@operator("Pad")
def pad(call: Call) -> Node:
    """| since | |
    |---|---|
    | 1 | attributes `paddings`, `value` |
    | 2 | attributes `pads`, `value`; negative pads take elements away |
    | 11 | inputs |
    | 18 | input `axes` |
    | 19 | mode "wrap" |
    """
    x, mode, value = call.x(), call.attr("mode"), 0.0
    if call.version < 11:
        pads: tuple[Size, ...] = call.attr("paddings" if call.version < 2 else "pads")
        value = call.attr("value", 0.0)
    else:
        pads = call.sizes(1) or ()
        given = call.array(2)
        value = 0.0 if given is None or not given.size else float(given.flat[0])
    axes = call.ints_from(3)
    axes = tuple(range(x.type.rank)) if axes is None else tuple(normal_axes((a,), x.type.rank)[0] for a in axes)
    if len(pads) != 2 * len(axes):
        raise ModelError(f"{len(pads)} pads for {len(axes)} axes")
    before, behind = (dict(zip(axes, half, strict=True)) for half in (pads[: len(axes)], pads[len(axes) :]))
    full = tuple(side.get(a, 0) for side in (before, behind) for a in range(x.type.rank))
    image = [full[i] for i in (-2 - x.type.rank, -1 - x.type.rank, -2, -1)] if x.type.rank >= 2 else []
    outer = [n for i, n in enumerate(full) if i % x.type.rank < x.type.rank - 2]
    known = tuple(n for n in image if isinstance(n, int) and n >= 0)
    if len(known) == 4 and mode != "wrap" and not any(outer):
        return call(Pad((known[0], known[1], known[2], known[3]), mode, value), x)
    return call(PadNd(full, mode, value), x)


@operator("CenterCropPad")
def center_crop_pad(call: Call) -> Node:
    """To the sizes of input 1 along `axes`: of an odd difference the larger half is behind."""
    x, sizes = call.x(), call.ints_from(1) or ()
    axes = normal_axes(tuple(call.attr("axes") or range(x.type.rank)), x.type.rank)
    pads = [0] * (2 * x.type.rank)
    for axis, wanted in zip(axes, sizes, strict=True):
        more = wanted - call.known(x.type.shape[axis], f"size of axis {axis}")
        before = more // 2 if more > 0 else -(-more // 2)
        pads[axis], pads[axis + x.type.rank] = before, more - before
    return call(PadNd(tuple(pads)), x)

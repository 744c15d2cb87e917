"""reshape, transpose, concat, split, slice, pad, pad_nd: elements that move, or stay where they are in another shape.

What only changes shape is a view. Inputs of a concat are written to their places in its output by whoever computes
them, where the planner can arrange it; whole blocks of channels stay in the blocked layout; the rest is `Move`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from graphsr.ir import Node
from graphsr.op import Array
from graphsr.ops import Concat, Pad, PadNd, Reshape, Slice, Split, Transpose
from graphsr.ops.generate import known
from graphsr.ops.reduce import normal_axes

from ..kernel import Argument, Kernel
from ..loops import FLOAT, I64, LANES, PTR, Function, Value
from .move import Axis, MoveBlocks, contiguous, move, move_or_view, words
from .row import band, bands_of, load_row, over_row, store_row

if TYPE_CHECKING:
    from ..plan import Planner
    from ..target import Target


def lower(plan: Planner, node: Node) -> None:
    """Lower by op."""
    from ..plan import NoKernel

    op = node.op
    if isinstance(op, Reshape):
        plan.view(node, node.inputs[0])
        return
    if np.dtype(node.type.dtype).itemsize not in (4, 8):
        raise NoKernel(f"only elements of 4 or 8 bytes, not {node.type.dtype}")
    match op:
        case Transpose():
            _transpose(plan, node, op)
        case Concat():
            _concat(plan, node, op)
        case Split():
            first, slices = sum(op.sizes[: op.index]), [slice(None)] * node.type.rank
            slices[op.axis] = slice(first, first + op.sizes[op.index])
            _cut(plan, node, slices)
        case Slice():
            slices = [slice(None)] * node.type.rank
            for start, stop, axis, step in zip(op.starts, op.stops, op.axes, op.steps, strict=True):
                slices[axis] = slice(start, stop, step)
            _cut(plan, node, slices)
        case Pad():
            _pad(plan, node, op.padding, op.mode, op.value)
        case PadNd():
            _pad(plan, node, _of_image(op), op.mode, op.value)


def _transpose(plan: Planner, node: Node, op: Transpose) -> None:
    source = node.inputs[0]
    shape, result = words(source.type), words(node.type)
    order = [axis % node.type.rank for axis in op.axes] + list(range(node.type.rank, len(shape)))
    if [a for a in order if shape[a] > 1] == [a for a in range(len(order)) if shape[a] > 1]:
        plan.view(node, source)
        return
    x_steps = contiguous(shape)
    axes = [Axis(shape[a], x_steps[a], step) for a, step in zip(order, contiguous(result), strict=True)]
    move(plan, node, plan.planar(source), plan.new_planar(node), axes, 0, 0)


def _cut(plan: Planner, node: Node, slices: list[slice]) -> None:
    """y = x[slices]"""
    source = node.inputs[0]
    shape, result = words(source.type), words(node.type)
    cuts = [cut.indices(size) for cut, size in zip(slices, source.type.dims, strict=True)]
    if plan.is_blocked(source) and _keeps_blocks(cuts, shape, result):
        _move_blocks(plan, node, source, cuts[1][0] // LANES, 0, node)
        return
    cuts += [(0, size, 1) for size in shape[len(cuts) :]]
    x_steps = contiguous(shape)
    steps = zip(cuts, result, x_steps, contiguous(result), strict=True)
    axes = [Axis(size, step * x_step, y_step) for (_, _, step), size, x_step, y_step in steps]
    move_or_view(plan, node, axes, sum(start * x_step for (start, _, _), x_step in zip(cuts, x_steps, strict=True)))


def _keeps_blocks(cuts: list[tuple[int, int, int]], shape: tuple[int, ...], result: tuple[int, ...]) -> bool:
    """Whether channels alone are cut, and into whole blocks (the last one may be partial)."""
    start, _, step = cuts[1]
    same = all(a == 1 or (shape[a] == result[a] and cuts[a][2] == 1) for a in range(4))
    whole = result[1] % LANES == 0 or start + result[1] == shape[1]
    return same and step == 1 and start % LANES == 0 and whole


def _move_blocks(plan: Planner, node: Node, source: Node, first: int, to: int, part: Node) -> None:
    """Copy the blocks of channels that `part` has, from block `first` of the source to block `to` of the node."""
    n, _, height, width = node.type.dims
    y = plan.blocked(node) if plan.is_blocked(node) else plan.new_blocked(node)
    sizes = {"from": first, "to": to, "blocks": -(-part.type.dims[1] // LANES), "width": width}
    arguments: dict[str, Argument] = {**plan.blocked(source).arguments("x"), **y.arguments("y"), **sizes}
    plan.call(node, MoveBlocks(), arguments, n * height, label="move blocks")


def _concat(plan: Planner, node: Node, op: Concat) -> None:
    (axis,) = normal_axes((op.axis,), node.type.rank)
    channels = [child.type.dims[1] for child in node.inputs] if node.type.rank == 4 else []
    if axis == 1 and all(map(plan.is_blocked, node.inputs)) and all(c % LANES == 0 for c in channels[:-1]):
        to = 0
        for child, size in zip(node.inputs, channels, strict=True):
            _move_blocks(plan, node, child, 0, to, child)
            to += size // LANES
        return
    children = [(child, plan.planar(child)) for child in node.inputs]
    y, y_steps, at = plan.new_planar(node), contiguous(words(node.type)), 0
    first = prod(node.type.dims[:axis]) == 1  # each input is one piece of the output
    for child, x in children:
        if not (first and plan.place_inside(child, node, at)):
            shape = words(child.type)
            steps = zip(shape, contiguous(shape), y_steps, strict=True)
            move(plan, node, x, y, [Axis(*step) for step in steps], 0, at)
        at += child.type.dims[axis] * y_steps[axis]


@dataclass(frozen=True)
class PadRows(Kernel):
    """y = x with rows and columns around it. Unit: a band of rows of one plane.

    for row: copy of the row of x that the table names, with the pixels beside it that another table names
             [constant: the value beside it, and in rows that the table says are outside]
    """

    constant: bool

    def slots(self) -> Mapping[str, str]:
        sizes = ("height", "width", "left", "right", "out_height", "bands", "band_rows")
        tables = {} if self.constant else {"columns": PTR}
        return {"x": PTR, "y": PTR, "rows": PTR, **tables, "value": FLOAT, **dict.fromkeys(sizes, I64)}

    def body(self, k: Function, target: Target) -> None:
        width, left, right = k["width"], k["left"], k["right"]
        out_width = left + width + right
        with band(k, k.unit, k["out_height"], k["bands"], k["band_rows"]) as (plane, row):
            out = k["y"] + (plane * k["out_height"] + row) * out_width * 4
            source_row = k.load(k["rows"] + row * 8, I64)
            inside = source_row >= 0
            with k.when(inside):
                x = k["x"] + (plane * k["height"] + source_row) * width * 4
                data = out + left * 4
                over_row(k, width, lambda at, mask: store_row(k, load_row(k, x + at * 4, mask), data + at * 4, mask))
                if self.constant:
                    self._fill(k, out, left)
                    self._fill(k, data + width * 4, right)
                else:
                    self._repeat(k, x, out, left, k.literal(0))
                    self._repeat(k, x, out, out_width, left + width)
            if self.constant:
                with k.when(inside ^ 1):
                    self._fill(k, out, out_width)

    def _fill(self, k: Function, at: Value, count: Value) -> None:
        value = k.splat(k["value"])
        over_row(k, count, lambda i, mask: store_row(k, value, at + i * 4, mask))

    def _repeat(self, k: Function, x: Value, out: Value, end: Value, start: Value) -> None:
        with k.loop(end, start=start) as i:
            k.store(k.load(x + k.load(k["columns"] + i * 8, I64) * 4, FLOAT), out + i * 4)


Padding: TypeAlias = tuple[int, int, int, int]
"""Top, left, bottom, right."""


def _of_image(op: PadNd) -> Padding:
    """The padding of the last two axes, if there is no other, and nothing is cut off."""
    from ..plan import NoKernel

    sizes = [known(size) for size in op.padding]
    rank = len(sizes) // 2
    if rank < 2 or any(sizes[a] or sizes[a + rank] for a in range(rank - 2)) or min(sizes) < 0:
        raise NoKernel("more than rows and columns around an image")
    return sizes[rank - 2], sizes[rank - 1], sizes[-2], sizes[-1]


def _pad(plan: Planner, node: Node, padding: Padding, mode: str, value: float) -> None:
    from ..plan import NoKernel

    if node.type.dtype != "float32":
        raise NoKernel(f"only float32, not {node.type.dtype}")
    *outer, height, width = node.inputs[0].type.dims
    if not any(padding):
        plan.view(node, node.inputs[0])
        return
    top, left, bottom, right = padding
    rows, columns = _sources(mode, height, top, bottom), _sources(mode, width, left, right)
    out_height, planes = len(rows), prod(outer)
    bands, band_rows = bands_of(out_height, 4 * len(columns), planes)
    sizes = {"height": height, "width": width, "left": left, "right": right, "out_height": out_height}
    arguments: dict[str, Argument] = {**sizes, "bands": bands, "band_rows": band_rows, "rows": rows, "value": value}
    arguments |= {"x": plan.planar(node.inputs[0]), "y": plan.new_planar(node)}
    constant = mode == "constant"
    if not constant:
        arguments["columns"] = columns
    plan.call(node, PadRows(constant), arguments, planes * bands, label=f"pad {mode}")


def _sources(mode: str, size: int, before: int, after: int) -> Array:
    """Which row (column) of x each row (column) of y repeats; −1 for none."""
    if mode == "constant":
        return np.pad(np.arange(size), (before, after), constant_values=-1)
    return np.pad(
        np.arange(size), (before, after), "edge" if mode == "edge" else "wrap" if mode == "wrap" else "reflect"
    )

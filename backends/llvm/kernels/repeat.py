"""tile, roll and gather: elements that are read several times, in another order, or by a table.

What steps evenly through the source is a `Move`: a copy is an axis along which the source stands still, a roll is two
pieces per axis. For other indices, in a table that is constant or made of them by the network (see index.py):

for (outer position, index) of the unit: copy the run of x[outer, index]
[runs of one element: for outer position of the unit: for index: one element]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from graphsr.ir import Node
from graphsr.op import Array
from graphsr.ops import Gather, Roll, Tile

from ..kernel import Argument, Kernel
from ..loops import FLOAT, I64, PTR, Function, Value
from . import index
from .move import Axis, contiguous, move, move_or_view, words
from .row import bands_of, load_row, over_row, store_row

if TYPE_CHECKING:
    from ..plan import Planner
    from ..target import Target
    from ..tensor import Buffer


@dataclass(frozen=True)
class TakeRuns(Kernel):
    """y[outer, j, :] = x[outer, table[j], :]. Unit: `each` of the pairs (outer, j), or of the outer positions."""

    single: bool
    """Whether runs have one element."""

    def slots(self) -> Mapping[str, str]:
        scalars = ("outer", "size", "indices", "run", "each")
        return {"x": PTR, "y": PTR, "table": PTR, **dict.fromkeys(scalars, I64)}

    def body(self, k: Function, target: Target) -> None:
        first, count = k.unit * k["each"], k["outer"] if self.single else k["outer"] * k["indices"]
        with k.loop(k.minimum(k["each"], count - first)) as i:
            if self.single:
                x, y = k["x"] + (first + i) * k["size"] * 4, k["y"] + (first + i) * k["indices"] * 4
                with k.loop(k["indices"]) as j:
                    k.store(k.load(x + self._index(k, j) * 4, FLOAT), y + j * 4)
            else:
                pair = first + i
                index = self._index(k, pair % k["indices"])
                x = k["x"] + (pair // k["indices"] * k["size"] + index) * k["run"] * 4
                _copy(k, x, k["y"] + pair * k["run"] * 4)

    def _index(self, k: Function, j: Value) -> Value:
        return k.load(k["table"] + j * 8, I64)


def _copy(k: Function, x: Value, y: Value) -> None:
    over_row(k, k["run"], lambda at, mask: store_row(k, load_row(k, x + at * 4, mask), y + at * 4, mask))


def lower(plan: Planner, node: Node) -> None:
    """Lower by op."""
    from ..plan import NoKernel

    if np.dtype(node.type.dtype).itemsize not in (4, 8):
        raise NoKernel(f"only elements of 4 or 8 bytes, not {node.type.dtype}")
    match node.op:
        case Tile():
            _tile(plan, node)
        case Roll():
            _roll(plan, node, node.op)
        case Gather():
            _gather(plan, node, node.op.axis % node.inputs[0].type.rank)


def _tile(plan: Planner, node: Node) -> None:
    shape, result = words(node.inputs[0].type), words(node.type)
    axes: list[Axis] = []
    for size, whole, x_step, y_step in zip(shape, result, contiguous(shape), contiguous(result), strict=True):
        axes += [Axis(whole // size, 0, size * y_step), Axis(size, x_step, y_step)]
    move_or_view(plan, node, axes, 0)


def _roll(plan: Planner, node: Node, op: Roll) -> None:
    """For every rolled axis two pieces: what moves up by the shift, and what comes in from the end."""
    shape = words(node.type)
    whole = [Axis(size, step, step) for size, step in zip(shape, contiguous(shape), strict=True)]
    shifts = {axis % node.type.rank: shift for shift, axis in zip(op.shifts, op.axes, strict=True)}
    pieces = [_pieces(axis, shifts.get(a, 0) % axis.size) for a, axis in enumerate(whole)]
    if all(len(piece) == 1 for piece in pieces):
        plan.view(node, node.inputs[0])
        return
    x, y = plan.planar(node.inputs[0]), plan.new_planar(node)
    for choice in product(*pieces):
        move(plan, node, x, y, [axis for axis, _, _ in choice], sum(c[1] for c in choice), sum(c[2] for c in choice))


def _pieces(axis: Axis, shift: int) -> list[tuple[Axis, int, int]]:
    """(part of the axis, bytes to its first element in the source and in the result)"""
    rest = axis.size - shift
    high, low = (replace(axis, size=rest), 0, shift * axis.y_step), (replace(axis, size=shift), rest * axis.x_step, 0)
    return [high, low] if shift else [high]


def _gather(plan: Planner, node: Node, axis: int) -> None:
    source, given = node.inputs
    if not given.is_const:
        dims = source.type.dims
        places = index.places(plan, node, [(dims[axis], 1)], [])
        index.take(plan, node, places, prod(dims[:axis]), dims[axis], prod(dims[axis + 1 :]))
        return
    shape = words(source.type)
    table = _table(given.value, shape[axis])
    outer, run = shape[:axis], shape[axis + 1 :]
    steps = set(np.diff(table).tolist())
    if len(steps) > 1:
        take_runs(plan, node, table, len(table), prod(outer), shape[axis], prod(run))
        return
    step = steps.pop() if steps else 0
    x_steps, y_steps = contiguous(shape), contiguous((*outer, len(table), *run))
    axes = [Axis(*sizes) for sizes in zip((*outer, len(table), *run), x_steps, y_steps, strict=True)]
    axes[axis] = replace(axes[axis], x_step=step * x_steps[axis])
    move_or_view(plan, node, axes, int(table[0]) * x_steps[axis])


def _table(indices: Array, size: int) -> Array:
    """The positions that indices stand for, in a row."""
    from ..plan import NoKernel

    low, high = int(indices.min()), int(indices.max())
    if low < -size or high >= size:
        raise NoKernel(f"indices {low} … {high} leave an axis of {size} elements")
    return np.where(indices < 0, indices + size, indices).astype(np.int64).ravel()


def take_runs(plan: Planner, node: Node, table: Array | Buffer, indices: int, outer: int, size: int, run: int) -> None:
    """y[outer, j, :] = x[outer, table[j], :] of x[outer, size, run], in words of 4 bytes."""
    single = run == 1
    count, nbytes = (outer, 4 * indices) if single else (outer * indices, 4 * run)
    units, each = bands_of(count, nbytes)
    arguments: dict[str, Argument] = {"x": plan.planar(node.inputs[0]), "y": plan.new_planar(node), "table": table}
    arguments |= {"outer": outer, "size": size, "indices": indices, "run": run, "each": each}
    plan.call(node, TakeRuns(single), arguments, units, label="move by a table")

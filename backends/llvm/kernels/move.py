"""Moving elements from one array to another by strides: what slicing, splitting, joining and transposing come to.

for rows of the unit (all axes but the inner ones):
    row:        16 elements in, 16 out
    transposed: for tiles of 64 x 256: a square of as many elements as a register has, along the axis that is
                contiguous in the source, turned in registers, and out
    strided:    one by one

Axes of size 1 are left out and axes that continue each other are joined first, so most moves have few rows, long ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graphsr.ir import Node, TensorType

from ..kernel import Argument, Kernel, blocked_slots
from ..loops import FLOAT, I64, PTR, VECTOR_BYTES, Function, Value
from .axes import joined
from .layout import transpose, zero_halo
from .row import bands_of, load_row, over_row, store_row

if TYPE_CHECKING:
    from ..plan import Planner
    from ..target import Target
    from ..tensor import Buffer

ROW, TRANSPOSED, STRIDED = "row", "transposed", "strided"

TALL, WIDE = 64, 256
"""Elements that are turned together, of the axes that are contiguous in the source and in the result."""


@dataclass(frozen=True)
class Axis:
    """An axis of a move: its size, and the bytes between neighbours in the source and in the result."""

    size: int
    x_step: int
    y_step: int


@dataclass(frozen=True)
class Move(Kernel):
    """Unit: so many rows. See above."""

    outer: int
    """Axes around the inner ones."""
    inner: str

    def slots(self) -> Mapping[str, str]:
        names = [f"{what}{a}" for a in range(self.outer) for what in ("size", "x_step", "y_step")]
        inner = {ROW: ["width"], STRIDED: ["width", "x_step"], TRANSPOSED: ["width", "height", "x_step", "y_step"]}
        scalars = ["x_start", "y_start", *names, *inner[self.inner], "count", "rows"]
        return {"x": PTR, "y": PTR, **dict.fromkeys(scalars, I64)}

    def body(self, k: Function, target: Target) -> None:
        first = k.unit * k["rows"]
        with k.loop(k.minimum(k["rows"], k["count"] - first)) as i:
            x, y, rest = k["x"] + k["x_start"], k["y"] + k["y_start"], first + i
            if self.inner == TRANSPOSED:
                tiles, pieces = (k["height"] + (TALL - 1)) // TALL, (k["width"] + (WIDE - 1)) // WIDE
                p, q, rest = rest % tiles * TALL, rest // tiles % pieces * WIDE, rest // tiles // pieces
            for a in reversed(range(self.outer)):
                position = rest % k[f"size{a}"] if a else rest
                x, y, rest = x + position * k[f"x_step{a}"], y + position * k[f"y_step{a}"], rest // k[f"size{a}"]
            if self.inner == ROW:
                over_row(k, k["width"], lambda at, mask: _copy(k, x + at * 4, y + at * 4, mask))
            elif self.inner == TRANSPOSED:
                self._turn(k, x, y, p, q)
            else:
                with k.loop(k["width"]) as at:
                    k.store(k.load(x + at * k["x_step"], FLOAT), y + at * 4)

    def _turn(self, k: Function, x: Value, y: Value, p_first: Value, q_first: Value) -> None:
        """y[p, q] = x[q, p] for `TALL` p and `WIDE` q: as soon as the lines of 16 q are in the caches, all that is
        there of them is used."""
        last, stop = k["width"] - 1, k.minimum(k["width"], q_first + WIDE)
        with k.narrowed(), k.loop(stop, start=q_first, step=k.lanes_now) as q:
            sources = [x + k.minimum(q + i, last) * k["x_step"] for i in range(k.lanes_now)]
            wide = k.first_lanes(k["width"] - q)
            with k.loop(k.minimum(k["height"], p_first + TALL), start=p_first, step=k.lanes_now) as p:
                bottom = k["height"] - p - 1
                given = k.first_lanes(bottom + 1)
                columns = transpose(k, [k.load_some(source + p * 4, given) for source in sources])
                for i, column in reversed(list(enumerate(columns))):  # those below the last row go to it before its own
                    k.store_some(column, y + (p + k.minimum(bottom, i)) * k["y_step"] + q * 4, wide)


def _copy(k: Function, x: Value, y: Value, mask: Value | None) -> None:
    store_row(k, load_row(k, x, mask), y, mask)


@dataclass(frozen=True)
class MoveBlocks(Kernel):
    """Whole blocks of channels of a blocked image. Unit: row y of image n."""

    def slots(self) -> Mapping[str, str]:
        return {**blocked_slots("x"), **blocked_slots("y"), **dict.fromkeys(("from", "to", "blocks", "width"), I64)}

    def body(self, k: Function, target: Target) -> None:
        with k.loop(k["blocks"]) as block:
            x = k["x"] + k.unit * k["x_row"] + (k["from"] + block) * k["x_block"]
            y = k["y"] + k.unit * k["y_row"] + (k["to"] + block) * k["y_block"]
            with k.loop(k["width"]) as at:
                k.store(k.load(x + at * VECTOR_BYTES), y + at * VECTOR_BYTES)
            zero_halo(k, y, k["width"], k["y_left"], k["y_right"])


def move(plan: Planner, node: Node, x: Buffer, y: Buffer, axes: Sequence[Axis], x_start: int, y_start: int) -> None:
    """Add the call that copies elements of 4 bytes: from `x_start` bytes in x, to `y_start` bytes in y."""
    *outer, last = _joined(axes)
    inner, arguments = STRIDED, {"width": last.size, "x_step": last.x_step}
    rows, row_bytes = 1, 4 * last.size
    if last.x_step == 4:
        inner, arguments = ROW, {"width": last.size}
    elif turned := next((a for a in outer if a.x_step == 4), None):
        outer.remove(turned)
        inner, row_bytes = TRANSPOSED, 4 * TALL * min(last.size, WIDE)
        rows = -(-turned.size // TALL) * -(-last.size // WIDE)
        arguments |= {"height": turned.size, "y_step": turned.y_step}
    for i, axis in enumerate(outer):
        arguments |= {f"size{i}": axis.size, f"x_step{i}": axis.x_step, f"y_step{i}": axis.y_step}
        rows *= axis.size
    units, each = bands_of(rows, row_bytes)
    arguments |= {"x_start": x_start, "y_start": y_start, "count": rows, "rows": each}
    everything: dict[str, Argument] = {"x": x, "y": y, **arguments}
    plan.call(node, Move(len(outer), inner), everything, units, label=f"move by {inner}s")


def move_or_view(plan: Planner, node: Node, axes: Sequence[Axis], x_start: int) -> None:
    """y = the elements of the first input along these axes, from `x_start` bytes on: a view of it where it can be."""
    source = node.inputs[0]
    if all(axis.size == 1 or axis.x_step == axis.y_step for axis in axes) and not plan.is_returned(node):
        plan.view(node, source, x_start)
    else:
        move(plan, node, plan.planar(source), plan.new_planar(node), axes, x_start, 0)


def words(type_: TensorType) -> tuple[int, ...]:
    """The shape of an array as one of elements of 4 bytes: longer ones are a last axis of 2."""
    return type_.dims if np.dtype(type_.dtype).itemsize == 4 else (*type_.dims, 2)


def contiguous(shape: Sequence[int], itemsize: int = 4) -> list[int]:
    """Bytes between neighbours along each axis of an array of elements of so many bytes."""
    steps = [itemsize]
    for size in reversed(shape[1:]):
        steps.insert(0, steps[0] * size)
    return steps[: len(shape)]


def _joined(axes: Sequence[Axis]) -> list[Axis]:
    """The same move with as few axes as can be, the last one contiguous in the result."""
    found = [Axis(size, *steps) for size, steps in joined((a.size, (a.x_step, a.y_step)) for a in axes)]
    return found if found and found[-1].y_step == 4 else [*found, Axis(1, 4, 4)]

"""cumulative_sum along an axis, from its start or from its end, each element included or not.

axis inside:  for 4 rows of the unit at a time: for elements of the axis: one of each row is added to its sum, and out
axis outside: for 4 vectors of positions beside the axis at a time: the same, every lane for itself

Along the axis sums run as NumPy's do, one element after the other: they have the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphsr.ir import Node
from graphsr.ops import CumulativeSum

from ..kernel import Argument, Kernel
from ..loops import DOUBLE, FLOAT, I32, I64, PTR, Function, Value
from .elementwise_planar import ITEMSIZE, Stream
from .row import around, bands_of, columns_of, columns_of_unit, over_row

if TYPE_CHECKING:
    from ..plan import Planner
    from ..target import Target

TOGETHER = 4
"""Sums that run side by side, as an addition takes as many cycles."""

SCALARS = {"float32": FLOAT, "float64": DOUBLE, "int32": I32, "int64": I64}
NOTHING = -0.0
"""What any number is added to without a change, also −0; of integers 0."""


@dataclass(frozen=True)
class CumulateRows(Kernel):
    """x[rows, size]. Unit: so many rows. `step` bytes are from one element to the next in the direction of the sums,
    `begin` from the start of a row to the first of them."""

    dtype: str
    exclusive: bool

    def slots(self) -> Mapping[str, str]:
        return {"x": PTR, "y": PTR, **dict.fromkeys(("rows", "row", "size", "begin", "step", "each"), I64)}

    def body(self, k: Function, target: Target) -> None:
        first = k.unit * k["each"]
        count = k.minimum(k["each"], k["rows"] - first)
        whole = count & -TOGETHER
        with k.loop(whole, step=TOGETHER) as i:
            self._sum(k, [(first + i + j) * k["row"] for j in range(TOGETHER)])
        with k.loop(count, start=whole) as i:
            self._sum(k, [(first + i) * k["row"]])

    def _sum(self, k: Function, rows: Sequence[Value]) -> None:
        type_, start = SCALARS[self.dtype], k["y"] + k["begin"]
        if self.exclusive:
            for row in rows:
                k.store(k.literal(0, type_), start + row)
        x, y = k["x"] + k["begin"], start + k["step"] if self.exclusive else start

        @k.fold(k["size"] - int(self.exclusive), [k.literal(NOTHING, type_) for _ in rows])
        def totals(i: Value, totals: list[Value]) -> list[Value]:
            at = i * k["step"]
            totals = [total + k.load(x + row + at, type_) for row, total in zip(rows, totals, strict=True)]
            for row, total in zip(rows, totals, strict=True):
                k.store(total, y + row + at)
            return totals


@dataclass(frozen=True)
class CumulateColumns(Kernel):
    """x[outer, size, inner]. Unit: `each` of the inner positions of one outer one. `step` and `begin` as above."""

    dtype: str
    exclusive: bool

    def slots(self) -> Mapping[str, str]:
        return {"x": PTR, "y": PTR, **dict.fromkeys(("size", "inner", "begin", "step", "each"), I64)}

    def body(self, k: Function, target: Target) -> None:
        outer, start, width = columns_of_unit(k, k["each"])
        at = (outer * k["size"] * k["inner"] + start) * ITEMSIZE[self.dtype] + k["begin"]
        x, y = k["x"] + at, k["y"] + at
        with k.narrowed():
            wide = TOGETHER * k.lanes_now
            whole = width & -wide
            with k.loop(whole, step=wide) as i:
                self._sum(k, x, y, [i + j * k.lanes_now for j in range(TOGETHER)], None)
            x, y = (pointer + whole * ITEMSIZE[self.dtype] for pointer in (x, y))
            over_row(k, width - whole, lambda i, mask: self._sum(k, x, y, [i], mask))

    def _sum(self, k: Function, x: Value, y: Value, places: Sequence[Value], mask: Value | None) -> None:
        stream = Stream(self.dtype)
        if self.exclusive:
            for place in places:
                stream.store(k, k.literal(0, stream.vector), y, place, mask)
            y = y + k["step"]

        @k.fold(k["size"] - int(self.exclusive), [k.literal(NOTHING, stream.vector) for _ in places])
        def totals(i: Value, totals: list[Value]) -> list[Value]:
            source, out = x + i * k["step"], y + i * k["step"]
            totals = [t + stream.load(k, source, place, mask) for place, t in zip(places, totals, strict=True)]
            for place, total in zip(places, totals, strict=True):
                stream.store(k, total, out, place, mask)
            return totals


def lower(plan: Planner, node: Node) -> None:
    """Planar, along any axis."""
    from ..plan import NoKernel

    op, source, dtype = node.op, node.inputs[0], node.type.dtype
    assert isinstance(op, CumulativeSum)
    if dtype not in SCALARS:
        raise NoKernel(f"only {', '.join(SCALARS)}, not {dtype}")
    outer, size, inner = around(node.type.dims, (op.axis % node.type.rank,))
    step = inner * ITEMSIZE[dtype]
    arguments: dict[str, Argument] = {"x": plan.planar(source), "y": plan.new_planar(node), "size": size}
    arguments |= {"step": -step, "begin": (size - 1) * step} if op.reverse else {"step": step, "begin": 0}
    if inner == 1:
        groups, each = bands_of(-(-outer // TOGETHER), TOGETHER * size * step)
        arguments |= {"rows": outer, "row": size * step, "each": TOGETHER * each}
        plan.call(node, CumulateRows(dtype, op.exclusive), arguments, groups, label="sums along rows")
    else:
        pieces, each = columns_of(inner, 2 * size * ITEMSIZE[dtype])
        arguments |= {"inner": inner, "each": each}
        kernel = CumulateColumns(dtype, op.exclusive)
        plan.call(node, kernel, arguments, outer * pieces, label="sums along columns")

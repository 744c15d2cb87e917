"""gather, gather_elements, gather_nd, scatter_elements, scatter_nd with indices that are known when the network runs.

First a table of places in x is made of the indices; then runs of elements are read, or written, by the table:

places:  for row of the unit: place = Σ the row's position along axes that run along · their steps
             for index of the row: seen = its least and greatest; place += (index from the front, kept inside) · step
gather:  for j of the unit: y[j] = x[table[j]]
scatter: for the part of y that is the unit's: a copy of x
         for j of all places, in order: where table[j] is in that part: y[table[j]] = (y[table[j]] +) u[j]

An index outside reads or writes another place of x. What was seen is judged when all has run, and is the error of
`forward` then. Every place is written by one thread, in the order of the indices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from graphsr.ir import Node, TensorType
from graphsr.ops import GatherElements, GatherND, ScatterElements, ScatterND
from graphsr.ops.index import expect_inside

from ..kernel import Argument, Kernel
from ..loops import FLOAT, I32, I64, PTR, Function, Value
from ..tensor import Buffer
from .axes import joined
from .move import contiguous, words
from .row import bands_of, even_parts, load_row, over_row, store_row

if TYPE_CHECKING:
    from ..plan import Planner
    from ..target import Target

LEAST, GREATEST = -(2**63), 2**63 - 1


@dataclass(frozen=True)
class Places(Kernel):
    """table[count] of rows of indices[count, depth]. Unit: `each` of the rows."""

    index: str
    """I32 or I64."""
    depth: int
    axes: int
    """How many axes run along."""

    def slots(self) -> Mapping[str, str]:
        indexed = [f"{what}{d}" for d in range(self.depth) for what in ("size", "step")]
        along = [f"{what}{a}" for a in range(self.axes) for what in ("length", "stride")]
        names = ("count", "each", *indexed, *along)
        return {"indices": PTR, "table": PTR, "seen": PTR, **dict.fromkeys(names, I64)}

    def body(self, k: Function, target: Target) -> None:
        first, nbytes = k.unit * k["each"], 8 if self.index == I64 else 4
        nothing = [k.literal(GREATEST), k.literal(LEAST)] * self.depth

        @k.fold(k.minimum(k["each"], k["count"] - first), nothing)
        def seen(i: Value, before: list[Value]) -> list[Value]:
            row = first + i
            place, extremes = self._along(k, row), []
            for d in range(self.depth):
                index = k.load(k["indices"] + (row * self.depth + d) * nbytes, self.index)
                index = index if self.index == I64 else k.convert("sext", index, I64)
                extremes += [k.minimum(index, before[2 * d]), k.maximum(index, before[2 * d + 1])]
                position = k.select(index < 0, index + k[f"size{d}"], index)
                place = place + k.maximum(k.minimum(position, k[f"size{d}"] - 1), 0) * k[f"step{d}"]
            k.store(place, k["table"] + row * 8)
            return extremes

        for n, value in enumerate(seen):
            k.store(value, k["seen"] + (k.unit * 2 * self.depth + n) * 8)

    def _along(self, k: Function, row: Value) -> Value:
        """Where the row's indices count from."""
        place = k.literal(0)
        for a in reversed(range(self.axes)):
            position = row % k[f"length{a}"] if a else row
            place, row = place + position * k[f"stride{a}"], row // k[f"length{a}"]
        return place

    def check(self, arguments: Mapping[str, Argument]) -> None:
        seen = arguments["seen"]
        assert isinstance(seen, np.ndarray)
        for d in range(self.depth):
            size = arguments[f"size{d}"]
            assert isinstance(size, int)
            expect_inside(int(seen[:, d, 0].min()), int(seen[:, d, 1].max()), size)


@dataclass(frozen=True)
class TakeElements(Kernel):
    """y[j] = x[table[j]], of 4 or 8 bytes each. Unit: `each` of them."""

    type: str
    """FLOAT or I64, whatever the elements are."""

    def slots(self) -> Mapping[str, str]:
        return {"x": PTR, "y": PTR, "table": PTR, "count": I64, "each": I64}

    def body(self, k: Function, target: Target) -> None:
        first, nbytes = k.unit * k["each"], 8 if self.type == I64 else 4
        with k.loop(k.minimum(k["each"], k["count"] - first)) as i:
            place = k.load(k["table"] + (first + i) * 8, I64)
            k.store(k.load(k["x"] + place * nbytes, self.type), k["y"] + (first + i) * nbytes)


@dataclass(frozen=True)
class PutRuns(Kernel):
    """y[total, run] = x, then in the order of the table y[table[j], :] = u[j, :], or += u[j, :]. Unit: `each` of the
    runs of y."""

    single: bool
    """Whether runs have one element."""
    adds: bool

    def slots(self) -> Mapping[str, str]:
        return {"x": PTR, "y": PTR, "u": PTR, "table": PTR, **dict.fromkeys(("total", "run", "count", "each"), I64)}

    def body(self, k: Function, target: Target) -> None:
        first, run = k.unit * k["each"], k["run"]
        runs = k.minimum(k["each"], k["total"] - first)
        x, y = k["x"] + first * run * 4, k["y"] + first * run * 4
        over_row(k, runs * run, lambda at, mask: store_row(k, load_row(k, x + at * 4, mask), y + at * 4, mask))
        with k.loop(k["count"]) as j:
            place = k.load(k["table"] + j * 8, I64) - first
            with k.when((place >= 0) & (place < runs)):
                self._put(k, k["u"] + j * run * 4, y + place * run * 4)

    def _put(self, k: Function, u: Value, y: Value) -> None:
        if self.single:
            value = k.load(u, FLOAT)
            k.store(k.load(y, FLOAT) + value if self.adds else value, y)
            return

        def write(at: Value, mask: Value | None) -> None:
            value = load_row(k, u + at * 4, mask)
            value = load_row(k, y + at * 4, mask) + value if self.adds else value
            store_row(k, value, y + at * 4, mask)

        over_row(k, k["run"], write)


def lower(plan: Planner, node: Node) -> None:
    """Lower by op."""
    from ..plan import NoKernel

    x, indices = node.inputs[:2]
    nbytes = np.dtype(node.type.dtype).itemsize
    if nbytes not in (4, 8):
        raise NoKernel(f"only elements of 4 or 8 bytes, not {node.type.dtype}")
    match node.op:
        case GatherElements(axis=axis) | ScatterElements(axis=axis):
            table, run = _elements(plan, node, axis % x.type.rank), 1
        case GatherND(batch_axes=shared):
            table, run = _rows(plan, node, shared), prod(x.type.dims[shared + indices.type.dims[-1] :])
        case _:
            table, run = _rows(plan, node, 0), prod(x.type.dims[indices.type.dims[-1] :])
    if isinstance(node.op, ScatterElements | ScatterND):
        if node.op.reduction == "add" and node.type.dtype != "float32":
            raise NoKernel(f"only sums of float32, not {node.type.dtype}")
        _put(plan, node, table, run * nbytes // 4, node.op.reduction == "add")
    else:
        take(plan, node, table, 1, prod(x.type.dims) // run, run)


def _elements(plan: Planner, node: Node, axis: int) -> Buffer:
    """The places of elements, where all axes but one run along."""
    x, indices = (child.type.dims for child in node.inputs[:2])
    steps = contiguous(x, 1)
    along = [(size, 0 if a == axis else step) for a, (size, step) in enumerate(zip(indices, steps, strict=True))]
    return places(plan, node, [(x[axis], steps[axis])], along)


def _rows(plan: Planner, node: Node, shared: int) -> Buffer:
    """The places of runs that rows of indices name, behind the first axes, which run along."""
    x, indices = (child.type.dims for child in node.inputs[:2])
    last = shared + indices[-1]
    steps = contiguous(x[:last], 1)
    along = [*zip(indices[:shared], steps[:shared], strict=True), *((size, 0) for size in indices[shared:-1])]
    return places(plan, node, list(zip(x[shared:last], steps[shared:], strict=True)), along)


def places(plan: Planner, node: Node, indexed: Sequence[tuple[int, int]], along: Sequence[tuple[int, int]]) -> Buffer:
    """The table of places that the node's second input names: int64, one for each row of indices. `indexed` has (size,
    step) of the axes that an index is for, `along` (length, step) of the axes of all rows."""
    from ..plan import NoKernel

    x, indices = (child.type for child in node.inputs[:2])
    if not x.size or not indices.size:
        raise NoKernel("no element or no index")
    runs = joined((length, (step,)) for length, step in along)
    runs = runs if any(step for _, (step,) in runs) else []  # all rows count from the same place
    count = prod(indices.dims) // len(indexed)
    units, each = bands_of(count, 8 * len(indexed))
    table = Buffer(TensorType("int64", (count,)))
    arguments: dict[str, Argument] = {"indices": plan.planar(node.inputs[1]), "table": table, "count": count}
    arguments |= {"each": each, "seen": np.zeros((units, len(indexed), 2), np.int64)}
    for d, (size, step) in enumerate(indexed):
        arguments |= {f"size{d}": size, f"step{d}": step}
    for a, (length, (stride,)) in enumerate(runs):
        arguments |= {f"length{a}": length, f"stride{a}": stride}
    kernel = Places(I64 if indices.dtype == "int64" else I32, len(indexed), len(runs))
    plan.call(node, kernel, arguments, units, label="places of indices")
    return table


def take(plan: Planner, node: Node, table: Buffer, outer: int, size: int, run: int) -> None:
    """y[outer, j, :] = x[outer, table[j], :] of x[outer, size, run]"""
    from .repeat import take_runs

    x, count = node.inputs[0], table.type.dims[0]
    nbytes = np.dtype(node.type.dtype).itemsize
    if outer > 1 or run > 1:
        take_runs(plan, node, table, count, outer, size, run * nbytes // 4)
        return
    units, each = bands_of(count, nbytes)
    arguments: dict[str, Argument] = {"x": plan.planar(x), "y": plan.new_planar(node), "table": table}
    kernel = TakeElements(FLOAT if nbytes == 4 else I64)
    plan.call(node, kernel, arguments | {"count": count, "each": each}, units, label="take by a table")


def _put(plan: Planner, node: Node, table: Buffer, run: int, adds: bool) -> None:
    x, _, updates = node.inputs
    total = prod(words(node.type)) // run
    units, each = even_parts(total, plan.threads)
    arguments: dict[str, Argument] = {"x": plan.planar(x), "u": plan.planar(updates), "y": plan.new_planar(node)}
    arguments |= {"table": table, "total": total, "run": run, "count": table.type.dims[0], "each": each}
    plan.call(node, PutRuns(run == 1, adds), arguments, units, label="put by a table")

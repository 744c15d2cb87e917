"""softmax: y = exp((x − m) / T) / Σ exp((x − m) / T) along an axis, with the maximum m; log_softmax: the logarithm of
that, y = x − m − ln Σ exp(x − m); reduce_log_sum_exp: y = m + ln Σ exp(x − m).

axis inside:  for each row of the unit: its maximum; the exponentials and their sum; y
              a long one: for part of the row: its maximum; the exponentials and their sum; y
axis outside: for 16 positions beside the axis: the same along the axis, all in the lanes of one vector

The exponentials of softmax wait in y for their sum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, TypeAlias

from graphsr.ir import Node, TensorType
from graphsr.ops import LogSoftmax, ReduceLogSumExp, Softmax
from graphsr.ops.reduce import normal_axes

from ..kernel import Argument, Kernel
from ..loops import FLOAT, I64, PTR, Function, Value
from ..tensor import Buffer
from .folding import Folding
from .math import exp, log_
from .reduce import (
    Formula,
    are_long,
    fold_run,
    in_chunks,
    kernels_of_long_rows,
    part_of_unit,
    parts_of,
    reduce_long_rows,
    reduce_parts,
)
from .row import around, bands_of, columns_of, columns_of_unit, load_row, over_row, store_row

if TYPE_CHECKING:
    from ..plan import Planner
    from ..target import Target

MAX, SUM = Folding("max"), Folding("sum")
MAXIMA, SUMS = Formula("max"), Formula("sum")
SOFTMAX, LOGARITHM, TOTAL = "softmax", "log softmax", "log of sum of exponentials"

Change: TypeAlias = Callable[[Value], Value]


@dataclass(frozen=True)
class Row:
    """What lies side by side along the axis."""

    k: Function
    x: Value
    y: Value
    size: Value

    def largest(self) -> Value:
        """The maximum, in every lane."""
        return MAX.leave(self.k, MAX.across(self.k, fold_run(self.k, MAX, self.x, self.size)))

    def sum(self, of: Change, *, kept: bool = False) -> Value:
        """The sum of a formula of every element of x, in every lane; with `kept`, y are its terms. One vector at a
        time: exponentials of several would not find room in the registers."""
        k, whole = self.k, self.size & -self.k.lanes_now

        def vector(i: Value, mask: Value | None = None) -> list[Value]:
            value = of(load_row(k, self.x + i * 4, mask))
            if kept:
                store_row(k, value, self.y + i * 4, mask)
            return [value if mask is None else k.select(mask, value, k.vector(0.0))]

        total = in_chunks(k, SUM, whole, 1, vector, k.lanes_now)

        @k.fold(self.size, total, start=whole, step=k.lanes_now)
        def all_of_it(i: Value, total: list[Value]) -> list[Value]:
            return [total[0] + vector(i, k.first_lanes(self.size - i))[0]]

        return SUM.across(k, all_of_it[0])

    def write(self, at: Value, of: Change) -> None:
        """y = a formula of every element at x or y"""

        def vector(i: Value, mask: Value | None) -> None:
            store_row(self.k, of(load_row(self.k, at + i * 4, mask)), self.y + i * 4, mask)

        over_row(self.k, self.size, vector)

    def write_one(self, value: Value) -> None:
        self.k.store(self.k.extract(value, 0), self.y)


@dataclass(frozen=True)
class Columns:
    """16 positions beside the axis, those of the mask only; `step` bytes from one to the next along it."""

    k: Function
    x: Value
    y: Value
    size: Value
    step: Value
    mask: Value | None

    def largest(self) -> Value:
        """As that of a row, for every lane its own."""
        (total,) = in_chunks(self.k, MAX, self.size, 1, lambda i: [MAX.enter(self.k, self._load(self.x, i))])
        return MAX.leave(self.k, total)

    def sum(self, of: Change, *, kept: bool = False) -> Value:
        def vector(i: Value) -> list[Value]:
            value = of(self._load(self.x, i))
            if kept:
                store_row(self.k, value, self.y + i * self.step, self.mask)
            return [value]

        return in_chunks(self.k, SUM, self.size, 1, vector)[0]

    def write(self, at: Value, of: Change) -> None:
        with self.k.loop(self.size) as i:
            store_row(self.k, of(self._load(at, i)), self.y + i * self.step, self.mask)

    def write_one(self, value: Value) -> None:
        store_row(self.k, value, self.y, self.mask)

    def _load(self, at: Value, i: Value) -> Value:
        return load_row(self.k, at + i * self.step, self.mask)


def emit(k: Function, result: str, line: Row | Columns, heated: bool) -> None:
    """One of the three results along a line. Without `heated`, T is 1."""
    largest = line.largest()
    finish(k, result, line, largest, exponentials(k, result, line, largest, heated))


def exponentials(k: Function, result: str, line: Row | Columns, largest: Value, heated: bool) -> Value:
    """Their sum; those of softmax are left in y."""
    m = subtracted(k, result, largest)
    temperature = k.splat(k["temperature"]) if heated else None
    return line.sum(lambda x: exp(k, (x - m) / temperature if temperature else x - m), kept=result == SOFTMAX)


def finish(k: Function, result: str, line: Row | Columns, largest: Value, total: Value) -> None:
    """The result, of the maximum and of that sum."""
    match result:
        case "softmax":
            inverse = k.vector(1.0) / total
            line.write(line.y, lambda e: divided(k, e, total, inverse))
        case "log softmax":
            logarithm = log_(k, total)
            line.write(line.x, lambda x: (x - largest) - logarithm)
        case _:
            line.write_one(subtracted(k, result, largest) + log_(k, total))


def subtracted(k: Function, result: str, largest: Value) -> Value:
    """What is subtracted from x: the maximum, but 0 where that is infinite and the result is one number."""
    if result != TOTAL:
        return largest
    infinite = k.intrinsic("fabs", largest).equals(k.vector(inf))
    return k.select(infinite, k.vector(0.0), largest)


def divided(k: Function, x: Value, divisor: Value, inverse: Value) -> Value:
    """x / divisor by its inverse, and what that leaves over once more: as exact, and faster, where there is fused
    multiply-add."""
    if not k.has_fma:
        return x / divisor
    q = x * inverse
    return k.fma(k.fma(-q, divisor, x), inverse, q)


@dataclass(frozen=True)
class SoftmaxRows(Kernel):
    """x[rows, size]. Unit: so many rows."""

    result: str
    heated: bool = False

    def for_any_width(self, target: Target) -> set[Kernel]:
        statistics = (*kernels_of_long_rows(MAXIMA), *kernels_of_long_rows(SUMS)[1:])
        return {self, *statistics, SumExponentials(self.result, self.heated), FinishSoftmax(self.result)}

    def slots(self) -> Mapping[str, str]:
        return {"x": PTR, "y": PTR, "temperature": FLOAT, **dict.fromkeys(("rows", "size", "each"), I64)}

    def body(self, k: Function, target: Target) -> None:
        first, size = k.unit * k["each"], k["size"]
        with k.narrowed(), k.loop(k.minimum(k["each"], k["rows"] - first)) as i:
            row = first + i
            y = row if self.result == TOTAL else row * size
            emit(k, self.result, Row(k, k["x"] + row * size * 4, k["y"] + y * 4, size), self.heated)


@dataclass(frozen=True)
class SumExponentials(Kernel):
    """x[rows, size] and the maximum of each row -> sums[rows, parts]; the exponentials of softmax are left in y. Unit:
    a part of a row."""

    result: str
    heated: bool = False

    def slots(self) -> Mapping[str, str]:
        y = ("y",) if self.result == SOFTMAX else ()
        pointers = dict.fromkeys(("x", *y, "largest", "sums"), PTR)
        return {**pointers, "temperature": FLOAT, **dict.fromkeys(("size", "parts"), I64)}

    def body(self, k: Function, target: Target) -> None:
        row, at, count = part_of_unit(k)
        with k.narrowed():
            line = Row(k, k["x"] + at, k["y"] + at if self.result == SOFTMAX else k["x"], count)
            largest = k.splat(k.load(k["largest"] + row * 4, FLOAT))
            total = exponentials(k, self.result, line, largest, self.heated)
            k.store(k.extract(total, 0), k["sums"] + k.unit * 4)


@dataclass(frozen=True)
class FinishSoftmax(Kernel):
    """y[rows, size], or y[rows], of the maxima and the sums of rows, and of x or of the exponentials in y. Unit: a part
    of a row, or a row."""

    result: str

    def slots(self) -> Mapping[str, str]:
        x = ("x",) if self.result == LOGARITHM else ()
        return {**dict.fromkeys((*x, "y", "largest", "total"), PTR), **dict.fromkeys(("size", "parts"), I64)}

    def body(self, k: Function, target: Target) -> None:
        row, at, count = part_of_unit(k)
        if self.result == TOTAL:
            row, at = k.unit, k.unit * 4
        with k.narrowed():
            largest, total = (k.splat(k.load(k[name] + row * 4, FLOAT)) for name in ("largest", "total"))
            y = k["y"] + at
            line = Row(k, k["x"] + at if self.result == LOGARITHM else y, y, count)
            finish(k, self.result, line, largest, total)


@dataclass(frozen=True)
class SoftmaxColumns(Kernel):
    """x[outer, size, inner]. Unit: `each` of the inner positions of one outer one."""

    result: str
    heated: bool = False

    def slots(self) -> Mapping[str, str]:
        return {"x": PTR, "y": PTR, "temperature": FLOAT, **dict.fromkeys(("size", "inner", "each"), I64)}

    def body(self, k: Function, target: Target) -> None:
        outer, start, width = columns_of_unit(k, k["each"])
        row = outer * k["size"] * k["inner"]
        x = k["x"] + (row + start) * 4
        y = k["y"] + ((outer * k["inner"] if self.result == TOTAL else row) + start) * 4

        def columns(i: Value, mask: Value | None) -> None:
            emit(k, self.result, Columns(k, x + i * 4, y + i * 4, k["size"], k["inner"] * 4, mask), self.heated)

        with k.narrowed():
            over_row(k, width, columns)


def lower(plan: Planner, node: Node) -> None:
    """Planar, along any axis, or axes that are neighbours."""
    from ..plan import NoKernel

    op, shape = node.op, node.inputs[0].type.dims
    assert isinstance(op, Softmax | LogSoftmax | ReduceLogSumExp)
    if node.type.dtype != "float32":
        raise NoKernel(f"only float32, not {node.type.dtype}")
    axes = normal_axes(op.axes if isinstance(op, ReduceLogSumExp) else (op.axis,), len(shape))
    outer, size, inner = around(shape, axes)
    if size == 0:
        raise NoKernel("nothing to reduce")
    result = SOFTMAX if isinstance(op, Softmax) else LOGARITHM if isinstance(op, LogSoftmax) else TOTAL
    temperature = op.temperature if isinstance(op, Softmax) else 1.0
    arguments: dict[str, Argument] = {"x": plan.planar(node.inputs[0]), "y": plan.new_planar(node)}
    arguments |= {"temperature": temperature, "size": size}
    if inner == 1 and are_long(outer, size):
        _long_rows(plan, node, result, temperature, (outer, size))
    elif inner == 1:
        units, each = bands_of(outer, 16 * size)
        arguments |= {"rows": outer, "each": each}
        plan.call(node, SoftmaxRows(result, temperature != 1), arguments, units, label=f"{result} of rows")
    else:
        pieces, each = columns_of(inner, 16 * size)
        arguments |= {"inner": inner, "each": each}
        kernel = SoftmaxColumns(result, temperature != 1)
        plan.call(node, kernel, arguments, outer * pieces, label=f"{result} of columns")


def _long_rows(plan: Planner, node: Node, result: str, temperature: float, shape: tuple[int, int]) -> None:
    """The maxima of parts, and of rows; the sums of parts, and of rows; and then y part by part."""
    (rows, size), of_rows = shape, TensorType("float32", shape[:1])
    x, y, parts = plan.planar(node.inputs[0]), plan.planar(node), parts_of(size)
    largest, total, sums = Buffer(of_rows), Buffer(of_rows), Buffer(TensorType("float32", (rows, parts)))
    reduce_long_rows(plan, node, MAXIMA, shape, x, largest)
    given: dict[str, Argument] = {"largest": largest, "size": size, "parts": parts}
    first: dict[str, Argument] = {**given, "x": x, "sums": sums, "temperature": temperature}
    if result == SOFTMAX:
        first["y"] = y
    plan.call(node, SumExponentials(result, temperature != 1), first, rows * parts, label="exponentials of parts")
    reduce_parts(plan, node, SUMS, shape, sums, total)
    last: dict[str, Argument] = {**given, "y": y, "total": total}
    if result == LOGARITHM:
        last["x"] = x
    plan.call(node, FinishSoftmax(result), last, rows if result == TOTAL else rows * parts, label=f"{result} of parts")

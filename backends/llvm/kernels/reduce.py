"""reduce_sum, _mean, _max, _min, _prod, _l1, _l2, _sum_square, _log_sum over any axes, and the global pools.

inner axis reduced:  for each output of the unit: for the other reduced axes: 4 vectors of the run at a time;
                     then all lanes into one
inner axis kept:     for 64 outputs of the unit, side by side: for the reduced axes: one vector each
blocked:             for each block of 16 channels: for rows, for pixels: one vector each
long rows:           for each part of a row: its fold; then the folds of the parts of each row, as above

What is folded are the elements, or their absolute values or squares; the result may be a mean, a root or a logarithm.
Sums are of sums of `CHUNK` vectors, so their error grows with the square root of the length at worst, not with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from graphsr.ir import Node, TensorType
from graphsr.op import Op
from graphsr.ops import (
    GlobalAvgPool,
    GlobalMaxPool,
    ReduceL1,
    ReduceL2,
    ReduceLogSum,
    ReduceMax,
    ReduceMean,
    ReduceMin,
    ReduceProd,
    ReduceSum,
    ReduceSumSquare,
)
from graphsr.ops.reduce import Reduction, normal_axes

from ..kernel import Argument, Kernel, blocked_slots
from ..loops import FLOAT, I64, LANES, PTR, VECTOR_BYTES, Function, Index, Value
from ..tensor import Buffer
from .axes import joined
from .folding import Folding
from .math import log_
from .move import contiguous
from .row import bands_of, columns_of, columns_of_unit, load_row, over_row, store_row

if TYPE_CHECKING:
    from ..plan import Planner
    from ..target import Target

CHUNK = 256
"""Vectors that are folded before their fold joins the others."""
UNROLL = 4
WIDE = UNROLL * LANES

FEW_ROWS, LONG_ROW, HUGE_ROW = 16, 1 << 17, 1 << 22
PART = 1 << 14
"""Elements of a part of a long row: what a thread takes at once. Never of the number of threads: the parts say in which
order a row is folded, and so its bits."""

Body = Callable[[Value], list[Value]]
"""From a place in memory to the folds of what lies there."""


@dataclass(frozen=True)
class Formula:
    """A reduction: `after` of the fold of `before` of every element."""

    kind: str
    """Of the `Folding`."""
    before: str = ""
    """"abs", "square" or nothing."""
    after: str = ""
    """"mean", "root", "log" or nothing."""

    @property
    def folding(self) -> Folding:
        return Folding(self.kind)

    @property
    def leaves_one(self) -> bool:
        """Whether the reduction of one element is that element."""
        return not self.before and self.after in ("", "mean")

    def of_element(self, k: Function, x: Value) -> Value:
        """What is folded in the place of an element."""
        if not self.before:
            return x
        return k.intrinsic("fabs", x) if self.before == "abs" else x * x

    def enter(self, k: Function, x: Value) -> Value:
        """The same, in the form that is folded."""
        return self.folding.enter(k, self.of_element(k, x))

    def leave(self, k: Function, total: Value) -> Value:
        """The result of a fold."""
        value = self.folding.leave(k, total)
        match self.after:
            case "mean":
                return value / k.splat(k["divisor"])
            case "root":
                return k.intrinsic("sqrt", value)
            case "log":
                return log_(k, value)
        return value


FORMULAS: dict[type[Op], Formula] = {
    GlobalAvgPool: Formula("sum", after="mean"),
    GlobalMaxPool: Formula("max"),
    ReduceL1: Formula("sum", "abs"),
    ReduceL2: Formula("sum", "square", "root"),
    ReduceLogSum: Formula("sum", after="log"),
    ReduceMax: Formula("max"),
    ReduceMean: Formula("sum", after="mean"),
    ReduceMin: Formula("min"),
    ReduceProd: Formula("prod"),
    ReduceSum: Formula("sum"),
    ReduceSumSquare: Formula("sum", "square"),
}


@dataclass(frozen=True)
class Reduce(Kernel):
    """Unit: so many outputs, or a piece of a row of outputs. See above."""

    formula: Formula
    kept: int
    """Axes that are kept, but for the inner one."""
    reduced: int
    """Axes that are reduced, but for the inner one."""
    inner_reduced: bool

    def for_any_width(self, target: Target) -> set[Kernel]:
        is_row = self.inner_reduced and not self.reduced
        return {self, *(kernels_of_long_rows(self.formula) if is_row else ())}

    def slots(self) -> Mapping[str, str]:
        axes = [*(f"kept{a}" for a in range(self.kept)), *(f"reduced{a}" for a in range(self.reduced))]
        sizes = [*axes, *(f"{axis}_step" for axis in axes), "inner", "count", "span"]
        return {"x": PTR, "y": PTR, "divisor": FLOAT, **dict.fromkeys(sizes, I64)}

    def body(self, k: Function, target: Target) -> None:
        with k.narrowed():
            if self.inner_reduced:
                self._rows(k)
            else:
                self._columns(k)

    def _rows(self, k: Function) -> None:
        first = k.unit * k["span"]
        with k.loop(k.minimum(k["span"], k["count"] - first)) as i:
            self._one(k, first + i)

    def _columns(self, k: Function) -> None:
        row, start, width = columns_of_unit(k, k["span"])
        x, y = self._place(k, row) + start * 4, k["y"] + (row * k["inner"] + start) * 4
        wide = UNROLL * k.lanes_now
        whole = width & -wide
        with k.loop(whole, step=wide) as at:
            self._side_by_side(k, x + at * 4, y + at * 4, [None] * UNROLL)
        x, y = x + whole * 4, y + whole * 4
        over_row(k, width - whole, lambda at, mask: self._side_by_side(k, x + at * 4, y + at * 4, [mask]))

    def _place(self, k: Function, output: Value) -> Value:
        """Where the elements behind an output (or a row of outputs) begin."""
        x = k["x"]
        for a in reversed(range(self.kept)):
            position = output % k[f"kept{a}"] if a else output
            x, output = x + position * k[f"kept{a}_step"], output // k[f"kept{a}"]
        return x

    def _one(self, k: Function, output: Value) -> None:
        def run(at: Value) -> list[Value]:
            return [fold_run(k, self.formula.folding, at, k["inner"], lambda x: self.formula.of_element(k, x))]

        (total,) = self._over_axes(k, self._place(k, output), 1, run)
        total = self.formula.folding.across(k, total)
        k.store(k.extract(self.formula.leave(k, total), 0), k["y"] + output * 4)

    def _side_by_side(self, k: Function, x: Value, y: Value, masks: Sequence[Value | None]) -> None:
        def vectors(at: Value) -> list[Value]:
            given = [load_row(k, at + i * 4 * k.lanes_now, mask) for i, mask in enumerate(masks)]
            return [self.formula.enter(k, value) for value in given]

        totals = self._over_axes(k, x, len(masks), vectors)
        for i, (total, mask) in enumerate(zip(totals, masks, strict=True)):
            store_row(k, self.formula.leave(k, total), y + i * 4 * k.lanes_now, mask)

    def _over_axes(self, k: Function, at: Value, width: int, body: Body, axis: int = 0) -> list[Value]:
        """The folds of `body` over the reduced axes from `axis` on."""
        if axis == self.reduced:
            return body(at)
        step = k[f"reduced{axis}_step"]
        return in_chunks(
            k,
            self.formula.folding,
            k[f"reduced{axis}"],
            width,
            lambda i: self._over_axes(k, at + i * step, width, body, axis + 1),
        )


def in_chunks(k: Function, folding: Folding, count: Index, width: int, body: Body, step: int = 1) -> list[Value]:
    """The folds of body(0), body(step), …, first within chunks, then of these."""
    nothing = [folding.neutral(k)] * width

    @k.fold(count, nothing, step=CHUNK * step)
    def total(start: Value, total: list[Value]) -> list[Value]:
        @k.fold(k.minimum(start + CHUNK * step, count), nothing, start=start, step=step)
        def chunk(i: Value, chunk: list[Value]) -> list[Value]:
            return [folding.join(k, a, b) for a, b in zip(chunk, body(i), strict=True)]

        return [folding.join(k, a, b) for a, b in zip(total, chunk, strict=True)]

    return total


def fold_run(
    k: Function, folding: Folding, at: Value, count: Value, change: Callable[[Value], Value] | None = None
) -> Value:
    """The fold of `count` floats side by side (of `change` of each), spread over the lanes of a vector."""
    change = change or (lambda x: x)

    def four(i: Value) -> list[Value]:
        given = [k.load(at + i * 4 + j * 4 * k.lanes_now, align=4) for j in range(UNROLL)]
        return [folding.enter(k, change(x)) for x in given]

    def last(i: Value) -> list[Value]:
        mask = k.first_lanes(count - i)
        return [k.select(mask, folding.enter(k, change(k.load_some(at + i * 4, mask))), folding.neutral(k))]

    wide = UNROLL * k.lanes_now
    whole = count & -wide
    a, b, c, d = in_chunks(k, folding, whole, UNROLL, four, wide)

    @k.fold(count, [folding.neutral(k)], start=whole, step=k.lanes_now)
    def rest(i: Value, rest: list[Value]) -> list[Value]:
        return [folding.join(k, rest[0], last(i)[0])]

    halves = folding.join(k, folding.join(k, a, b), folding.join(k, c, d))
    return folding.join(k, halves, rest[0])


@dataclass(frozen=True)
class FoldParts(Kernel):
    """x[rows, size] -> y[rows, parts], without what comes after the fold. Unit: a part of a row."""

    formula: Formula
    centred: bool = False
    """Whether `centre[row]` is subtracted from every element first."""

    def slots(self) -> Mapping[str, str]:
        pointers = ("x", "centre", "y") if self.centred else ("x", "y")
        return {**dict.fromkeys(pointers, PTR), **dict.fromkeys(("size", "parts"), I64)}

    def body(self, k: Function, target: Target) -> None:
        row, at, count = part_of_unit(k)
        with k.narrowed():
            centre = k.splat(k.load(k["centre"] + row * 4, FLOAT)) if self.centred else None

            def change(x: Value) -> Value:
                return self.formula.of_element(k, x if centre is None else x - centre)

            folding = self.formula.folding
            total = folding.across(k, fold_run(k, folding, k["x"] + at, count, change))
            k.store(k.extract(folding.leave(k, total), 0), k["y"] + k.unit * 4)


def part_of_unit(k: Function) -> tuple[Value, Value, Value]:
    """(row, bytes from the start of x, elements) of the part of a row that is a unit of x[rows, size]."""
    row, start = k.unit // k["parts"], k.unit % k["parts"] * PART
    return row, (row * k["size"] + start) * 4, k.minimum(PART, k["size"] - start)


def are_long(rows: int, size: int) -> bool:
    """Whether rows are computed in parts: where there are too few for threads to share, or where one does not fit the
    caches (and would take long). Shorter ones are read from the caches when they are read again."""
    return size >= HUGE_ROW or (size >= LONG_ROW and rows < FEW_ROWS)


def parts_of(size: int) -> int:
    return -(-size // PART)


def kernels_of_long_rows(formula: Formula, centred: bool = False) -> tuple[FoldParts, Reduce]:
    """Of their parts, and of the folds of these."""
    fold = FoldParts(Formula(formula.kind, formula.before), centred)
    return fold, Reduce(Formula(formula.kind, after=formula.after), 1, 0, inner_reduced=True)


def reduce_long_rows(
    plan: Planner,
    node: Node,
    formula: Formula,
    shape: tuple[int, int],
    x: Buffer,
    y: Buffer,
    centre: Buffer | None = None,
) -> None:
    """Add the steps of y[rows] = the reduction of x[rows, size] (less centre[rows]) along its rows."""
    rows, size = shape
    fold, _ = kernels_of_long_rows(formula, centre is not None)
    parts = Buffer(TensorType("float32", (rows, parts_of(size))))
    arguments: dict[str, Argument] = {"x": x, "y": parts, "size": size, "parts": parts_of(size)}
    if centre is not None:
        arguments["centre"] = centre
    plan.call(node, fold, arguments, rows * parts_of(size), label=f"reduce {formula.kind} in parts")
    reduce_parts(plan, node, formula, shape, parts, y)


def reduce_parts(plan: Planner, node: Node, formula: Formula, shape: tuple[int, int], parts: Buffer, y: Buffer) -> None:
    """Add the step of y[rows] = the reduction of the rows of this shape, of whose parts these are the folds."""
    rows, size = shape
    count = parts_of(size)
    arguments: dict[str, Argument] = {"x": parts, "y": y, "inner": count, "count": rows, "divisor": float(size)}
    arguments |= {"kept0": rows, "kept0_step": 4 * count}
    units, arguments["span"] = bands_of(rows, 4 * count)
    _, kernel = kernels_of_long_rows(formula)
    plan.call(node, kernel, arguments, units, label=f"reduce {formula.kind} of parts")


@dataclass(frozen=True)
class ReduceBlocked(Kernel):
    """Over height and width of a blocked image, to a planar [N, C]. Unit: a block of channels of an image."""

    formula: Formula

    def slots(self) -> Mapping[str, str]:
        sizes = ("channels", "blocks", "height", "width")
        return {**blocked_slots("x"), "y": PTR, "divisor": FLOAT, **dict.fromkeys(sizes, I64)}

    def body(self, k: Function, target: Target) -> None:
        n, block = k.unit // k["blocks"], k.unit % k["blocks"]
        image = k["x"] + n * k["height"] * k["x_row"] + block * k["x_block"]

        def row(y: Value) -> list[Value]:
            def pixel(x: Value) -> list[Value]:
                return [self.formula.enter(k, k.load(image + y * k["x_row"] + x * VECTOR_BYTES))]

            return in_chunks(k, self.formula.folding, k["width"], 1, pixel)

        value = self.formula.leave(k, in_chunks(k, self.formula.folding, k["height"], 1, row)[0])
        channel = block * LANES
        k.store_some(value, k["y"] + (n * k["channels"] + channel) * 4, k.first_lanes(k["channels"] - channel))


def lower(plan: Planner, node: Node) -> None:
    """Blocked images are reduced as they are over height and width; everything else is planar."""
    from ..plan import NoKernel

    op, source = node.op, node.inputs[0]
    if node.type.dtype != "float32":
        raise NoKernel(f"only float32, not {node.type.dtype}")
    shape = source.type.dims
    axes = normal_axes(op.axes, len(shape)) if isinstance(op, Reduction) else (2, 3)
    formula, count = FORMULAS[type(op)], prod(shape[a] for a in axes)
    if count == 1 and formula.leaves_one:
        plan.view(node, source)
    elif count == 0:
        raise NoKernel("nothing to reduce")
    elif axes == (2, 3) and plan.is_blocked(source):
        n, channels, height, width = shape
        blocks = -(-channels // LANES)
        sizes = {"channels": channels, "blocks": blocks, "height": height, "width": width, "divisor": float(count)}
        arguments = {**plan.blocked(source).arguments("x"), "y": plan.new_planar(node), **sizes}
        plan.call(node, ReduceBlocked(formula), arguments, n * blocks, label=f"reduce {formula.kind} in blocks")
    else:
        _lower_planar(plan, node, formula, axes)


def _lower_planar(plan: Planner, node: Node, formula: Formula, axes: tuple[int, ...]) -> None:
    source = node.inputs[0]
    shape = source.type.dims
    runs = _runs(shape, axes) or [(1, 4, False)]
    *outer, (inner, _, inner_reduced) = runs
    kept = [(size, step) for size, step, reduced in outer if not reduced]
    reduced = [(size, step) for size, step, reduced in outer if reduced]
    count = prod(size for size, _ in kept)
    if inner_reduced and not reduced and are_long(count, inner):
        reduce_long_rows(plan, node, formula, (count, inner), plan.planar(source), plan.new_planar(node))
        return
    kernel = Reduce(formula, len(kept), len(reduced), inner_reduced)
    behind = prod(size for size, _ in reduced)
    arguments: dict[str, Argument] = {"x": plan.planar(source), "y": plan.new_planar(node)}
    arguments |= {"inner": inner, "count": count, "divisor": float(prod(shape[a] for a in axes))}
    for name, sizes in (("kept", kept), ("reduced", reduced)):
        for a, (size, step) in enumerate(sizes):
            arguments |= {f"{name}{a}": size, f"{name}{a}_step": step}
    if inner_reduced:
        units, span = bands_of(count, 4 * inner * behind)
    else:
        pieces, span = columns_of(inner, 4 * behind, WIDE)
        units = count * pieces
    arguments["span"] = span
    plan.call(node, kernel, arguments, units, label=f"reduce {formula.kind}")


def _runs(shape: tuple[int, ...], axes: tuple[int, ...]) -> list[tuple[int, int, bool]]:
    """(size, bytes between neighbours, reduced) of as few axes as can be: neighbours of one kind are joined. Where
    they are reduced, they have no step in the result."""
    of_result = contiguous([1 if a in axes else size for a, size in enumerate(shape)])
    steps = ((step, 0 if a in axes else of_result[a]) for a, step in enumerate(contiguous(shape)))
    return [(size, step, kept == 0) for size, (step, kept) in joined(zip(shape, steps, strict=True))]

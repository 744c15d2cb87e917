"""layer_norm, rms_norm, group_norm, instance_norm: y = γ·(x − μ)/√(v + ε) + β; l1_norm, l2_norm: y = x / n;
weight_norm: y = γ·x/√Σx².

rows:    for each row of the unit: its statistics, one pass each [standard: μ, then v from x − μ, so that nothing
         cancels]; for run of the row: y, with γ and β of each element, or of the channel that the run is
parts:   the statistics of a long row, of its parts first; for part of the row: y
columns: for 16 positions beside the axis: the norm of each along the axis, in the lanes of one vector; then y

A row is what has statistics of its own: the last axes, or a group of channels of one image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from graphsr.ir import Node, TensorType
from graphsr.ops import GroupNorm, InstanceNorm, L1Norm, L2Norm, LayerNorm, RmsNorm, WeightNorm
from graphsr.ops.reduce import normal_axes

from ..kernel import Argument, Kernel
from ..loops import FLOAT, I64, PTR, Function, Value
from ..tensor import Buffer
from .folding import Folding
from .reduce import PART, Formula, are_long, fold_run, in_chunks, kernels_of_long_rows, reduce_long_rows
from .row import around, bands_of, columns_of, columns_of_unit, load_row, over_row, store_row

if TYPE_CHECKING:
    from ..plan import Planner
    from ..target import Target

SUM, MEANS = Folding("sum"), Formula("sum", after="mean")
STANDARD, RMS, L1, L2, EUCLIDEAN = "standard", "rms", "l1", "l2", "euclidean"
NOTHING, ELEMENTS, CHANNELS = "nothing", "elements", "channels"


@dataclass(frozen=True)
class Normalisation:
    """What becomes of a row."""

    divisor: str
    """What a row is divided by: STANDARD (and μ is subtracted first), RMS, L1, L2, or EUCLIDEAN (by 0 as well)."""
    scaled_by: str
    """What has a γ: every element of the row, every channel of the `groups` of an image, or nothing. The rows of
    weights have one each, as channels of one image."""
    bias: bool

    @property
    def parameters(self) -> tuple[str, ...]:
        if self.scaled_by == NOTHING:
            return ()
        return ("scale", "bias") if self.bias else ("scale",)

    @property
    def summed(self) -> Formula:
        """What is summed up for the divisor, of every element less what is subtracted from it."""
        return Formula("sum", "abs" if self.divisor == L1 else "square")

    def size(self, k: Function, total: Value) -> Value:
        """What a row with such a sum is divided by."""
        eps = k.splat(k["eps"])
        if self.divisor in (STANDARD, RMS):
            return k.intrinsic("sqrt", total / k.splat(k["count"]) + eps)
        return k.intrinsic("sqrt", total) if self.divisor == EUCLIDEAN else norm(k, self.divisor, total, eps)

    def write(self, k: Function, run: Run, centre: Value | None, size: Value) -> None:
        """y of what lies side by side: of a row, of a channel of it, or of a part of either."""
        of_channel = [k.splat(k.load(k[name] + run.channel * 4, FLOAT)) for name in self._with(CHANNELS)]
        of_elements = [k[name] + run.start * 4 for name in self._with(ELEMENTS)]
        x, y = (k[name] + run.at for name in ("x", "y"))

        def pixels(at: Value, mask: Value | None) -> None:
            value = load_row(k, x + at * 4, mask)
            value = (value if centre is None else value - centre) / size
            factors = of_channel or [load_row(k, p + at * 4, mask) for p in of_elements]
            if factors:
                value = factors[0] * value
            if len(factors) > 1:
                value = value + factors[1]
            store_row(k, value, y + at * 4, mask)

        over_row(k, run.width, pixels)

    def _with(self, what: str) -> tuple[str, ...]:
        return self.parameters if self.scaled_by == what else ()


@dataclass(frozen=True)
class Run:
    """Neighbours that have one γ, or one each."""

    at: Value
    """Bytes from the start of x and y."""
    start: Value | int
    """Elements from the start of the γ of a row."""
    width: Value
    channel: Value


@dataclass(frozen=True)
class NormaliseRows(Kernel):
    """x[rows, runs, width]. Unit: so many rows. See above."""

    normalisation: Normalisation

    def for_any_width(self, target: Target) -> set[Kernel]:
        is_centred = self.normalisation.divisor == STANDARD
        statistics = (
            *(kernels_of_long_rows(MEANS) if is_centred else ()),
            *kernels_of_long_rows(self.normalisation.summed, is_centred),
        )
        return {self, *statistics, NormaliseParts(self.normalisation)}

    def slots(self) -> Mapping[str, str]:
        scalars = {"count": FLOAT, "eps": FLOAT, **dict.fromkeys(("rows", "runs", "width", "groups", "each"), I64)}
        return {**dict.fromkeys(("x", *self.normalisation.parameters, "y"), PTR), **scalars}

    def body(self, k: Function, target: Target) -> None:
        first, width = k.unit * k["each"], k["width"]
        with k.narrowed(), k.loop(k.minimum(k["each"], k["rows"] - first)) as i:
            row = first + i
            at = row * k["runs"] * width * 4
            centre, size = self._statistics(k, k["x"] + at)
            with k.loop(k["runs"]) as run:
                channel = row % k["groups"] * k["runs"] + run
                self.normalisation.write(k, Run(at + run * width * 4, 0, width, channel), centre, size)

    def _statistics(self, k: Function, x: Value) -> tuple[Value | None, Value]:
        """What is subtracted from a row, and what it is divided by."""

        def total(change: Callable[[Value], Value] | None = None) -> Value:
            return SUM.across(k, fold_run(k, SUM, x, k["runs"] * k["width"], change))

        centre = total() / k.splat(k["count"]) if self.normalisation.divisor == STANDARD else None
        summed = self.normalisation.summed
        return centre, self.normalisation.size(
            k, total(lambda x: summed.of_element(k, x if centre is None else x - centre))
        )


@dataclass(frozen=True)
class NormaliseParts(Kernel):
    """The same with the statistics of each row given: `centre` and `total`. Unit: so many runs, or `piece` of the width
    of one."""

    normalisation: Normalisation

    @property
    def _statistics(self) -> tuple[str, ...]:
        return ("centre", "total") if self.normalisation.divisor == STANDARD else ("total",)

    def slots(self) -> Mapping[str, str]:
        sizes = ("all_runs", "runs", "width", "groups", "each", "piece")
        pointers = ("x", *self._statistics, *self.normalisation.parameters, "y")
        return {**dict.fromkeys(pointers, PTR), "count": FLOAT, "eps": FLOAT, **dict.fromkeys(sizes, I64)}

    def body(self, k: Function, target: Target) -> None:
        width, pieces = k["width"], (k["width"] + (k["piece"] - 1)) // k["piece"]
        first, start = k.unit // pieces * k["each"], k.unit % pieces * k["piece"]
        with k.narrowed(), k.loop(k.minimum(k["each"], k["all_runs"] - first)) as i:
            run = first + i
            row, channel = run // k["runs"], run % (k["groups"] * k["runs"])
            of_row = {name: k.splat(k.load(k[name] + row * 4, FLOAT)) for name in self._statistics}
            size = self.normalisation.size(k, of_row["total"])
            part = Run((run * width + start) * 4, start, k.minimum(k["piece"], width - start), channel)
            self.normalisation.write(k, part, of_row.get("centre"), size)


@dataclass(frozen=True)
class NormaliseColumns(Kernel):
    """x[outer, size, inner] / norm along the middle axis. Unit: `each` of the inner positions of one outer one."""

    divisor: str

    def slots(self) -> Mapping[str, str]:
        return {"x": PTR, "y": PTR, "eps": FLOAT, **dict.fromkeys(("size", "inner", "each"), I64)}

    def body(self, k: Function, target: Target) -> None:
        outer, start, width = columns_of_unit(k, k["each"])
        at = (outer * k["size"] * k["inner"] + start) * 4
        over_row(k, width, lambda i, mask: self._column(k, k["x"] + at + i * 4, k["y"] + at + i * 4, mask))

    def _column(self, k: Function, x: Value, y: Value, mask: Value | None) -> None:
        step = k["inner"] * 4

        def term(i: Value) -> list[Value]:
            return [magnitude(k, self.divisor, load_row(k, x + i * step, mask))]

        (total,) = in_chunks(k, SUM, k["size"], 1, term)
        size = norm(k, self.divisor, total, k.splat(k["eps"]))
        with k.loop(k["size"]) as i:
            store_row(k, load_row(k, x + i * step, mask) / size, y + i * step, mask)


def magnitude(k: Function, divisor: str, x: Value) -> Value:
    """What is summed up for a norm: |x| or x²"""
    return k.intrinsic("fabs", x) if divisor == L1 else x * x


def norm(k: Function, divisor: str, total: Value, eps: Value) -> Value:
    """The norm of such a sum, but 1 where it is 0."""
    size = total + eps if divisor == L1 else k.intrinsic("sqrt", total + eps)
    return k.select(size.equals(k.vector(0.0)), k.vector(1.0), size)


def lower(plan: Planner, node: Node) -> None:
    """Planar."""
    from ..plan import NoKernel

    op, shape = node.op, node.type.dims
    if node.type.dtype != "float32":
        raise NoKernel(f"only float32, not {node.type.dtype}")
    match op:
        case LayerNorm() | RmsNorm():
            axis = op.axis % len(shape)
            what = Normalisation(STANDARD if isinstance(op, LayerNorm) else RMS, ELEMENTS, len(node.inputs) > 2)
            _rows(plan, node, what, op.eps, prod(shape[:axis]), 1, prod(shape[axis:]))
        case GroupNorm() | InstanceNorm():
            groups = op.groups if isinstance(op, GroupNorm) else shape[1]
            what = Normalisation(STANDARD, CHANNELS, bias=True)
            _rows(plan, node, what, op.eps, shape[0] * groups, shape[1] // groups, prod(shape[2:]), groups)
        case WeightNorm():
            what = Normalisation(EUCLIDEAN, CHANNELS, bias=False)
            _rows(plan, node, what, 0.0, shape[0], 1, prod(shape[1:]), shape[0])
        case L1Norm() | L2Norm():
            _norm(plan, node, op)


def _rows(
    plan: Planner, node: Node, what: Normalisation, eps: float, rows: int, runs: int, width: int, groups: int = 1
) -> None:
    size = runs * width
    arguments: dict[str, Argument] = dict(zip(("x", "scale", "bias"), map(plan.planar, node.inputs), strict=False))
    arguments |= {"eps": eps, "count": float(size), "runs": runs, "width": width, "groups": groups}
    if are_long(rows, size):
        _long_rows(plan, node, what, arguments, (rows, runs, width))
        return
    units, each = bands_of(rows, 8 * size)
    arguments |= {"y": plan.new_planar(node), "rows": rows, "each": each}
    plan.call(node, NormaliseRows(what), arguments, units, label="normalise rows")


def _long_rows(
    plan: Planner, node: Node, what: Normalisation, arguments: dict[str, Argument], shape: tuple[int, int, int]
) -> None:
    """The statistics of parts, of rows, and then y part by part."""
    rows, runs, width = shape
    x, rows_and_size, of_rows = plan.planar(node.inputs[0]), (rows, runs * width), TensorType("float32", (rows,))
    centre, total = Buffer(of_rows) if what.divisor == STANDARD else None, Buffer(of_rows)
    if centre is not None:
        reduce_long_rows(plan, node, MEANS, rows_and_size, x, centre)
        arguments["centre"] = centre
    reduce_long_rows(plan, node, what.summed, rows_and_size, x, total, centre)
    piece, each = min(PART, width), max(1, PART // width)
    units = -(-rows * runs // each) * -(-width // piece)
    arguments |= {"total": total, "y": plan.new_planar(node), "all_runs": rows * runs, "each": each, "piece": piece}
    plan.call(node, NormaliseParts(what), arguments, units, label="normalise parts of rows")


def _norm(plan: Planner, node: Node, op: L1Norm | L2Norm) -> None:
    shape, divisor = node.type.dims, L1 if isinstance(op, L1Norm) else L2
    outer, size, inner = around(shape, normal_axes(op.axes, len(shape)))
    if inner == 1:
        _rows(plan, node, Normalisation(divisor, NOTHING, bias=False), op.eps, outer, 1, size)
        return
    pieces, each = columns_of(inner, 8 * size)
    arguments: dict[str, Argument] = {"x": plan.planar(node.inputs[0]), "y": plan.new_planar(node), "eps": op.eps}
    arguments |= {"size": size, "inner": inner, "each": each}
    plan.call(node, NormaliseColumns(divisor), arguments, outer * pieces, label="normalise columns")

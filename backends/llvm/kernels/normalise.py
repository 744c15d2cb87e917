"""layer_norm, rms_norm, group_norm, instance_norm: y = γ·(x − μ)/√(v + ε) + β; l1_norm, l2_norm: y = x / n.

rows:    for each row of the unit: its statistics, one pass each [standard: μ, then v from x − μ, so that nothing
         cancels]; for run of the row: y, with γ and β of each element, or of the channel that the run is
columns: for 16 positions beside the axis: the norm of each along the axis, in the lanes of one vector; then y

A row is what has statistics of its own: the last axes, or a group of channels of one image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from graphsr.ir import Node
from graphsr.ops import GroupNorm, InstanceNorm, L1Norm, L2Norm, LayerNorm, RmsNorm
from graphsr.ops.reduce import normal_axes

from ..kernel import Argument, Kernel
from ..loops import FLOAT, I64, PTR, Function, Value
from .folding import Folding
from .reduce import fold_run, in_chunks
from .row import around, bands_of, columns_of, columns_of_unit, load_row, over_row, store_row

if TYPE_CHECKING:
    from ..plan import Planner
    from ..target import Target

SUM = Folding("sum")
STANDARD, RMS, L1, L2 = "standard", "rms", "l1", "l2"
NOTHING, ELEMENTS, CHANNELS = "nothing", "elements", "channels"


@dataclass(frozen=True)
class NormaliseRows(Kernel):
    """x[rows, runs, width]. Unit: so many rows. See above."""

    divisor: str
    """What a row is divided by: STANDARD (and μ is subtracted first), RMS, L1 or L2."""
    scaled_by: str
    """What has a γ: every element of the row, every channel of the `groups` of an image, or nothing."""
    bias: bool

    def slots(self) -> Mapping[str, str]:
        parameters = [] if self.scaled_by == NOTHING else ["scale", *(["bias"] if self.bias else [])]
        scalars = {"size": FLOAT, "eps": FLOAT, **dict.fromkeys(("rows", "runs", "width", "groups", "each"), I64)}
        return {**dict.fromkeys(("x", *parameters, "y"), PTR), **scalars}

    def body(self, k: Function, target: Target) -> None:
        first = k.unit * k["each"]
        with k.narrowed(), k.loop(k.minimum(k["each"], k["rows"] - first)) as i:
            row = first + i
            at = row * k["runs"] * k["width"] * 4
            centre, size = self._statistics(k, k["x"] + at)
            with k.loop(k["runs"]) as run:
                start = at + run * k["width"] * 4
                channel = row % k["groups"] * k["runs"] + run
                self._run(k, k["x"] + start, k["y"] + start, channel, centre, size)

    def _statistics(self, k: Function, x: Value) -> tuple[Value | None, Value]:
        """What is subtracted from a row, and what it is divided by."""

        def total(change: Callable[[Value], Value] | None = None) -> Value:
            return SUM.across(k, fold_run(k, SUM, x, k["runs"] * k["width"], change))

        count, eps = k.splat(k["size"]), k.splat(k["eps"])
        match self.divisor:
            case "standard":
                centre = total() / count
                variance = total(lambda x: (x - centre) * (x - centre)) / count
                return centre, k.intrinsic("sqrt", variance + eps)
            case "rms":
                return None, k.intrinsic("sqrt", total(lambda x: x * x) / count + eps)
        return None, norm(k, self.divisor, total(lambda x: magnitude(k, self.divisor, x)), eps)

    def _run(self, k: Function, x: Value, y: Value, channel: Value, centre: Value | None, size: Value) -> None:
        """What lies side by side: a row, or a channel of it."""
        parameters = [k[name] for name in ("scale", "bias") if name in self.slots()]
        of_channel = [k.splat(k.load(p + channel * 4, FLOAT)) for p in parameters if self.scaled_by == CHANNELS]

        def pixels(at: Value, mask: Value | None) -> None:
            value = load_row(k, x + at * 4, mask)
            value = (value if centre is None else value - centre) / size
            factors = of_channel or [load_row(k, p + at * 4, mask) for p in parameters]
            if factors:
                value = factors[0] * value
            if len(factors) > 1:
                value = value + factors[1]
            store_row(k, value, y + at * 4, mask)

        over_row(k, k["width"], pixels)


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
            kernel = NormaliseRows(STANDARD if isinstance(op, LayerNorm) else RMS, ELEMENTS, len(node.inputs) > 2)
            _rows(plan, node, kernel, op.eps, prod(shape[:axis]), 1, prod(shape[axis:]))
        case GroupNorm() | InstanceNorm():
            groups = op.groups if isinstance(op, GroupNorm) else shape[1]
            kernel = NormaliseRows(STANDARD, CHANNELS, bias=True)
            _rows(plan, node, kernel, op.eps, shape[0] * groups, shape[1] // groups, prod(shape[2:]))
        case L1Norm() | L2Norm():
            _norm(plan, node, op)


def _rows(plan: Planner, node: Node, kernel: NormaliseRows, eps: float, rows: int, runs: int, width: int) -> None:
    size = runs * width
    units, each = bands_of(rows, 8 * size)
    groups = node.type.dims[1] // runs if kernel.scaled_by == CHANNELS else 1
    arguments: dict[str, Argument] = dict(zip(("x", "scale", "bias"), map(plan.planar, node.inputs), strict=False))
    arguments |= {"y": plan.new_planar(node), "eps": eps, "size": float(size)}
    arguments |= {"rows": rows, "runs": runs, "width": width, "groups": groups, "each": each}
    plan.call(node, kernel, arguments, units, label="normalise rows")


def _norm(plan: Planner, node: Node, op: L1Norm | L2Norm) -> None:
    shape, divisor = node.type.dims, L1 if isinstance(op, L1Norm) else L2
    outer, size, inner = around(shape, normal_axes(op.axes, len(shape)))
    if inner == 1:
        _rows(plan, node, NormaliseRows(divisor, NOTHING, bias=False), op.eps, outer, 1, size)
        return
    pieces, each = columns_of(inner, 8 * size)
    arguments: dict[str, Argument] = {"x": plan.planar(node.inputs[0]), "y": plan.new_planar(node), "eps": op.eps}
    arguments |= {"size": size, "inner": inner, "each": each}
    plan.call(node, NormaliseColumns(divisor), arguments, outer * pieces, label="normalise columns")

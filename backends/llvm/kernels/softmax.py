"""softmax: y = exp((x − max x) / T) / Σ exp((x − max x) / T) along an axis.

axis inside:  for each row of the unit: its maximum; the exponentials to y, and their sum; y divided by the sum
axis outside: for 16 positions beside the axis: the same along the axis, all in the lanes of one vector
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from graphsr.ir import Node
from graphsr.ops import Softmax

from ..kernel import Argument, Kernel
from ..loops import FLOAT, I64, LANES, PTR, Function, Value
from .folding import Folding
from .math import exp
from .reduce import fold_run, in_chunks
from .row import BAND_BYTES, load_row, over_row, store_row

if TYPE_CHECKING:
    from ..plan import Planner
    from ..target import Target

MAX, SUM = Folding("max"), Folding("sum")


@dataclass(frozen=True)
class SoftmaxRows(Kernel):
    """x[rows, size]. Unit: so many rows."""

    def slots(self) -> Mapping[str, str]:
        return {"x": PTR, "y": PTR, "temperature": FLOAT, **dict.fromkeys(("rows", "size", "each"), I64)}

    def body(self, k: Function, target: Target) -> None:
        first, temperature = k.unit * k["each"], k.splat(k["temperature"])
        with k.loop(k.minimum(k["each"], k["rows"] - first)) as i:
            at = (first + i) * k["size"] * 4
            x, y = k["x"] + at, k["y"] + at
            largest = MAX.leave(k, MAX.across(k, fold_run(k, MAX, x, k["size"])))

            def exponential(at: Value, mask: Value | None) -> None:
                value = exp(k, (load_row(k, x + at * 4, mask) - largest) / temperature)
                store_row(k, value, y + at * 4, mask)

            over_row(k, k["size"], exponential)
            total = SUM.across(k, fold_run(k, SUM, y, k["size"]))
            over_row(k, k["size"], lambda at, mask: _divide(k, y + at * 4, total, mask))


def _divide(k: Function, at: Value, divisor: Value, mask: Value | None) -> None:
    store_row(k, load_row(k, at, mask) / divisor, at, mask)


@dataclass(frozen=True)
class SoftmaxColumns(Kernel):
    """x[outer, size, inner]. Unit: `each` of the inner positions of one outer one."""

    def slots(self) -> Mapping[str, str]:
        return {"x": PTR, "y": PTR, "temperature": FLOAT, **dict.fromkeys(("size", "inner", "each"), I64)}

    def body(self, k: Function, target: Target) -> None:
        pieces = (k["inner"] + (k["each"] - 1)) // k["each"]
        start = k.unit % pieces * k["each"]
        at = (k.unit // pieces * k["size"] * k["inner"] + start) * 4
        width = k.minimum(k["each"], k["inner"] - start)
        over_row(k, width, lambda i, mask: self._column(k, k["x"] + at + i * 4, k["y"] + at + i * 4, mask))

    def _column(self, k: Function, x: Value, y: Value, mask: Value | None) -> None:
        step, temperature = k["inner"] * 4, k.splat(k["temperature"])
        (key,) = self._fold(k, MAX, lambda i: load_row(k, x + i * step, mask))
        largest = MAX.leave(k, key)

        def exponential(i: Value) -> Value:
            value = exp(k, (load_row(k, x + i * step, mask) - largest) / temperature)
            store_row(k, value, y + i * step, mask)
            return value

        (total,) = self._fold(k, SUM, exponential)
        with k.loop(k["size"]) as i:
            _divide(k, y + i * step, total, mask)

    def _fold(self, k: Function, folding: Folding, of: Callable[[Value], Value]) -> list[Value]:
        return in_chunks(k, folding, k["size"], 1, lambda i: [folding.enter(k, of(i))])


def lower(plan: Planner, node: Node) -> None:
    """Planar, along any axis."""
    from ..plan import NoKernel

    op = node.op
    assert isinstance(op, Softmax)
    if node.type.dtype != "float32":
        raise NoKernel(f"only float32, not {node.type.dtype}")
    shape = node.type.dims
    axis = op.axis % len(shape)
    outer, size, inner = prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])
    arguments: dict[str, Argument] = {"x": plan.planar(node.inputs[0]), "y": plan.new_planar(node)}
    arguments |= {"temperature": op.temperature, "size": size}
    if inner == 1:
        each = max(1, min(BAND_BYTES // (16 * size), -(-outer // 16)))
        plan.call(
            node, SoftmaxRows(), arguments | {"rows": outer, "each": each}, -(-outer // each), label="softmax of rows"
        )
    else:
        each = max(LANES, BAND_BYTES // (16 * size) // LANES * LANES)
        units = outer * -(-inner // each)
        plan.call(node, SoftmaxColumns(), arguments | {"inner": inner, "each": each}, units, label="softmax of columns")

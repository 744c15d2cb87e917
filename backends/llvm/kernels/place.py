"""arg_max, arg_min: where along an axis the first (or last) extremum lies; a NaN counts as one.

axis inside:  for each row of the unit: for 16 elements: lanes that have a better key take it, and its place;
              of the lanes with the best key, the first (last) place
axis outside: for 16 positions beside the axis: the same along the axis, every lane for itself

Floats are compared as integers in their order, as reductions do (see folding.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphsr.ir import Node
from graphsr.ops import ArgMax, ArgMin

from ..kernel import Argument, Kernel
from ..loops import I32, I64, IVECTOR, LANES, PTR, Function, Value
from .folding import Folding, halvings
from .math import LONGS
from .row import around, bands_of, columns_of, columns_of_unit, load_row, over_row

if TYPE_CHECKING:
    from ..plan import Planner
    from ..target import Target

WORST = -(2**31)
"""Less than every key."""


@dataclass(frozen=True)
class Search:
    """Which extremum is looked for."""

    kind: str
    """"max" or "min"."""
    last: bool

    def key(self, k: Function, x: Value) -> Value:
        """Zeros of both signs are equal."""
        return Folding(self.kind).enter(k, x + k.vector(0.0))

    def better(self, k: Function, key: Value, best: Value) -> Value:
        """Whether a key that comes later takes the place of the best one."""
        return k.compare("ge" if self.last else "gt", key, best)

    def take(self, k: Function, best: list[Value], key: Value, place: Value) -> list[Value]:
        """[best keys, their places] after another key in each lane."""
        better = self.better(k, key, best[0])
        return [k.select(better, key, best[0]), k.select(better, place, best[1])]

    def across(self, k: Function, best: list[Value]) -> Value:
        """The place of the best key of all lanes, in every lane."""
        key, place = best
        for distance in halvings(k.lanes_now):
            lanes = [lane ^ distance for lane in range(k.lanes_now)]
            other, there = k.shuffle(key, key, lanes), k.shuffle(place, place, lanes)
            nearer = k.compare("gt" if self.last else "lt", there, place)
            better = k.compare("gt", other, key) | (k.compare("eq", other, key) & nearer)
            key, place = k.select(better, other, key), k.select(better, there, place)
        return place


@dataclass(frozen=True)
class PlaceInRows(Kernel):
    """x[rows, size]. Unit: so many rows."""

    search: Search

    def slots(self) -> Mapping[str, str]:
        return {"x": PTR, "y": PTR, **dict.fromkeys(("rows", "size", "each"), I64)}

    def body(self, k: Function, target: Target) -> None:
        first, size = k.unit * k["each"], k["size"]
        with k.narrowed(), k.loop(k.minimum(k["each"], k["rows"] - first)) as i:
            x, whole = k["x"] + (first + i) * size * 4, size & -k.lanes_now

            def take(at: Value, best: list[Value], mask: Value | None = None) -> list[Value]:
                key = self.search.key(k, load_row(k, x + at * 4, mask))
                if mask is not None:
                    key = k.select(mask, key, k.literal(WORST, IVECTOR))
                place = k.lanes(range(k.lanes_now), IVECTOR) + k.splat(k.convert("trunc", at, I32))
                return self.search.take(k, best, key, place)

            best = k.fold(whole, [k.literal(WORST, IVECTOR), k.literal(0, IVECTOR)], step=k.lanes_now)(take)

            @k.fold(size, best, start=whole, step=k.lanes_now)
            def all_of_it(at: Value, best: list[Value]) -> list[Value]:
                return take(at, best, k.first_lanes(size - at))

            place = k.extract(self.search.across(k, all_of_it), 0)
            k.store(k.convert("sext", place, I64), k["y"] + (first + i) * 8)


@dataclass(frozen=True)
class PlaceInColumns(Kernel):
    """x[outer, size, inner]. Unit: `each` of the inner positions of one outer one."""

    search: Search

    def slots(self) -> Mapping[str, str]:
        return {"x": PTR, "y": PTR, **dict.fromkeys(("size", "inner", "each"), I64)}

    def body(self, k: Function, target: Target) -> None:
        outer, start, width = columns_of_unit(k, k["each"])
        x = k["x"] + (outer * k["size"] * k["inner"] + start) * 4
        y = k["y"] + (outer * k["inner"] + start) * 8
        over_row(k, width, lambda i, mask: self._columns(k, x + i * 4, y + i * 8, mask))

    def _columns(self, k: Function, x: Value, y: Value, mask: Value | None) -> None:
        @k.fold(k["size"], [k.literal(WORST, IVECTOR), k.literal(0, IVECTOR)])
        def best(i: Value, best: list[Value]) -> list[Value]:
            place = k["size"] - 1 - i if self.search.last else i  # the first one that is met, which takes less to tell
            key = self.search.key(k, load_row(k, x + place * k["inner"] * 4, mask))
            return Search(self.search.kind, False).take(k, best, key, k.splat(k.convert("trunc", place, I32)))

        place = k.convert("sext", best[1], LONGS)
        if mask is None:
            k.store(place, y, align=8)
        else:
            k.call(f"llvm.masked.store.v{LANES}i64.p0", "void", place, y, k.literal(8, I32), mask)


def lower(plan: Planner, node: Node) -> None:
    """Planar, along any axis of a float32 array."""
    from ..plan import NoKernel

    op, source = node.op, node.inputs[0]
    assert isinstance(op, ArgMax | ArgMin)
    if source.type.dtype != "float32":
        raise NoKernel(f"only float32, not {source.type.dtype}")
    shape, search = source.type.dims, Search("max" if isinstance(op, ArgMax) else "min", op.last)
    outer, size, inner = around(shape, (op.axis % len(shape),))
    arguments: dict[str, Argument] = {"x": plan.planar(source), "y": plan.new_planar(node), "size": size}
    if inner == 1:
        units, each = bands_of(outer, 4 * size)
        arguments |= {"rows": outer, "each": each}
        plan.call(node, PlaceInRows(search), arguments, units, label="place in rows")
    else:
        pieces, each = columns_of(inner, 4 * size)
        arguments |= {"inner": inner, "each": each}
        plan.call(node, PlaceInColumns(search), arguments, outer * pieces, label="place in columns")

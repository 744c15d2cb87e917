"""top_k: the k largest or smallest elements along an axis, in order, and where they lie.

Floats become integers, their ranks: the better an element, the less its rank. A record is (rank, place) in 64 bits, so
of equal elements the first one has the least record. What has been found is a list of records in the scratch:

axis inside:  for each row of the unit: for 16 elements: where one has a rank below that of the k-th found so far:
                  k ≤ 32: every such element goes through the sorted list: the lesser one stays, the other moves on
                  k > 32: it is put behind the list; a full list is sorted by counting (LSD radix sort, Knuth vol. 3,
                          §5.2.5: 4 passes over 8 bits of the rank, none of which reorders equals) and cut to k
axis outside: for 16 positions beside the axis: the first of both with a list for each lane, for k ≤ 64; for a larger k
              the axis is moved inside, and what is found is moved back

A row of n costs n comparisons, 16 at a time. With a sorted list each element that is found costs k steps: of a row in
random order these are about k·(1 + ln(n/k)) elements, in the worst order n. With counting all costs O(n) in any order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from graphsr.ir import Node
from graphsr.ops import TopK, Transpose

from ..kernel import Argument, Kernel
from ..loops import FLOAT, I1, I32, I64, IVECTOR, LANES, PTR, VECTOR, VECTOR_BYTES, Function, Value
from .folding import MOST, Folding
from .math import LONGS
from .parts import part
from .row import around, bands_of, columns_of, columns_of_unit, load_row, over_row, store_row

if TYPE_CHECKING:
    from ..plan import Planner
    from ..target import Target

FEW, FEW_WIDE = 32, 64
"""The largest k for which a list is always sorted: of a row, and of 16 columns."""
DIGIT = 8
"""Bits that one pass of the sort looks at."""
COUNTS = 8 << DIGIT
"""Bytes of what a pass counts."""
WORST, COUNTED, LIST = VECTOR_BYTES, 2 * VECTOR_BYTES, 2 * VECTOR_BYTES + COUNTS
"""Where things lie in the scratch of rows, behind the ranks of one vector: the rank of the k-th, what a pass counts,
the list, and as much room again to sort it."""
ROOM = 512
"""Records at least that follow the best k before all are sorted, which costs something however few they are."""


@dataclass(frozen=True)
class Wanted:
    """Which elements are looked for, and which of the outputs are written."""

    largest: bool
    outputs: tuple[str, ...]

    def slots(self) -> Mapping[str, str]:
        return {"x": PTR, **dict.fromkeys(self.outputs, PTR), "k": I64, "size": I64}

    def ranks(self, k: Function, x: Value, mask: Value | None) -> Value:
        """Zeros of both signs are equal, a NaN is larger than every number, and nothing is below the mask's others."""
        keys = Folding("max").enter(k, x + k.vector(0.0))
        ranks = keys ^ -1 if self.largest else keys
        return ranks if mask is None else k.select(mask, ranks, k.literal(MOST, IVECTOR))


@dataclass(frozen=True)
class TopRows(Kernel):
    """x[rows, size]. Unit: so many rows."""

    wanted: Wanted
    few: bool
    """Whether the list is sorted all the time; else it has room for `capacity` records."""

    def slots(self) -> Mapping[str, str]:
        return {**self.wanted.slots(), **dict.fromkeys(("rows", "each", "capacity"), I64)}

    def body(self, k: Function, target: Target) -> None:
        first = k.unit * k["each"]
        with k.narrowed(), k.loop(k.minimum(k["each"], k["rows"] - first)) as i:
            x = k["x"] + (first + i) * k["size"] * 4
            self._begin(k)
            whole = k["size"] & -k.lanes_now
            found = k.fold(whole, [k.literal(0)], step=k.lanes_now)(lambda at, n: [self._see(k, x, at, n[0], None)])

            @k.fold(k["size"], found, start=whole, step=k.lanes_now)
            def all_found(at: Value, n: list[Value]) -> list[Value]:
                return [self._see(k, x, at, n[0], k.first_lanes(k["size"] - at))]

            if not self.few:
                self._sort(k, all_found[0])
            self._write(k, x, first + i)

    def _begin(self, k: Function) -> None:
        """Nothing is found: every element is better than what the list has."""
        if not self.few:
            k.store(k.literal(MOST, I32), k.scratch + WORST)
            return
        with k.loop(k["k"]) as j:
            k.store(k.literal(MOST << 32), self._list(k) + j * 8)

    def _list(self, k: Function) -> Value:
        return k.scratch + LIST

    def _worst(self, k: Function) -> Value:
        """The rank of the k-th found so far."""
        return k.load(self._last(k) if self.few else k.scratch + WORST, I32)

    def _last(self, k: Function) -> Value:
        """Where the rank of the k-th of the list is: in the upper half of its record."""
        return self._list(k) + (k["k"] * 8 - 4)

    def _see(self, k: Function, x: Value, at: Value, found: Value, mask: Value | None) -> Value:
        """How many records the list has after a vector of elements from `at` on."""
        ranks = self.wanted.ranks(k, load_row(k, x + at * 4, mask), mask)
        better = ranks < k.splat(self._worst(k))

        @k.rarely(k.any(better), [found])
        def more() -> Sequence[Value]:
            k.store(ranks, k.scratch)
            lanes = k.convert("zext", k.bitcast(better, f"i{k.lanes_now}"), I64)
            count = k.call("llvm.ctpop.i64", I64, lanes)
            take = self._insert if self.few else self._append

            @k.fold(count, [lanes])
            def left(i: Value, lanes: list[Value]) -> list[Value]:
                lane = k.call("llvm.cttz.i64", I64, lanes[0], k.literal(1, I1))
                rank = k.convert("sext", k.load(k.scratch + lane * 4, I32), I64)
                take(k, (rank << 32) | (at + lane), found + i)
                return [lanes[0] & (lanes[0] - 1)]

            return [found if self.few else self._cut(k, found + count)]

        return more[0]

    def _insert(self, k: Function, record: Value, found: Value) -> None:
        """Into the list in order, where what is not among the best k leaves it at once."""

        @k.fold(k["k"], [record])
        def last(j: Value, moving: list[Value]) -> list[Value]:
            place = self._list(k) + j * 8
            there = k.load(place, I64)
            k.store(k.minimum(there, moving[0]), place)
            return [k.maximum(there, moving[0])]

    def _append(self, k: Function, record: Value, found: Value) -> None:
        k.store(record, self._list(k) + found * 8)

    def _cut(self, k: Function, found: Value) -> Value:
        """How many records are left when there is room for another vector."""

        @k.rarely(found > k["capacity"] - k.lanes_now, [found])
        def left() -> Sequence[Value]:
            self._sort(k, found)
            k.store(k.load(self._last(k), I32), k.scratch + WORST)
            return [k["k"]]

        return left[0]

    def _sort(self, k: Function, count: Value) -> None:
        """By rank; records of one rank keep their order, which is that of their places."""
        counts = k.scratch + COUNTED

        def counter(record: Value, shift: Value) -> Value:
            """Where the records with the same digit are counted; the sign of a rank is turned, as less is first."""
            digit = ((record ^ k.literal(-(2**63))) >> shift) & ((1 << DIGIT) - 1)
            return counts + digit * 8

        @k.fold(64, [self._list(k), self._list(k) + k["capacity"] * 8], start=32, step=DIGIT)
        def lists(shift: Value, lists: list[Value]) -> list[Value]:
            given, sorted_ = lists
            with k.loop(COUNTS, step=4 * k.lanes_now) as at:
                k.store(k.literal(0, IVECTOR), counts + at)
            with k.loop(count) as i:
                place = counter(k.load(given + i * 8, I64), shift)
                k.store(k.load(place, I64) + 1, place)

            @k.fold(COUNTS, [k.literal(0)], step=8)
            def total(at: Value, before: list[Value]) -> list[Value]:
                here = k.load(counts + at, I64)
                k.store(before[0], counts + at)
                return [before[0] + here]

            with k.loop(count) as i:
                record = k.load(given + i * 8, I64)
                place = counter(record, shift)
                to = k.load(place, I64)
                k.store(record, sorted_ + to * 8)
                k.store(to + 1, place)
            return [sorted_, given]

    def _write(self, k: Function, x: Value, row: Value) -> None:
        with k.loop(k["k"]) as j:
            index, to = k.load(self._list(k) + j * 8, I64) & (2**32 - 1), row * k["k"] + j
            if "values" in self.wanted.outputs:
                k.store(k.load(x + index * 4, FLOAT), k["values"] + to * 4)
            if "indices" in self.wanted.outputs:
                k.store(index, k["indices"] + to * 8)


@dataclass(frozen=True)
class TopColumns(Kernel):
    """x[outer, size, inner]. Unit: `each` of the inner positions of one outer one. Every lane has its own list, of
    ranks, places and values."""

    wanted: Wanted

    def slots(self) -> Mapping[str, str]:
        return {**self.wanted.slots(), **dict.fromkeys(("inner", "each"), I64)}

    def body(self, k: Function, target: Target) -> None:
        outer, start, width = columns_of_unit(k, k["each"])
        x = k["x"] + (outer * k["size"] * k["inner"] + start) * 4
        to = outer * k["k"] * k["inner"] + start
        with k.narrowed():
            over_row(k, width, lambda i, mask: self._columns(k, x + i * 4, to + i, mask))

    def _columns(self, k: Function, x: Value, to: Value, mask: Value | None) -> None:
        with k.loop(k["k"]) as j:
            k.store(k.literal(MOST, IVECTOR), self._place(k, j))
        last = self._place(k, k["k"] - 1)
        with k.loop(k["size"]) as i:
            value = load_row(k, x + i * k["inner"] * 4, mask)
            ranks = self.wanted.ranks(k, value, mask)
            with k.when(k.any(ranks < k.load(last, IVECTOR))):
                self._insert(k, ranks, k.splat(k.convert("trunc", i, I32)), value)
        with k.loop(k["k"]) as j:
            self._write(k, j, to + j * k["inner"], mask)

    def _place(self, k: Function, j: Value) -> Value:
        return k.scratch + j * (3 * VECTOR_BYTES)

    def _insert(self, k: Function, *element: Value) -> None:
        """The better one of each place stays, and the other moves on."""

        @k.fold(k["k"], element)
        def last(j: Value, moving: list[Value]) -> list[Value]:
            place = self._place(k, j)
            types = (IVECTOR, IVECTOR, VECTOR)
            there = [k.load(place + n * VECTOR_BYTES, type_) for n, type_ in enumerate(types)]
            earlier = k.compare("eq", moving[0], there[0]) & (moving[1] < there[1])
            better = (moving[0] < there[0]) | earlier
            for n, (a, b) in enumerate(zip(moving, there, strict=True)):
                k.store(k.select(better, a, b), place + n * VECTOR_BYTES)
            return [k.select(better, b, a) for a, b in zip(moving, there, strict=True)]

    def _write(self, k: Function, j: Value, to: Value, mask: Value | None) -> None:
        if "values" in self.wanted.outputs:
            store_row(k, k.load(self._place(k, j) + 2 * VECTOR_BYTES), k["values"] + to * 4, mask)
        if "indices" in self.wanted.outputs:
            index = k.convert("sext", k.load(self._place(k, j) + VECTOR_BYTES, IVECTOR), LONGS)
            store_longs(k, index, k["indices"] + to * 8, mask)


def store_longs(k: Function, value: Value, at: Value, mask: Value | None) -> None:
    """A vector of int64 of a planar row, under the mask."""
    if mask is None:
        k.store(value, at, align=8)
    else:
        k.call(f"llvm.masked.store.v{LANES}i64.p0", "void", value, at, k.literal(8, I32), mask)


def lower(plan: Planner, node: Node) -> None:
    """Planar, along any axis of a float32 array. Who reads values and indices gets both from one call."""
    from ..plan import NoKernel

    op, x = node.op, node.inputs[0]
    assert isinstance(op, TopK)
    if x.type.dtype != "float32":
        raise NoKernel(f"only float32, not {x.type.dtype}")
    outer, size, inner = around(x.type.dims, (op.axis % x.type.rank,))
    if size > MOST:
        raise NoKernel(f"{size} elements along an axis, more than places of 32 bits can tell")
    siblings = {name: _sibling(plan, node, replace(op, output=name)) for name in ("values", "indices")}
    found = {name: sibling for name, sibling in siblings.items() if sibling is not None}
    if inner > 1 and op.k > FEW_WIDE:
        _moved_inside(plan, x, op, found)
        return
    few, wanted = op.k <= FEW, Wanted(op.largest, tuple(found))
    arguments: dict[str, Argument] = {"x": plan.planar(x), "k": op.k, "size": size}
    arguments |= {name: plan.new_planar(sibling) for name, sibling in found.items()}
    capacity = op.k if few else min(size, max(2 * op.k, op.k + ROOM)) + LANES
    scratch = LIST + 8 * capacity * (1 if few else 2)
    if inner == 1:
        kernel: Kernel = TopRows(wanted, few)
        units, each = bands_of(outer, 4 * size)
        arguments |= {"rows": outer, "each": each, "capacity": capacity}
    else:
        kernel, scratch = TopColumns(wanted), op.k * 3 * VECTOR_BYTES
        pieces, each = columns_of(inner, 4 * size)
        units = outer * pieces
        arguments |= {"inner": inner, "each": each}
    first, *others = found.values()
    label = f"top {op.k} " + ("in rows" if inner == 1 else "in columns")
    plan.call(first, kernel, arguments, units, label=label, covers=tuple(others), scratch=scratch)


def _sibling(plan: Planner, node: Node, op: TopK) -> Node | None:
    """The node itself, or one without a value yet that has this op and reads the same."""
    alike = (other for other in (node, *plan.readers(node.inputs[0])) if other.op == op)
    return next((other for other in alike if not plan.is_done(other)), None)


def _moved_inside(plan: Planner, x: Node, op: TopK, found: Mapping[str, Node]) -> None:
    """Along the last axis of x with its axes in another order, and back."""
    order = [*range(x.type.rank)]
    order.append(order.pop(op.axis))
    back = [order.index(axis) for axis in range(x.type.rank)]
    first = next(iter(found.values()))
    moved = part(plan, first, Transpose(tuple(order)), x)
    for name, node in found.items():
        rows = part(plan, node, TopK(op.k, -1, op.largest, name), moved)
        plan.view(node, part(plan, node, Transpose(tuple(back)), rows))

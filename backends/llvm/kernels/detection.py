"""Heads of detectors: some entries of every anchor through the logistic function, some through a softmax together.

for plane of the unit (one entry of one anchor of one image):
    for 16 pixels: y = scale · σ(x) + shift, or y = scale · x + shift    [the plane's line of a table says which]
for (image and anchor, group of entries) of the unit: for 16 pixels: softmax along the entries

Entries of a softmax are copied by the first kernel and replaced by the second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graphsr.ir import Node
from graphsr.op import Array
from graphsr.ops.detection import AnchorHead, GridHead

from ..kernel import Argument, Kernel
from ..loops import FLOAT, I64, PTR, VECTOR_BYTES, Function, Value
from .math import logistic
from .row import bands_of, over_row
from .softmax import SOFTMAX, Columns, emit

if TYPE_CHECKING:
    from ..plan import Planner
    from ..target import Target


@dataclass(frozen=True)
class HeadEntries(Kernel):
    """x[planes, inner]. Unit: `each` planes; line plane % `entries` of the tables is theirs."""

    def slots(self) -> Mapping[str, str]:
        pointers = ("x", "y", "is_logistic", "scale", "shift")
        return {**dict.fromkeys(pointers, PTR), **dict.fromkeys(("planes", "inner", "entries", "each"), I64)}

    def body(self, k: Function, target: Target) -> None:
        first = k.unit * k["each"]
        with k.loop(k.minimum(k["each"], k["planes"] - first)) as i:
            plane, entry = first + i, (first + i) % k["entries"]
            at = plane * k["inner"] * 4
            squashed = k.load(k["is_logistic"] + entry * 8, I64) > 0
            with k.when(squashed):
                self._row(k, at, entry, squashed=True)
            with k.when(squashed ^ 1):
                self._row(k, at, entry, squashed=False)

    def scratch(self, target: Target) -> int:
        return VECTOR_BYTES

    def _row(self, k: Function, at: Value, entry: Value, *, squashed: bool) -> None:
        """One plane. The last pixels go through the scratch: a mask would need a register all the way."""

        def emit_pixels(x: Value, y: Value) -> None:
            with k.pieces() as piece:
                value = k.load(x + piece, align=4)
                value = logistic(k, value) if squashed else value
                scale, shift = (k.splat(k.load(k[name] + entry * 4, FLOAT)) for name in ("scale", "shift"))
                k.store(scale * value + shift, y + piece, align=4)

        def vector(i: Value, mask: Value | None) -> None:
            x, y = (k[name] + at + i * 4 for name in "xy")
            if mask is None:
                emit_pixels(x, y)
            else:
                k.store(k.load_some(x, mask), k.scratch)
                emit_pixels(k.scratch, k.scratch)
                k.store_some(k.load(k.scratch), y, mask)

        over_row(k, k["inner"], vector)


@dataclass(frozen=True)
class HeadSoftmax(Kernel):
    """x[outer, `step` bytes]. Unit: one group of one outer index: its first entry and its size stand in tables."""

    def slots(self) -> Mapping[str, str]:
        return {**dict.fromkeys(("x", "y", "firsts", "sizes"), PTR), **dict.fromkeys(("groups", "step", "inner"), I64)}

    def body(self, k: Function, target: Target) -> None:
        group, outer = k.unit % k["groups"], k.unit // k["groups"]
        size, entry_bytes = k.load(k["sizes"] + group * 8, I64), k["inner"] * 4
        at = outer * k["step"] + k.load(k["firsts"] + group * 8, I64) * entry_bytes
        x, y = k["x"] + at, k["y"] + at

        def columns(i: Value, mask: Value | None) -> None:
            with k.pieces() as piece:
                at = i + (piece >> 2)
                some = None if mask is None else k.first_lanes(k["inner"] - at)
                emit(k, SOFTMAX, Columns(k, x + at * 4, y + at * 4, size, entry_bytes, some), False)

        over_row(k, k["inner"], columns)


def lower(plan: Planner, node: Node) -> None:
    """Planar."""
    from ..plan import NoKernel

    op, (images, channels, height, width) = node.op, node.type.dims
    if node.type.dtype != "float32":
        raise NoKernel(f"only float32, not {node.type.dtype}")
    if isinstance(op, GridHead):
        cells = op.side**2 if op.softmax else 0
        _entries(plan, node, Table.copying(1), images, channels)
        _softmax(plan, node, [(cell * op.classes, op.classes) for cell in range(cells)], images, 1)
        return
    assert isinstance(op, AnchorHead)
    inner = height * width
    _entries(plan, node, Table.of(op), images * channels, inner)
    groups = [(group.indices(op.entries)[0], len(range(op.entries)[group])) for group in op.groups()]
    _softmax(plan, node, [group for group in groups if group[1]], images * len(op.anchors), inner)


@dataclass(frozen=True)
class Table:
    """What happens to each entry: y = scale · (σ(x) or x) + shift."""

    is_logistic: Array
    scale: Array
    shift: Array

    @classmethod
    def copying(cls, entries: int) -> Table:
        """y = x. The shift is −0: adding 0 would lose the sign of −0."""
        zeros = np.zeros(entries, np.int64)
        return cls(zeros, np.ones(entries, np.float32), np.full(entries, -0.0, np.float32))

    @classmethod
    def of(cls, op: AnchorHead) -> Table:
        table = cls.copying(op.entries)
        for entries in op.logistics():
            table.is_logistic[entries] = 1
        which, s = op.stretched()
        for entries in which:
            table.scale[entries], table.shift[entries] = s, -(s - 1) / 2
        return table


def _entries(plan: Planner, node: Node, table: Table, planes: int, inner: int) -> None:
    units, each = bands_of(planes, 4 * inner)
    arguments: dict[str, Argument] = {"x": plan.planar(node.inputs[0]), "y": plan.new_planar(node)}
    arguments |= {"is_logistic": table.is_logistic, "scale": table.scale, "shift": table.shift}
    arguments |= {"planes": planes, "inner": inner, "entries": len(table.scale), "each": each}
    plan.call(node, HeadEntries(), arguments, units, label="entries of a head")


def _softmax(plan: Planner, node: Node, groups: list[tuple[int, int]], outer: int, inner: int) -> None:
    if not groups:
        return
    firsts, sizes = np.array(groups, np.int64).T.copy()
    arguments: dict[str, Argument] = {"x": plan.planar(node.inputs[0]), "y": plan.planar(node)}
    arguments |= {"firsts": firsts, "sizes": sizes, "groups": len(groups), "inner": inner}
    arguments["step"] = node.type.nbytes // outer
    plan.call(node, HeadSoftmax(), arguments, outer * len(groups), label="softmax of groups")

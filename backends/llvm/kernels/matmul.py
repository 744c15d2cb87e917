"""matmul: y[…, i, j] = Σ_k a[…, i, k] · b[…, k, j], batches of matrices that are broadcast against each other.

unit: a panel of 16·`vectors` columns of y and a group of its rows, of one product of the batch
for DEPTH of the k at a time:
    the panel of b goes to the scratch, line after line          [constants are packed once, for all runs]
    for R rows of the group: for k: R x `vectors` accumulators += a[i, k] · panel[k]
    y = the accumulators                                         [after the first DEPTH: y += the accumulators]

A panel of DEPTH lines stays in the second cache while all rows of the group pass by it. Rows beyond the last one are
the last one again: they write the same numbers to the same place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from graphsr.ir import Node
from graphsr.op import Array

from ..kernel import Argument
from ..loops import I64, LANES, PTR, VECTOR_BYTES, Function, Value
from ..memory import aligned
from .elementwise_planar import merge_axes
from .register_tile import UNROLL, InRegisters, register_tile_at

if TYPE_CHECKING:
    from ..plan import Planner
    from ..target import Target

DEPTH = 1024
"""Lines of a panel: with two vectors 128 KB."""
GROUP = 192
"""Rows of a unit, about: what packing a panel costs is shared by so many."""
FEW_TILES = 16
"""Up to so many tiles of rows are made equally high, so that the last one computes little in vain."""
TILES = ((2, 11), (3, 8), (4, 6), (1, 22))
"""(vectors, rows) of the register tile with 32 registers of 16 floats, the best ones first."""


@dataclass(frozen=True)
class MatrixProduct(InRegisters):
    """See above. The batch has axes with the sizes `size1` …, the first one aside; `a_1` and `b_1` are the distances in
    bytes from one index of axis 1 to the next."""

    rows: int
    vectors: int
    packed: bool
    """Whether b comes as [panel][k][16·vectors]."""
    axes: int

    def slots(self) -> Mapping[str, str]:
        strides = [f"{name}_{axis}" for axis in range(self.axes) for name in "ab"]
        sizes = [f"size{axis}" for axis in range(1, self.axes)]
        scalars = ("count", "inner", "columns", "panels", "group", "groups", *strides, *sizes)
        return {"a": PTR, "b": PTR, "y": PTR, **dict.fromkeys(scalars, I64)}

    @property
    def line(self) -> int:
        """Bytes of a line of a panel."""
        return self.vectors * VECTOR_BYTES

    def body(self, k: Function, target: Target) -> None:
        panel, rest = k.unit % k["panels"], k.unit // k["panels"]
        group, product = rest % k["groups"] * k["group"], rest // k["groups"]
        a, b = self._factors(k, product)
        y = k["y"] + (product * k["count"] * k["columns"] * 4 + panel * self.line)
        b = b + (panel * k["inner"] * self.line if self.packed else panel * self.line)
        left = k["columns"] - panel * (LANES * self.vectors)
        masks = [k.first_lanes(left - n * LANES) for n in range(self.vectors)]
        stop = k.minimum(group + k["group"], k["count"])

        def part(start: Value, begin: bool) -> None:
            depth = k.minimum(k["inner"] - start, DEPTH)
            lines = b + start * self.line if self.packed else self._pack(k, b, start, depth, masks)
            with k.loop(stop, start=group, step=self.rows) as i:
                self._tile(k, a + start * 4, lines, y, i, depth, masks, begin)

        part(k.literal(0), True)
        with k.loop(k["inner"], start=DEPTH, step=DEPTH) as start:
            part(start, False)

    def _factors(self, k: Function, product: Value) -> tuple[Value, Value]:
        """Where the matrices of a product begin."""
        a, b = k["a"], k["b"]
        for axis in reversed(range(self.axes)):
            index = product % k[f"size{axis}"] if axis else product
            a, b = a + index * k[f"a_{axis}"], b + index * k[f"b_{axis}"]
            product = product // k[f"size{axis}"] if axis else product
        return a, b

    def _pack(self, k: Function, b: Value, start: Value, depth: Value, masks: list[Value]) -> Value:
        """The panel's lines from `start` on, in the scratch; zeros in the columns beyond the last one."""
        with k.loop(depth) as i:
            row = b + (start + i) * k["columns"] * 4
            for n, mask in enumerate(masks):
                k.store(k.load_some(row + n * VECTOR_BYTES, mask), k.scratch + i * self.line + n * VECTOR_BYTES)
        return k.scratch

    def _tile(
        self, k: Function, a: Value, lines: Value, y: Value, i: Value, depth: Value, masks: list[Value], begin: bool
    ) -> None:
        """R rows of y from row i on."""
        last = k["count"] - 1
        indices = [k.minimum(i + r, last) for r in range(self.rows)]
        results = [y + index * k["columns"] * 4 for index in indices]
        total = self._product(k, [a + index * k["inner"] * 4 for index in indices], lines, depth)
        places = [(row + n * VECTOR_BYTES, masks[n]) for row in results for n in range(self.vectors)]
        if not begin:
            total = [k.load_some(at, mask) + part for (at, mask), part in zip(places, total, strict=True)]
        for (at, mask), value in zip(places, total, strict=True):
            k.store_some(value, at, mask)

    def _product(self, k: Function, rows: list[Value], lines: Value, depth: Value) -> list[Value]:
        """[rows · vectors] sums over `depth` lines."""
        zeros = [k.vector(0.0)] * (self.rows * self.vectors)

        def steps(count: int) -> Callable[[Value, list[Value]], list[Value]]:
            def body(i: Value, total: list[Value]) -> list[Value]:
                places = [row + i * 4 for row in rows]
                return register_tile_at(k, total, places, lines + i * self.line, [4 * u for u in range(count)])

            return body

        whole = depth & -UNROLL
        total = k.fold(whole, zeros, step=UNROLL)(steps(UNROLL))
        return k.fold(depth, total, start=whole)(steps(1))


def lower(plan: Planner, node: Node) -> None:
    """Planar. Where b is one matrix, the products of the batch are one product."""
    from ..plan import NoKernel

    a, b = node.inputs
    if node.type.dtype != "float32":
        raise NoKernel(f"only float32, not {node.type.dtype}")
    a_shape, b_shape = a.type.dims, b.type.dims
    a_shape = (1, *a_shape) if len(a_shape) == 1 else a_shape
    b_shape = (*b_shape, 1) if len(b_shape) == 1 else b_shape
    (count, inner), columns = a_shape[-2:], b_shape[-1]
    if inner == 0:
        raise NoKernel("nothing to multiply")
    batch = np.broadcast_shapes(a_shape[:-2], b_shape[:-2])
    if prod(b_shape[:-2]) == 1:
        batch, count = (), prod(a_shape[:-1])
    outer, last, strides = merge_axes(batch, [a_shape[:-2], b_shape[:-2]] if batch else [(), ()])
    sizes, products = [*outer, last], prod(batch)
    vectors, rows = tile_of(plan.target, count, columns)
    kernel = MatrixProduct(rows, vectors, b.is_const, len(sizes))
    panels, width = -(-columns // (vectors * LANES)), vectors * LANES
    arguments: dict[str, Argument] = {"a": plan.planar(a), "y": plan.new_planar(node)}
    if b.is_const:
        arguments["b"] = plan.weight(
            b.value, f"matmul {vectors}", lambda v: _pack(v.reshape(-1, inner, columns), width)
        )
    else:
        arguments["b"] = plan.planar(b)
    b_bytes = 4 * inner * (panels * width if b.is_const else columns)
    for axis, (of_a, of_b) in enumerate(zip(*strides, strict=True)):
        arguments |= {f"a_{axis}": of_a * 4 * count * inner, f"b_{axis}": of_b * b_bytes}
    arguments |= {f"size{axis}": sizes[axis] for axis in range(1, len(sizes))}
    group = rows * max(1, min(GROUP // rows, -(-count * products * panels // (16 * rows))))
    groups = -(-count // group)
    arguments |= {"count": count, "inner": inner, "columns": columns, "panels": panels}
    arguments |= {"group": group, "groups": groups}
    scratch = 0 if b.is_const else min(inner, DEPTH) * kernel.line
    plan.call(node, kernel, arguments, products * groups * panels, label="matrix product", scratch=scratch)


def tile_of(target: Target, count: int, columns: int) -> tuple[int, int]:
    """(vectors, rows) of the register tile for a product of so many rows and columns."""
    blocks = -(-columns // LANES)
    vectors, rows = 1, target.rows
    if target.vector_bits == 512:
        vectors, rows = min(TILES[:-1] if blocks > 1 else TILES[-1:], key=lambda tile: -(-blocks // tile[0]) * tile[0])
    tiles = -(-count // rows)
    return vectors, -(-count // tiles) if tiles <= FEW_TILES else rows


def _pack(b: Array, width: int) -> Array:
    """[batch][panel][k][width] of b[batch, k, j], zeros in columns beyond the last."""
    batch, inner, columns = b.shape
    padded = np.zeros((batch, inner, -(-columns // width) * width), np.float32)
    padded[..., :columns] = b
    return aligned(padded.reshape(batch, inner, -1, width).transpose(0, 2, 1, 3))

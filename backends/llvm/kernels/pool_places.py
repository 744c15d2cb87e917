"""max_pool_nd: where the maximum of each window lies; the first one, or the first NaN, in row-major order.

for output row of the unit:
    rows[i] = where row i of its windows begins in the plane, for all axes but the last one; −1 outside
    for 16 columns of the image: fold over rows i inside: a greater key takes its place, with code i·Kw
    for 16 columns: fold over j < Kw of what lies j·d further: a greater key, or the same and a lesser code i·Kw + j
    for 16 outputs: the place that the code stands for; −1 where it is one outside the image

Keys are integers in the order of floats, with NaN as the greatest (see folding.py). What lies outside has the key of
−∞, so it is found only where a window has nothing greater, and begins outside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from graphsr.ir import Node
from graphsr.ops import MaxPoolNd

from ..kernel import Argument, Kernel
from ..loops import I1, I32, I64, IVECTOR, LANES, PTR, VECTOR_BYTES, Function, Value
from .folding import LEAST_KEY, MOST, Folding
from .math import LONGS
from .row import bands_of, load_row, over_row
from .top_k import store_longs

if TYPE_CHECKING:
    from ..plan import Planner
    from ..target import Target


@dataclass(frozen=True)
class PoolPlaces(Kernel):
    """x[planes, sizes…]. Unit: so many output rows. Scratch: keys and codes of a row (`pitch` bytes each), then where
    the rows of the windows begin, and the same counted with the first axis as the fastest where `column_major`."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    before: tuple[int, ...]
    column_major: bool

    @property
    def tap_rows(self) -> int:
        """Rows of a window: over all axes but the last one."""
        return prod(self.kernel[:-1])

    @property
    def table_bytes(self) -> int:
        """Of one table of rows."""
        return -(-4 * self.tap_rows // VECTOR_BYTES) * VECTOR_BYTES

    def slots(self) -> Mapping[str, str]:
        sizes = [f"{what}{a}" for a in range(len(self.kernel)) for what in ("size", "out")]
        return {"x": PTR, "y": PTR, **dict.fromkeys((*sizes, "rows", "each", "reach", "pitch"), I64)}

    def body(self, k: Function, target: Target) -> None:
        first, last = k.unit * k["each"], len(self.kernel) - 1
        plane_size, plane_rows = k[f"size{last}"], k.literal(1)
        for a in range(last):
            plane_size, plane_rows = plane_size * k[f"size{a}"], plane_rows * k[f"out{a}"]
        with k.narrowed(), k.loop(k.minimum(k["each"], k["rows"] - first)) as i:
            row = first + i
            plane = row // plane_rows * plane_size
            self._find_rows(k, row % plane_rows)
            self._fold_rows(k, k["x"] + plane * 4)
            if self.kernel[-1] > 1:
                self._fold_columns(k)
            self._write(k, k["y"] + row * k[f"out{last}"] * 8, plane, plane_size // k[f"size{last}"])

    def _codes(self, k: Function) -> Value:
        return k.scratch + k["pitch"]

    def _rows(self, k: Function) -> Value:
        return k.scratch + 2 * k["pitch"]

    def _bases(self, k: Function) -> Value:
        """Where places of the rows of a window are counted from."""
        return self._rows(k) + (self.table_bytes if self.column_major else 0)

    def _find_rows(self, k: Function, output: Value) -> None:
        """The tables of rows of the windows of an output row."""
        outer = range(len(self.kernel) - 1)
        corner, row_steps, column_steps = {}, {}, {}
        row_step, column_step = k[f"size{len(outer)}"], k.literal(1)
        for a in reversed(outer):
            corner[a], output = output % k[f"out{a}"] * self.stride[a] - self.before[a], output // k[f"out{a}"]
            row_steps[a], row_step = row_step, row_step * k[f"size{a}"]
        for a in outer:
            column_steps[a], column_step = column_step, column_step * k[f"size{a}"]
        with k.loop(self.tap_rows) as tap:
            inside, row, base, rest = k.literal(1, I1), k.literal(0), k.literal(0), tap
            for a in reversed(outer):
                position, rest = corner[a] + rest % self.kernel[a] * self.dilation[a], rest // self.kernel[a]
                inside = inside & (position >= 0) & (position < k[f"size{a}"])
                row, base = row + position * row_steps[a], base + position * column_steps[a]
            self._note(k, inside, row, self._rows(k) + tap * 4)
            if self.column_major:
                self._note(k, inside, base, self._bases(k) + tap * 4)

    def _note(self, k: Function, inside: Value, place: Value, to: Value) -> None:
        k.store(k.convert("trunc", k.select(inside, place, k.literal(-1)), I32), to)

    def _fold_rows(self, k: Function, x: Value) -> None:
        """Keys and codes of the padded columns."""
        width, before = k[f"size{len(self.kernel) - 1}"], self.before[-1]
        nothing = [k.literal(LEAST_KEY, IVECTOR), k.literal(0, IVECTOR)]
        with k.loop(before, step=k.lanes_now) as at:
            self._put(k, at, nothing)

        def columns(at: Value, mask: Value | None) -> None:
            @k.fold(self.tap_rows, nothing)
            def best(tap: Value, best: list[Value]) -> list[Value]:
                row = k.convert("sext", k.load(self._rows(k) + tap * 4, I32), I64)

                @k.rarely(row >= 0, best)
                def taken() -> list[Value]:
                    value = load_row(k, x + (row + at) * 4, mask) + k.vector(0.0)  # zeros of both signs are equal
                    key, code = Folding("max").enter(k, value), tap * self.kernel[-1]
                    better = key > best[0]
                    codes = k.splat(k.convert("trunc", code, I32))
                    return [k.select(better, key, best[0]), k.select(better, codes, best[1])]

                return taken

            self._put(k, at + before, best)

        over_row(k, width, columns)
        with k.loop(k["reach"], start=width + before, step=k.lanes_now) as at:
            self._put(k, at, nothing)

    def _put(self, k: Function, at: Value, best: list[Value]) -> None:
        for values, to in zip(best, (k.scratch, self._codes(k)), strict=True):
            k.store(values, to + at * 4, align=4)

    def _fold_columns(self, k: Function) -> None:
        """The codes of windows of one row that begin at each column; what is read is ahead of what is written."""
        step = self.dilation[-1]
        with k.loop(k["reach"] - step * (self.kernel[-1] - 1), step=k.lanes_now) as at:
            keys, codes = k.scratch + at * 4, self._codes(k) + at * 4
            best = [k.load(keys, IVECTOR, align=4), k.load(codes, IVECTOR, align=4)]

            @k.fold(self.kernel[-1], best, start=1)
            def first(j: Value, best: list[Value]) -> list[Value]:
                further = j * (4 * step)
                key = k.load(keys + further, IVECTOR, align=4)
                code = k.load(codes + further, IVECTOR, align=4) + k.splat(k.convert("trunc", j, I32))
                better = k.compare("gt", key, best[0]) | (k.compare("eq", key, best[0]) & (code < best[1]))
                return [k.select(better, key, best[0]), k.select(better, code, best[1])]

            k.store(first[1], codes, align=4)

    def _write(self, k: Function, y: Value, plane: Value, column_step: Value) -> None:
        """The places that the codes stand for, counted over the whole of x."""
        last, lanes = len(self.kernel) - 1, k.lanes(range(k.lanes_now), IVECTOR)
        width, wide = k.splat(k.convert("trunc", k[f"size{last}"], I32)), k.literal(self.kernel[-1], IVECTOR)

        def outputs(at: Value, mask: Value | None) -> None:
            places = k.splat(k.convert("trunc", at, I32)) + lanes
            codes = self._codes(k) + at * (4 * self.stride[-1])
            if self.stride[-1] == 1:
                code = k.load(codes, IVECTOR, align=4)
            else:
                code = k.bitcast(k.gather(codes, lanes * self.stride[-1]), IVECTOR)
            if mask is not None:
                code = k.select(mask, code, k.literal(0, IVECTOR))
            row, column = code // wide, code % wide
            base = k.bitcast(k.gather(self._bases(k), row), IVECTOR)
            column = places * self.stride[-1] + column * self.dilation[-1] - self.before[-1]
            inside = (base >= 0) & (column >= 0) & (column < width)
            step = k.splat(k.convert("trunc", column_step, I32)) if self.column_major else k.literal(1, IVECTOR)
            place = k.convert("sext", base + column * step, LONGS) + k.splat(plane)
            store_longs(k, k.select(inside, place, k.literal(-1, LONGS)), y + at * 8, mask)

        over_row(k, k[f"out{last}"], outputs)


def lower(plan: Planner, node: Node, op: MaxPoolNd) -> None:
    """Planar, over any number of axes."""
    from ..plan import NoKernel

    x = node.inputs[0]
    if x.type.dtype != "float32":
        raise NoKernel(f"only float32, not {x.type.dtype}")
    size, out, axes = x.type.dims[2:], node.type.dims[2:], len(op.kernel)
    if prod(size) > MOST:
        raise NoKernel(f"{prod(size)} elements in a channel, more than places of 32 bits can tell")
    kernel = PoolPlaces(op.kernel, op.stride, op.dilation, op.padding[:axes], op.column_major)
    reach = (out[-1] - 1) * op.stride[-1] + op.span(axes - 1)
    columns = max(reach, op.padding[axes - 1] + size[-1]) + LANES * (op.stride[-1] + 1)  # where last vectors end
    pitch = -(-columns // LANES) * VECTOR_BYTES
    rows = prod(node.type.dims[:-1])
    units, each = bands_of(rows, 8 * out[-1] + 4 * size[-1])
    arguments: dict[str, Argument] = {"x": plan.planar(x), "y": plan.new_planar(node), "rows": rows, "each": each}
    arguments |= {"reach": reach, "pitch": pitch}
    for a in range(axes):
        arguments |= {f"size{a}": size[a], f"out{a}": out[a]}
    scratch = 2 * (pitch + kernel.table_bytes)
    label = "places of max " + "x".join(map(str, op.kernel))
    plan.call(node, kernel, arguments, units, label=label, scratch=scratch)

"""resize by nearest, linear or cubic interpolation, with or without antialiasing.

for rows of the image under the output rows of the unit:
    row[x] = Σ_t weight[t, x] · x[row, column[t, x]]          (blocked: a vector per pixel; planar: see below)
for output row y of the unit:
    y[x] = Σ_t weight[y, t] · row[line[y, t]][x]
[nearest: y[x] = x[line[y], column[x]]]

Which pixels an output pixel reads, and how they weigh, are tables made when the sizes are known. 16 output pixels of a
planar row are picked from two vectors where the processor has an instruction for it and they lie within 32 pixels, as
they do unless the image shrinks to less than half its size; elsewhere they are gathered one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graphsr.ir import Node
from graphsr.op import Array
from graphsr.ops import Resize

from ..kernel import Argument, Kernel, blocked_slots
from ..loops import FLOAT, I32, I64, IVECTOR, LANES, PTR, VECTOR, VECTOR_BYTES, Function, Index, Value
from ..memory import aligned
from .layout import zero_halo
from .row import STREAM_BYTES, over_row, plane_address, row_bytes, store_row, streamed

if TYPE_CHECKING:
    from ..plan import Planner
    from ..target import Target

ROWS = 32
"""Output rows of a unit, at most: those at the borders of units are interpolated twice."""

TABLES = ("lines", "line_weights", "columns", "column_weights", "starts", "spans")
"""lines[Ho][taps] rows of x (int64) and weights; columns[taps][Wo] (int32) and weights, Wo rounded up to vectors, the
columns counted from the start (int64) of the 16; for each band of output rows the first row of x that it reads, and how
many (int64)."""

MOST_UNROLLED = 8
"""Taps of a line that are written out, with their addresses and weights in registers."""

SIZES = ("height", "width", "out_height", "out_width", "planes", "bands", "band_rows", "pitch", "table", "stream")
"""planes: of an image; pitch: bytes of a row in the scratch; table: bytes of a tap in the tables of columns; stream: 1
to write past the caches."""


@dataclass(frozen=True)
class Interpolate(Kernel):
    """Unit: a band of output rows of one plane. See above."""

    taps: tuple[int, int]
    weighted: bool
    blocked: bool
    near: bool
    """Whether 16 output pixels of a planar row are picked from two vectors."""

    def slots(self) -> Mapping[str, str]:
        images = {**blocked_slots("x"), **blocked_slots("y")} if self.blocked else {"x": PTR, "y": PTR}
        return {**images, **dict.fromkeys(TABLES, PTR), **dict.fromkeys(SIZES, I64)}

    def body(self, k: Function, target: Target) -> None:
        plane, part = k.unit // k["bands"], k.unit % k["bands"]
        source = plane_address(k, self.blocked, "x", plane, k["height"])
        out = plane_address(k, self.blocked, "y", plane, k["out_height"])
        x_row, y_row = row_bytes(k, self.blocked, "x"), row_bytes(k, self.blocked, "y")
        first = part * k["band_rows"]
        span = k["spans"] + part * 16
        start = k.load(span, I64)
        if self.weighted:
            with k.loop(k.load(span + 8, I64)) as i:
                self._columns(k, source + (start + i) * x_row, k.scratch + i * k["pitch"])
        with k.loop(k.minimum(k["band_rows"], k["out_height"] - first)) as i:
            y = first + i
            row = out + y * y_row
            if self.weighted and not self.blocked:
                streamed(k, k["stream"], [row], lambda past: self._lines(k, y, start, row, past))
            elif self.weighted:
                self._lines(k, y, start, row, past=False)
            else:
                self._columns(k, source + k.load(k["lines"] + y * 8, I64) * x_row, row, to_output=True)
            if self.blocked:
                zero_halo(k, row, k["out_width"], k["y_left"], k["y_right"])

    def _over(self, k: Function, body: Callable[[Value, Value | None], None]) -> None:
        """body(pixel, mask) for all vectors of an output row."""
        if self.blocked:
            with k.loop(k["out_width"]) as x:
                body(x, None)
        else:
            over_row(k, k["out_width"], body)

    @property
    def pixel(self) -> int:
        """Bytes."""
        return VECTOR_BYTES if self.blocked else 4

    def _columns(self, k: Function, row: Value, to: Value, to_output: bool = False) -> None:
        """to[x] = Σ_t weight[t, x] · row[column[t, x]]; rows of the scratch have room for the last vector."""
        masks = [k.first_lanes(k["width"] - at) for at in (0, LANES)] if self.near else []

        def pixels(x: Value, mask: Value | None) -> None:
            total = None
            pick = self._picker(k, row, x, masks)
            for t in range(self.taps[1]):
                value = pick(k["columns"] + k["table"] * t + x * 4)
                if self.weighted:
                    at = k["column_weights"] + k["table"] * t + x * 4
                    weight = k.splat(k.load(at, FLOAT)) if self.blocked else k.load(at)
                    value = value * weight if total is None else k.fma(value, weight, total)
                total = value
            assert total is not None
            store_row(k, total, to + x * self.pixel, mask if to_output else None)

        with k.narrowed(LANES if self.blocked else 0):  # pixels that are gathered one by one take registers enough
            self._over(k, pixels)

    def _picker(self, k: Function, row: Value, x: Value, masks: list[Value]) -> Callable[[Value], Value]:
        """From a place in the table of columns to the pixel, or the 16 pixels, of the row."""
        if self.blocked:
            return lambda table: k.load(row + k.convert("zext", k.load(table, I32), I64) * VECTOR_BYTES)
        if not self.near:
            return lambda table: k.gather(row, k.load(table, IVECTOR))
        first = row + k.load(k["starts"] + x // LANES * 8, I64) * 4
        low, high = (k.load_some(first + i * VECTOR_BYTES, mask) for i, mask in enumerate(masks))
        return lambda table: k.call("llvm.x86.avx512.vpermi2var.ps.512", VECTOR, low, k.load(table, IVECTOR), high)

    def _lines(self, k: Function, y: Value, start: Value, out: Value, past: bool) -> None:
        """out[x] = Σ_t weight[y, t] · row[line[y, t]][x]"""
        entry = y * self.taps[0]

        def tap(t: Index) -> tuple[Value, Value]:
            """The row, and its weight in every lane."""
            line = k.load(k["lines"] + (entry + t) * 8, I64) - start
            return k.scratch + line * k["pitch"], k.splat(k.load(k["line_weights"] + (entry + t) * 4, FLOAT))

        taps = [tap(t) for t in range(self.taps[0])] if self.taps[0] <= MOST_UNROLLED else []

        def pixels(x: Value, mask: Value | None) -> None:
            at = x * self.pixel
            total = k.vector(0.0)
            for row, weight in taps:
                total = k.fma(k.load(row + at), weight, total)
            store_row(k, total if taps else self._many(k, tap, at), out + at, mask, past_caches=past)

        self._over(k, pixels)

    def _many(self, k: Function, tap: Callable[[Index], tuple[Value, Value]], at: Value) -> Value:
        """The sum over taps that are too many for registers."""

        @k.fold(self.taps[0], [k.vector(0.0)])
        def total(t: Value, total: list[Value]) -> list[Value]:
            row, weight = tap(t)
            return [k.fma(k.load(row + at), weight, total[0])]

        return total[0]


def lower(plan: Planner, node: Node) -> None:
    """Blocked images stay blocked, planar ones planar."""
    from ..plan import NoKernel

    op, source = node.op, node.inputs[0]
    assert isinstance(op, Resize)
    if node.type.dtype != "float32":
        raise NoKernel(f"only float32, not {node.type.dtype}")
    (n, channels, height, width), (out_height, out_width) = source.type.dims, node.type.dims[2:]
    (_, lines, line_weights), (_, columns, column_weights) = op.taps_of(
        np.broadcast_to(np.float32(0), source.type.dims)
    )
    blocked = plan.is_blocked(source)
    starts = _starts(columns, width)
    distances = (columns - starts.repeat(LANES)[:out_width, None]).astype(np.int32)
    near = not blocked and plan.target.vector_bits == 512 and int(distances.max()) < 2 * LANES
    kernel = Interpolate((lines.shape[1], columns.shape[1]), op.mode != "nearest", blocked, near)
    planes = -(-channels // LANES) if blocked else channels
    band_rows = max(1, min(ROWS, -(-n * planes * out_height // 16)))
    spans = _spans(lines, band_rows)
    pitch = -(-out_width * kernel.pixel // VECTOR_BYTES) * VECTOR_BYTES
    arguments: dict[str, Argument] = {
        "lines": np.ascontiguousarray(lines, np.int64),
        "line_weights": np.ascontiguousarray(line_weights, np.float32),
        "columns": _by_tap(distances if near else columns, np.int32),
        "column_weights": _by_tap(column_weights, np.float32),
        "starts": starts,
        "spans": spans,
    }
    table = -(-out_width // LANES) * VECTOR_BYTES
    stream = int(node.type.nbytes >= STREAM_BYTES)
    values = (height, width, out_height, out_width, planes, len(spans), band_rows, pitch, table, stream)
    arguments |= dict(zip(SIZES, values, strict=True))
    if blocked:
        arguments |= {**plan.blocked(source).arguments("x"), **plan.new_blocked(node).arguments("y")}
    else:
        arguments |= {"x": plan.planar(source), "y": plan.new_planar(node)}
    scratch = int(spans[:, 1].max()) * pitch if kernel.weighted else 0
    plan.call(node, kernel, arguments, n * planes * len(spans), label=f"resize {op.mode}", scratch=scratch)


def _spans(lines: Array, band_rows: int) -> Array:
    """[bands, 2] the first row of x under each band of output rows, and the number of rows."""
    starts = range(0, len(lines), band_rows)
    low, high = ([edge(lines[s : s + band_rows]) for s in starts] for edge in (np.min, np.max))
    return np.stack([low, np.subtract(high, low) + 1], axis=1).astype(np.int64)


def _starts(columns: Array, width: int) -> Array:
    """For every 16 output columns the first column of x that they read, or one from which 32 are left in the row."""
    first = [columns[g : g + LANES].min() for g in range(0, len(columns), LANES)]
    return np.minimum(first, max(width - 2 * LANES, 0)).astype(np.int64)


def _by_tap(values: Array, dtype: type[np.generic]) -> Array:
    """[taps][Wo] of values[Wo, taps], zeros up to whole vectors."""
    table = np.zeros((values.shape[1], -(-len(values) // LANES) * LANES), dtype)
    table[:, : len(values)] = values.T
    return aligned(table)

"""crop_and_resize: a region of an image by linear interpolation, and a constant outside the image.

for output row y of the unit:
    inside the image: row[x] = (1 − v)·x[low, x] + v·x[high, x] for the columns of the region
                      y[x] = (1 − w[x])·row[low[x]] + w[x]·row[high[x]], the constant where x is outside
    outside: the constant

Which pixels are read, and how they weigh, are tables made when the sizes are known. The roundings are those of
`forward`. Planar rows are gathered from, 16 pixels at a time; in blocks a pixel is a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graphsr.ir import Node
from graphsr.op import Array
from graphsr.ops import CropAndResize

from ..kernel import Argument, Kernel, blocked_slots
from ..loops import FLOAT, I32, I64, IVECTOR, LANES, PTR, VECTOR_BYTES, Function, Value
from ..memory import aligned
from .layout import zero_halo
from .row import bands_of, load_row, over_row, plane_address, row_bytes, store_row

if TYPE_CHECKING:
    from ..plan import Planner
    from ..target import Target

TABLES = ("lines", "line_weights", "columns", "column_weights", "values")
"""Of the outputs inside the image: lines[Ho][low, high] (int64), columns[low, high][Wo] (int32, from the first column
that is read, Wo rounded up to vectors), and the weights of the high ones. values[planes][16]: the constant, or 0 beyond
the channels."""

IMAGES = ("height", "width", "out_height", "out_width", "planes")
REGION = ("top", "bottom", "left", "right", "first", "span")
"""The outputs from `top` to `bottom` and `left` to `right` are inside; they read `span` columns from `first` on."""


@dataclass(frozen=True)
class CropImages(Kernel):
    """Unit: a band of output rows of one plane. See above."""

    blocked: bool

    def slots(self) -> Mapping[str, str]:
        images = {**blocked_slots("x"), **blocked_slots("y")} if self.blocked else {"x": PTR, "y": PTR}
        sizes = dict.fromkeys((*IMAGES, *REGION, "bands", "band_rows"), I64)
        return {**images, **dict.fromkeys(TABLES, PTR), **sizes}

    @property
    def pixel(self) -> int:
        """Bytes."""
        return VECTOR_BYTES if self.blocked else 4

    def body(self, k: Function, target: Target) -> None:
        plane, first = k.unit // k["bands"], k.unit % k["bands"] * k["band_rows"]
        source = plane_address(k, self.blocked, "x", plane, k["height"]) + k["first"] * self.pixel
        out = plane_address(k, self.blocked, "y", plane, k["out_height"])
        constant = k["values"] + plane % k["planes"] * VECTOR_BYTES
        with (
            k.narrowed(LANES if self.blocked else 0),
            k.loop(k.minimum(first + k["band_rows"], k["out_height"]), start=first) as y,
        ):
            row = out + y * row_bytes(k, self.blocked, "y")
            inside = (y >= k["top"]) & (y < k["bottom"])
            with k.when(inside):
                self._mix_lines(k, source, y - k["top"])
                self._mix_columns(k, row + k["left"] * self.pixel)
            left, right = (k.select(inside, k[side], k["out_width"]) for side in ("left", "right"))
            self._fill(k, constant, row, left)
            self._fill(k, constant, row + right * self.pixel, k["out_width"] - right)
            if self.blocked:
                zero_halo(k, row, k["out_width"], k["y_left"], k["y_right"])

    def _mix_lines(self, k: Function, source: Value, line: Value) -> None:
        """The row between two of x, to the scratch, which has room for the last vector."""
        low, high = (
            source + k.load(k["lines"] + line * 16 + i * 8, I64) * row_bytes(k, self.blocked, "x") for i in (0, 1)
        )
        weight = k.splat(k.load(k["line_weights"] + line * 4, FLOAT))

        def mix(x: Value, mask: Value | None) -> None:
            at = x * self.pixel
            k.store(mixed(k, load_row(k, low + at, mask), load_row(k, high + at, mask), weight), k.scratch + at)

        self._over(k, k["span"], mix)

    def _mix_columns(self, k: Function, row: Value) -> None:
        """The pixels inside the image of an output row, from the scratch."""
        count = k["right"] - k["left"]
        table = ((count + (LANES - 1)) & -LANES) * 4

        def mix(x: Value, mask: Value | None) -> None:
            low, high = (self._pick(k, k["columns"] + table * tap + x * 4) for tap in (0, 1))
            at = k["column_weights"] + x * 4
            weight = k.splat(k.load(at, FLOAT)) if self.blocked else k.load(at)
            store_row(k, mixed(k, low, high, weight), row + x * self.pixel, mask)

        self._over(k, count, mix)

    def _pick(self, k: Function, place: Value) -> Value:
        """The pixel of the scratch, or the pixels, that the table has there."""
        if self.blocked:
            return k.load(k.scratch + k.convert("zext", k.load(place, I32), I64) * VECTOR_BYTES)
        return k.gather(k.scratch, k.load(place, IVECTOR))

    def _fill(self, k: Function, constant: Value, start: Value, count: Value) -> None:
        """So many pixels with the constant."""
        value = k.load(constant)
        self._over(k, count, lambda x, mask: store_row(k, value, start + x * self.pixel, mask))

    def _over(self, k: Function, count: Value, body: Callable[[Value, Value | None], None]) -> None:
        """body(pixel, mask) for all vectors of so many pixels."""
        if self.blocked:
            with k.loop(count) as x:
                body(x, None)
        else:
            over_row(k, count, body)


def mixed(k: Function, low: Value, high: Value, weight: Value) -> Value:
    """(1 − w)·low + w·high, with three roundings."""
    return low * (k.vector(1.0) - weight) + high * weight


def lower(plan: Planner, node: Node) -> None:
    """Blocked images stay blocked, planar ones planar."""
    from ..plan import NoKernel

    source = node.inputs[0]
    assert isinstance(node.op, CropAndResize)
    if node.type.dtype != "float32":
        raise NoKernel(f"only float32, not {node.type.dtype}")
    (n, channels, height, width), (out_height, out_width) = source.type.dims, node.type.dims[2:]
    (top, bottom, lines, line_weights), (left, right, columns, column_weights) = _inside(node)
    first, span = (int(columns.min()), int(np.ptp(columns)) + 1) if columns.size else (0, 0)
    kernel = CropImages(plan.is_blocked(source))
    planes = -(-channels // LANES) if kernel.blocked else channels
    bands, band_rows = bands_of(out_height, out_width * kernel.pixel, n * planes)
    padding = -len(columns) % LANES
    arguments: dict[str, Argument] = {
        "lines": np.ascontiguousarray(lines),
        "line_weights": line_weights,
        "columns": aligned(np.pad(columns.T - first, ((0, 0), (0, padding))).astype(np.int32)),
        "column_weights": aligned(np.pad(column_weights, (0, padding))),
        "values": _values(node.op.value, channels if kernel.blocked else LANES),
        "bands": bands,
        "band_rows": band_rows,
    }
    sizes = (height, width, out_height, out_width, planes if kernel.blocked else 1)
    arguments |= dict(zip(IMAGES, sizes, strict=True))
    arguments |= dict(zip(REGION, (top, bottom, left, right, first, span), strict=True))
    if kernel.blocked:
        arguments |= {**plan.blocked(source).arguments("x"), **plan.new_blocked(node).arguments("y")}
    else:
        arguments |= {"x": plan.planar(source), "y": plan.new_planar(node)}
    scratch = -(-span * kernel.pixel // VECTOR_BYTES) * VECTOR_BYTES
    plan.call(node, kernel, arguments, n * planes * bands, label="crop and resize", scratch=scratch)


def _inside(node: Node) -> list[tuple[int, int, Array, Array]]:
    """For each axis the first output inside the image and the one behind the last, the pixels [low, high] that each of
    these reads, and the weights of the high ones. Those inside follow each other, as places grow or fall evenly."""
    assert isinstance(node.op, CropAndResize)
    x, parts = np.broadcast_to(np.float32(0), node.inputs[0].type.dims), []
    for axis in (2, 3):
        low, high, weight, valid = node.op.taps_of(x, axis)
        inside = np.flatnonzero(valid)
        pixels = np.stack([low[inside], high[inside]], axis=1)
        start, stop = (int(inside[0]), int(inside[-1]) + 1) if inside.size else (0, 0)
        parts.append((start, stop, pixels, weight.ravel()[inside]))
    return parts


def _values(value: float, channels: int) -> Array:
    """[blocks][16] the constant, and zeros beyond the channels."""
    values = np.zeros(-(-channels // LANES) * LANES, np.float32)
    values[:channels] = value
    return aligned(values)

"""Conversions between the planar and the blocked layout.

for row (n, y) of the unit: for block of 16 channels: for 16 pixels:
    16 vectors in, transposed in registers, 16 vectors out
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graphsr.ir import Node
from graphsr.op import Array

from ..kernel import Kernel, blocked_slots
from ..loops import I64, IVECTOR, LANES, PTR, VECTOR, VECTOR_BYTES, Function, Value
from ..memory import aligned
from .row import band, even_parts

if TYPE_CHECKING:
    from ..plan import Planner
    from ..target import Target

UNITS_PER_THREAD = 2
"""Of each image that becomes planar."""


def transpose(k: Function, rows: Sequence[Value]) -> list[Value]:
    """A square matrix held as vectors, 16x16 or of the lanes that a piece has: rounds that swap the off-diagonal halves
    of ever smaller squares."""
    m, lanes = list(rows), k.lanes_now
    d = lanes // 2
    while d:
        upper = [lane if not lane & d else lanes + lane - d for lane in range(lanes)]
        lower = [lane + d if not lane & d else lanes + lane for lane in range(lanes)]
        for i in range(lanes):
            if not i & d:
                m[i], m[i + d] = k.shuffle(m[i], m[i + d], upper), k.shuffle(m[i], m[i + d], lower)
        d //= 2
    return m


@dataclass(frozen=True)
class ToBlocked(Kernel):
    """Unit: row y of image n. See above."""

    channels: int

    def slots(self) -> Mapping[str, str]:
        return {"x": PTR, **blocked_slots("y"), "height": I64, "width": I64}

    def scratch(self, target: Target) -> int:
        return LANES * VECTOR_BYTES

    def body(self, k: Function, target: Target) -> None:
        n, y = k.unit // k["height"], k.unit % k["height"]
        plane = k["height"] * k["width"] * 4
        for first in range(0, self.channels, LANES):
            count = min(LANES, self.channels - first)
            source = k["x"] + (n * self.channels + first) * plane + y * k["width"] * 4
            out = k["y"] + k.unit * k["y_row"] + k["y_block"] * (first // LANES)
            with k.loop(k["width"], step=LANES) as x:
                rest = k["width"] - x
                mask = k.first_lanes(rest)
                given = [k.load_some(source + plane * c + x * 4, mask) for c in range(count)]
                columns = transpose(k, given + [k.vector(0.0)] * (LANES - count))
                for lane, column in enumerate(columns):
                    k.store(column, k.scratch + lane * VECTOR_BYTES)
                with k.loop(k.minimum(rest, LANES)) as i:
                    k.store(k.load(k.scratch + i * VECTOR_BYTES), out + (x + i) * VECTOR_BYTES)
            zero_halo(k, out, k["width"], k["y_left"], k["y_right"])


@dataclass(frozen=True)
class ToPlanar(Kernel):
    """Unit: a band of rows, since the lines of cache where two rows meet belong to both. See above."""

    channels: int

    def slots(self) -> Mapping[str, str]:
        sizes = dict.fromkeys(("height", "width", "bands", "rows"), I64)
        return {**blocked_slots("x"), "y": PTR, **sizes}

    def body(self, k: Function, target: Target) -> None:
        with band(k, k.unit, k["height"], k["bands"], k["rows"]) as (n, y):
            self._row(k, n, y)

    def _row(self, k: Function, n: Value, y: Value) -> None:
        plane = k["height"] * k["width"] * 4
        for first in range(0, self.channels, LANES):
            count = min(LANES, self.channels - first)
            source = k["x"] + (n * k["height"] + y) * k["x_row"] + k["x_block"] * (first // LANES)
            out = k["y"] + (n * self.channels + first) * plane + y * k["width"] * 4
            with k.loop(k["width"], step=k.register) as x, k.pieces() as piece:
                rest = k["width"] - x
                mask = k.first_lanes(rest)
                last = k["width"] - 1
                pixels = [k.load(source + k.minimum(x + i, last) * VECTOR_BYTES + piece) for i in range(k.lanes_now)]
                for c, channel in enumerate(transpose(k, pixels)[:count]):
                    place = piece // 4 + c
                    if isinstance(place, Value) and count < LANES:  # later pieces have channels that are none
                        mask = k.first_lanes(k.select(place < count, rest, k.literal(0)))
                    k.store_some(channel, out + plane * place + x * 4, mask)


def lane_masks(channels: int) -> Array:
    """For each lane of the blocks of so many channels whether there is one: −1, or 0 beyond them."""
    return aligned(np.where(np.arange(-(-channels // LANES) * LANES) < channels, -1, 0).astype(np.int32))


def without_padding(k: Function, y: Value, lanes: Value) -> Value:
    """y with zeros in the lanes where such a mask is 0, whatever was there."""
    return k.bitcast(k.bitcast(y, IVECTOR) & lanes, VECTOR)


def zero_halo(k: Function, row: Value, width: Value, left: Value, right: Value) -> None:
    """Zeros left and right of one block of a row; `row` is the address of its first pixel."""
    zero_pixels(k, row + left * -VECTOR_BYTES, left)
    zero_pixels(k, row + width * VECTOR_BYTES, right)


def zero_pixels(k: Function, start: Value, count: Value) -> None:
    """Zeros in so many pixels of one block, from an address on."""
    with k.loop(count) as i:
        k.store(k.vector(0.0), start + i * VECTOR_BYTES)


def row_of_image(k: Function, n: Value, y: Value) -> Value:
    """Where row y of image n of the blocked tensor x lies: the row of zeros where it is above or below the image."""
    inside = (y >= 0) & (y < k["height"])
    return k.select(inside, k["x"] + (n * k["height"] + y) * k["x_row"], k["zeros"])


def to_blocked(plan: Planner, node: Node) -> None:
    """Convert a planar float32 image."""
    source = plan.planar(node)
    n, c, h, w = node.type.dims
    tensor = plan.new_blocked(node)
    arguments = {"x": source, **tensor.arguments("y"), "height": h, "width": w}
    plan.call(node, ToBlocked(c), arguments, n * h, label="to blocked layout", is_conversion=True)


def to_planar(plan: Planner, node: Node) -> None:
    """Convert a blocked image."""
    tensor = plan.blocked(node)
    n, c, h, w = node.type.dims
    bands, rows = even_parts(h, UNITS_PER_THREAD * plan.threads)
    sizes = {"height": h, "width": w, "bands": bands, "rows": rows}
    arguments = {**tensor.arguments("x"), "y": plan.new_planar(node), **sizes}
    plan.call(node, ToPlanar(c), arguments, n * bands, label="to planar layout", is_conversion=True)

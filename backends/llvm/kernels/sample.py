"""grid_sample: signals, images and volumes at computed places, by nearest, linear or cubic interpolation.

for axis: for 16 samples of the unit: u of their places
    for tap of the axis: taps[axis, tap] = (pixel · step, or a number far below 0 outside; weight)
for choice of a tap along each axis: for 16 samples: table[choice] = (Σ pixels, Π weights)
for channel: for 16 samples:                                    [blocked: for 16 channels: for sample]
    y = Σ_choice weight · x[pixel]                                              [of 0 where it is outside]

What a sample reads and how it weighs is computed once for all channels. Pixels of a planar image are gathered one by
one; in blocks a pixel is a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from math import nan, prod
from typing import TYPE_CHECKING

from graphsr.ir import Node
from graphsr.ops import GridSample
from graphsr.ops.sample import CUBIC, FAR, REACH

from ..kernel import Argument, Kernel, blocked_slots
from ..loops import FLOAT, I32, I64, IVECTOR, LANES, PTR, VECTOR_BYTES, Function, Index, Value
from .layout import lane_masks, without_padding, zero_halo
from .math import clip
from .row import deinterleave, load_row, over_row, store_row

if TYPE_CHECKING:
    from ..plan import Planner
    from ..target import Target

TABLE_BYTES = 32 << 10
"""Of the taps of the samples of a unit, about: they stay in the first cache."""
UNITS = 16
"""At least, where there are as many samples."""
MOST_UNROLLED = 4
"""Choices of taps that are written out."""
MOST_GATHERED = 2
"""Taps along an axis up to which gathering them takes less time than bringing a planar image in blocks and back."""
MOST_AXES = 3
MOST_PIXELS = 1 << 24
"""Of an image, in vectors or floats: far enough from `OUTSIDE` that sums with it are negative."""
OUTSIDE = -(1 << 29)
"""Where a tap lies that reads zeros; sums of several may be less."""


@dataclass(frozen=True)
class SampleImages(Kernel):
    """Unit: `each` samples of one image. See above."""

    op: GridSample
    axes: int
    blocked: bool
    partial: bool
    """Whether the last block has lanes beyond the channels."""

    def slots(self) -> Mapping[str, str]:
        sizes = [f"size{a}" for a in range(self.axes)]
        if not self.blocked:
            return {"x": PTR, "y": PTR, "grid": PTR, **dict.fromkeys((*sizes, "planes", "samples", "each"), I64)}
        images = {**blocked_slots("x"), **blocked_slots("y")}
        pointers = {"grid": PTR, "zeros": PTR, **({"lanes": PTR} if self.partial else {})}
        return {**images, **pointers, **dict.fromkeys((*sizes, "planes", "samples", "each", "out_width"), I64)}

    @property
    def reach(self) -> int:
        return REACH[self.op.mode]

    @property
    def choices(self) -> int:
        return int(self.reach**self.axes)

    @property
    def sample_bytes(self) -> int:
        """Of all tables."""
        return 4 * self.axes + 8 * (self.axes * self.reach + self.choices)

    def body(self, k: Function, target: Target) -> None:
        units = (k["samples"] + (k["each"] - 1)) // k["each"]
        image, first = k.unit // units, k.unit % units * k["each"]
        count = k.minimum(k["each"], k["samples"] - first)
        grid = k["grid"] + (image * k["samples"] + first) * (4 * self.axes)
        with k.narrowed():
            self._split(k, grid, count)
            with k.sparing() if k.register < LANES else nullcontext():
                for axis in range(self.axes):
                    self._along(k, axis, count)
            self._choose(k, count)
        if self.blocked:
            self._sample_blocks(k, image, first, count)
        else:
            with k.narrowed():
                self._sample_planes(k, image, first, count)

    # --- what is read -------------------------------------------------------------------------------------------

    def _places(self, k: Function, axis: int) -> Value:
        """Where the places along an axis lie."""
        return k.scratch + k["each"] * (4 * axis)

    def _entry(self, k: Function, tap: Index) -> Value:
        """Where the pixels of a tap, counted through the axes and then the choices, lie; the weights follow them."""
        return self._places(k, self.axes) + k["each"] * 8 * tap

    def _weights(self, k: Function, entry: Value) -> Value:
        return entry + k["each"] * 4

    def _split(self, k: Function, grid: Value, count: Value) -> None:
        """The places along each axis, one after the other."""

        def split(p: Value, mask: Value | None) -> None:
            sources = []
            for part in range(self.axes):
                some = None if mask is None else k.first_lanes((count - p) * self.axes - part * k.lanes_now)
                sources.append(load_row(k, grid + p * (4 * self.axes) + part * 4 * k.lanes_now, some))
            for axis, v in enumerate(reversed(deinterleave(k, sources))):
                k.store(v, self._places(k, axis) + p * 4)

        over_row(k, count, split)

    def _along(self, k: Function, axis: int, count: Value) -> None:
        """The taps along an axis; as in all tables, those of the last vector may be beyond the samples."""
        n = k.splat(k.convert("sitofp", k[f"size{axis}"], FLOAT))
        together = self.reach if self.reach <= 2 else 1
        with k.loop(self.reach, step=together) as tap, k.loop(count, step=k.lanes_now) as p:
            v = k.load(self._places(k, axis) + p * 4)
            u = self._in_pixels(k, v, n)
            known = k.select(k.compare("uno", u, u), k.vector(-FAR), u)
            for i in range(together):
                q = self._first(k, known) + k.splat(k.convert("sitofp", tap + i, FLOAT))
                entry = self._entry(k, tap + (axis * self.reach + i)) + p * 4
                k.store(self._pixel(k, axis, q, n), entry)
                k.store(self._kernel(k, v, k.intrinsic("fabs", u - q)), self._weights(k, entry))

    def _in_pixels(self, k: Function, v: Value, n: Value) -> Value:
        """u; no number where v is none, nor at infinite places where n − 1 = 0."""
        one, half = k.vector(1.0), k.vector(0.5)
        u = ((v + one) * (n - one) if self.op.align_corners else (v + one) * n - one) * half
        return clip(k, u, -FAR, FAR)

    def _first(self, k: Function, u: Value) -> Value:
        """The first pixel of the window around u."""
        if self.op.mode == "nearest":
            return k.intrinsic("roundeven", u)
        first = k.intrinsic("floor", u)
        return first if self.op.mode == "linear" else first - k.vector(self.reach // 2 - 1)

    def _kernel(self, k: Function, v: Value, w: Value) -> Value:
        """The weight of a pixel at the distance w."""
        one, a = k.vector(1.0), CUBIC
        if self.op.mode == "nearest":
            return k.select(k.compare("uno", v, v), k.vector(nan), one)
        if self.op.mode == "linear":
            return one - w  # of the two pixels beside u
        near = (k.vector(a + 2) * w - k.vector(a + 3)) * (w * w) + one
        far = ((k.vector(a) * w - k.vector(5 * a)) * w + k.vector(8 * a)) * w - k.vector(4 * a)
        return k.select(w <= one, near, far)

    def _pixel(self, k: Function, axis: int, q: Value, n: Value) -> Value:
        """Where pixel q lies along an axis, or the one that stands for it."""
        zero, last = k.vector(0.0), n - k.vector(1.0)
        if self.op.padding == "reflection":
            inner = self._reflected(k, q, n)
        else:
            inner = k.select(q < zero, zero, q)
            inner = k.select(inner > last, last, inner)
        place = k.convert("fptosi", inner, IVECTOR) * k.splat(k.convert("trunc", self._step(k, axis), I32))
        return place if self.op.padding != "zeros" else k.select(inner.equals(q), place, k.literal(OUTSIDE, IVECTOR))

    def _reflected(self, k: Function, q: Value, n: Value) -> Value:
        """r = q mod m, from both sides; all of it are integers below 2²⁴, but for the quotient."""
        zero, one = k.vector(0.0), k.vector(1.0)
        m, last = n + n, n + n - one
        if self.op.align_corners:
            m, last = k.select(n > one, n + n - (one + one), one), n + n - (one + one)
        r = q - k.intrinsic("floor", q / m) * m
        r = k.select(r < zero, r + m, k.select(r < m, r, r - m))
        return k.select(r < last - r, r, last - r)

    def _step(self, k: Function, axis: int) -> Value:
        """How many pixels lie between neighbours along an axis."""
        if self.blocked:
            return k["x_row"] // VECTOR_BYTES if axis == 0 else k.literal(1)
        step = k.literal(1)
        for other in range(axis + 1, self.axes):
            step = step * k[f"size{other}"]
        return step

    def _choose(self, k: Function, count: Value) -> None:
        """The table of choices."""
        with ExitStack() as loops:
            taps = [loops.enter_context(k.loop(self.reach)) for _ in range(self.axes)]
            choice = k.literal(0)
            for tap in taps:
                choice = choice * self.reach + tap
            target = self._entry(k, choice + self.axes * self.reach)
            entries = [self._entry(k, tap + axis * self.reach) for axis, tap in enumerate(taps)]
            p = loops.enter_context(k.loop(count, step=k.lanes_now)) * 4
            place, weight = k.load(entries[0] + p, IVECTOR), k.load(self._weights(k, entries[0]) + p)
            for entry in entries[1:]:
                place = place + k.load(entry + p, IVECTOR)
                weight = weight * k.load(self._weights(k, entry) + p)
            k.store(place, target + p)
            k.store(weight, self._weights(k, target) + p)

    # --- reading it ---------------------------------------------------------------------------------------------

    def _sample_planes(self, k: Function, image: Value, first: Value, count: Value) -> None:
        pixels = k.literal(1)
        for axis in range(self.axes):
            pixels = pixels * k[f"size{axis}"]
        with k.loop(k["planes"]) as plane:
            number = image * k["planes"] + plane
            x, y = k["x"] + number * pixels * 4, k["y"] + (number * k["samples"] + first) * 4

            def samples(p: Value, mask: Value | None) -> None:
                store_row(k, self._sum(k, lambda entry: self._gathered(k, x, entry), p), y + p * 4, mask)

            over_row(k, count, samples)

    def _gathered(self, k: Function, x: Value, entry: Value) -> tuple[Value, Value]:
        """Pixels of a plane, and their weights."""
        place, weight = k.load(entry, IVECTOR), k.load(self._weights(k, entry))
        if self.op.padding != "zeros":
            return k.gather(x, place), weight
        values = k.gather(x, k.maximum(place, 0))
        return k.select(place >= 0, values, k.vector(0.0)), weight

    def _sample_blocks(self, k: Function, image: Value, first: Value, count: Value) -> None:
        width, rows = k["out_width"], k["samples"] // k["out_width"]
        start = k["y"] + image * rows * k["y_row"]
        begun, last = ((p + (width - 1)) // width for p in (first, first + count))
        with k.loop(last, start=begun) as row, k.loop(k["planes"]) as block:
            zero_halo(k, start + row * k["y_row"] + block * k["y_block"], width, k["y_left"], k["y_right"])
        with k.loop(k["planes"]) as block:
            x = k["x"] + image * k["size0"] * k["x_row"] + block * k["x_block"]
            column = first % width
            y = start + first // width * k["y_row"] + block * k["y_block"] + column * VECTOR_BYTES
            to_next_row = k["y_row"] - (width - 1) * VECTOR_BYTES

            @k.fold(count, [y, column])
            def behind(p: Value, at: list[Value]) -> list[Value]:
                y, column = at
                total = self._sum(k, lambda entry: self._read(k, x, entry), p)
                if self.partial:
                    total = without_padding(k, total, k.load(k["lanes"] + block * VECTOR_BYTES, IVECTOR))
                k.store(total, y)
                ended = (column + 1).equals(width)
                return [
                    y + k.select(ended, to_next_row, k.literal(VECTOR_BYTES)),
                    k.select(ended, k.literal(0), column + 1),
                ]

    def _read(self, k: Function, x: Value, entry: Value) -> tuple[Value, Value]:
        """16 channels of a pixel, and its weight in every lane."""
        place = k.convert("sext", k.load(entry, I32), I64)
        address = x + place * VECTOR_BYTES
        if self.op.padding == "zeros":
            address = k.select(place < 0, k["zeros"], address)
        return k.load(address), k.splat(k.load(self._weights(k, entry), FLOAT))

    def _sum(self, k: Function, read: Callable[[Value], tuple[Value, Value]], p: Value) -> Value:
        """Σ weight · x over the choices of taps of a sample, or of a vector of them."""

        def add(choice: Index, total: list[Value]) -> list[Value]:
            value, weight = read(self._entry(k, choice + self.axes * self.reach) + p * 4)
            return [k.fma(weight, value, total[0])]

        total = [k.vector(0.0)]
        if self.choices > MOST_UNROLLED:
            return k.fold(self.choices, total)(add)[0]
        for choice in range(self.choices):
            total = add(choice, total)
        return total[0]


def lower(plan: Planner, node: Node) -> None:
    """Images that are in blocks, or of which many pixels of many channels are read, are sampled in blocks."""
    from ..plan import LEAST_BLOCKED, NoKernel

    op, (x_node, grid) = node.op, node.inputs
    assert isinstance(op, GridSample)
    (n, channels, *sizes), samples = x_node.type.dims, prod(node.type.dims[2:])
    if node.type.dtype != "float32":
        raise NoKernel(f"only float32, not {node.type.dtype}")
    if len(sizes) > MOST_AXES:
        raise NoKernel(f"only up to {MOST_AXES} axes, not {len(sizes)}")
    if max(sizes) > FAR or max(prod(sizes), prod(sizes) * channels // LANES) > MOST_PIXELS:
        raise NoKernel("the image is too large for 32-bit addresses")
    many = channels >= LEAST_BLOCKED and REACH[op.mode] > MOST_GATHERED
    blocked = len(sizes) == 2 and (plan.is_blocked(x_node) or many)
    partial = blocked and channels % LANES > 0
    kernel = SampleImages(op, len(sizes), blocked, partial)
    most = min(TABLE_BYTES // kernel.sample_bytes, -(-n * samples // UNITS))
    each = max(1, most // LANES) * LANES
    arguments: dict[str, Argument] = {"grid": plan.planar(grid), "samples": samples, "each": each}
    arguments |= {f"size{axis}": size for axis, size in enumerate(sizes)}
    if blocked:
        x, y = plan.blocked(x_node), plan.new_blocked(node)
        arguments |= {**x.arguments("x"), **y.arguments("y"), "zeros": plan.zero_row(x), "planes": x.blocks}
        arguments |= {"out_width": node.type.dims[3], **({"lanes": lane_masks(channels)} if partial else {})}
    else:
        arguments |= {"x": plan.planar(x_node), "y": plan.new_planar(node), "planes": channels}
    units, scratch = n * -(-samples // each), each * kernel.sample_bytes
    plan.call(node, kernel, arguments, units, label=f"sample {op.mode}", scratch=scratch)

"""conv2d from planar to planar images, any groups: where there are few channels to fill vectors with.

    for band of output rows of one image and group: copy the input rows it needs, zeros around them
      for panel of T output channels: for row: for 16·P pixels:
        for Ci, ky, kx:
            T x P accumulators += w[panel, c, ky, kx, t] · x[c, y·s + ky·d, (16 pixels)·s + kx·d]
        epilogue, straight to NumPy's layout

The lanes are pixels. Rows are copied de-interleaved for strides: [s][pitch], so that the pixels of a tap lie side by
side. Large results go past the caches, from the first whole cache line of each row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from graphsr.op import Array
from graphsr.ops import Conv2d

from ..kernel import Argument, Kernel
from ..loops import FLOAT, I1, I32, I64, IVECTOR, LANES, PTR, VECTOR_BYTES, Function, Index, Value
from ..memory import LINE, aligned
from .conv_head import Window
from .epilogue import Epilogue
from .register_tile import accumulators
from .row import deinterleave, load_row, store_row

if TYPE_CHECKING:
    from ..plan import Planner
    from ..target import Target
    from .conv import Convolution

STAGED = 16 << 10
"""Bytes of input rows that a unit copies: half of a first cache. More, where windows share most of so few rows, ..."""
MOST_STAGED = 128 << 10
"""... but at most so many, if a single window does not take more."""
STREAMED = 32 << 20
"""Bytes from which a result is not worth keeping in the caches."""
UNROLLED_TAPS = 4
TILES = (
    *((12, 2), (11, 2), (10, 2), (9, 2), (8, 3), (7, 3), (6, 4), (5, 4), (4, 4), (3, 4), (2, 6), (1, 8)),
    *((4, 5), (3, 5), (2, 5), (1, 5), (8, 2), (7, 2), (6, 2), (4, 2)),  # for rows that others do not fill
    *((6, 1), (5, 1), (4, 1), (3, 2), (2, 3), (1, 4), (3, 1), (2, 1), (1, 2)),  # for targets with fewer registers
)
"""Channels x vectors of pixels of a register tile."""
WIDEST = 1100
"""Pixels in a row from which the register tile is always the same."""


@dataclass(frozen=True)
class ConvPlanar(Kernel):
    """See the loop nest above."""

    ci: int
    """Of one group, as `co`."""
    co: int
    groups: int
    channels: int
    """T."""
    vectors: int
    """P."""
    window: Window
    epilogue: Epilogue

    def for_any_width(self, target: Target) -> set[Kernel]:
        tiles = {tile_of(target, self.co, width) for width in range(LANES, WIDEST, LANES)}  # it sees whole vectors
        return {replace(self, channels=channels, vectors=vectors) for channels, vectors in tiles}

    @property
    def panels(self) -> int:
        return -(-self.co // self.channels)

    def slots(self) -> Mapping[str, str]:
        sizes = ("height", "width", "out_height", "out_width", "band", "bands", "pitch", "shiftable", "streamed")
        return {
            "x": PTR,
            "y": PTR,
            "w": PTR,
            **({"r": PTR} if self.epilogue.residual else {}),
            **self.epilogue.slots(),
            **dict.fromkeys(sizes, I64),
        }

    def body(self, k: Function, target: Target) -> None:
        image, band = k.unit // k["bands"], k.unit % k["bands"]
        first = band * k["band"]
        count = k.minimum(k["out_height"] - first, k["band"])
        stage = self._stage(k, image, first, count)
        group = image % self.groups if self.groups > 1 else k.literal(0)
        shift = (k.convert("ptrtoint", k["y"], I64) & (LINE - 1)) // 4 * k["shiftable"]
        row_bytes, width = self.window.stride[1] * k["pitch"], 16 * self.vectors
        with k.loop(self.panels) as panel, k.loop(count) as row, k.loop(k["out_width"] + shift, step=width) as at:
            x = at - shift
            source = stage + row * self.window.stride[0] * row_bytes + x * 4
            w = k["w"] + (group * self.panels + panel) * (self.ci * self.window.taps * self.channels * 4)
            total = self._sum(k, source, w, row_bytes)
            self._write(k, total, image, group, panel, first + row, x)

    # --- input --------------------------------------------------------------------------------------------------

    def _stage(self, k: Function, image: Value, first: Value, count: Value) -> Value:
        """Copy the rows under `count` output rows: [Ci][rows][s][pitch] floats, preceded by a vector of anything.
        Returns where pixel 0 is."""
        (kh, _), (sy, sx), (dy, _) = self.window.size, self.window.stride, self.window.dilation
        stage = k.scratch + VECTOR_BYTES
        with k.loop(self.ci) as c, k.loop((count - 1) * sy + ((kh - 1) * dy + 1)) as row:
            target = stage + (c * self._rows(k) + row) * (sx * k["pitch"])
            y = first * sy + row - self.window.before[0]
            inside = (y >= 0) & (y < k["height"])
            with k.when(inside):
                plane = k["x"] + (image * self.ci + c) * k["height"] * k["width"] * 4
                self._copy(k, plane + y * k["width"] * 4, target)
            with k.when(inside ^ 1), k.loop(sx * k["pitch"], step=VECTOR_BYTES) as at:
                k.store(k.vector(0.0), target + at)
        return stage

    def _rows(self, k: Function) -> Value:
        """Rows that are staged for a full band."""
        return (k["band"] - 1) * self.window.stride[0] + ((self.window.size[0] - 1) * self.window.dilation[0] + 1)

    def _copy(self, k: Function, source: Value, target: Value) -> None:
        """A row of the input between zeros: masked where it begins and ends."""
        before, step = self.window.before[1], LANES * self.window.stride[1]
        edge = -(-before // step) * VECTOR_BYTES
        whole = k.minimum((k["width"] + before) // step * VECTOR_BYTES, k["pitch"])
        self._copy_vectors(k, source, target, 0, edge, masked=True)
        self._copy_vectors(k, source, target, edge, whole, masked=False)
        self._copy_vectors(k, source, target, k.maximum(whole, edge), k["pitch"], masked=True)

    def _copy_vectors(
        self, k: Function, source: Value, target: Value, start: Index, stop: Index, *, masked: bool
    ) -> None:
        """Bytes start..stop of all phases of a row."""
        sx = self.window.stride[1]
        used = {kx * self.window.dilation[1] % sx for kx in range(self.window.size[1])}
        with k.loop(stop, start=start, step=VECTOR_BYTES) as at:
            given = []
            for i in range(sx):
                x = at // 4 * sx + (i * LANES - self.window.before[1])
                place = source + x * 4
                inside = between(k, 0 - x, k["width"] - x) if masked else None
                given.append(load_row(k, place, inside))
            for phase, vector in enumerate(deinterleave(k, given)):
                if phase in used:
                    k.store(vector, target + phase * k["pitch"] + at)

    # --- sums ---------------------------------------------------------------------------------------------------

    def _sum(self, k: Function, source: Value, w: Value, row_bytes: Value) -> list[Value]:
        """The T x P sums of the pixels at `source`, the first row under the window in the stage."""
        kh, kw = self.window.size
        zeros = [k.vector(0.0)] * (self.channels * self.vectors)

        @k.fold(self.ci, zeros)
        def total(c: Value, total: list[Value]) -> Sequence[Value]:
            @k.fold(kh, total)
            def total_of_channel(ky: Value, total: list[Value]) -> Sequence[Value]:
                a = source + (c * self._rows(k) + ky * self.window.dilation[0]) * row_bytes
                b = w + (c * kh + ky) * (kw * self.channels * 4)
                if kw <= UNROLLED_TAPS:
                    for kx in range(kw):
                        total = self._tap(k, total, a, b, kx)
                    return total

                @k.fold(kw, total)
                def total_of_row(kx: Value, total: list[Value]) -> Sequence[Value]:
                    return self._tap(k, total, a, b, kx)

                return total_of_row

            return total_of_channel

        return total

    def _tap(self, k: Function, total: list[Value], a: Value, b: Value, kx: Index) -> list[Value]:
        """total[t][p] += w[t] · x[p]"""
        column, sx = kx * self.window.dilation[1], self.window.stride[1]
        a = a + column // sx * 4 + (column % sx * k["pitch"] if sx > 1 else 0)
        pixels = [k.load(a + p * VECTOR_BYTES, align=4) for p in range(self.vectors)]
        new = []
        for t in range(self.channels):
            w = k.splat(k.load(b + kx * (self.channels * 4) + t * 4, FLOAT))
            new += [k.fma(w, pixels[p], total[t * self.vectors + p]) for p in range(self.vectors)]
        return new

    # --- output -------------------------------------------------------------------------------------------------

    def _write(
        self, k: Function, total: list[Value], image: Value, group: Value, panel: Value, row: Value, x: Value
    ) -> None:
        """Epilogue, and out: whole vectors where all pixels are inside the row, masked ones at its ends."""
        first, plane = panel * self.channels, k["out_height"] * k["out_width"]
        start = ((image * self.co + first) * plane + row * k["out_width"] + x) * 4
        places = [start + t * plane * 4 for t in range(self.channels)]

        def masks() -> list[Value]:
            return [between(k, 0 - x - p * LANES, k["out_width"] - x - p * LANES) for p in range(self.vectors)]

        read = masks() if self.epilogue.residual else []
        results = []
        for t, place in enumerate(places):
            exists = self._exists(k, first, t)
            channel = k.select(exists, group * self.co + first + t, k.literal(0))
            residuals = [k.select(exists, k["r"] + place, k["r"]) + p * VECTOR_BYTES for p in range(len(read))]
            given = [k.load_some(place, mask) for place, mask in zip(residuals, read, strict=True)]
            results.append(self._finish(k, total[t * self.vectors : (t + 1) * self.vectors], channel, given))
        inside, streamed = (x >= 0) & (x + LANES * self.vectors <= k["out_width"]), self._streamed(k)
        with k.when(inside & streamed):
            self._put(k, results, places, first, [], past_caches=True)
        with k.when(inside & (streamed ^ 1)):
            self._put(k, results, places, first, [])
        with k.when(inside ^ 1):
            self._put(k, results, places, first, masks())

    def _exists(self, k: Function, first: Value, t: int) -> Value:
        """Whether the panel that begins with channel `first` has a channel t: only the last one may not."""
        missing = self.panels * self.channels - self.co
        return k.literal(1, I1) if t < self.channels - missing else first + t < self.co

    def _streamed(self, k: Function) -> Value:
        """Whether whole vectors go past the caches."""
        return k["streamed"].equals(1)

    def _finish(self, k: Function, sums: Sequence[Value], channel: Value, residuals: Sequence[Value]) -> list[Value]:
        """The epilogue of 16·P pixels of a channel."""
        channels = self.epilogue.begin_channel(k, channel)
        return [channels.apply(k, y, residuals[p] if residuals else None) for p, y in enumerate(sums)]

    def _put(
        self,
        k: Function,
        results: Sequence[Sequence[Value]],
        places: Sequence[Value],
        first: Value,
        masks: Sequence[Value],
        *,
        past_caches: bool = False,
    ) -> None:
        """Store what was computed of the channels that there are."""
        for t, (place, pixels) in enumerate(zip(places, results, strict=True)):
            with k.when(self._exists(k, first, t)):
                for p, y in enumerate(pixels):
                    mask = masks[p] if masks else None
                    store_row(k, y, k["y"] + place + p * VECTOR_BYTES, mask, past_caches=past_caches)


def between(k: Function, first: Value, stop: Value) -> Value:
    """The mask of lanes first..stop−1, where either may lie outside the vector."""
    first = k.splat(k.convert("trunc", k.maximum(k.minimum(first, LANES), 0), I32))
    return k.first_lanes(k.maximum(stop, 0)) & (k.lanes(range(LANES), IVECTOR) >= first)


def wants_planar(plan: Planner, conv: Convolution) -> bool:
    """Whether the result is read as NumPy has it: only by the caller."""
    return 0 < plan.uses[conv.node] == list(plan.graph.outputs.values()).count(conv.node)


def lower_planar(plan: Planner, conv: Convolution) -> None:
    """Add the call."""
    from .conv_planar_pointwise import is_planar_pointwise, lower_planar_pointwise

    op = conv.op
    assert isinstance(op, Conv2d)
    window = Window(conv.weight.shape[2:], op.stride, op.dilation, op.padding[:2])
    if is_planar_pointwise(conv):
        lower_planar_pointwise(plan, conv, window)
        return
    n, _, height, width = conv.node.inputs[0].type.dims
    _, _, out_height, out_width = conv.node.type.dims
    ci, co, images = conv.weight.shape[1], len(conv.weight) // op.groups, n * op.groups
    tile = tile_of(plan.target, co, out_width)
    kernel = ConvPlanar(ci, co, op.groups, *tile, window, replace(conv.epilogue, partial=False))
    pitch, band = geometry(kernel, width, out_width, out_height, images, plan.threads)
    bands = -(-out_height // band)
    even = out_width % LANES == 0
    arguments: dict[str, Argument] = {
        **planar_arguments(plan, conv, kernel),
        "height": height,
        "width": width,
        "out_height": out_height,
        "out_width": out_width,
        "band": band,
        "bands": bands,
        "pitch": pitch,
        "shiftable": int(even),
        "streamed": int(even and conv.node.type.nbytes >= STREAMED),
    }
    rows = (band - 1) * window.stride[0] + (window.size[0] - 1) * window.dilation[0] + 1
    scratch = ci * rows * window.stride[1] * pitch + 2 * VECTOR_BYTES * kernel.vectors + VECTOR_BYTES
    label = "planar {}x{}".format(*window.size)
    plan.call(conv.node, kernel, arguments, images * bands, label=label, scratch=scratch)


def planar_arguments(plan: Planner, conv: Convolution, kernel: ConvPlanar) -> dict[str, Argument]:
    """The arrays that are read and written, and the values of the epilogue."""
    layer, inputs = conv.layer, conv.node.inputs
    return {
        "x": plan.planar(inputs[0]),
        "y": plan.new_planar(conv.node),
        "w": plan.weight(conv.weight, f"planar {kernel.channels}", partial(pack_planar, kernel)),
        **({"r": plan.planar(inputs[layer.residual])} if layer.residual is not None else {}),
        **conv.channel_arguments(plan),
    }


def tile_of(target: Target, co: int, width: int) -> tuple[int, int]:
    """The register tile with the fewest channels in vain; of these, the first of those that take about the fewest
    cycles for a row, where a multiply-add takes half a cycle and a load about a fifth more."""
    fitting = [tile for tile in TILES if tile[0] * tile[1] <= accumulators(target) and _has_registers(target, *tile)]
    least = min(-(-co // channels) * channels for channels, _ in fitting)

    def cycles(tile: tuple[int, int]) -> float:
        channels, vectors = tile
        return -(-co // channels) * -(-width // (LANES * vectors)) * (channels * vectors / 2 + sum(tile) / 5)

    even = [tile for tile in fitting if -(-co // tile[0]) * tile[0] == least]
    return next(tile for tile in even if cycles(tile) <= 1.06 * min(map(cycles, even)))


def _has_registers(target: Target, channels: int, vectors: int) -> bool:
    """Whether the pixels of a tap, which several channels read, fit beside the accumulators, and a weight."""
    pixels = vectors if channels > 1 else 0
    return (channels * vectors + pixels) * (32 * LANES // target.vector_bits) < target.registers


def geometry(
    kernel: ConvPlanar, width: int, out_width: int, out_height: int, images: int, threads: int
) -> tuple[int, int]:
    """(bytes of one phase of a staged row, output rows in a band)"""
    (kh, kw), (sy, sx), (dy, dx) = kernel.window.size, kernel.window.stride, kernel.window.dilation
    tile = LANES * kernel.vectors
    read = -(-(out_width + LANES) // tile) * tile + (kw - 1) * dx // sx
    written = -(-(kernel.window.before[1] + width) // sx)
    pitch = -(-max(read, written) // LANES) * VECTOR_BYTES
    row_bytes, shared = kernel.ci * sx * pitch, (kh - 1) * dy
    rows = max(1, STAGED // row_bytes, min(2 * shared + sy, MOST_STAGED // row_bytes))
    band = max(1, (rows - (kh - 1) * dy - 1) // sy + 1)
    wanted = -(-4 * threads // images)
    return pitch, max(1, min(band, -(-out_height // wanted)))


def pack_planar(kernel: ConvPlanar, weight: Array) -> Array:
    """[group][panel][Ci][Kh][Kw][T] of weight[Co, Ci/g, Kh, Kw]."""
    grouped = weight.reshape(kernel.groups, kernel.co, *weight.shape[1:])
    padded = np.zeros((kernel.groups, kernel.panels * kernel.channels, *weight.shape[1:]), np.float32)
    padded[:, : kernel.co] = grouped
    w = padded.reshape(kernel.groups, kernel.panels, kernel.channels, *weight.shape[1:])
    return aligned(w.transpose(0, 1, 3, 4, 5, 2))

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
from .row import deinterleave

if TYPE_CHECKING:
    from ..plan import Planner
    from ..target import Target
    from .conv import Convolution

STAGED = 128 << 10
"""Bytes of input rows that a unit copies, if a row does not take more."""
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
        line, stage = k.scratch, k.scratch + sx * k["pitch"] + VECTOR_BYTES
        with k.loop(self.ci) as c, k.loop((count - 1) * sy + ((kh - 1) * dy + 1)) as row:
            target = stage + (c * self._rows(k) + row) * (sx * k["pitch"])
            y = first * sy + row - self.window.before[0]
            plane = k["x"] + (image * self.ci + c) * k["height"] * k["width"] * 4
            place = target if sx == 1 else line
            with k.loop(sx * k["pitch"], step=VECTOR_BYTES) as at:
                k.store(k.vector(0.0), place + at)
            with k.when((y >= 0) & (y < k["height"])):
                self._copy(k, plane + y * k["width"] * 4, place + self.window.before[1] * 4)
            if sx > 1:
                with k.loop(k["pitch"], step=VECTOR_BYTES) as at:
                    given = [k.load(line + at * sx + i * VECTOR_BYTES) for i in range(sx)]
                    for phase, vector in enumerate(deinterleave(k, given)):
                        k.store(vector, target + phase * k["pitch"] + at)
        return stage

    def _rows(self, k: Function) -> Value:
        """Rows that are staged for a full band."""
        return (k["band"] - 1) * self.window.stride[0] + ((self.window.size[0] - 1) * self.window.dilation[0] + 1)

    def _copy(self, k: Function, source: Value, target: Value) -> None:
        """A row of the input."""
        whole = k["width"] // LANES * LANES
        with k.loop(whole, step=LANES) as x:
            k.store(k.load(source + x * 4, align=4), target + x * 4, align=4)
        mask = k.first_lanes(k["width"] - whole)
        k.store_some(k.load_some(source + whole * 4, mask), target + whole * 4, mask)

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
        inside = (x >= 0) & (x + LANES * self.vectors <= k["out_width"])
        streamed = k["streamed"].equals(1)
        for t in range(self.channels):
            channel = panel * self.channels + t
            exists = channel < self.co if self.co % self.channels else k.literal(1, I1)
            with k.when(exists):
                out_row = (image * self.co + channel) * k["out_height"] + row
                place = (out_row * k["out_width"] + x) * 4
                masks = [between(k, 0 - x - p * LANES, k["out_width"] - x - p * LANES) for p in range(self.vectors)]
                sums = total[t * self.vectors : (t + 1) * self.vectors]
                results = self._finish(k, sums, group * self.co + channel, place, masks)
                with k.when(inside & streamed):
                    for p, y in enumerate(results):
                        k.store(y, k["y"] + place + p * VECTOR_BYTES, nontemporal=True)
                with k.when(inside & (streamed ^ 1)):
                    for p, y in enumerate(results):
                        k.store(y, k["y"] + place + p * VECTOR_BYTES, align=4)
                with k.when(inside ^ 1):
                    for p, (y, mask) in enumerate(zip(results, masks, strict=True)):
                        k.store_some(y, k["y"] + place + p * VECTOR_BYTES, mask)

    def _finish(
        self, k: Function, sums: Sequence[Value], channel: Value, place: Value, masks: Sequence[Value]
    ) -> list[Value]:
        """The epilogue of 16·P pixels of a channel."""
        channels = self.epilogue.begin_channel(k, channel)
        results = []
        for p, (y, mask) in enumerate(zip(sums, masks, strict=True)):
            residual = k.load_some(k["r"] + place + p * VECTOR_BYTES, mask) if self.epilogue.residual else None
            results.append(channels.apply(k, y, residual))
        return results


def between(k: Function, first: Value, stop: Value) -> Value:
    """The mask of lanes first..stop−1, where either may lie outside the vector."""
    first = k.splat(k.convert("trunc", k.maximum(k.minimum(first, LANES), 0), I32))
    return k.first_lanes(k.maximum(stop, 0)) & (k.lanes(range(LANES), IVECTOR) >= first)


def wants_planar(plan: Planner, conv: Convolution) -> bool:
    """Whether the result is read as NumPy has it: only by the caller."""
    return 0 < plan.uses[conv.node] == list(plan.graph.outputs.values()).count(conv.node)


def lower_planar(plan: Planner, conv: Convolution) -> None:
    """Add the call."""
    op = conv.op
    assert isinstance(op, Conv2d)
    x_node, groups = conv.node.inputs[0], conv.op.groups
    n, channels, height, width = x_node.type.dims
    _, co, out_height, out_width = conv.node.type.dims
    window = Window(conv.weight.shape[2:], op.stride, op.dilation, op.padding[:2])
    ci, co = channels // groups, co // groups
    epilogue = replace(conv.epilogue, partial=False)
    kernel = ConvPlanar(ci, co, groups, *tile_of(plan.target, co, out_width), window, epilogue)
    pitch, band = geometry(kernel, width, out_width, out_height, n * groups, plan.threads)
    bands = -(-out_height // band)
    even = out_width % LANES == 0
    form = f"planar {kernel.channels}"
    arguments: dict[str, Argument] = {
        "x": plan.planar(x_node),
        "y": plan.new_planar(conv.node),
        "w": plan.weight(conv.weight, form, partial(pack_planar, kernel)),
        **({"r": plan.planar(conv.node.inputs[conv.layer.residual])} if conv.layer.residual is not None else {}),
        **conv.channel_arguments(plan),
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
    scratch = (ci * rows + 1) * window.stride[1] * pitch + 2 * VECTOR_BYTES * kernel.vectors + VECTOR_BYTES
    label = "planar {}x{}".format(*window.size)
    plan.call(conv.node, kernel, arguments, n * groups * bands, label=label, scratch=scratch)


def tile_of(target: Target, co: int, width: int) -> tuple[int, int]:
    """The register tile with the fewest channels in vain; of these, the first of those that take about the fewest
    cycles for a row, where a multiply-add takes half a cycle and a load about a fifth more."""
    fitting = [tile for tile in TILES if tile[0] * tile[1] <= accumulators(target)]
    least = min(-(-co // channels) * channels for channels, _ in fitting)

    def cycles(tile: tuple[int, int]) -> float:
        channels, vectors = tile
        return -(-co // channels) * -(-width // (LANES * vectors)) * (channels * vectors / 2 + sum(tile) / 5)

    even = [tile for tile in fitting if -(-co // tile[0]) * tile[0] == least]
    return next(tile for tile in even if cycles(tile) <= 1.06 * min(map(cycles, even)))


def geometry(
    kernel: ConvPlanar, width: int, out_width: int, out_height: int, images: int, threads: int
) -> tuple[int, int]:
    """(bytes of one phase of a staged row, output rows in a band)"""
    (kh, kw), (sy, sx), (dy, dx) = kernel.window.size, kernel.window.stride, kernel.window.dilation
    tile = LANES * kernel.vectors
    read = -(-(out_width + LANES) // tile) * tile + (kw - 1) * dx // sx
    written = -(-(kernel.window.before[1] + width) // sx)
    pitch = -(-max(read, written) // LANES) * VECTOR_BYTES
    rows = max(1, STAGED // (kernel.ci * sx * pitch))
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

"""conv2d where every input channel has a group of its own, with m output channels each, on blocked images.

    note where the rows under the band of output rows of the unit lie
    for strip of rows: for block of 16 input channels: for row of the strip: for R output pixels:
        for ky, kx:
            R x m accumulators += x[y·s + ky·d, x·s + kx·d] · w[block, ky, kx, m]
        interleave the m vectors of a pixel: channel c·m + j; epilogue, to the row

The lanes are channels; what the windows of neighbouring pixels share is loaded once. The weights of a small window stay
in registers. The last R pixels of a row overlap those before them, and are written again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graphsr.op import Array
from graphsr.ops import Conv2d

from ..kernel import Argument, Kernel, blocked_slots
from ..loops import I64, LANES, PTR, VECTOR_BYTES, Function, Value
from ..memory import aligned
from .conv_head import SIZES, Window
from .epilogue import Epilogue
from .layout import row_of_image, zero_halo
from .register_tile import accumulators
from .row import even_parts, interleave

if TYPE_CHECKING:
    from ..plan import Planner
    from ..target import Target
    from .conv import Convolution

MOST_OUTPUTS = 8
"""Output channels per input channel that fit the registers."""
HELD = 9
"""Weights of a block that stay in registers."""
PIXELS = 4
"""R at most: of two of them, the instructions of one run while the other's sums wait for each other."""
UNITS_PER_THREAD = 1
"""With more of them, threads read more of the rows that another one wrote."""
STRIP_BYTES = 512 << 10
"""What a strip reads, about: with what it writes, it stays in the second cache from block to block."""
SMALLEST_UNIT = 100_000
"""Multiply-adds in a unit, some microseconds."""


@dataclass(frozen=True)
class ConvDepthwise(Kernel):
    """See the loop nest above."""

    running_pointers = True

    blocks: int
    """Of input channels."""
    out_blocks: int
    outputs: int
    """m."""
    rows: int
    """R."""
    window: Window
    epilogue: Epilogue
    held: bool
    """Whether there are registers for the weights."""

    def slots(self) -> Mapping[str, str]:
        residual = blocked_slots("r") if self.epilogue.residual else {}
        images = {**blocked_slots("x"), **blocked_slots("y"), **residual}
        return {
            **images,
            "w": PTR,
            "zeros": PTR,
            **self.epilogue.slots(),
            **dict.fromkeys((*SIZES, "band", "bands", "strip"), I64),
        }

    @property
    def unrolled(self) -> bool:
        """Whether the weights of a block stay in registers."""
        return self.held and self.window.taps * self.outputs <= HELD

    def body(self, k: Function, target: Target) -> None:
        image, first = k.unit // k["bands"], k.unit % k["bands"] * k["band"]
        count = k.minimum(k["out_height"] - first, k["band"])
        with k.loop((count - 1) * self.window.stride[0] + self.reach) as i:
            address = row_of_image(k, image, self.window.row(k, first, 0) + i)
            k.store(address + self.window.before[1] * -VECTOR_BYTES, k.scratch + VECTOR_BYTES + i * 8)
        with k.loop((count + k["strip"] - 1) // k["strip"]) as strip, k.loop(self.blocks) as block:
            start = strip * k["strip"]
            weights = self._weights(k, block) if self.unrolled else []
            with k.loop(k.minimum(start + k["strip"], count), start=start) as row:
                self._row(k, block, weights, row, image * k["out_height"] + first + row)
        with k.loop(count) as row, k.loop(self.out_blocks) as block:
            out = k["y"] + (image * k["out_height"] + first + row) * k["y_row"] + block * k["y_block"]
            zero_halo(k, out, k["out_width"], k["y_left"], k["y_right"])

    @property
    def reach(self) -> int:
        """Input rows under one output row."""
        return (self.window.size[0] - 1) * self.window.dilation[0] + 1

    def _weights(self, k: Function, block: Value) -> list[Value]:
        """[Kh·Kw·m] of a block."""
        count = self.window.taps * self.outputs
        w = k["w"] + block * (count * VECTOR_BYTES)
        return [k.load(w + n * VECTOR_BYTES) for n in range(count)]

    def _row(self, k: Function, block: Value, weights: list[Value], row: Value, out_row: Value) -> None:
        """One output row of a block of input channels."""
        table = k.scratch + VECTOR_BYTES + row * (8 * self.window.stride[0])
        last = k["out_width"] - self.rows

        def pixels(x: Value, count: int) -> None:
            total = self._sum(k, block, weights, table, x, count)
            self._write(k, total, block, out_row, x, count)

        with k.loop(last, step=self.rows) as x:
            pixels(x, self.rows)
        with k.when(last >= 0):
            pixels(last, self.rows)
        with k.when(last < 0), k.loop(k["out_width"]) as x:
            pixels(x, 1)

    def _sum(self, k: Function, block: Value, weights: list[Value], table: Value, x: Value, count: int) -> list[Value]:
        """[count·m] sums of so many pixels. What the next block reads in the last row is prefetched."""
        kh, kw = self.window.size
        (_, sx), (dy, dx) = self.window.stride, self.window.dilation
        start, tap_bytes = x * (sx * VECTOR_BYTES) + block * k["x_block"], self.outputs * VECTOR_BYTES
        zeros = [k.vector(0.0)] * (count * self.outputs)
        ahead = k.load(table + (kh - 1) * dy * 8, PTR) + start + k["x_block"]
        for column in range(count * sx):
            k.prefetch(ahead + column * VECTOR_BYTES, level=3)
        if weights:
            total = zeros
            for ky in range(kh):
                source = k.load(table + ky * dy * 8, PTR) + start
                of_row = weights[ky * kw * self.outputs : (ky + 1) * kw * self.outputs]
                loaded: dict[int, Value] = {}
                for kx in range(kw):
                    total = self._tap(
                        k, total, source, of_row[kx * self.outputs : (kx + 1) * self.outputs], kx * dx, loaded
                    )
            return total

        w = k["w"] + block * (kh * kw * tap_bytes)

        @k.fold(kh, zeros)
        def sums(ky: Value, total: list[Value]) -> Sequence[Value]:
            source = k.load(table + ky * (dy * 8), PTR) + start

            @k.fold(kw, total)
            def sums_of_row(kx: Value, total: list[Value]) -> Sequence[Value]:
                place = w + (ky * kw + kx) * tap_bytes
                of_tap = [k.load(place + j * VECTOR_BYTES) for j in range(self.outputs)]
                return self._tap(k, total, source + kx * (dx * VECTOR_BYTES), of_tap, 0, {})

            return sums_of_row

        return sums

    def _tap(
        self,
        k: Function,
        total: list[Value],
        source: Value,
        weights: list[Value],
        column: int,
        loaded: dict[int, Value],
    ) -> list[Value]:
        """One column of the window; `loaded` are the pixels of this row that are in registers, by column."""
        total = list(total)
        for r in range(len(total) // self.outputs):
            at = r * self.window.stride[1] + column
            if at not in loaded:
                loaded[at] = k.load(source + at * VECTOR_BYTES)
            for j, weight in enumerate(weights):
                total[r * self.outputs + j] = k.fma(loaded[at], weight, total[r * self.outputs + j])
        return total

    def _write(self, k: Function, total: list[Value], block: Value, out_row: Value, x: Value, count: int) -> None:
        """Epilogue, and out: blocks beyond the channels go to a dummy in the scratch."""
        m = self.outputs
        pixels = [interleave(k, total[r * m : (r + 1) * m]) if m > 1 else [total[r]] for r in range(count)]
        for j in range(m):
            out_block = block * m + j
            exists = out_block < self.out_blocks
            out_block = k.minimum(out_block, self.out_blocks - 1)
            channels = self.epilogue.begin(k, out_block)
            row = k["y"] + out_row * k["y_row"] + out_block * k["y_block"] + x * VECTOR_BYTES
            given = None
            if self.epilogue.residual:
                given = k["r"] + out_row * k["r_row"] + out_block * k["r_block"] + x * VECTOR_BYTES
            for r in range(count):
                residual = given + r * VECTOR_BYTES if given is not None else None
                place = row + r * VECTOR_BYTES
                k.store(
                    channels.apply(k, pixels[r][j], residual), k.select(exists, place, k.scratch) if m > 1 else place
                )


def is_depthwise(conv: Convolution) -> bool:
    """Whether `lower_depthwise` computes it."""
    co, ci = conv.weight.shape[:2]
    return ci == 1 and conv.op.groups > 1 and co // conv.op.groups <= MOST_OUTPUTS


def lower_depthwise(plan: Planner, conv: Convolution) -> None:
    """Add the call."""
    op = conv.op
    assert isinstance(op, Conv2d)
    x_node = conv.node.inputs[0]
    _, _, height, width = x_node.type.dims
    n, co, out_height, out_width = conv.node.type.dims
    outputs = co // op.groups
    held = plan.target.vector_bits == 512
    rows = max(1, min(PIXELS if held else 8, accumulators(plan.target) // (2 * outputs)))
    window = Window(conv.weight.shape[2:], op.stride, op.dilation, op.padding[:2])
    blocks = -(-op.groups // LANES)
    kernel = ConvDepthwise(blocks, len(conv.order) // LANES, outputs, rows, window, conv.epilogue, held)
    left = window.before[1]
    x = plan.blocked(x_node, left, max(0, window.reach(out_width) - left - width))
    residual = conv.residual(plan)
    macs = window.taps * out_width * outputs * blocks * LANES
    bands = max(1, min(out_height, macs * out_height // SMALLEST_UNIT, -(-UNITS_PER_THREAD * plan.threads // n)))
    bands, band = even_parts(out_height, bands)
    scratch = VECTOR_BYTES + 8 * ((band - 1) * window.stride[0] + kernel.reach)
    form = conv.form("depthwise")
    arguments: dict[str, Argument] = {
        **x.arguments("x"),
        **plan.new_blocked(conv.node).arguments("y"),
        **(residual.arguments("r") if residual else {}),
        **conv.epilogue_arguments(plan),
        **dict(zip(SIZES, (height, width, out_height, out_width), strict=True)),
        "band": band,
        "bands": bands,
        "strip": max(1, STRIP_BYTES // (window.stride[0] * blocks * width * VECTOR_BYTES)),
        "w": plan.weight(conv.weight, form, lambda w: pack_depthwise(w, blocks, outputs)),
        "zeros": plan.zero_row(x),
    }
    plan.call(conv.node, kernel, arguments, n * bands, label="depthwise {}x{}".format(*window.size), scratch=scratch)


def pack_depthwise(weight: Array, blocks: int, outputs: int) -> Array:
    """[block][Kh][Kw][m][16] of weight[C·m, 1, Kh, Kw]."""
    _, _, kh, kw = weight.shape
    padded = np.zeros((blocks * LANES, outputs, kh, kw), np.float32)
    padded[: len(weight) // outputs] = weight.reshape(-1, outputs, kh, kw)
    return aligned(padded.reshape(blocks, LANES, outputs, kh, kw).transpose(0, 3, 4, 2, 1))

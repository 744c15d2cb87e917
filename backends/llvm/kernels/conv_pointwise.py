"""conv2d 1x1, any stride, on blocked images: a matrix product.

    for chunk of output pixels of the unit: copy their channels, [pixels/R][Ci/16][R][16]; note where they are written
      for panel of 16·`vectors` output channels of the unit, for R output pixels:
        for Ci:
            R x `vectors` accumulators += x[pixel, c] · w[panel, c]
        epilogue, to the pixels

Pixels are numbered through the rows and the batch. The copy is small beside the products, and lets the innermost loop
do with two addresses: those of all pixels would take the registers that its operands need.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from graphsr.op import Array
from graphsr.ops import Conv2d

from ..kernel import Argument, Kernel, blocked_slots
from ..loops import I64, LANES, PTR, VECTOR_BYTES, Function, Value
from ..memory import aligned
from .epilogue import Epilogue
from .layout import zero_halo
from .register_tile import UNROLL, pointwise_tile_of, register_tile

if TYPE_CHECKING:
    from ..plan import Planner
    from ..target import Target
    from .conv import Convolution

COPIED = 256 << 10
"""Bytes of the copy of a chunk: they stay in the second cache beside a panel of weights."""
SMALLEST_UNIT = 400_000
"""Multiply-adds in a unit, some microseconds, that a thread has to fetch."""
UNITS_PER_THREAD = 2


@dataclass(frozen=True)
class ConvPointwise(Kernel):
    """See the loop nest above."""

    ci: int
    panels: int
    vectors: int
    rows: int
    """R."""
    stride: tuple[int, int]
    epilogue: Epilogue

    def slots(self) -> Mapping[str, str]:
        residual = blocked_slots("r") if self.epilogue.residual else {}
        images = {**blocked_slots("x"), **blocked_slots("y"), **residual}
        sizes = ("height", "out_height", "out_width", "pixels", "chunk", "ranges", "panel_span", "places")
        return {**images, "w": PTR, **self.epilogue.slots(), **dict.fromkeys(sizes, I64)}

    @property
    def ci_blocks(self) -> int:
        return -(-self.ci // LANES)

    @property
    def depth(self) -> int:
        """Input channels that are multiplied: whole turns of the innermost loop."""
        return -(-self.ci // UNROLL) * UNROLL

    @property
    def small(self) -> int:
        """Pixels of the last, smaller register tile."""
        return -(-self.rows // 2)

    def scratch_of(self, chunk: int) -> int:
        """Bytes for a chunk of so many pixels, with those of the last register tile."""
        pixels = chunk + self.rows
        return pixels * self.ci_blocks * VECTOR_BYTES + -(-pixels * 16 // VECTOR_BYTES) * VECTOR_BYTES

    def body(self, k: Function, target: Target) -> None:
        first, part = k.unit // k["ranges"] * k["chunk"], k.unit % k["ranges"]
        count = k.minimum(k["pixels"] - first, k["chunk"])
        first_panel = part * k["panel_span"]
        last_panel = k.minimum(first_panel + k["panel_span"], self.panels)
        self._copy(k, first, count, part)
        with k.loop(last_panel, start=first_panel) as panel:
            with k.loop(count - self.small, step=self.rows) as pixel:
                self._tile(k, panel, pixel, self.rows)
            done = k.maximum(count - self.small + (self.rows - 1), 0) // self.rows * self.rows
            with k.when(done < count):
                self._tile(k, panel, done, self.small)

    def _copy(self, k: Function, first: Value, count: Value, part: Value) -> None:
        """Copy the pixels of the chunk, and write the table of where they and their residuals lie: 16 bytes each.
        Beyond the chunk the last pixel is repeated."""
        row, x = first // k["out_width"], first % k["out_width"]

        @k.fold(count + self.rows, [row // k["out_height"], row % k["out_height"], x])
        def after(i: Value, at: list[Value]) -> Sequence[Value]:
            n, y, x = at
            source = k["x"] + (n * k["height"] + y * self.stride[0]) * k["x_row"] + x * (self.stride[1] * VECTOR_BYTES)
            place = k.scratch + (i // self.rows * (self.rows * self.ci_blocks) + i % self.rows) * VECTOR_BYTES
            with k.loop(self.ci_blocks) as block:
                k.store(k.load(source + block * k["x_block"]), place + block * (self.rows * VECTOR_BYTES))
            out_row, entry = n * k["out_height"] + y, k.scratch + k["places"] + i * 16
            out = k["y"] + out_row * k["y_row"]
            k.store(out + x * VECTOR_BYTES, entry)
            if self.epilogue.residual:
                k.store(k["r"] + out_row * k["r_row"] + x * VECTOR_BYTES, entry + 8)
            ended = (x + 1).equals(k["out_width"])
            with k.when(part.equals(0) & ended), k.loop(self.panels * self.vectors) as block:
                zero_halo(k, out + block * k["y_block"], k["out_width"], k["y_left"], k["y_right"])
            below = (y + 1).equals(k["out_height"])
            following = [
                k.select(ended & below, n + 1, n),
                k.select(ended, k.select(below, k.literal(0), y + 1), y),
                k.select(ended, k.literal(0), x + 1),
            ]
            last = i + 1 >= count
            return [k.select(last, old, new) for old, new in zip(at, following, strict=True)]

    def _tile(self, k: Function, panel: Value, pixel: Value, rows: int) -> None:
        """The sums of `rows` pixels and one panel, and their way out."""
        line, block_bytes = self.vectors * VECTOR_BYTES, self.rows * VECTOR_BYTES
        a, b = k.scratch + pixel * (self.ci_blocks * VECTOR_BYTES), k["w"] + panel * (self.depth * line)

        def run(a: Value, b: Value, channels: int, total: list[Value]) -> list[Value]:
            @k.fold(channels, total, step=UNROLL)
            def after(c: Value, total: list[Value]) -> Sequence[Value]:
                offsets = range(0, 4 * UNROLL, 4)
                return register_tile(k, total, a + c * 4, b + c * line, rows, VECTOR_BYTES, offsets)

            return after

        total, whole = [k.vector(0.0)] * (rows * self.vectors), self.ci // LANES

        @k.fold(whole, total)
        def sums(block: Value, total: list[Value]) -> Sequence[Value]:
            return run(a + block * block_bytes, b + block * (LANES * line), LANES, total)

        if self.depth > whole * LANES:
            rest = self.depth - whole * LANES
            sums = run(a + whole * block_bytes, b + whole * (LANES * line), rest, sums)
        self._write(k, sums, panel, pixel, rows)

    def _write(self, k: Function, total: list[Value], panel: Value, pixel: Value, rows: int) -> None:
        """Epilogue, and out. Beyond the chunk, the last pixel is written again."""
        table = k.scratch + k["places"] + pixel * 16
        for v in range(self.vectors):
            block = panel * self.vectors + v
            channels = self.epilogue.begin(k, block)
            for r in range(rows):
                residual = None
                if self.epilogue.residual:
                    residual = k.load(table + (16 * r + 8), PTR) + block * k["r_block"]
                y = channels.apply(k, total[r * self.vectors + v], residual)
                k.store(y, k.load(table + 16 * r, PTR) + block * k["y_block"])


def is_pointwise(conv: Convolution) -> bool:
    """Whether `lower_pointwise` computes it."""
    plain = conv.op.groups == 1 and conv.shuffle == 1 and not any(conv.op.padding)
    return plain and conv.weight.shape[2:] == (1, 1)


def lower_pointwise(plan: Planner, conv: Convolution) -> None:
    """Add the call."""
    assert isinstance(conv.op, Conv2d)
    x_node, blocks = conv.node.inputs[0], len(conv.order) // LANES
    n, ci, height, _ = x_node.type.dims
    _, _, out_height, out_width = conv.node.type.dims
    vectors, rows = pointwise_tile_of(plan.target, blocks)
    kernel = ConvPointwise(ci, blocks // vectors, vectors, rows, conv.op.stride, conv.epilogue)
    residual = conv.residual(plan)
    pixels = n * out_height * out_width
    chunk, ranges, panel_span = cut(kernel, pixels, plan.threads)
    scratch = kernel.scratch_of(chunk)
    arguments: dict[str, Argument] = {
        **plan.blocked(x_node).arguments("x"),
        **plan.new_blocked(conv.node).arguments("y"),
        **(residual.arguments("r") if residual else {}),
        **conv.epilogue_arguments(plan),
        "w": plan.weight(conv.weight, conv.form(f"pointwise {vectors}"), partial(pack_pointwise, conv, kernel)),
        "height": height,
        "out_height": out_height,
        "out_width": out_width,
        "pixels": pixels,
        "chunk": chunk,
        "ranges": ranges,
        "panel_span": panel_span,
        "places": (chunk + rows) * kernel.ci_blocks * VECTOR_BYTES,
    }
    plan.call(conv.node, kernel, arguments, -(-pixels // chunk) * ranges, label="direct 1x1", scratch=scratch)


def cut(kernel: ConvPointwise, pixels: int, threads: int) -> tuple[int, int, int]:
    """(pixels of a chunk, ranges of panels, panels in a range): units are chunks of all panels, or of ranges of them
    where there are more weights than pixels to read. What a pixel is summed up to does not depend on it."""
    panel_macs = kernel.depth * kernel.vectors * LANES
    tiles = -(-pixels // kernel.rows)
    most = max(1, pixels * kernel.panels * panel_macs // SMALLEST_UNIT)
    units = min(most, UNITS_PER_THREAD * threads) if threads > 1 else 1
    largest = max(1, COPIED // (kernel.rows * kernel.ci_blocks * VECTOR_BYTES))
    chunks = -(-tiles // largest)
    outputs = kernel.panels * kernel.vectors * LANES
    ranges = min(units, kernel.panels) if outputs > pixels and chunks == 1 else 1
    if ranges == 1:
        chunks = -(-max(chunks, min(units, tiles)) // threads) * threads if most > 1 else chunks
    span = -(-kernel.panels // ranges)
    return -(-tiles // chunks) * kernel.rows, -(-kernel.panels // span), span


def pack_pointwise(conv: Convolution, kernel: ConvPointwise, weight: Array) -> Array:
    """[panel][Ci][16·vectors] of weight[Co, Ci, 1, 1], Ci filled up to whole turns of the loop."""
    padded = np.zeros((len(conv.order), kernel.depth), np.float32)
    padded[conv.order >= 0, : kernel.ci] = weight[conv.order[conv.order >= 0], :, 0, 0]
    return aligned(padded.reshape(kernel.panels, kernel.vectors * LANES, kernel.depth).transpose(0, 2, 1))

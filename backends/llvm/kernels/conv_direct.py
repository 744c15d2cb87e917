"""conv2d as a plain sum: any kernel size, stride, dilation, padding and groups of whole blocks, on blocked images.

    for chunk of output pixels of the unit:                where each pixel is read, for every ky, and written
      for panel of 16·`vectors` output channels of the unit, for R output pixels:
        for ky, Ci/16, kx, 16 channels:
            R x `vectors` accumulators += x[y·s + ky·d, x·s + kx·d, c] · w[panel, ky, c, kx]
        epilogue, to the pixels

Implicit matrix product: nothing is gathered, the accumulators stay in registers for the whole sum. Pixels are numbered
through the rows and the batch, so that register tiles are full whatever the width, and each pixel of a tile has an
address of its own. A panel of weights is read for a whole chunk while it is in the cache. The pixels may lie `spread`
apart in the output: a transposed convolution is made of such parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from graphsr.op import Array
from graphsr.ops import Conv2d

from ..kernel import Argument, blocked_slots
from ..loops import I1, I64, LANES, PTR, VECTOR_BYTES, Function, Value
from ..memory import aligned
from .epilogue import Epilogue
from .layout import row_of_image, zero_pixels
from .register_tile import InRegisters, direct_tile_of, register_tile_at

if TYPE_CHECKING:
    from ..plan import Planner
    from ..target import Target
    from ..weight_forms import WeightForm
    from .conv import Convolution

TILES = 16
"""Register tiles in a chunk: how often a panel of weights is used while it is in the cache."""
SMALLEST_UNIT = 2_000_000
"""Multiply-adds in a unit, some tens of microseconds, that a thread has to fetch."""
UNITS_PER_THREAD = 4
CACHED = 32 << 10
"""Bytes of weights that stay in the first cache."""
AHEAD = 2048
"""Bytes between the weights that are multiplied and those that are prefetched."""

Pair = tuple[int, int]


@dataclass(frozen=True)
class Part:
    """Which pixels of the output are computed, and from where: a whole convolution, or one phase of a transposed one.

    Pixel (y, x) of the part reads row y·stride + ky·dilation − `before` of the input, and is pixel y·spread + `first`
    of the output; columns likewise.
    """

    size: Pair
    before: Pair = (0, 0)
    first: Pair = (0, 0)


@dataclass(frozen=True)
class ConvDirect(InRegisters):
    """See the loop nest above."""

    running_pointers = True  # of a dozen pixels: without them, it has too few registers

    ci_blocks: int
    """Of one group."""
    panels: int
    """Of all groups."""
    vectors: int
    rows: int
    size: Pair
    stride: Pair
    dilation: Pair
    epilogue: Epilogue
    groups: int = 1
    shuffle: int = 1
    """Pixel-shuffle factor s: block g·(blocks/s²) + b is block b of the pixels (g/s, g%s) of each s x s cell."""
    spread: Pair = (1, 1)

    def slots(self) -> Mapping[str, str]:
        residual = blocked_slots("r") if self.epilogue.residual else {}
        sizes = ("height", "out_height", "out_width", "part_height", "part_width", "top", "left", "first_y", "first_x")
        return {
            **blocked_slots("x"),
            **blocked_slots("y"),
            **residual,
            "w": PTR,
            "zeros": PTR,
            **self.epilogue.slots(),
            **dict.fromkeys((*sizes, "pixels", "span", "parts", "ranges", "panel_span"), I64),
        }

    @property
    def panel_bytes(self) -> int:
        """Of the weights of a panel."""
        return self.size[0] * self.size[1] * self.ci_blocks * self.vectors * LANES * VECTOR_BYTES

    @property
    def small(self) -> int:
        """Pixels of the last, smaller register tile."""
        return -(-self.rows // 2)

    @property
    def chunk(self) -> int:
        return self.rows * TILES

    @property
    def table_row(self) -> int:
        """Bytes of the table for one ky: an address per pixel, and what the last tile reads beyond the chunk."""
        return (self.chunk + self.rows) * 8

    def scratch(self, target: Target) -> int:
        return (self.size[0] + 2) * self.table_row

    def body(self, k: Function, target: Target) -> None:
        first, part = k.unit // k["parts"] * k["span"], k.unit % k["parts"]
        stop = k.minimum(first + k["span"], k["pixels"])
        group, panels = part // k["ranges"], self.panels // self.groups
        first_panel = group * panels + part % k["ranges"] * k["panel_span"]
        last_panel = k.minimum(first_panel + k["panel_span"], (group + 1) * panels)
        with k.loop(stop, start=first, step=self.chunk) as begin:
            count = k.minimum(stop - begin, self.chunk)
            self._locate(k, begin, count, part, group)
            with k.loop(last_panel, start=first_panel) as panel:
                with k.loop(count - self.small, step=self.rows) as pixel:
                    self._tile(k, panel, pixel, self.rows)
                done = k.maximum(count - self.small + (self.rows - 1), 0) // self.rows * self.rows
                with k.when(done < count):
                    self._tile(k, panel, done, self.small)

    @property
    def part_sizes(self) -> tuple[str, ...]:
        """The slots that hold the sizes of what is computed, along each axis."""
        return "part_height", "part_width"

    def _locate(self, k: Function, begin: Value, count: Value, part: Value, group: Value) -> None:
        """Write the table of the chunk; beyond it the last pixel is repeated."""
        sizes = [k[name] for name in self.part_sizes]

        @k.fold(count + self.rows, coordinates(k, begin, sizes))
        def after(i: Value, at: list[Value]) -> Sequence[Value]:
            self._locate_pixel(k, at, part, group, k.scratch + i * 8)
            return following(k, at, sizes, i + 1 >= count)

    def _locate_pixel(self, k: Function, at: Sequence[Value], part: Value, group: Value, entry: Value) -> None:
        """Its column of the table: Kh rows of where it is read, one of where it is written, one of the residual. Zero
        the halo of the row if it begins or ends here."""
        n, y, x = at
        column = (x * self.stride[1] - k["left"]) * VECTOR_BYTES + group * self.ci_blocks * k["x_block"]
        with k.loop(self.size[0]) as ky:
            address = row_of_image(k, n, y * self.stride[0] + ky * self.dilation[0] - k["top"])
            k.store(address + column, entry + ky * self.table_row)
        out_row = n * k["out_height"] + y * self.spread[0] + k["first_y"]
        out_x = x * self.spread[1] + k["first_x"]
        target = k["y"] + out_row * self.shuffle * k["y_row"]
        k.store(target + out_x * (self.shuffle * VECTOR_BYTES), entry + self.size[0] * self.table_row)
        if self.epilogue.residual:
            residual = k["r"] + out_row * k["r_row"] + out_x * VECTOR_BYTES
            k.store(residual, entry + (self.size[0] + 1) * self.table_row)
        with k.when(part.equals(0)):
            self._zero_halo(k, target, out_x)

    def _zero_halo(self, k: Function, row: Value, x: Value) -> None:
        """Zeros left of the first pixel and right of the last one, in all blocks; `row` is where the row begins."""
        blocks = self.panels * self.vectors // self.shuffle**2
        edges = (
            (x.equals(0), k["y_left"], row + k["y_left"] * -VECTOR_BYTES),
            ((x + 1).equals(k["out_width"]), k["y_right"], row + k["out_width"] * (self.shuffle * VECTOR_BYTES)),
        )
        for condition, width, start in edges:
            with k.when(condition), k.loop(self.shuffle) as dy, k.loop(blocks) as block:
                zero_pixels(k, start + dy * k["y_row"] + block * k["y_block"], width)

    def _tile(self, k: Function, panel: Value, pixel: Value, rows: int) -> None:
        """The sums of `rows` pixels and one panel, from the table to the output."""
        kh, kw = self.size
        line = self.vectors * VECTOR_BYTES
        w = k["w"] + panel * self.panel_bytes
        table = k.scratch + pixel * 8
        # with dilation 1, the channels of neighbouring pixels follow each other like those of one
        runs, length = (1, kw * LANES) if self.dilation[1] == 1 else (kw, LANES)

        @k.fold(kh, [k.vector(0.0)] * (rows * self.vectors))
        def total(ky: Value, total: list[Value]) -> Sequence[Value]:
            a = [k.load(table + ky * self.table_row + r * 8, PTR) for r in range(rows)]

            @k.fold(self.ci_blocks, total)
            def total_of_row(block: Value, total: list[Value]) -> Sequence[Value]:
                b = w + (ky * self.ci_blocks + block) * (kw * LANES * line)
                offset = block * k["x_block"]

                @k.fold(runs, total)
                def total_of_block(kx: Value, total: list[Value]) -> Sequence[Value]:
                    b_run, a_run = b + kx * (length * line), offset + kx * (self.dilation[1] * VECTOR_BYTES)

                    @k.fold(length, total)
                    def total_of_run(c: Value, total: list[Value]) -> Sequence[Value]:
                        left, right = [row + (a_run + c * 4) for row in a], b_run + c * line
                        if self.panel_bytes > CACHED:
                            for n in range(self.vectors):
                                k.prefetch(right + (AHEAD + n * VECTOR_BYTES), level=3)
                        return register_tile_at(k, total, left, right, [0])

                    return total_of_run

                return total_of_block

            return total_of_row

        self._write(k, total, panel, pixel, rows)

    def _write(self, k: Function, total: list[Value], panel: Value, pixel: Value, rows: int) -> None:
        """Epilogue, and out. Beyond the chunk, the last pixel is written again."""
        s = self.shuffle
        blocks = self.panels * self.vectors // s**2
        out_table = k.scratch + self.size[0] * self.table_row + pixel * 8
        for v in range(self.vectors):
            block = panel * self.vectors + v
            channels = self.epilogue.begin(k, block)
            place = block * k["y_block"]
            if s > 1:
                cell, inner = block // blocks, block % blocks
                place = cell // s * k["y_row"] + inner * k["y_block"] + cell % s * VECTOR_BYTES
            for r in range(rows):
                residual = None
                if self.epilogue.residual:
                    residual = k.load(out_table + self.table_row + r * 8, PTR) + block * k["r_block"]
                y = channels.apply(k, total[r * self.vectors + v], residual)
                k.store(y, k.load(out_table + r * 8, PTR) + place)


def coordinates(k: Function, number: Value, sizes: Sequence[Value]) -> list[Value]:
    """[how many times through, place along each axis] of what is counted along axes of these sizes, the last one
    first."""
    at: list[Value] = []
    for size in reversed(sizes):
        at.insert(0, number % size)
        number = number // size
    return [number, *at]


def following(k: Function, at: Sequence[Value], sizes: Sequence[Value], last: Value | None = None) -> list[Value]:
    """The coordinates of the next one; the same ones where it is the `last`."""
    next_, carry = list[Value](), k.literal(1, I1)
    for place, size in zip(reversed(at[1:]), reversed(sizes), strict=True):
        ended = carry & (place + 1).equals(size)
        next_.insert(0, k.select(ended, k.literal(0), k.select(carry, place + 1, place)))
        carry = ended
    next_.insert(0, k.select(carry, at[0] + 1, at[0]))
    return next_ if last is None else [k.select(last, old, new) for old, new in zip(at, next_, strict=True)]


def lower_direct(plan: Planner, conv: Convolution) -> None:
    """Add the call for a convolution whose groups are whole blocks of channels."""
    op = conv.op
    assert isinstance(op, Conv2d)
    kernel = direct_kernel(plan, conv, conv.weight.shape[2:], op.stride, op.dilation)
    form = conv.form(f"direct {kernel.vectors}")
    weight = plan.weight(conv.weight, form, partial(pack_blocked, conv, kernel.vectors))
    _, _, height, width = conv.node.type.dims
    part = Part((height, width), op.padding[:2])
    call_direct(plan, conv, kernel, part, weight, "direct {}x{}".format(*kernel.size))


def direct_kernel(plan: Planner, conv: Convolution, size: Pair, stride: Pair, dilation: Pair) -> ConvDirect:
    """The kernel for a convolution with these attributes."""
    blocks, groups = len(conv.order) // LANES, conv.op.groups
    vectors, rows = direct_tile_of(plan.target, blocks // groups)
    return ConvDirect(
        ci_blocks=-(-conv.node.inputs[0].type.dims[1] // (LANES * groups)),
        panels=blocks // vectors,
        vectors=vectors,
        rows=rows,
        size=size,
        stride=stride,
        dilation=dilation,
        epilogue=conv.epilogue,
        groups=groups,
        shuffle=conv.shuffle,
    )


def call_direct(
    plan: Planner, conv: Convolution, kernel: ConvDirect, part: Part, weight: WeightForm, label: str
) -> None:
    """Add the call that computes one part; the output is made when there is none yet."""
    x_node = conv.node.inputs[0]
    n, _, height, width = x_node.type.dims
    _, _, out_height, out_width = conv.node.type.dims
    reach = (part.size[1] - 1) * kernel.stride[1] + max(kernel.size[1] - 1, 0) * kernel.dilation[1] + 1
    top, left = part.before
    x = plan.blocked(x_node, max(0, left), max(0, reach - left - width))
    y = plan.blocked(conv.result) if plan.is_blocked(conv.result) else plan.new_blocked(conv.result)
    residual = conv.residual(plan)
    pixels = n * part.size[0] * part.size[1]
    per_panel = kernel.size[0] * kernel.size[1] * kernel.ci_blocks * kernel.vectors * LANES**2
    span, ranges, panel_span = cut(pixels, kernel.rows, kernel.panels // kernel.groups, per_panel, plan.threads)
    parts = ranges * kernel.groups
    arguments: dict[str, Argument] = {
        **x.arguments("x"),
        **y.arguments("y"),
        **(residual.arguments("r") if residual else {}),
        **conv.epilogue_arguments(plan),
        "w": weight,
        "zeros": plan.zero_row(x),
        "height": height,
        "out_height": out_height,
        "out_width": out_width,
        "part_height": part.size[0],
        "part_width": part.size[1],
        "top": top,
        "left": left,
        "first_y": part.first[0],
        "first_x": part.first[1],
        "pixels": pixels,
        "span": span,
        "parts": parts,
        "ranges": ranges,
        "panel_span": panel_span,
    }
    covers = (conv.shuffled,) if conv.shuffled else ()
    plan.call(conv.node, kernel, arguments, -(-pixels // span) * parts, label=label, covers=covers)


def cut(pixels: int, rows: int, panels: int, macs: int, threads: int) -> tuple[int, int, int]:
    """(pixels of a unit, ranges of panels, panels in a range) where a pixel of a panel takes `macs` multiply-adds.

    Units are chunks of all panels; larger where they would be too little work, of fewer panels where there would be
    too few of them. What a pixel is summed up to does not depend on it.
    """
    chunk = max(rows * TILES, -(-SMALLEST_UNIT // max(1, macs * panels)))
    chunks = -(-pixels // chunk)
    span = -(-pixels // (chunks * rows)) * rows
    wanted = -(-UNITS_PER_THREAD * threads // chunks) if threads > 1 else 1
    most = max(1, panels * span * macs // SMALLEST_UNIT)
    panel_span = -(-panels // min(panels, wanted, most))
    return span, -(-panels // panel_span), panel_span


def pack_blocked(conv: Convolution, vectors: int, weight: Array) -> Array:
    """[panel][Kh][Ci/16][Kw][16][16·vectors] of weight[Co, Ci, Kh, Kw]."""
    _, ci, kh, kw = weight.shape
    order, blocks = conv.order, -(-ci // LANES)
    padded = np.zeros((len(order), blocks * LANES, kh, kw), np.float32)
    padded[order >= 0, :ci] = weight[order[order >= 0]]
    w = padded.reshape(len(order) // (vectors * LANES), vectors * LANES, blocks, LANES, kh, kw)
    return aligned(w.transpose(0, 4, 2, 5, 3, 1))

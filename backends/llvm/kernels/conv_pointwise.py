"""conv2d 1x1, any stride, on blocked images: a matrix product, straight from the rows of the image.

    for group of output rows of the unit: for panel of 16·`vectors` output channels of the unit:
      for row of the group: for R output pixels:
        for Ci:
            R x `vectors` accumulators += x[y·s, x·s, c] · w[panel, c]
        epilogue, to the row

A panel of weights is read for a whole group of rows, whose input stays in the second cache. The last R pixels of a row
overlap those before them, and are written again. R and `vectors` are chosen so that little is computed twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
from .register_tile import UNROLL, InRegisters, pointwise_tile_of, register_tile
from .row import even_parts

if TYPE_CHECKING:
    from ..plan import Planner
    from ..target import Target
    from .conv import Convolution

GROUPED = 128 << 10
"""Bytes of input rows that stay in the second cache beside a panel of weights."""
CACHED = 256 << 10
"""Bytes of weights that come from the second cache soon enough."""
SMALLEST_UNIT = 400_000
"""Multiply-adds in a unit, some microseconds, that a thread has to fetch."""
WIDEST = 160
"""Pixels in a row from which the register tile is always the same."""
UNITS_PER_THREAD = 1
"""With more of them, threads read more of the rows that another one wrote."""


@dataclass(frozen=True)
class ConvPointwise(InRegisters):
    """Unit: a band of rows, for a range of panels. See the loop nest above."""

    running_pointers = True

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
        sizes = ("height", "out_height", "out_width", "group", "band", "bands", "ranges", "panel_span")
        return {**images, "w": PTR, **self.epilogue.slots(), **dict.fromkeys(sizes, I64)}

    def for_any_width(self, target: Target) -> set[Kernel]:
        blocks = self.panels * self.vectors
        tiles = {pointwise_tile_of(target, blocks, width) for width in range(1, WIDEST)}
        return {replace(self, panels=blocks // vectors, vectors=vectors, rows=rows) for vectors, rows in tiles}

    @property
    def depth(self) -> int:
        """Input channels that are multiplied: whole turns of the innermost loop."""
        return depth_of(self.ci)

    def body(self, k: Function, target: Target) -> None:
        part, at = k.unit % k["ranges"], k.unit // k["ranges"]
        image, first = at // k["bands"], at % k["bands"] * k["band"]
        stop = k.minimum(k["out_height"], first + k["band"])
        first_panel = part * k["panel_span"]
        last_panel = k.minimum(first_panel + k["panel_span"], self.panels)
        with k.loop((stop - first + (k["group"] - 1)) // k["group"]) as group:
            top = first + group * k["group"]
            end = k.minimum(stop, top + k["group"])
            with k.loop(last_panel, start=first_panel) as panel, k.loop(end, start=top) as y:
                self._row(k, panel, image, y, top)

    def _row(self, k: Function, panel: Value, image: Value, y: Value, top: Value) -> None:
        """One output row of one panel, with its halo. `UNROLL` rows share in prefetching the next panel."""
        part = (y - top) % UNROLL * (self.depth // UNROLL)
        ahead = k["w"] + ((panel + 1) * self.depth + part) * (self.vectors * VECTOR_BYTES)
        source = k["x"] + (image * k["height"] + y * self.stride[0]) * k["x_row"]
        out_row, last = image * k["out_height"] + y, k["out_width"] - self.rows
        with k.loop(last, step=self.rows) as x:
            self._tile(k, panel, source, out_row, x, ahead)
        self._tile(k, panel, source, out_row, last, ahead)
        for v in range(self.vectors):
            out = k["y"] + out_row * k["y_row"] + (panel * self.vectors + v) * k["y_block"]
            zero_halo(k, out, k["out_width"], k["y_left"], k["y_right"])

    def _tile(self, k: Function, panel: Value, source: Value, out_row: Value, x: Value, ahead: Value) -> None:
        """R pixels from x on of one panel: the sums, the epilogue, and out."""
        total = self._products(k, panel, source + x * (self.stride[1] * VECTOR_BYTES), ahead)
        for v in range(self.vectors):
            block = panel * self.vectors + v
            channels = self.epilogue.begin(k, block)
            out = k["y"] + out_row * k["y_row"] + block * k["y_block"] + x * VECTOR_BYTES
            given = None
            if self.epilogue.residual:
                given = k["r"] + out_row * k["r_row"] + block * k["r_block"] + x * VECTOR_BYTES
            for r in range(self.rows):
                residual = given + r * VECTOR_BYTES if given is not None else None
                k.store(channels.apply(k, total[r * self.vectors + v], residual), out + r * VECTOR_BYTES)

    @property
    def prefetched(self) -> bool:
        """Whether the weights are too many to be in the second cache before they are read."""
        return self.depth * self.panels * self.vectors * VECTOR_BYTES > CACHED

    def _products(self, k: Function, panel: Value, a: Value, ahead: Value) -> list[Value]:
        """[R · vectors] sums over all input channels of the pixels from `a` on; meanwhile the weights from `ahead` on
        are prefetched, one line for `UNROLL` that are read."""
        line, whole = self.vectors * VECTOR_BYTES, self.ci // LANES
        w = k["w"] + panel * (self.depth * line)

        def run(left: Value, right: Value, ahead: Value, channels: int, total: list[Value]) -> list[Value]:
            @k.fold(channels, total, step=UNROLL)
            def after(c: Value, total: list[Value]) -> Sequence[Value]:
                if self.prefetched:
                    for v in range(self.vectors):
                        k.prefetch(ahead + (c * (line // UNROLL) + v * VECTOR_BYTES))
                step, offsets = self.stride[1] * VECTOR_BYTES, range(0, 4 * UNROLL, 4)
                return register_tile(k, total, left + c * 4, right + c * line, self.rows, step, offsets)

            return after

        @k.fold(whole, [k.vector(0.0)] * (self.rows * self.vectors))
        def total(block: Value, total: list[Value]) -> Sequence[Value]:
            right, next_right = w + block * (LANES * line), ahead + block * (LANES * line // UNROLL)
            return run(a + block * k["x_block"], right, next_right, LANES, total)

        rest = self.depth - whole * LANES
        return run(a + k["x_block"] * whole, w + whole * (LANES * line), ahead, rest, total) if rest else total


def depth_of(ci: int) -> int:
    """Input channels in whole turns of the innermost loop."""
    return -(-ci // UNROLL) * UNROLL


def is_pointwise(conv: Convolution) -> bool:
    """Whether `lower_pointwise` computes it."""
    plain = conv.op.groups == 1 and conv.shuffle == 1 and not any(conv.op.padding)
    return plain and conv.weight.shape[2:] == (1, 1) and conv.node.type.dims[3] > 0


def lower_pointwise(plan: Planner, conv: Convolution) -> None:
    """Add the call."""
    assert isinstance(conv.op, Conv2d)
    x_node, blocks = conv.node.inputs[0], len(conv.order) // LANES
    n, ci, height, _ = x_node.type.dims
    _, _, out_height, out_width = conv.node.type.dims
    vectors, rows = pointwise_tile_of(plan.target, blocks, out_width)
    kernel = ConvPointwise(ci, blocks // vectors, vectors, rows, conv.op.stride, conv.epilogue)
    residual = conv.residual(plan)
    bands, ranges = cut(kernel, n, out_height, out_width, plan.threads)
    bands, band = even_parts(out_height, bands)
    ranges, panel_span = even_parts(kernel.panels, ranges)
    packed = partial(pack_pointwise, conv, vectors)
    arguments: dict[str, Argument] = {
        **plan.blocked(x_node).arguments("x"),
        **plan.new_blocked(conv.node).arguments("y"),
        **(residual.arguments("r") if residual else {}),
        **conv.epilogue_arguments(plan),
        "w": plan.weight(conv.weight, conv.form(f"pointwise {vectors}"), packed),
        "height": height,
        "out_height": out_height,
        "out_width": out_width,
        "group": max(1, GROUPED // (-(-ci // LANES) * out_width * VECTOR_BYTES)),
        "band": band,
        "bands": bands,
        "ranges": ranges,
        "panel_span": panel_span,
    }
    plan.call(conv.node, kernel, arguments, n * bands * ranges, label="direct 1x1")


def cut(kernel: ConvPointwise, images: int, height: int, width: int, threads: int) -> tuple[int, int]:
    """(bands of rows, ranges of panels): units are bands, or ranges where there are many more weights to read than
    pixels. What a pixel is summed up to does not depend on it."""
    outputs, pixels = kernel.panels * kernel.vectors * LANES, images * height * width
    most = max(1, kernel.depth * outputs * pixels // SMALLEST_UNIT)
    units = min(most, UNITS_PER_THREAD * threads) if threads > 1 else 1
    if outputs > 3 * pixels:
        return 1, min(units, kernel.panels)
    return min(height, -(-units // images)), 1


def pack_pointwise(conv: Convolution, vectors: int, weight: Array) -> Array:
    """[panel][Ci][16·vectors] of weight[Co, Ci, 1, 1], Ci filled up to whole turns of the loop."""
    order, ci = conv.order, weight.shape[1]
    padded = np.zeros((len(order), depth_of(ci)), np.float32)
    padded[order >= 0, :ci] = weight[order[order >= 0], :, 0, 0]
    return aligned(padded.reshape(-1, vectors * LANES, depth_of(ci)).transpose(0, 2, 1))

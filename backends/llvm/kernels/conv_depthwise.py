"""conv2d where every input channel has a group of its own, with m output channels each, on blocked images.

    for output row (n, y) of the unit: for block of 16 input channels, for R output pixels:
        for ky, kx:
            R x m accumulators += x[y·s + ky·d, x·s + kx·d] · w[block, ky, kx, m]
        interleave the m vectors of a pixel: channel c·m + j; epilogue, to the row

The lanes are channels; what the windows of neighbouring pixels share is loaded once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graphsr.op import Array
from graphsr.ops import Conv2d

from ..kernel import Argument, Kernel, blocked_slots
from ..loops import I64, LANES, PTR, VECTOR_BYTES, Function, Index, Value
from ..memory import aligned
from .conv_head import SIZES, Window
from .epilogue import Epilogue
from .layout import zero_halo
from .register_tile import accumulators
from .row import interleave

if TYPE_CHECKING:
    from ..plan import Planner
    from ..target import Target
    from .conv import Convolution

MOST_OUTPUTS = 8
"""Output channels per input channel that fit the registers."""
UNROLLED_TAPS = 5


@dataclass(frozen=True)
class ConvDepthwise(Kernel):
    """See the loop nest above."""

    blocks: int
    """Of input channels."""
    out_blocks: int
    outputs: int
    """m."""
    rows: int
    """R."""
    window: Window
    epilogue: Epilogue

    def slots(self) -> Mapping[str, str]:
        residual = blocked_slots("r") if self.epilogue.residual else {}
        images = {**blocked_slots("x"), **blocked_slots("y"), **residual}
        return {**images, "w": PTR, "zeros": PTR, **self.epilogue.slots(), **dict.fromkeys(SIZES, I64)}

    def scratch(self, target: Target) -> int:
        return VECTOR_BYTES + 8 * self.window.size[0]

    def body(self, k: Function, target: Target) -> None:
        n, out_row = k.unit // k["out_height"], k.unit % k["out_height"]
        with k.loop(self.window.size[0]) as ky:
            k.store(self.window.address(k, n, out_row, ky), k.scratch + VECTOR_BYTES + ky * 8)
        with k.loop(self.blocks) as block, k.loop(k["out_width"], step=self.rows) as x:
            self._write(k, self._sum(k, block, x), block, x)
        with k.loop(self.out_blocks) as block:
            row = k["y"] + k.unit * k["y_row"] + block * k["y_block"]
            zero_halo(k, row, k["out_width"], k["y_left"], k["y_right"])

    def _sum(self, k: Function, block: Value, x: Value) -> list[Value]:
        """[R·m] sums of R pixels."""
        kh, kw = self.window.size
        first = (x * self.window.stride[1] - self.window.before[1]) * VECTOR_BYTES + block * k["x_block"]
        tap_bytes = self.outputs * VECTOR_BYTES
        w = k["w"] + block * (kh * kw * tap_bytes)

        @k.fold(kh, [k.vector(0.0)] * (self.rows * self.outputs))
        def total(ky: Value, total: list[Value]) -> Sequence[Value]:
            source = k.load(k.scratch + VECTOR_BYTES + ky * 8, PTR) + first
            weights = w + ky * (kw * tap_bytes)
            if kw <= UNROLLED_TAPS:
                loaded: dict[int, Value] = {}
                for kx in range(kw):
                    total = self._tap(k, total, source, weights, kx, loaded)
                return total

            @k.fold(kw, total)
            def total_of_row(kx: Value, total: list[Value]) -> Sequence[Value]:
                offset = kx * (self.window.dilation[1] * VECTOR_BYTES)
                return self._tap(k, total, source + offset, weights + kx * tap_bytes, 0, {})

            return total_of_row

        return total

    def _tap(
        self, k: Function, total: list[Value], source: Value, w: Value, kx: int, loaded: dict[int, Value]
    ) -> list[Value]:
        """One column of the window; `loaded` are the pixels of this row that are in registers, by column."""
        total = list(total)
        weights = [k.load(w + (kx * self.outputs + j) * VECTOR_BYTES) for j in range(self.outputs)]
        for r in range(self.rows):
            column = r * self.window.stride[1] + kx * self.window.dilation[1]
            if column not in loaded:
                loaded[column] = k.load(source + column * VECTOR_BYTES)
            for j, weight in enumerate(weights):
                total[r * self.outputs + j] = k.fma(loaded[column], weight, total[r * self.outputs + j])
        return total

    def _write(self, k: Function, total: list[Value], block: Value, x: Value) -> None:
        """Epilogue, and out: pixels beyond the row and blocks beyond the channels go to a dummy in the scratch."""
        m = self.outputs
        pixels = [interleave(k, total[r * m : (r + 1) * m]) if m > 1 else [total[r]] for r in range(self.rows)]
        for j in range(m):
            out_block: Index = block * m + j
            exists = out_block < self.out_blocks
            out_block = k.minimum(out_block, self.out_blocks - 1)
            channels = self.epilogue.begin(k, out_block)
            row = k["y"] + k.unit * k["y_row"] + out_block * k["y_block"]
            for r in range(self.rows):
                inside = (x + r < k["out_width"]) & exists
                residual = None
                if self.epilogue.residual:
                    place = k["r"] + k.unit * k["r_row"] + out_block * k["r_block"] + (x + r) * VECTOR_BYTES
                    residual = k.select(inside, place, k.scratch)
                y = channels.apply(k, pixels[r][j], residual)
                k.store(y, k.select(inside, row + (x + r) * VECTOR_BYTES, k.scratch))


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
    rows = max(1, min(8, accumulators(plan.target) // (2 * outputs)))
    window = Window(conv.weight.shape[2:], op.stride, op.dilation, op.padding[:2])
    blocks = -(-op.groups // LANES)
    kernel = ConvDepthwise(blocks, len(conv.order) // LANES, outputs, rows, window, conv.epilogue)
    left = window.before[1]
    x = plan.blocked(x_node, left, max(0, window.reach(-(-out_width // rows) * rows) - left - width))
    residual = conv.residual(plan)
    form = conv.form("depthwise")
    arguments: dict[str, Argument] = {
        **x.arguments("x"),
        **plan.new_blocked(conv.node).arguments("y"),
        **(residual.arguments("r") if residual else {}),
        **conv.epilogue_arguments(plan),
        **dict(zip(SIZES, (height, width, out_height, out_width), strict=True)),
        "w": plan.weight(conv.weight, form, lambda w: pack_depthwise(w, blocks, outputs)),
        "zeros": plan.zero_row(x),
    }
    plan.call(conv.node, kernel, arguments, n * out_height, label="depthwise {}x{}".format(*window.size))


def pack_depthwise(weight: Array, blocks: int, outputs: int) -> Array:
    """[block][Kh][Kw][m][16] of weight[C·m, 1, Kh, Kw]."""
    _, _, kh, kw = weight.shape
    padded = np.zeros((blocks * LANES, outputs, kh, kw), np.float32)
    padded[: len(weight) // outputs] = weight.reshape(-1, outputs, kh, kw)
    return aligned(padded.reshape(blocks, LANES, outputs, kh, kw).transpose(0, 3, 4, 2, 1))

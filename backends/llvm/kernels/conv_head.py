"""conv2d of a planar image with few channels to a blocked one: the first layer of a network.

for output row (n, y) of the unit: copy the rows it needs, zeros around them
  for panel of 16·`vectors` output channels, for R output pixels:
    for Ci, ky, kx:
        R x `vectors` accumulators += x[c, y·s + ky·d, x·s + kx·d] · w[panel, c, ky, kx]
    epilogue, to the row
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graphsr.op import Array

from ..kernel import Argument, blocked_slots
from ..loops import I64, LANES, PTR, VECTOR_BYTES, Function, Index, Value
from ..memory import aligned
from .epilogue import Epilogue
from .layout import row_of_image, zero_halo
from .register_tile import InRegisters, direct_tile_of, register_tile

if TYPE_CHECKING:
    from ..plan import Planner
    from ..target import Target
    from .conv import Convolution

SIZES = ("height", "width", "out_height", "out_width")


@dataclass(frozen=True)
class Window:
    """Kernel size, stride, dilation and padding (top, left)."""

    size: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    before: tuple[int, int]

    @property
    def taps(self) -> int:
        return self.size[0] * self.size[1]

    def row(self, k: Function, out_row: Value, ky: Index) -> Value:
        """The input row under row ky of the window; may lie outside the image."""
        return out_row * self.stride[0] + ky * self.dilation[0] - self.before[0]

    def address(self, k: Function, n: Value, out_row: Value, ky: Index) -> Value:
        """Where that row of image n of the blocked tensor x lies; see `row_of_image`."""
        return row_of_image(k, n, self.row(k, out_row, ky))

    def reach(self, out_width: int) -> int:
        """Input columns that so many output columns see, from the left padding on."""
        return (out_width - 1) * self.stride[1] + (self.size[1] - 1) * self.dilation[1] + 1


@dataclass(frozen=True)
class ConvHead(InRegisters):
    """See the loop nest above."""

    ci: int
    panels: int
    vectors: int
    rows: int
    window: Window
    epilogue: Epilogue
    shuffle: int = 1

    def slots(self) -> Mapping[str, str]:
        residual = blocked_slots("r") if self.epilogue.residual else {}
        pointers = {"x": PTR, "w": PTR, "pitch": I64}
        return {**blocked_slots("y"), **residual, **pointers, **self.epilogue.slots(), **dict.fromkeys(SIZES, I64)}

    def body(self, k: Function, target: Target) -> None:
        (kh, kw), (_, step), (_, spread) = self.window.size, self.window.stride, self.window.dilation
        n, out_row = k.unit // k["out_height"], k.unit % k["out_height"]
        line = self.vectors * VECTOR_BYTES
        stage = k.scratch + VECTOR_BYTES
        self._stage(k, n, out_row, stage)
        with k.loop(self.panels) as panel, k.loop(k["out_width"], step=self.rows) as x:
            a, b = stage + x * (step * 4), k["w"] + panel * (self.ci * kh * kw * line)

            @k.fold(self.ci * kh, [k.vector(0.0)] * (self.rows * self.vectors))
            def total(row: Value, total: list[Value]) -> Sequence[Value]:
                a_row, b_row = a + row * k["pitch"], b + row * (kw * line)

                # one column at a time: LLVM would keep what neighbouring pixels share in registers, and run out of them
                @k.fold(kw, total)
                def total_of_row(kx: Value, total: list[Value]) -> Sequence[Value]:
                    a_tap, b_tap = a_row + kx * (spread * 4), b_row + kx * line
                    return register_tile(k, total, a_tap, b_tap, self.rows, step * 4, [0])

                return total_of_row

            _write(self, k, total, panel, x)
        _halo(self, k)

    def row_under(self, k: Function, out_row: Value, ky: Index) -> tuple[Value, Value]:
        """The input row under row ky of the window, and whether it is in the image."""
        y = self.window.row(k, out_row, ky)
        return y, (y >= 0) & (y < k["height"])

    def _stage(self, k: Function, n: Value, out_row: Value, stage: Value) -> None:
        """Copy the rows under the window, [Ci][Kh][pitch] floats, with zeros for what lies outside the image."""
        (kh, _), left = self.window.size, self.window.before[1]
        with k.loop(self.ci) as c, k.loop(kh) as ky:
            target = stage + (c * kh + ky) * k["pitch"]
            with k.loop(k["pitch"], step=VECTOR_BYTES) as at:
                k.store(k.vector(0.0), target + at, align=4)
            y, inside = self.row_under(k, out_row, ky)
            with k.when(inside):
                source = k["x"] + ((n * self.ci + c) * k["height"] + y) * k["width"] * 4
                with k.loop(k["width"], step=LANES) as x:
                    mask = k.first_lanes(k["width"] - x)
                    k.store_some(k.load_some(source + x * 4, mask), target + (x + left) * 4, mask)


def _write(kernel: ConvHead, k: Function, total: list[Value], panel: Value, x: Value) -> None:
    """Epilogue of R pixels, and out: pixels beyond the row go to a dummy in the scratch."""
    vectors, s = kernel.vectors, kernel.shuffle
    blocks = kernel.panels * vectors // s**2
    n_row = k.unit * s
    for v in range(vectors):
        block = panel * vectors + v
        channels = kernel.epilogue.begin(k, block)
        cell, inner = block // blocks, block % blocks
        dy, dx = (cell // s, cell % s) if s > 1 else (0, 0)
        out = k["y"] + (n_row + dy) * k["y_row"] + (inner if s > 1 else block) * k["y_block"]
        for r in range(kernel.rows):
            pixel = x + r
            inside = pixel < k["out_width"]
            residual = None
            if kernel.epilogue.residual:
                place = k["r"] + k.unit * k["r_row"] + block * k["r_block"] + pixel * VECTOR_BYTES
                residual = k.select(inside, place, k.scratch)
            y = channels.apply(k, total[r * vectors + v], residual)
            place = out + (pixel * s + dx) * VECTOR_BYTES
            k.store(y, k.select(inside, place, k.scratch) if r else place)


def _halo(kernel: ConvHead, k: Function) -> None:
    """Zeros beside the rows that the unit wrote."""
    s = kernel.shuffle
    blocks = kernel.panels * kernel.vectors // s**2
    with k.loop(s) as dy, k.loop(blocks) as block:
        row = k["y"] + (k.unit * s + dy) * k["y_row"] + block * k["y_block"]
        zero_halo(k, row, k["out_width"] * s, k["y_left"], k["y_right"])


def lower_head(plan: Planner, conv: Convolution) -> None:
    """Add the call for a convolution with one group."""
    x_node = conv.node.inputs[0]
    _, ci, height, width = x_node.type.dims
    n, _, out_height, out_width = conv.node.type.dims
    kh, kw = conv.weight.shape[2:]
    top, left, _, _ = conv.op.padding
    window = Window((kh, kw), conv.op.stride, conv.op.dilation, (top, left))
    vectors, rows = direct_tile_of(plan.target, len(conv.order) // LANES)
    panels = len(conv.order) // LANES // vectors
    covered = -(-out_width // rows) * rows
    pitch = -(-max(window.reach(covered), left + width) // LANES) * VECTOR_BYTES
    residual = conv.residual(plan)
    form = conv.form(f"head {vectors}")
    arguments: dict[str, Argument] = {
        "x": plan.planar(x_node),
        **plan.new_blocked(conv.result).arguments("y"),
        **(residual.arguments("r") if residual else {}),
        **conv.epilogue_arguments(plan),
        **dict(zip(SIZES, (height, width, out_height, out_width), strict=True)),
        "w": plan.weight(conv.weight, form, lambda w: pack_planar(w, conv.order, vectors)),
        "pitch": pitch,
    }
    kernel = ConvHead(ci, panels, vectors, rows, window, conv.epilogue, conv.shuffle)
    covers = (conv.shuffled,) if conv.shuffled else ()
    scratch = VECTOR_BYTES + ci * kh * pitch
    label = f"direct {kh}x{kw} of planar"
    plan.call(conv.node, kernel, arguments, n * out_height, label=label, covers=covers, scratch=scratch)


def pack_planar(weight: Array, order: Array, vectors: int) -> Array:
    """[panel][Ci][Kh][Kw][16·vectors] of weight[Co, Ci, Kh, Kw]."""
    padded = np.zeros((len(order), *weight.shape[1:]), np.float32)
    padded[order >= 0] = weight[order[order >= 0]]
    return aligned(padded.reshape(-1, vectors * LANES, *weight.shape[1:]).transpose(0, 2, 3, 4, 1))

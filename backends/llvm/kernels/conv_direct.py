"""conv2d as a plain sum: any kernel size, stride, dilation and padding, to a blocked image.

    for output row (n, y) of the unit:                     [planar input: copy the rows it needs, zeros around them]
      for panel of 16·`vectors` output channels, for R output pixels:
        for ky, Ci/16, kx, 16 channels:                    [planar input: Ci, ky, kx]
            R x `vectors` accumulators += x[y·s + ky·d, x·s + kx·d, c] · w[panel, ky, c, kx]
        epilogue, to the row

Implicit matrix product: nothing is gathered, the accumulators stay in registers for the whole sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graphsr.op import Array

from ..kernel import Argument, Kernel, blocked_slots
from ..loops import I64, LANES, PTR, VECTOR_BYTES, Function, Index, Value
from ..memory import aligned
from .epilogue import Epilogue
from .layout import zero_halo
from .register_tile import UNROLL, register_tile, register_tile_of

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

    def row(self, k: Function, out_row: Value, ky: Index) -> Value:
        """The input row under row ky of the window; may lie outside the image."""
        return out_row * self.stride[0] + ky * self.dilation[0] - self.before[0]


@dataclass(frozen=True)
class ConvDirect(Kernel):
    """Blocked input. See the loop nest above."""

    ci_blocks: int
    panels: int
    vectors: int
    rows: int
    window: Window
    epilogue: Epilogue
    shuffle: int = 1

    def slots(self) -> Mapping[str, str]:
        residual = blocked_slots("r") if self.epilogue.residual else {}
        pointers = {"w": PTR, "zeros": PTR}
        sizes = dict.fromkeys(SIZES, I64)
        return {**blocked_slots("x"), **blocked_slots("y"), **residual, **pointers, **self.epilogue.slots(), **sizes}

    def scratch(self, target: Target) -> int:
        return VECTOR_BYTES

    def body(self, k: Function, target: Target) -> None:
        (kh, kw), (_, step), (_, spread) = self.window.size, self.window.stride, self.window.dilation
        n, out_row = k.unit // k["out_height"], k.unit % k["out_height"]
        line = self.vectors * VECTOR_BYTES
        with k.loop(self.panels) as panel, k.loop(k["out_width"], step=self.rows) as x:
            column = (x * step - self.window.before[1]) * VECTOR_BYTES
            w_panel = k["w"] + panel * (kh * kw * self.ci_blocks * LANES * line)

            @k.fold(kh, [k.vector(0.0)] * (self.rows * self.vectors))
            def total(ky: Value, total: list[Value]) -> Sequence[Value]:
                y = self.window.row(k, out_row, ky)
                inside = (y >= 0) & (y < k["height"])
                source = k.select(inside, k["x"] + (n * k["height"] + y) * k["x_row"], k["zeros"]) + column

                @k.fold(self.ci_blocks, total)
                def total_of_row(block: Value, total: list[Value]) -> Sequence[Value]:
                    a = source + block * k["x_block"]
                    b = w_panel + (ky * self.ci_blocks + block) * (kw * LANES * line)

                    @k.fold(kw, total)
                    def total_of_block(kx: Value, total: list[Value]) -> Sequence[Value]:
                        a_pixel, b_pixel = a + kx * (spread * VECTOR_BYTES), b + kx * (LANES * line)

                        @k.fold(LANES, total, step=UNROLL)
                        def total_of_pixel(c: Value, total: list[Value]) -> Sequence[Value]:
                            stride = step * VECTOR_BYTES
                            return register_tile(
                                k,
                                total,
                                a_pixel + c * 4,
                                b_pixel + c * line,
                                self.rows,
                                stride,
                                range(0, 4 * UNROLL, 4),
                            )

                        return total_of_pixel

                    return total_of_block

                return total_of_row

            _write(self, k, total, panel, x)
        _halo(self, k)


@dataclass(frozen=True)
class ConvPlanar(Kernel):
    """Planar input with few channels. See the loop nest above."""

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
                taps = range(0, kw * spread * 4, spread * 4)
                return register_tile(k, total, a + row * k["pitch"], b + row * (kw * line), self.rows, step * 4, taps)

            _write(self, k, total, panel, x)
        _halo(self, k)

    def _stage(self, k: Function, n: Value, out_row: Value, stage: Value) -> None:
        """Copy the rows under the window, [Ci][Kh][pitch] floats, with zeros for what lies outside the image."""
        (kh, _), left = self.window.size, self.window.before[1]
        with k.loop(self.ci) as c, k.loop(kh) as ky:
            target = stage + (c * kh + ky) * k["pitch"]
            with k.loop(k["pitch"], step=VECTOR_BYTES) as at:
                k.store(k.vector(0.0), target + at, align=4)
            y = self.window.row(k, out_row, ky)
            with k.when((y >= 0) & (y < k["height"])):
                source = k["x"] + ((n * self.ci + c) * k["height"] + y) * k["width"] * 4
                with k.loop(k["width"], step=LANES) as x:
                    mask = k.first_lanes(k["width"] - x)
                    k.store_some(k.load_some(source + x * 4, mask), target + (x + left) * 4, mask)


def _write(kernel: ConvDirect | ConvPlanar, k: Function, total: list[Value], panel: Value, x: Value) -> None:
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


def _halo(kernel: ConvDirect | ConvPlanar, k: Function) -> None:
    """Zeros beside the rows that the unit wrote."""
    s = kernel.shuffle
    blocks = kernel.panels * kernel.vectors // s**2
    with k.loop(s) as dy, k.loop(blocks) as block:
        row = k["y"] + (k.unit * s + dy) * k["y_row"] + block * k["y_block"]
        zero_halo(k, row, k["out_width"] * s, k["y_left"], k["y_right"])


def lower_direct(plan: Planner, conv: Convolution) -> None:
    """Add the call for a convolution with one group."""
    from ..plan import NoKernel

    if conv.op.groups != 1:
        raise NoKernel("grouped convolution")
    x_node = conv.node.inputs[0]
    _, ci, height, width = x_node.type.dims
    n, _, out_height, out_width = conv.node.type.dims
    kh, kw = conv.weight.shape[2:]
    top, left, _, _ = conv.op.padding
    window = Window((kh, kw), conv.op.stride, conv.op.dilation, (top, left))
    vectors, rows = register_tile_of(plan.target, len(conv.order) // LANES)
    panels = len(conv.order) // LANES // vectors
    covered = -(-out_width // rows) * rows
    reach = (covered - 1) * window.stride[1] + (kw - 1) * window.dilation[1] + 1  # input columns, from −left
    residual = conv.residual(plan)
    arguments: dict[str, Argument] = {
        **(residual.arguments("r") if residual else {}),
        **conv.epilogue_arguments(plan),
        **dict(zip(SIZES, (height, width, out_height, out_width), strict=True)),
    }
    kernel: Kernel
    if plan.is_blocked(x_node) or ci >= LANES // 2:
        x = plan.blocked(x_node, left, max(0, reach - left - width))
        kernel = ConvDirect(-(-ci // LANES), panels, vectors, rows, window, conv.epilogue, conv.shuffle)
        form = conv.form(f"direct {vectors}")
        arguments["w"] = plan.weight(conv.weight, form, lambda w: pack_blocked(w, conv.order, vectors))
        arguments |= {**x.arguments("x"), "zeros": plan.zero_row(x)}
        scratch = kernel.scratch(plan.target)
    else:
        kernel = ConvPlanar(ci, panels, vectors, rows, window, conv.epilogue, conv.shuffle)
        pitch = -(-max(reach, left + width) // LANES) * VECTOR_BYTES
        form = conv.form(f"planar {vectors}")
        arguments["w"] = plan.weight(conv.weight, form, lambda w: pack_planar(w, conv.order, vectors))
        arguments |= {"x": plan.planar(x_node), "pitch": pitch}
        scratch = VECTOR_BYTES + ci * kh * pitch
    arguments |= plan.new_blocked(conv.result).arguments("y")
    covers = (conv.shuffled,) if conv.shuffled else ()
    label = f"direct {kh}x{kw}"
    plan.call(conv.node, kernel, arguments, n * out_height, label=label, covers=covers, scratch=scratch)


def pack_blocked(weight: Array, order: Array, vectors: int) -> Array:
    """[panel][Kh][Ci/16][Kw][16][16·vectors] of weight[Co, Ci, Kh, Kw]."""
    co, ci, kh, kw = weight.shape
    blocks = -(-ci // LANES)
    padded = np.zeros((len(order), blocks * LANES, kh, kw), np.float32)
    padded[order >= 0, :ci] = weight[order[order >= 0]]
    w = padded.reshape(-1, vectors * LANES, blocks, LANES, kh, kw)
    return aligned(w.transpose(0, 4, 2, 5, 3, 1))


def pack_planar(weight: Array, order: Array, vectors: int) -> Array:
    """[panel][Ci][Kh][Kw][16·vectors] of weight[Co, Ci, Kh, Kw]."""
    padded = np.zeros((len(order), *weight.shape[1:]), np.float32)
    padded[order >= 0] = weight[order[order >= 0]]
    return aligned(padded.reshape(-1, vectors * LANES, *weight.shape[1:]).transpose(0, 2, 3, 4, 1))

"""local_conv2d: a convolution with weights of its own at every position, on blocked images.

    for position (h, w) and panel of 16·`vectors` output channels of the unit, for R images:
        for i, Ci/16, j, 16 channels:
            R x `vectors` accumulators += x[h·s + i, w·s + j, c] · w[h, w, panel, i, c, j]
        bias[h, w, panel], epilogue, to the pixel

Every weight is multiplied once per image, so what limits small batches is how fast memory gives the weights. They lie
in the order in which they are read, without padding between the input channels: each unit reads one run of them, once
for as many images as the registers hold, and asks for what follows ahead of time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from graphsr.ir import Node
from graphsr.op import Array, Op
from graphsr.ops import LocalConv2d

from ...layer import layer_of
from ..kernel import Argument, blocked_slots
from ..loops import I64, LANES, PTR, VECTOR_BYTES, Function, Value
from ..memory import aligned
from .activation import has_activation
from .epilogue import Epilogue
from .layout import lane_masks, zero_halo
from .register_tile import LATENCY, UNROLL, InRegisters, direct_tile_of, register_tile_at
from .row import even_parts

if TYPE_CHECKING:
    from ..plan import Planner
    from ..target import Target

SMALL = 4
"""Images of the last, smaller register tile."""
SMALLEST_UNIT = 200_000
"""Multiply-adds in a unit, some microseconds."""
UNITS_PER_THREAD = 8
AHEAD = 4096
"""Bytes between the weights that are multiplied and those that are prefetched."""

SIZES = ("images", "height", "out_height", "out_width", "top", "left", "each")
"""each: panels of positions in a unit."""


@dataclass(frozen=True)
class LocalConv(InRegisters):
    """Unit: `each` panels, numbered through the positions. See above."""

    reads_weights_once = True

    channels: int
    panels: int
    vectors: int
    rows: int
    """R: images of a register tile."""
    split: int
    """Sums that each sum is split into, to hide the latency of adding."""
    size: tuple[int, int]
    stride: tuple[int, int]
    epilogue: Epilogue

    def slots(self) -> Mapping[str, str]:
        images = {**blocked_slots("x"), **blocked_slots("y")}
        return {**images, "w": PTR, "b": PTR, "zeros": PTR, **self.epilogue.slots(), **dict.fromkeys(SIZES, I64)}

    @property
    def line(self) -> int:
        """Bytes of the weights of one tap in a panel."""
        return self.vectors * VECTOR_BYTES

    @property
    def row_bytes(self) -> int:
        """Of the weights of a row of the window in a panel."""
        return self.channels * self.size[1] * self.line

    def body(self, k: Function, target: Target) -> None:
        first = k.unit * k["each"]
        last = k.minimum(first + k["each"], k["out_height"] * k["out_width"] * self.panels)
        with k.loop(last, start=first) as item:
            position, panel = item // self.panels, item % self.panels
            y, x = position // k["out_width"], position % k["out_width"]
            with k.when(x.equals(0)):
                self._zero_halo(k, y, panel)
            self._images(k, item, y, x)

    def _zero_halo(self, k: Function, y: Value, panel: Value) -> None:
        with k.loop(k["images"]) as n, k.loop(self.vectors) as v:
            row = k["y"] + (n * k["out_height"] + y) * k["y_row"] + (panel * self.vectors + v) * k["y_block"]
            zero_halo(k, row, k["out_width"], k["y_left"], k["y_right"])

    def _images(self, k: Function, item: Value, y: Value, x: Value) -> None:
        """In tiles of R; the last few images in a smaller one."""
        small, done = min(self.rows, SMALL), k.literal(0)
        if self.rows > small:
            many = k.maximum(k["images"] - small, 0)
            with k.loop(many, step=self.rows) as n:
                self._tile(k, item, y, x, n, self.rows)
            done = (many + (self.rows - 1)) // self.rows * self.rows
        with k.loop(k["images"], start=done, step=small) as n:
            self._tile(k, item, y, x, n, small)

    def _tile(self, k: Function, item: Value, y: Value, x: Value, first: Value, rows: int) -> None:
        """A panel of a pixel of so many images; beyond the batch, the last one again."""
        images = [k.minimum(first + r, k["images"] - 1) for r in range(rows)]
        w, column = k["w"] + item * (self.size[0] * self.row_bytes), (x * self.stride[1] - k["left"]) * VECTOR_BYTES
        zeros = [k.vector(0.0)] * (rows * self.vectors * self.split)

        @k.fold(self.size[0], zeros)
        def parts(i: Value, parts: list[Value]) -> Sequence[Value]:
            row = y * self.stride[0] + i - k["top"]
            inside = (row >= 0) & (row < k["height"])
            start = k.select(inside, k["x"] + row * k["x_row"], k["zeros"]) + column
            apart = k.select(inside, k["height"] * k["x_row"], k.literal(0))
            return self._row(k, parts, [start + n * apart for n in images], w + i * self.row_bytes)

        total = parts[: rows * self.vectors]
        for at in range(len(total), len(parts), len(total)):
            total = [a + b for a, b in zip(total, parts[at : at + len(total)], strict=True)]
        self._write(k, total, item, y, x, images)

    def _row(self, k: Function, parts: list[Value], a: Sequence[Value], w: Value) -> Sequence[Value]:
        """A row of the window: blocks of 16 channels, then the channels that are left, pixel by pixel."""
        kw, (whole, rest) = self.size[1], divmod(self.channels, LANES)
        if whole:

            @k.fold(whole, parts)
            def blocks(block: Value, parts: list[Value]) -> Sequence[Value]:
                pixels = [pixel + block * k["x_block"] for pixel in a]
                return self._channels(k, parts, pixels, w + block * (kw * LANES * self.line), kw * LANES)

            parts = blocks
        if rest:

            @k.fold(kw, parts)
            def columns(j: Value, parts: list[Value]) -> Sequence[Value]:
                pixels = [pixel + k["x_block"] * whole + j * VECTOR_BYTES for pixel in a]
                return self._channels(k, parts, pixels, w + (whole * LANES * kw + j * rest) * self.line, rest)

            parts = columns
        return parts

    def _channels(self, k: Function, parts: list[Value], a: Sequence[Value], w: Value, count: int) -> list[Value]:
        """Products with so many floats that follow each other."""

        def products(steps: int, at: Value, parts: list[Value]) -> list[Value]:
            parts, size, b = list(parts), len(parts) // self.split, w + at * self.line
            for u in range(steps):
                for v in range(self.vectors):
                    k.prefetch(b + (AHEAD + u * self.line + v * VECTOR_BYTES), level=3)
                part = slice(u % self.split * size, (u % self.split + 1) * size)
                parts[part] = register_tile_at(
                    k, parts[part], [pixel + at * 4 for pixel in a], b + u * self.line, [4 * u]
                )
            return parts

        whole = count // UNROLL * UNROLL
        for start, stop, steps in ((0, whole, UNROLL), (whole, count, 1)):
            if start < stop:
                parts = k.fold(stop, parts, start=start, step=steps)(partial(products, steps))
        return parts

    def _write(self, k: Function, total: list[Value], item: Value, y: Value, x: Value, images: Sequence[Value]) -> None:
        """Bias, epilogue, and out."""
        for v in range(self.vectors):
            block = item % self.panels * self.vectors + v
            bias = k.load(k["b"] + item * self.line + v * VECTOR_BYTES)
            channels = self.epilogue.begin(k, block)
            for r, n in enumerate(images):
                row = k["y"] + (n * k["out_height"] + y) * k["y_row"] + block * k["y_block"]
                k.store(channels.apply(k, total[r * self.vectors + v] + bias), row + x * VECTOR_BYTES)


def lower(plan: Planner, node: Node) -> None:
    """With constant weights, and the activation of a fused layer."""
    op, activation = _checked(node)
    x_node, weight, bias = node.inputs[:3]
    (_, _, height, width), (n, co, out_height, out_width) = x_node.type.dims, node.type.dims
    ci, *size = weight.type.dims[3:]
    blocks = -(-co // LANES)
    vectors, rows, split = _tile_of(plan.target, blocks, n)
    epilogue = Epilogue(activation=activation, partial=co % LANES > 0)
    kernel = LocalConv(ci, blocks // vectors, vectors, rows, split, (size[0], size[1]), op.stride, epilogue)
    top, left = op.padding[:2]
    x = plan.blocked(x_node, left, max(0, (out_width - 1) * op.stride[1] + size[1] - left - width))
    items, macs = out_height * out_width * kernel.panels, n * ci * size[0] * size[1] * vectors * LANES
    units, each = even_parts(items, max(1, min(UNITS_PER_THREAD * plan.threads, items * macs // SMALLEST_UNIT)))
    arguments: dict[str, Argument] = {
        **x.arguments("x"),
        **plan.new_blocked(node).arguments("y"),
        **dict(zip(SIZES, (n, height, out_height, out_width, top, left, each), strict=True)),
        "w": plan.weight(weight.value, f"local {vectors}", partial(_pack, vectors)),
        "b": plan.weight(bias.value, f"local {vectors}", partial(_pack_bias, vectors)),
        "zeros": plan.zero_row(x),
    }
    if epilogue.partial:
        arguments["lanes"] = plan.weight(bias.value, "lanes", lambda _: lane_masks(co))
    plan.call(node, kernel, arguments, units, label="local {}x{}".format(*size))


def _checked(node: Node) -> tuple[LocalConv2d, Op | None]:
    """The op and its activation. Raises `NoKernel`."""
    from ..plan import NoKernel

    op, layer = layer_of(node)
    assert isinstance(op, LocalConv2d)
    if node.type.dtype != "float32":
        raise NoKernel(f"only float32, not {node.type.dtype}")
    if not all(parameter.is_const for parameter in node.inputs[1:3]):
        raise NoKernel("weights are not constant")
    if layer.residual is not None:
        raise NoKernel("a residual is added")
    if layer.activation is not None and not has_activation(layer.activation):
        raise NoKernel(f"no code for {layer.activation.name} in an epilogue")
    return op, layer.activation


def _tile_of(target: Target, blocks: int, images: int) -> tuple[int, int, int]:
    """(vectors, rows, parts of a sum) of the register tile. A panel divides the blocks."""
    vectors, rows = direct_tile_of(target, blocks)
    if images > 1:
        return vectors, rows, 1
    if target.vector_bits < 512:
        return 1, 1, min(rows, LATENCY)
    vectors = next(v for v in (4, 3, 2, 1) if blocks % v == 0)
    return vectors, 1, 4 // vectors


def _pack(vectors: int, weight: Array) -> Array:
    """[Ho][Wo][panel][Kh]([Ci/16][Kw][16], [Kw][Ci%16])[16·vectors] of weight[Ho, Wo, Co, Ci, Kh, Kw]."""
    ho, wo, co, ci, kh, kw = weight.shape
    width = vectors * LANES
    panels, whole = -(-co // width), ci // LANES * LANES
    packed = aligned(np.zeros((ho, wo, panels, kh, ci * kw, width), np.float32))
    for panel in range(panels):
        w = weight[:, :, panel * width : (panel + 1) * width]
        count = w.shape[2]
        blocks = w[:, :, :, :whole].reshape(ho, wo, count, whole // LANES, LANES, kh, kw)
        blocks = blocks.transpose(0, 1, 5, 3, 6, 4, 2).reshape(ho, wo, kh, whole * kw, count)
        rest = w[:, :, :, whole:].transpose(0, 1, 4, 5, 3, 2).reshape(ho, wo, kh, (ci - whole) * kw, count)
        packed[:, :, panel, :, :, :count] = np.concatenate([blocks, rest], axis=3)
    return packed


def _pack_bias(vectors: int, bias: Array) -> Array:
    """[Ho][Wo][Co], zeros up to whole panels, of bias[Co, Ho, Wo]."""
    co, *positions = bias.shape
    width = vectors * LANES
    packed = np.zeros((*positions, -(-co // width) * width), np.float32)
    packed[..., :co] = bias.transpose(1, 2, 0)
    return aligned(packed)

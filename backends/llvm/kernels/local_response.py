"""local_response_norm: y = x · s^−β, s = κ + α/size · Σ x² over the `size` channels around each.

planar:  for channel of the image: for pixels of the unit, a register at a time:
             the squares of its neighbours in this register, channel by channel; s; y
blocked: for 8 pixels of the row: their squares into scratch, all channels of a pixel side by side amid zeros
         for block of 16 channels, for pixel: the squares there from `size` places, each a channel further; s; y

The channels of a window are added up one by one, as `forward` does: a difference of running sums would cancel, and
spread NaN. The usual powers are roots; others are computed in float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from graphsr.ir import Node
from graphsr.ops import LocalResponseNorm

from ..kernel import Argument, Kernel, blocked_slots
from ..loops import FLOAT, I64, IVECTOR, LANES, PTR, VECTOR_BYTES, Function, Value
from .layout import lane_masks, without_padding, zero_halo
from .math import constant, power
from .row import columns_of, columns_of_unit, load_row, over_row, store_row

if TYPE_CHECKING:
    from ..plan import Planner
    from ..target import Target

PIXELS = 8
"""Whose squares lie in scratch at a time."""
ROOTS = (0.5, 0.75, 1.0)
"""Powers that are roots and products."""


@dataclass(frozen=True)
class Response:
    """What becomes of a sum of squares."""

    before: int
    """Channels of a window before its own."""
    behind: int
    beta: float
    by_roots: bool
    """Whether β is one of `ROOTS` and s is never negative."""

    @property
    def size(self) -> int:
        return self.before + 1 + self.behind

    @property
    def lanes(self) -> int:
        """Of a vector, in parts of a register: what is computed in float64 takes twice the room."""
        return 1 if self.by_roots else 2

    def of(self, k: Function, x: Value, total: Value) -> Value:
        """y"""
        s = k.fma(k.splat(k["alpha"]), total, k.splat(k["kappa"]))
        if not self.by_roots:
            return x * power(k, s, constant(k, -self.beta))
        if self.beta == 1:
            return x / s
        root = k.intrinsic("sqrt", s)
        return x / (root if self.beta == 0.5 else root * k.intrinsic("sqrt", root))


SCALARS = {"alpha": FLOAT, "kappa": FLOAT}


@dataclass(frozen=True)
class RespondInColumns(Kernel):
    """x[images, size, inner]. Unit: `each` of the inner positions of one image."""

    response: Response

    def slots(self) -> Mapping[str, str]:
        return {"x": PTR, "y": PTR, **SCALARS, **dict.fromkeys(("size", "inner", "each"), I64)}

    def body(self, k: Function, target: Target) -> None:
        image, start, width = columns_of_unit(k, k["each"])
        step = k["inner"] * 4
        at = image * k["size"] * step + start * 4
        x, y = k["x"] + at, k["y"] + at
        with k.narrowed(k.register // self.response.lanes), k.loop(k["size"]) as channel:
            first = channel - self.response.before
            window = k.maximum(first, 0), k.minimum(first + self.response.size, k["size"])

            def pixels(i: Value, mask: Value | None) -> None:
                def add(neighbour: Value, total: list[Value]) -> list[Value]:
                    value = load_row(k, x + neighbour * step + i * 4, mask)
                    return [total[0] + value * value]

                (total,) = k.fold(window[1], [k.vector(0.0)], start=window[0])(add)
                here = channel * step + i * 4
                store_row(k, self.response.of(k, load_row(k, x + here, mask), total), y + here, mask)

            over_row(k, width, pixels)


@dataclass(frozen=True)
class RespondInBlocks(Kernel):
    """Of a blocked image. Unit: row y of image n. `pitch` is what the squares of a pixel take, in bytes."""

    response: Response
    partial: bool
    """Whether the last block has lanes beyond the channels: they are set to zero."""

    def slots(self) -> Mapping[str, str]:
        sizes = dict.fromkeys(("blocks", "width", "pitch"), I64)
        lanes = {"lanes": PTR} if self.partial else {}
        return {**blocked_slots("x"), **blocked_slots("y"), **lanes, **SCALARS, **sizes}

    @property
    def lead(self) -> int:
        """Bytes of zeros before the squares of a pixel, and behind them, in whole vectors."""
        return -(-max(self.response.before, self.response.behind) // LANES) * VECTOR_BYTES

    def body(self, k: Function, target: Target) -> None:
        self._surround(k)
        with k.loop(k["width"], step=PIXELS) as first:
            count = k.minimum(k["width"] - first, PIXELS)
            for stage in (self._square, self._respond):
                with k.loop(k["blocks"]) as block, k.loop(count) as i, self._pieces(k) as piece:
                    stage(k, block, i, first, piece)
        with k.loop(k["blocks"]) as block:
            zero_halo(k, self._row(k, "y", block), k["width"], k["y_left"], k["y_right"])

    @contextmanager
    def _pieces(self, k: Function) -> Iterator[Value]:
        lanes = k.register // self.response.lanes
        with k.narrowed(lanes), k.loop(VECTOR_BYTES, step=4 * lanes) as piece:
            yield piece

    def _row(self, k: Function, name: str, block: Value) -> Value:
        return k[name] + k.unit * k[f"{name}_row"] + block * k[f"{name}_block"]

    def _surround(self, k: Function) -> None:
        """Zeros where channels end."""
        with k.loop(PIXELS) as i, k.loop(self.lead, step=VECTOR_BYTES) as at:
            squares = k.scratch + i * k["pitch"] + at
            k.store(k.vector(0.0), squares)
            k.store(k.vector(0.0), squares + self.lead + k["blocks"] * VECTOR_BYTES)

    def _square(self, k: Function, block: Value, i: Value, first: Value, piece: Value) -> None:
        x = k.load(self._row(k, "x", block) + (first + i) * VECTOR_BYTES + piece)
        k.store(x * x, k.scratch + i * k["pitch"] + self.lead + block * VECTOR_BYTES + piece)

    def _respond(self, k: Function, block: Value, i: Value, first: Value, piece: Value) -> None:
        window = k.scratch + i * k["pitch"] + (self.lead - 4 * self.response.before) + block * VECTOR_BYTES + piece

        @k.fold(self.response.size, [k.vector(0.0)])
        def total(neighbour: Value, total: list[Value]) -> list[Value]:
            return [total[0] + k.load(window + neighbour * 4, align=4)]

        at = (first + i) * VECTOR_BYTES + piece
        y = self.response.of(k, k.load(self._row(k, "x", block) + at), total[0])
        if self.partial:
            lanes = k.load(k["lanes"] + block * VECTOR_BYTES + piece, IVECTOR)
            y = without_padding(k, y, lanes)
        k.store(y, self._row(k, "y", block) + at)


def lower(plan: Planner, node: Node) -> None:
    """Blocked images stay blocked, everything else is planar."""
    from ..plan import NoKernel

    op, source = node.op, node.inputs[0]
    assert isinstance(op, LocalResponseNorm)
    if node.type.dtype != "float32":
        raise NoKernel(f"only float32, not {node.type.dtype}")
    images, channels, *image = node.type.dims
    before, behind = (min(side, channels - 1) for side in ((op.size - 1) // 2, op.size // 2))
    response = Response(before, behind, op.beta, op.beta in ROOTS and min(op.alpha, op.kappa) >= 0)
    scalars: dict[str, Argument] = {"alpha": op.alpha / op.size, "kappa": op.kappa}
    if plan.is_blocked(source):
        _lower_blocked(plan, node, response, scalars)
        return
    pieces, each = columns_of(prod(image), 8 * channels)
    arguments: dict[str, Argument] = {"x": plan.planar(source), "y": plan.new_planar(node), **scalars}
    arguments |= {"size": channels, "inner": prod(image), "each": each}
    plan.call(node, RespondInColumns(response), arguments, images * pieces, label="local response")


def _lower_blocked(plan: Planner, node: Node, response: Response, scalars: dict[str, Argument]) -> None:
    n, channels, height, width = node.type.dims
    blocks = -(-channels // LANES)
    kernel = RespondInBlocks(response, partial=channels % LANES != 0)
    pitch = blocks * VECTOR_BYTES + 2 * kernel.lead
    arguments: dict[str, Argument] = {**plan.blocked(node.inputs[0]).arguments("x"), **scalars}
    arguments |= {**plan.new_blocked(node).arguments("y"), "blocks": blocks, "width": width, "pitch": pitch}
    if kernel.partial:
        arguments["lanes"] = lane_masks(channels)
    label = "local response in blocks"
    plan.call(node, kernel, arguments, n * height, label=label, scratch=PIXELS * pitch)

"""Chains of element-wise ops on blocked images.

for block of 16 channels of the row (n, y): for x in the row:
    load the vectors of the images (what is the same for the whole row is loaded once); all steps; store
zeros beside the row
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graphsr.op import Array

from ..kernel import Argument, Kernel, blocked_slots
from ..loops import FLOAT, I64, IVECTOR, LANES, PTR, VECTOR_BYTES, Function, Index, Value
from ..memory import aligned
from .elementwise_ops import Step, evaluate, holds_many, lanes_for
from .layout import lane_masks, without_padding, zero_halo

if TYPE_CHECKING:
    from ..plan import Planner
    from ..target import Target
    from .elementwise import Chain, Operand

IMAGE, PIXEL, CHANNELS, NUMBER = "image", "pixel", "channels", "number"
"""What an operand of a blocked kernel is: an image like the output; one with a single pixel, of one image or of each;
a vector of constants, one per channel; a single number. All but the first are repeated along the row."""


@dataclass(frozen=True)
class InBlocks(Kernel):
    """Unit: row y of image n. See the loop nest above."""

    steps: tuple[Step, ...]
    inputs: tuple[str, ...]
    """Kinds, as above."""
    partial: bool
    """Whether the last block has lanes beyond the channels: they are set to zero."""

    def slots(self) -> Mapping[str, str]:
        slots = blocked_slots("y") | dict.fromkeys(("blocks", "height", "width"), I64)
        for i, kind in enumerate(self.inputs):
            slots |= blocked_slots(f"x{i}") if kind in (IMAGE, PIXEL) else {f"x{i}": PTR}
            if kind == PIXEL:
                slots[f"x{i}_images"] = I64
        return slots | ({"lanes": PTR} if self.partial else {})

    def body(self, k: Function, target: Target) -> None:
        with k.loop(k["blocks"]) as block:
            out = k["y"] + k.unit * k["y_row"] + block * k["y_block"]
            with k.pieces() as piece:
                self._row(k, block, piece, out)
            zero_halo(k, out, k["width"], k["y_left"], k["y_right"])

    def _row(self, k: Function, block: Value, piece: Index, out: Value) -> None:
        """One block of the row, or those of its lanes that fill a register."""
        rows = {i: self._place(k, i, block) for i in range(len(self.inputs))}
        lanes = lanes_for(k, self.steps)
        with k.narrowed(lanes):
            parts = [piece + 4 * first for first in range(0, k.register, lanes)]
            once = [{} if holds_many(self.steps) else self._repeated(k, rows, part) for part in parts]
            with k.loop(k["width"]) as x:
                for part, vectors in zip(parts, once, strict=True):
                    at = x * VECTOR_BYTES + part
                    vectors = vectors or self._repeated(k, rows, part)
                    images = {i: k.load(rows[i] + at) for i, kind in enumerate(self.inputs) if kind == IMAGE}
                    inputs = vectors | images
                    y = evaluate(k, self.steps, [inputs[i] for i in range(len(self.inputs))])
                    if self.partial:  # the mask is read again and again: it would need a register all the way
                        y = without_padding(k, y, k.load(k["lanes"] + block * VECTOR_BYTES + part, IVECTOR))
                    k.store(y, out + at)

    def _place(self, k: Function, i: int, block: Value) -> Value:
        """Where what a block of the row needs of an operand begins."""
        x = k[f"x{i}"]
        match self.inputs[i]:
            case "image":
                return x + k.unit * k[f"x{i}_row"] + block * k[f"x{i}_block"]
            case "pixel":
                image = k.unit // k["height"] * k[f"x{i}_images"]
                return x + image * k[f"x{i}_row"] + block * k[f"x{i}_block"]
            case "channels":
                return x + block * VECTOR_BYTES
        return x

    def _repeated(self, k: Function, rows: Mapping[int, Value], part: Index) -> dict[int, Value]:
        """The vectors of the operands that are the same for the whole row."""
        return {
            i: k.splat(k.load(rows[i], FLOAT)) if kind == NUMBER else k.load(rows[i] + part)
            for i, kind in enumerate(self.inputs)
            if kind != IMAGE
        }


def kind_of(operand: Operand, dims: tuple[int, ...]) -> str | None:
    """What an operand is for an image of this shape; None if a blocked kernel cannot read it."""
    shape = (1,) * (4 - len(operand.shape)) + operand.shape
    channels = (1, dims[1], 1, 1)
    if operand.node.type.dtype != "float32":
        return None
    if operand.node.type.shape == dims:
        return IMAGE
    if operand.node.type.size == 1:
        return NUMBER
    if operand.node.is_const and shape == channels:
        return CHANNELS
    return PIXEL if operand.node.type.shape in (channels, (dims[0], *channels[1:])) else None


def can_be_blocked(plan: Planner, chain: Chain) -> bool:
    """Whether a blocked image is among the operands, and the chain can be computed in that layout."""
    from ..plan import LEAST_BLOCKED

    type_ = chain.root.type
    if type_.dtype != "float32" or type_.rank != 4 or type_.dims[1] < LEAST_BLOCKED:
        return False
    kinds = [kind_of(operand, type_.dims) for operand in chain.operands]
    images = [x.node for x, kind in zip(chain.operands, kinds, strict=True) if kind == IMAGE]
    return None not in kinds and any(plan.is_blocked(node) for node in images)


def lower_blocked(plan: Planner, chain: Chain) -> None:
    """Add the call for a chain of which `can_be_blocked` holds."""
    n, channels, height, width = chain.root.type.dims
    blocks = -(-channels // LANES)
    arguments: dict[str, Argument] = {"blocks": blocks, "height": height, "width": width}
    kinds = []
    for i, operand in enumerate(chain.operands):
        node, kind = operand.node, kind_of(operand, chain.root.type.dims)
        assert kind is not None
        kinds.append(kind)
        if kind in (IMAGE, PIXEL):
            arguments |= plan.blocked(node).arguments(f"x{i}")
        elif kind == CHANNELS:
            arguments[f"x{i}"] = plan.weight(node.value, "by channel", lambda v: _padded(v, blocks))
        else:
            arguments[f"x{i}"] = plan.planar(node)
        if kind == PIXEL:
            arguments[f"x{i}_images"] = int(node.type.dims[0] > 1)
    partial = channels % LANES != 0
    if partial:
        arguments["lanes"] = lane_masks(channels)
    arguments |= plan.new_blocked(chain.root).arguments("y")
    kernel = InBlocks(chain.numbered, tuple(kinds), partial)
    first, *others = chain.nodes
    label, covers = "element-wise in blocks", tuple(others)
    plan.call(first, kernel, arguments, n * height, label=label, note=chain.note, covers=covers)


def _padded(values: Array, blocks: int) -> Array:
    """values[C] and zeros up to whole blocks"""
    padded = np.zeros(blocks * LANES, values.dtype)
    padded[: values.size] = values.ravel()
    return aligned(padded)

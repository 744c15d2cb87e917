"""Volumes as the images of their rows: what the convolutions of volumes share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from graphsr.ir import Node
from graphsr.op import Array
from graphsr.ops import Reshape

from ..loops import I1, LANES, Function, Index, Value
from ..tensor import Blocked
from .conv import Convolution

if TYPE_CHECKING:
    from ..plan import Planner


@dataclass(frozen=True)
class VolumeConvolution(Convolution):
    """Its channels group by group, each in blocks of its own."""

    @property
    def order(self) -> Array:
        groups = self.op.groups
        channels = np.arange(self.node.type.dims[1]).reshape(groups, -1)
        padded = np.full((groups, -(-channels.shape[1] // LANES) * LANES), -1)
        padded[:, : channels.shape[1]] = channels
        return padded.ravel()

    @property
    def _key(self) -> str:
        return f" of volumes in {self.op.groups} groups"


@dataclass(frozen=True, eq=False)
class Rows:
    """A volume that lies as the blocked image of its rows: `image` [N·groups, C/groups, D·H…, W]."""

    image: Node
    groups: int


def rows_of(plan: Planner, node: Node, groups: int) -> Node:
    """The image of the rows of a volume; as it is, where another convolution has just made it."""
    part = plan.left(node)
    if isinstance(part, Rows) and part.groups == groups:
        return part.image
    image = rows_image(node, groups)
    plan.view(image, node)
    return image


def rows_image(node: Node, groups: int) -> Node:
    n, channels, *rows, width = node.type.dims
    return Node(Reshape((n * groups, channels // groups, prod(rows), width)), (node,), node.name, node.origin)


def residual_rows(plan: Planner, conv: VolumeConvolution, right: int = 0) -> Blocked | None:
    """The array that is added, with at least this halo on the right."""
    if conv.layer.residual is None:
        return None
    return plan.blocked(rows_of(plan, conv.node.inputs[conv.layer.residual], conv.op.groups), 0, right)


def locate_rows(
    k: Function,
    taps: Sequence[int],
    steps: Sequence[int],
    spaces: Sequence[int],
    image: Value,
    at: Sequence[Value],
    column: Index,
    entry: Value,
    apart: int,
) -> None:
    """Store where the rows of volume `image` lie that the output at these coordinates reads: one for each tap of all
    axes but the last, every `apart` bytes from `entry` on, each `column` bytes from where it begins; the row of zeros
    where it is outside along any axis. Of every axis: size of the kernel, stride, dilation."""

    def along(a: int, row: Value, inside: Value, entry: Value) -> None:
        if a == len(taps) - 1:
            k.store(k.select(inside, k["x"] + row * k["x_row"], k["zeros"]) + column, entry)
            return
        with k.loop(taps[a]) as tap:
            place = at[a] * steps[a] + tap * spaces[a] - k[f"before{a}"]
            meets = inside & (place >= 0) & (place < k[f"size{a}"])
            along(a + 1, row * k[f"size{a}"] + place, meets, entry + tap * (prod(taps[a + 1 : -1]) * apart))

    along(0, image, k.literal(1, I1), entry)

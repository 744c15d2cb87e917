"""conv_nd over three axes and more of a planar volume with few channels to a blocked one: the first layer of a network.

for output row (n, z, y) of the unit: copy the rows it needs, zeros around them
  for panel of 16·`vectors` output channels, for R output pixels:
    for Ci, taps (z, y), kx:
        R x `vectors` accumulators += x[c, z·s + kz·d, y·s + ky·d, x·s + kx·d] · w[panel, c, (kz, ky), kx]
    epilogue, to the row

This is the first layer of an image (conv_head.py) with a longer list of rows, as volumes.py says: those of a window in
all axes but the last are the rows of one kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import TYPE_CHECKING

from graphsr.ir import Node
from graphsr.op import Array
from graphsr.ops import ConvNd

from ..kernel import Argument
from ..loops import I1, I64, LANES, VECTOR_BYTES, Function, Index, Value
from ..tensor import Blocked
from .conv_direct import coordinates
from .conv_head import SIZES, ConvHead, Window, pack_planar
from .register_tile import direct_tile_of

if TYPE_CHECKING:
    from ..plan import Planner
    from .volumes_rows import VolumeConvolution

Sizes = tuple[int, ...]


@dataclass(frozen=True)
class ConvVolumesHead(ConvHead):
    """See the loop nest above. `window` is that of the image of all rows."""

    taps: Sizes = ()
    steps: Sizes = ()
    spaces: Sizes = ()
    before: Sizes = ()
    """Of every axis but the last: size of the kernel, stride, dilation, padding."""

    def slots(self) -> Mapping[str, str]:
        sizes = [f"{name}{a}" for a in range(len(self.taps)) for name in ("size", "out")]
        return {**super().slots(), **dict.fromkeys(sizes, I64)}

    def row_under(self, k: Function, out_row: Value, ky: Index) -> tuple[Value, Value]:
        """The rows of a volume are numbered through all axes but the last."""
        axes, tap = range(len(self.taps)), ky
        _, *at = coordinates(k, out_row, [k[f"out{a}"] for a in axes])
        places: list[Value] = []
        for a in reversed(axes):
            places.insert(0, at[a] * self.steps[a] + tap % self.taps[a] * self.spaces[a] - self.before[a])
            tap = tap // self.taps[a]
        row, inside = k.literal(0), k.literal(1, I1)
        for a, place in enumerate(places):
            row = row * k[f"size{a}"] + place
            inside = inside & (place >= 0) & (place < k[f"size{a}"])
        return row, inside


def lower_head(plan: Planner, conv: VolumeConvolution, op: ConvNd, image: Node, residual: Blocked | None) -> None:
    """Add the call for a convolution with one group, whose output is the blocked `image` of its rows."""
    x, taps = conv.node.inputs[0], conv.weight.shape[2:]
    (n, ci, *size), out = x.type.dims, conv.node.type.dims[2:]
    rows, width, out_rows, out_width = prod(size[:-1]), size[-1], prod(out[:-1]), out[-1]
    left = op.padding[len(taps) - 1]
    window = Window((prod(taps[:-1]), taps[-1]), (1, op.stride[-1]), (1, op.dilation[-1]), (0, left))
    vectors, pixels = direct_tile_of(plan.target, len(conv.order) // LANES)
    covered = -(-out_width // pixels) * pixels
    pitch = -(-max(window.reach(covered), left + width) // LANES) * VECTOR_BYTES
    kernel = ConvVolumesHead(
        ci=ci,
        panels=len(conv.order) // LANES // vectors,
        vectors=vectors,
        rows=pixels,
        window=window,
        epilogue=conv.epilogue,
        taps=taps[:-1],
        steps=op.stride[:-1],
        spaces=op.dilation[:-1],
        before=op.padding[: len(taps) - 1],
    )
    measures = {f"size{a}": length for a, length in enumerate(size[:-1])}
    measures |= {f"out{a}": length for a, length in enumerate(out[:-1])}
    arguments: dict[str, Argument] = {
        "x": plan.planar(x),
        **plan.blocked(image).arguments("y"),
        **(residual.arguments("r") if residual else {}),
        **conv.epilogue_arguments(plan),
        **dict(zip(SIZES, (rows, width, out_rows, out_width), strict=True)),
        **measures,
        "w": plan.weight(conv.weight, conv.form(f"head {vectors}"), partial(_pack, conv, vectors)),
        "pitch": pitch,
    }
    label = "direct {} of planar".format("x".join(map(str, taps)))
    scratch = VECTOR_BYTES + ci * window.size[0] * pitch
    plan.call(conv.node, kernel, arguments, n * out_rows, label=label, scratch=scratch)


def _pack(conv: VolumeConvolution, vectors: int, weight: Array) -> Array:
    return pack_planar(weight.reshape(*weight.shape[:2], -1, weight.shape[-1]), conv.order, vectors)

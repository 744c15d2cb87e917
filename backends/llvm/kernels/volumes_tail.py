"""conv_nd over three axes and more of a blocked volume to a planar one with few channels: the last layer of a network.

for output row (n, z, y) of the band: for 16 output pixels:
  for P of them at a time: for tap (z, y), Ci/16, kx:
      Co x P accumulators += x[z·s + kz·d, y·s + ky·d, x·s + kx·d] · w[tap, Ci/16, kx, co]
  for co: sum up the lanes of 16 accumulators into the lanes of one vector; epilogue, to NumPy's layout

This is the last layer of an image (conv_tail.py) with a longer list of rows, as volumes.py says: those of a window in
all axes but the last are the rows of one kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

from graphsr.op import Array
from graphsr.ops import ConvNd

from ..kernel import Argument
from ..loops import I64, Function, Value
from .conv_direct import coordinates
from .conv_head import Window
from .conv_tail import ConvTail, call_tail, pack_tail, tail_of
from .volumes_rows import VolumeConvolution, locate_rows, rows_of

if TYPE_CHECKING:
    from ..plan import Planner

Sizes = tuple[int, ...]

MOST_CHANNELS = 6
"""Output channels up to which this was measured to be faster than Winograd and its planar copy: with 32 and 64 input
channels 1.2 times with 6, 0.9 times with 8."""


@dataclass(frozen=True)
class ConvVolumesTail(ConvTail):
    """See the loop nest above. `window` is that of the image of all rows."""

    taps: Sizes = ()
    steps: Sizes = ()
    spaces: Sizes = ()
    """Of every axis: size of the kernel, stride, dilation."""

    def slots(self) -> Mapping[str, str]:
        sizes = [f"{name}{a}" for a in range(len(self.taps) - 1) for name in ("size", "out", "before")]
        return {**super().slots(), **dict.fromkeys(sizes, I64)}

    def locate(self, k: Function, n: Value, out_row: Value, table: Value) -> None:
        _, *place = coordinates(k, out_row, [k[f"out{a}"] for a in range(len(self.taps) - 1)])
        locate_rows(k, self.taps, self.steps, self.spaces, n, place, 0, table, 8)


def lower_tail(plan: Planner, conv: VolumeConvolution, op: ConvNd) -> None:
    """Add the call for a convolution with one group and at most `MOST_CHANNELS` output channels."""
    x, taps, out = conv.node.inputs[0], conv.weight.shape[2:], conv.node.type.dims[2:]
    outer = range(len(taps) - 1)
    window = Window((prod(taps[:-1]), taps[-1]), (1, op.stride[-1]), (1, op.dilation[-1]), (0, op.padding[outer.stop]))
    kernel = ConvVolumesTail(
        *tail_of(plan, conv, window),
        window,
        replace(conv.epilogue, partial=False),
        taps=taps,
        steps=op.stride,
        spaces=op.dilation,
    )
    arguments: dict[str, Argument] = {"w": plan.weight(conv.weight, "tail", _pack)}
    arguments |= {f"size{a}": x.type.dims[2 + a] for a in outer}
    arguments |= {f"out{a}": out[a] for a in outer}
    arguments |= {f"before{a}": op.padding[a] for a in outer}
    label = "tail {}".format("x".join(map(str, taps)))
    call_tail(plan, conv, kernel, rows_of(plan, x, 1), (prod(out[:-1]), out[-1]), arguments, label)


def _pack(weight: Array) -> Array:
    """The taps of all axes but the last as the rows of one kernel."""
    return pack_tail(weight.reshape(*weight.shape[:2], -1, weight.shape[-1]))

"""conv_nd over three axes by Winograd's F(m, 3) in the planes: 3x3 taps, stride 1; any taps along the depth.

Y = Aᵀ [ Σ_z Σ_c (G g_z Gᵀ) ⊙ (Bᵀ d_z B) ] A: the products of the slices that an output meets are summed before the
output transform, so a tile is that of an image with so many times the channels. The loop nest is that of
`conv_winograd`, whose tile table says where the rows of each slice begin.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from graphsr.ir import Node
from graphsr.op import Array
from graphsr.ops import ConvNd

from ..kernel import Argument
from ..loops import LANES
from .conv_winograd import choose_blocking, cut_tiles, weights
from .volumes_rows import VolumeConvolution, residual_rows, rows_of

if TYPE_CHECKING:
    from ..plan import Planner


@dataclass(frozen=True)
class SliceConvolution(VolumeConvolution):
    """Its weights as those of images: [Co, slices · Ci, 3, 3], the channels of a slice in whole blocks."""

    planes: Array

    @property
    def weight(self) -> Array:
        return self.planes


def lower_winograd(plan: Planner, volume: VolumeConvolution, op: ConvNd, y_image: Node, m: int) -> None:
    """Add the call for a convolution with 3x3 taps in the planes."""
    node = volume.node
    slices = volume.weight.shape[2]
    planes = plan.rearranged(volume.weight, "slices as channels", _planes)
    conv = SliceConvolution(node, volume.op, volume.layer, volume.shuffled, planes)
    (n, _, depth, height, width), (_, _, out_depth, out_height, out_width) = node.inputs[0].type.dims, node.type.dims
    front, top, left = op.padding[:3]
    tile_rows, tile_columns = -(-out_height // m), -(-out_width // m)
    covered = tile_columns * m
    x = plan.blocked(rows_of(plan, node.inputs[0], 1), left, max(0, covered + 2 - left - width))
    y = plan.blocked(y_image, 0, covered - out_width)
    residual = residual_rows(plan, conv, covered - out_width)
    kernel = replace(choose_blocking(plan, conv, m), slices=slices)
    units = cut_tiles(n * out_depth * tile_rows * tile_columns, kernel.tiles, kernel.rows, plan.threads)
    arguments: dict[str, Argument] = {
        **x.arguments("x"),
        **y.arguments("y"),
        **(residual.arguments("r") if residual else {}),
        **weights(plan, conv, kernel),
        "units": units,
        "zeros": plan.zero_row(x),
        "not_finite": plan.not_finite,
        **conv.epilogue_arguments(plan),
        "height": height,
        "width": width,
        "out_height": out_height,
        "out_width": out_width,
        "tile_rows": tile_rows,
        "tile_columns": tile_columns,
        "top": top,
        "pad_left": left,
        "depth": depth,
        "out_depth": out_depth,
        "slice_step": op.stride[0],
        "slice_space": op.dilation[0],
        "front": front,
    }
    plan.call(node, kernel, arguments, len(units), label=f"winograd F({m},3) of {slices} slices")


def _planes(weight: Array) -> Array:
    """weight[Co, Ci, slices, 3, 3] -> [Co, slices · Ci, 3, 3], with zeros where a slice's channels fill no block."""
    co, ci, slices, *taps = weight.shape
    planes = np.zeros((co, slices, -(-ci // LANES) * LANES, *taps), weight.dtype)
    planes[:, :, :ci] = weight.swapaxes(1, 2)
    return planes.reshape(co, -1, *taps)

"""conv_nd and conv_transpose_nd over three axes and more, on volumes whose rows are those of one tall image.

    for chunk of output pixels of the unit:         where each is read, for every tap (z, y) of the kernel, and written
      for panel of 16·`vectors` output channels of the unit, for R output pixels:
        for tap (z, y), Ci/16, kx, 16 channels:
            R x `vectors` accumulators += x[z·s + kz·d, y·s + ky·d, x·s + kx·d, c] · w[panel, tap, c, kx]
        epilogue, to the pixels

This is direct convolution with a longer list of rows: a volume [N, C, D, H, W] lies as the blocked image
[N, C, D·H, W], and whether a row is outside is asked for each axis. A group of channels counts as an image of its own,
whatever its size, so channels of different groups never meet in a block. A transposed convolution is one such step for
each phase of its output (see conv_transpose.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from math import gcd, prod
from typing import TYPE_CHECKING

import numpy as np

from graphsr.ir import Node
from graphsr.op import Array
from graphsr.ops import Conv2d, ConvNd, ConvTranspose2d, ConvTransposeNd

from ...layer import layer_of
from ..kernel import Argument, blocked_slots
from ..loops import I64, LANES, PTR, VECTOR_BYTES, Function, Value
from .activation import has_activation
from .conv_direct import ConvDirect, cut, pack_blocked
from .conv_transpose import Phase, as_conv, phases
from .layout import zero_halo
from .register_tile import direct_tile_of, register_tile_at
from .volumes_head import lower_head
from .volumes_rows import Rows, VolumeConvolution, locate_rows, residual_rows, rows_image, rows_of
from .volumes_tail import MOST_CHANNELS, lower_tail
from .volumes_winograd import lower_winograd
from .winograd_weights import winograd_tile

if TYPE_CHECKING:
    from ..plan import Planner
    from ..weight_forms import WeightForm

Sizes = tuple[int, ...]
MEASURES = ("size", "out", "part", "before", "first")
"""Of each axis: elements of the input, of the output and of what is computed now; see `Phase` for the others."""


@dataclass(frozen=True)
class ConvVolumes(ConvDirect):
    """See the loop nest above. `size` counts the taps of all axes but the last as rows of one kernel."""

    taps: Sizes = ()
    steps: Sizes = ()
    spaces: Sizes = ()
    apart: Sizes = ()
    """Of every axis: size of the kernel, stride, dilation, and how far apart the outputs lie."""
    channels: int = LANES
    """Of a block of the input that are multiplied: fewer than 16 where a group has no more."""

    def slots(self) -> Mapping[str, str]:
        residual = blocked_slots("r") if self.epilogue.residual else {}
        sizes = [f"{name}{a}" for a in range(len(self.taps)) for name in MEASURES]
        return {
            **blocked_slots("x"),
            **blocked_slots("y"),
            **residual,
            "w": PTR,
            "zeros": PTR,
            **self.epilogue.slots(),
            **dict.fromkeys((*sizes, "pixels", "span", "parts", "ranges", "panel_span"), I64),
        }

    @property
    def part_sizes(self) -> tuple[str, ...]:
        return tuple(f"part{a}" for a in range(len(self.taps)))

    def _locate_pixel(self, k: Function, at: Sequence[Value], part: Value, group: Value, entry: Value) -> None:
        """As for images, along all axes."""
        axes, panels = range(len(self.taps)), self.panels // self.groups * self.vectors
        image = at[0] * self.groups + group
        column = (at[-1] * self.steps[-1] - k[f"before{axes[-1]}"]) * VECTOR_BYTES
        locate_rows(k, self.taps, self.steps, self.spaces, image, at[1:], column, entry, self.table_row)
        places = [at[1 + a] * self.apart[a] + k[f"first{a}"] for a in axes]
        row = image
        for a in axes[:-1]:
            row = row * k[f"out{a}"] + places[a]
        blocks = group * panels
        start = k["y"] + row * k["y_row"]
        out = entry + self.size[0] * self.table_row
        k.store(start + (places[-1] * VECTOR_BYTES - blocks * k["y_block"]), out)
        if self.epilogue.residual:
            residual = k["r"] + row * k["r_row"]
            k.store(residual + (places[-1] * VECTOR_BYTES - blocks * k["r_block"]), out + self.table_row)
        begins = (part % k["ranges"]).equals(0) & places[-1].equals(0)
        with k.when(begins), k.loop(panels) as block:
            zero_halo(k, start + block * k["y_block"], k[f"out{axes[-1]}"], k["y_left"], k["y_right"])

    def _tile(self, k: Function, panel: Value, pixel: Value, rows: int) -> None:
        """As for images; where there is one block with few channels, its zeros are left out."""
        if self.channels == LANES:
            super()._tile(k, panel, pixel, rows)
            return
        line, table = self.vectors * VECTOR_BYTES, k.scratch + pixel * 8

        @k.fold(self.size[0], [k.vector(0.0)] * (rows * self.vectors))
        def total(tap: Value, total: list[Value]) -> Sequence[Value]:
            a = [k.load(table + tap * self.table_row + r * 8, PTR) for r in range(rows)]
            b = k["w"] + panel * self.panel_bytes + tap * (self.size[1] * LANES * line)

            @k.fold(self.size[1], total)
            def total_of_row(kx: Value, total: list[Value]) -> Sequence[Value]:
                @k.fold(self.channels, total)
                def total_of_pixel(c: Value, total: list[Value]) -> Sequence[Value]:
                    left = kx * (self.dilation[1] * VECTOR_BYTES) + c * 4
                    return register_tile_at(k, total, [x + left for x in a], b + (kx * LANES + c) * line, [0])

                return total_of_pixel

            return total_of_row

        self._write(k, total, panel, pixel, rows)


def lower(plan: Planner, node: Node) -> None:
    """Choose the kernel of a convolution; its output stays in blocks for the next one, but where it is the last."""
    conv = _convolution_of(plan, node)
    op, _ = layer_of(node)
    assert isinstance(op, ConvNd | ConvTransposeNd)
    if isinstance(op, ConvNd) and _is_tail(plan, node, op):
        lower_tail(plan, conv, op)
        return
    y = rows_image(node, op.groups)
    plan.new_blocked(y)
    if isinstance(op, ConvTransposeNd):
        _lower_phases(plan, conv, op, y)
    elif _is_head(plan, node, op):
        lower_head(plan, conv, op, y, residual_rows(plan, conv))
    elif len(op.stride) == 3 and (m := winograd_tile(node)):
        lower_winograd(plan, conv, op, y, m)
    else:
        _lower_whole(plan, conv, op, y)
    plan.leave(node, Rows(y, op.groups), lambda: plan.view(node, y))


def _lower_whole(plan: Planner, conv: VolumeConvolution, op: ConvNd, y: Node) -> None:
    taps, out = conv.weight.shape[2:], conv.node.type.dims[2:]
    kernel = _kernel(plan, conv, taps, op.stride, op.dilation, (1,) * len(taps))
    whole = [Phase(0, size, list(range(taps[a])), op.padding[a]) for a, size in enumerate(out)]
    x = rows_of(plan, conv.node.inputs[0], op.groups)
    _call(plan, conv, kernel, x, y, whole, "direct " + "x".join(map(str, taps)))


def _lower_phases(plan: Planner, conv: VolumeConvolution, op: ConvTransposeNd, y: Node) -> None:
    """A call for each phase of a transposed convolution."""
    taps, out = conv.weight.shape[2:], conv.node.type.dims[2:]
    apart = tuple(d // gcd(d, s) for d, s in zip(op.dilation, op.stride, strict=True))
    x = rows_of(plan, conv.node.inputs[0], op.groups)
    for parts in product(*(_phases(op, a, size, taps[a]) for a, size in enumerate(out))):
        some = tuple(len(phase.taps) for phase in parts)
        kernel = _kernel(plan, conv, some, (1,) * len(taps), apart, op.stride)
        label = "transposed {}, phase {}".format("x".join(map(str, taps)), ",".join(str(p.first) for p in parts))
        _call(plan, conv, kernel, x, y, parts, label)


def _is_head(plan: Planner, node: Node, op: ConvNd) -> bool:
    """Whether the input has few channels, and no other convolution has put it in blocks."""
    from ..plan import LEAST_BLOCKED

    x = node.inputs[0]
    return op.groups == 1 and x.type.dims[1] < LEAST_BLOCKED and not isinstance(plan.left(x), Rows)


def _is_tail(plan: Planner, node: Node, op: ConvNd) -> bool:
    """Whether the output has few channels, and the input fills a block or lies in blocks."""
    return op.groups == 1 and node.type.dims[1] <= MOST_CHANNELS and not _is_head(plan, node, op)


def _convolution_of(plan: Planner, node: Node) -> VolumeConvolution:
    """What a node computes, if the kernel can. Raises `NoKernel`."""
    from ..plan import NoKernel

    op, layer = layer_of(node)
    assert isinstance(op, ConvNd | ConvTransposeNd)
    if node.type.dtype != "float32":
        raise NoKernel(f"only float32, not {node.type.dtype}")
    if not node.inputs[1].is_const or (layer.bias is not None and not node.inputs[layer.bias].is_const):
        raise NoKernel("weights are not constant")
    if layer.activation is not None and not has_activation(layer.activation):
        raise NoKernel(f"no code for {layer.activation.name} in an epilogue")
    return VolumeConvolution(node, Conv2d(groups=op.groups), layer, None)


def _phases(op: ConvTransposeNd, axis: int, size: int, taps: int) -> list[Phase]:
    """The phases along one axis, which are those of an image's rows."""
    rows = ConvTranspose2d((op.stride[axis], 1), (op.padding[axis], 0, 0, 0), (op.dilation[axis], 1))
    return phases(rows, 0, size, taps)


def _kernel(
    plan: Planner, conv: VolumeConvolution, taps: Sizes, steps: Sizes, spaces: Sizes, apart: Sizes
) -> ConvVolumes:
    groups, blocks = conv.op.groups, len(conv.order) // LANES
    channels = conv.node.inputs[0].type.dims[1] // groups
    vectors, rows = direct_tile_of(plan.target, blocks // groups)
    return ConvVolumes(
        ci_blocks=-(-channels // LANES),
        panels=blocks // vectors,
        vectors=vectors,
        rows=rows,
        size=(prod(taps[:-1]), taps[-1]),
        stride=(1, steps[-1]),
        dilation=(1, spaces[-1]),
        epilogue=conv.epilogue,
        groups=groups,
        taps=taps,
        steps=steps,
        spaces=spaces,
        apart=apart,
        channels=min(channels, LANES),
    )


def _call(
    plan: Planner,
    conv: VolumeConvolution,
    kernel: ConvVolumes,
    x_image: Node,
    y_image: Node,
    parts: Sequence[Phase],
    label: str,
) -> None:
    """Add the step that computes one part of the output."""
    (n, _, *size), out = conv.node.inputs[0].type.dims, conv.node.type.dims[2:]
    last = parts[-1]
    reach = (last.count - 1) * kernel.steps[-1] + max(kernel.taps[-1] - 1, 0) * kernel.spaces[-1] + 1
    x = plan.blocked(x_image, max(0, last.before), max(0, reach - last.before - size[-1]))
    pixels = n * prod(part.count for part in parts)
    per_panel = prod(kernel.taps) * kernel.ci_blocks * kernel.vectors * LANES**2
    span, ranges, panel_span = cut(pixels, kernel.rows, kernel.panels // kernel.groups, per_panel, plan.threads)
    measures: dict[str, Argument] = {}
    for a, part in enumerate(parts):
        values = (size[a], out[a], part.count, part.before, part.first)
        measures |= {f"{name}{a}": value for name, value in zip(MEASURES, values, strict=True)}
    residual = residual_rows(plan, conv)
    arguments: dict[str, Argument] = {
        **x.arguments("x"),
        **plan.blocked(y_image).arguments("y"),
        **(residual.arguments("r") if residual else {}),
        **conv.epilogue_arguments(plan),
        **measures,
        "w": _packed(plan, conv, kernel, parts),
        "zeros": plan.zero_row(x),
        "pixels": pixels,
        "span": span,
        "parts": ranges * kernel.groups,
        "ranges": ranges,
        "panel_span": panel_span,
    }
    plan.call(conv.node, kernel, arguments, -(-pixels // span) * ranges * kernel.groups, label=label)


def _packed(plan: Planner, conv: VolumeConvolution, kernel: ConvVolumes, parts: Sequence[Phase]) -> WeightForm:
    """The weights of the taps of a part, the rows of the kernel one below the other."""
    some = [part.taps for part in parts]
    form = conv.form(f"{conv.node.op.name} {kernel.vectors} {some}")
    nbytes = conv.weight.nbytes * prod(map(len, some)) // prod(conv.weight.shape[2:])
    return plan.weight(conv.weight, form, partial(_pack, conv, kernel, some), nbytes)


def _pack(conv: VolumeConvolution, kernel: ConvVolumes, taps: Sequence[list[int]], weight: Array) -> Array:
    op, _ = layer_of(conv.node)
    if isinstance(op, ConvTransposeNd):
        weight = as_conv(weight, op.groups)
    weight = weight[np.ix_(range(weight.shape[0]), range(weight.shape[1]), *taps)]
    return pack_blocked(conv, kernel.vectors, weight.reshape(*weight.shape[:2], *kernel.size))

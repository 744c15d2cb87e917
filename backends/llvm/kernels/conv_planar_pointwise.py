"""conv2d 1x1 from planar to planar images, any groups: where there are few channels to fill vectors with.

    for 16·P pixels of those of the unit, in one image and group:
      for panel of T output channels:
        for Ci: T x P accumulators += w[panel, c, t] · x[c, 16·P pixels]
        epilogue, straight to NumPy's layout

A plane is one long row here. Nothing is copied but the pixels at its end that fill no tile: what follows them is
another's memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..kernel import Argument, Kernel
from ..loops import I64, LANES, PTR, VECTOR_BYTES, Function, Value
from ..memory import LINE
from .conv_head import Window
from .conv_planar import STREAMED, WIDEST, ConvPlanar, planar_arguments, tile_of
from .row import BAND_BYTES, load_row

if TYPE_CHECKING:
    from ..plan import Planner
    from ..target import Target
    from .conv import Convolution

UNITS_PER_THREAD = 4
"""At least, as far as there are pixels."""


@dataclass(frozen=True)
class ConvPlanarPointwise(ConvPlanar):
    """See the loop nest above."""

    def slots(self) -> Mapping[str, str]:
        residual = {"r": PTR} if self.epilogue.residual else {}
        sizes = dict.fromkeys(("out_height", "out_width", "each", "pieces", "streamed"), I64)
        return {"x": PTR, "y": PTR, "w": PTR, **residual, **self.epilogue.slots(), **sizes}

    def for_any_width(self, target: Target) -> set[Kernel]:
        return {self}

    def body(self, k: Function, target: Target) -> None:
        image, first = k.unit // k["pieces"], k.unit % k["pieces"] * k["each"]
        group = image % self.groups if self.groups > 1 else k.literal(0)
        plane, tile = k["out_width"], LANES * self.vectors
        with k.loop(k.minimum(first + k["each"], plane), start=first, step=tile) as x:
            given = k["x"] + (image * self.ci * plane + x) * 4
            inside = x + tile <= plane
            with k.when(inside ^ 1):
                self._copy_end(k, given, plane - x)
            source, pitch = k.select(inside, given, k.scratch), k.select(inside, plane * 4, k.literal(tile * 4))
            with k.loop(self.panels) as panel:
                w = k["w"] + (group * self.panels + panel) * (self.ci * self.channels * 4)
                total = self._products(k, source, pitch, w)
                self._write(k, total, image, group, panel, k.literal(0), x)

    def _streamed(self, k: Function) -> Value:
        starts_line = (k.convert("ptrtoint", k["y"], I64) & (LINE - 1)).equals(0)
        return super()._streamed(k) & starts_line

    def _copy_end(self, k: Function, source: Value, count: Value) -> None:
        """The last pixels of the planes: [Ci][16·P] floats in the scratch, with zeros behind them."""
        with k.loop(self.vectors) as p:
            mask = k.first_lanes(count - p * LANES)
            with k.loop(self.ci) as c:
                pixels = load_row(k, source + (c * k["out_width"] + p * LANES) * 4, mask)
                k.store(pixels, k.scratch + (c * self.vectors + p) * VECTOR_BYTES)

    def _products(self, k: Function, source: Value, pitch: Value, w: Value) -> list[Value]:
        """The T x P sums of the pixels at `source`, whose channels lie `pitch` bytes apart."""

        @k.fold(self.ci, [k.vector(0.0)] * (self.channels * self.vectors))
        def total(c: Value, total: list[Value]) -> Sequence[Value]:
            return self._tap(k, total, source + c * pitch, w + c * (self.channels * 4), 0)

        return total


def is_planar_pointwise(conv: Convolution) -> bool:
    """Whether every output pixel comes from one pixel of the input, in the same place."""
    return conv.weight.shape[2:] == (1, 1) and conv.op.stride == (1, 1) and not any(conv.op.padding)


def lower_planar_pointwise(plan: Planner, conv: Convolution, window: Window) -> None:
    """Add the call."""
    n, _, height, width = conv.node.inputs[0].type.dims
    ci, plane, images = conv.weight.shape[1], height * width, n * conv.op.groups
    co = len(conv.weight) // conv.op.groups
    tile = tile_of(plan.target, co, WIDEST)
    kernel = ConvPlanarPointwise(ci, co, conv.op.groups, *tile, window, replace(conv.epilogue, partial=False))
    pixels = LANES * kernel.vectors
    wanted = min(BAND_BYTES // (4 * (ci + co)), -(-plane * images // (UNITS_PER_THREAD * plan.threads)))
    each = max(1, wanted // pixels) * pixels
    pieces = -(-plane // each)
    arguments: dict[str, Argument] = {
        **planar_arguments(plan, conv, kernel),
        "out_height": 1,
        "out_width": plane,
        "each": each,
        "pieces": pieces,
        "streamed": int(plane % LANES == 0 and conv.node.type.nbytes >= STREAMED),
    }
    plan.call(conv.node, kernel, arguments, images * pieces, label="planar 1x1", scratch=4 * ci * pixels)

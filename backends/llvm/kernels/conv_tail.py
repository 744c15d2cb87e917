"""conv2d of a blocked image to a planar one with very few channels: the last layer of a network.

    for output row (n, y) of the band: for 16 output pixels:
      for P of them at a time: for ky, Ci/16, kx:
          Co x P accumulators += x[y·s + ky·d, x·s + kx·d] · w[ky, Ci/16, kx, co]
      for co: sum up the lanes of 16 accumulators into the lanes of one vector; epilogue, to NumPy's layout
              or, where the network ends in a picture, to pixels as `quantise` has them: the numbers are never written

The lanes are input channels, none is idle: as output channels, 3 of 16 would be used. The sums are short, so what the
next row reads is prefetched meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from graphsr.op import Array
from graphsr.ops import Conv2d

from ..kernel import Argument, Kernel, blocked_slots
from ..loops import I64, LANES, PTR, VECTOR_BYTES, Function, Index, Value
from ..memory import aligned
from .conv_head import SIZES, Window
from .epilogue import Epilogue
from .quantise import Answers, only_asked_of
from .row import band

if TYPE_CHECKING:
    from ..plan import Planner
    from ..target import Target
    from .conv import Convolution

MOST_CHANNELS = 4
ROWS = 8
"""Most output rows in a unit, one after the other."""
UNITS_PER_THREAD = 4


@dataclass(frozen=True)
class ConvTail(Kernel):
    """See the loop nest above."""

    ci_blocks: int
    co: int
    pixels: int
    """P, a divisor of 16."""
    window: Window
    epilogue: Epilogue
    answers: Answers | None = None
    """What is written instead of the numbers."""

    def slots(self) -> Mapping[str, str]:
        residual = {"r": PTR} if self.epilogue.residual else {}
        written = self.answers.slots() if self.answers else {"y": PTR}
        pointers = {**written, **residual, "w": PTR, "zeros": PTR}
        sizes = dict.fromkeys((*SIZES, "bands", "rows"), I64)
        return {**blocked_slots("x"), **pointers, **self.epilogue.slots(), **sizes}

    @property
    def _table_rows(self) -> int:
        """Input rows whose addresses are kept: those under the window, and those that the next row needs besides."""
        return self.window.size[0] + self.window.stride[0]

    def scratch(self, target: Target) -> int:
        return self._sums + (self.answers.scratch if self.answers else 0) + 8 * self._table_rows

    @property
    def _sums(self) -> int:
        """Bytes of 16 accumulators of every channel; what the answers need follows, and then the table."""
        return self.co * LANES * VECTOR_BYTES

    def body(self, k: Function, target: Target) -> None:
        if self.answers:
            self.answers.begin(k, k.scratch + self._sums)
        self._rows(k)
        if self.answers:
            self.answers.end(k, k.scratch + self._sums)

    def _rows(self, k: Function) -> None:
        """The rows of the band."""
        rows = k.scratch + self._sums + (self.answers.scratch if self.answers else 0)
        with band(k, k.unit, k["out_height"], k["bands"], k["rows"]) as (n, out_row):
            with k.loop(self._table_rows) as ky:
                k.store(self.window.address(k, n, out_row, ky), rows + ky * 8)
            with k.loop(k["out_width"], step=LANES) as x:
                with k.loop(LANES, step=self.pixels) as p, k.pieces() as piece:
                    for i, value in enumerate(self._sum(k, rows, x + p, piece)):
                        co, pixel = divmod(i, self.pixels)
                        k.store(value, k.scratch + co * (LANES * VECTOR_BYTES) + (p + pixel) * VECTOR_BYTES + piece)
                self._write(k, n, out_row, x)

    def _write(self, k: Function, n: Value, out_row: Value, x: Value) -> None:
        """Add up the lanes of 16 pixels, epilogue, and out. A piece is one of the output, of as many pixels."""
        answers, memory, left = self.answers, k.scratch + self._sums, k["out_width"] - x
        with k.loop(self.co) as co, k.pieces() as piece:
            y = sum_lanes(k, k.scratch + co * (LANES * VECTOR_BYTES) + piece * LANES)
            mask = k.first_lanes(left - piece // 4)
            place = (((n * self.co + co) * k["out_height"] + out_row) * k["out_width"] + x) * 4 + piece
            residual = k.load_some(k["r"] + place, mask) if self.epilogue.residual else None
            y = self.epilogue.begin_channel(k, co).apply(k, y, residual)
            if answers:
                answers.take(k, memory, co, piece, k.select(mask, y, k.vector(0.0)))
            else:
                k.store_some(y, k["y"] + place, mask)
        if answers and answers.pixels:
            at = k["y"] + ((n * k["out_height"] + out_row) * k["out_width"] + x) * answers.pixels.nbytes
            answers.put(k, memory, at, left)

    def _sum(self, k: Function, rows: Value, x: Value, piece: Index) -> list[Value]:
        """[Co · P] accumulators, whose lanes are still to be added up."""
        (kh, kw), (_, step), (_, spread) = self.window.size, self.window.stride, self.window.dilation
        column = (x * step - self.window.before[1]) * VECTOR_BYTES + piece
        tap_bytes = self.co * VECTOR_BYTES

        @k.fold(kh, [k.vector(0.0)] * (self.co * self.pixels))
        def total(ky: Value, total: list[Value]) -> Sequence[Value]:
            source = k.load(rows + ky * 8, PTR) + column
            below = k.load(rows + (ky + self.window.stride[0]) * 8, PTR) + column

            @k.fold(self.ci_blocks, total)
            def total_of_row(block: Value, total: list[Value]) -> Sequence[Value]:
                a = source + block * k["x_block"]
                b = k["w"] + (ky * self.ci_blocks + block) * (kw * tap_bytes) + piece
                for p in range(self.pixels):
                    k.prefetch(below + block * k["x_block"] + p * (step * VECTOR_BYTES))

                @k.fold(kw, total)
                def total_of_block(kx: Value, total: list[Value]) -> Sequence[Value]:
                    a_tap, b_tap = a + kx * (spread * VECTOR_BYTES), b + kx * tap_bytes
                    total = list(total)
                    weights = [k.load(b_tap + co * VECTOR_BYTES) for co in range(self.co)]
                    for p in range(self.pixels):
                        pixel = k.load(a_tap + p * (step * VECTOR_BYTES))
                        for co, weight in enumerate(weights):
                            i = co * self.pixels + p
                            total[i] = k.fma(pixel, weight, total[i])
                    return total

                return total_of_block

            return total_of_row

        return total


def sum_lanes(k: Function, address: Value, step: int = 1) -> Value:
    """Vectors of 16 in memory, as many as a register has lanes -> the sums of their lanes: a tree that adds halves of
    two registers. It is walked in depth, so that few are in use; `step` is between the vectors of a branch."""
    lanes = k.lanes_now
    if step == lanes:
        first, *others = [k.load(address + piece) for piece in range(0, VECTOR_BYTES, 4 * lanes)]
        return sum(others, first)
    a, b = sum_lanes(k, address, 2 * step), sum_lanes(k, address + step * VECTOR_BYTES, 2 * step)
    upper = [lane if not lane & step else lanes + lane - step for lane in range(lanes)]
    lower = [lane + step if not lane & step else lanes + lane for lane in range(lanes)]
    return k.shuffle(a, b, upper) + k.shuffle(a, b, lower)


def lower_tail(plan: Planner, conv: Convolution) -> None:
    """Add the call for a convolution with one group and at most `MOST_CHANNELS` output channels."""
    op = conv.op
    assert isinstance(op, Conv2d)
    x_node = conv.node.inputs[0]
    _, ci, height, width = x_node.type.dims
    n, co, out_height, out_width = conv.node.type.dims
    window = Window(conv.weight.shape[2:], op.stride, op.dilation, op.padding[:2])
    free = plan.target.registers - (1 if plan.target.has_fma else 2)  # for a pixel, and its product before the sum
    pixels = max(p for p in (1, 2, 4, 8, 16) if p == 1 or co * (p + 1) <= free)
    asked = only_asked_of(plan, conv.node)
    epilogue = replace(conv.epilogue, partial=False)
    kernel = ConvTail(-(-ci // LANES), co, pixels, window, epilogue, asked.answers if asked else None)
    left, covered = window.before[1], -(-out_width // LANES) * LANES
    x = plan.blocked(x_node, left, max(0, window.reach(covered) - left - width))
    rows = max(1, min(ROWS, n * out_height // (UNITS_PER_THREAD * plan.threads)))
    bands = -(-out_height // rows)
    arguments: dict[str, Argument] = {
        **x.arguments("x"),
        **({"r": plan.planar(conv.node.inputs[conv.layer.residual])} if conv.layer.residual is not None else {}),
        **conv.channel_arguments(plan),
        **dict(zip(SIZES, (height, width, out_height, out_width), strict=True)),
        "bands": bands,
        "rows": rows,
        "w": plan.weight(conv.weight, "tail", pack_tail),
        "zeros": plan.zero_row(x),
    }
    label = "tail {}x{}".format(*window.size)
    if asked:
        asked.call(plan, kernel, arguments, n * bands, conv.node, label=f"{label} to pixels")
    else:
        arguments["y"] = plan.new_planar(conv.node)
        plan.call(conv.node, kernel, arguments, n * bands, label=label)


def pack_tail(weight: Array) -> Array:
    """[Kh][Ci/16][Kw][Co][16] of weight[Co, Ci, Kh, Kw]."""
    co, ci, kh, kw = weight.shape
    blocks = -(-ci // LANES)
    padded = np.zeros((co, blocks * LANES, kh, kw), np.float32)
    padded[:, :ci] = weight
    return aligned(padded.reshape(co, blocks, LANES, kh, kw).transpose(3, 1, 4, 0, 2))

"""conv2d of a blocked image to a planar one with very few channels: the last layer of a network.

    for output row (n, y) of the band: for 16 output pixels:
      for P of them at a time: for ky, Ci/16, kx:
          Co x P accumulators += x[y·s + ky·d, x·s + kx·d] · w[ky, Ci/16, kx, co]
      for co: sum up the lanes of 16 accumulators into the lanes of one vector; epilogue, to NumPy's layout
              or, where the network ends in a picture, to pixels as `quantise` has them: the numbers are never written

The lanes are input channels, none is idle: as output channels, 3 of 16 would be used. The sums are short, so the one
input row that only the next output row reads is prefetched meanwhile, some of it with every row of the kernel. Where
registers suffice, kx is the inner loop, and each pixel is loaded once for all taps of a row.
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

if TYPE_CHECKING:
    from graphsr.ir import Node

    from ..plan import Planner
    from ..target import Target
    from .conv import Convolution

MOST_CHANNELS = 4
ROWS = 8
"""Most output rows in a unit, one after the other."""
UNITS_PER_THREAD = 4
MOST_UNROLLED = 112
"""Multiply-adds without a loop: among more of them, LLVM moves loads far ahead and spills."""


@dataclass(frozen=True)
class ConvTail(Kernel):
    """See the loop nest above."""

    ci_blocks: int
    co: int
    pixels: int
    """P, a divisor of 16."""
    slides: bool
    """Whether registers hold the weights of all taps of a row, so that a pixel is loaded once for all of them."""
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
    def _row_table(self) -> int:
        """Bytes of the addresses of the input rows that an output row reads."""
        return 8 * self.window.size[0]

    def scratch(self, target: Target) -> int:
        return self._sums + (self.answers.scratch if self.answers else 0) + (ROWS + 1) * self._row_table

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
        table = k.scratch + self._sums + (self.answers.scratch if self.answers else 0)
        n, first = k.unit // k["bands"], k.unit % k["bands"] * k["rows"]
        count = k.minimum(k["rows"], k["out_height"] - first)
        with k.loop(count + 1) as i:
            self.locate(k, n, first + i, table + i * self._row_table)
        with k.loop(count) as i, k.loop(k["out_width"], step=LANES) as x:
            with k.loop(LANES, step=self.pixels) as p, k.pieces() as piece:
                for j, value in enumerate(self._sum(k, table + i * self._row_table, x + p, piece)):
                    co, pixel = divmod(j, self.pixels)
                    k.store(value, k.scratch + co * (LANES * VECTOR_BYTES) + (p + pixel) * VECTOR_BYTES + piece)
            self._write(k, n, first + i, x)

    def locate(self, k: Function, n: Value, out_row: Value, table: Value) -> None:
        """Write where the rows lie that an output row of image n reads."""
        with k.loop(self.window.size[0]) as ky:
            k.store(self.window.address(k, n, out_row, ky), table + ky * 8)

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
        (kh, kw), step = self.window.size, self.window.stride[1]
        column = (x * step - self.window.before[1]) * VECTOR_BYTES + piece
        fetched = -(-self.pixels * step // kh)
        next_row = k.load(rows + (2 * kh - 1) * 8, PTR) + column

        @k.fold(kh, [k.vector(0.0)] * (self.co * self.pixels))
        def total(ky: Value, total: list[Value]) -> Sequence[Value]:
            source = k.load(rows + ky * 8, PTR) + column
            fetch = next_row + ky * (fetched * VECTOR_BYTES)

            @k.fold(self.ci_blocks, total)
            def total_of_row(block: Value, total: list[Value]) -> Sequence[Value]:
                for p in range(fetched):
                    k.prefetch(fetch + block * k["x_block"] + p * VECTOR_BYTES)
                b = k["w"] + (ky * self.ci_blocks + block) * (kw * self.co * VECTOR_BYTES) + piece
                return (self._slide if self.slides else self._step)(k, total, source + block * k["x_block"], b)

            return total_of_row

        return total

    def _slide(self, k: Function, total: list[Value], a: Value, b: Value) -> list[Value]:
        """The taps of a row and block, each pixel loaded once for all of them."""
        total, (_, kw) = list(total), self.window.size
        weights = [k.load(b + i * VECTOR_BYTES) for i in range(kw * self.co)]
        for x in range(self.pixels + kw - 1):
            pixel = k.load(a + x * VECTOR_BYTES)
            for kx in range(kw):
                if 0 <= x - kx < self.pixels:
                    for co in range(self.co):
                        i = co * self.pixels + x - kx
                        total[i] = k.fma(pixel, weights[kx * self.co + co], total[i])
        return total

    def _step(self, k: Function, total: list[Value], a: Value, b: Value) -> list[Value]:
        """The same where registers do not hold the weights of more than a tap."""
        step, spread = self.window.stride[1] * VECTOR_BYTES, self.window.dilation[1] * VECTOR_BYTES

        @k.fold(self.window.size[1], total)
        def total_of_taps(kx: Value, total: list[Value]) -> Sequence[Value]:
            total, a_tap, b_tap = list(total), a + kx * spread, b + kx * (self.co * VECTOR_BYTES)
            weights = [k.load(b_tap + co * VECTOR_BYTES) for co in range(self.co)]
            for p in range(self.pixels):
                pixel = k.load(a_tap + p * step)
                for co, weight in enumerate(weights):
                    i = co * self.pixels + p
                    total[i] = k.fma(pixel, weight, total[i])
            return total

        return total_of_taps


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
    op, x = conv.op, conv.node.inputs[0]
    assert isinstance(op, Conv2d)
    window = Window(conv.weight.shape[2:], op.stride, op.dilation, op.padding[:2])
    kernel = ConvTail(*tail_of(plan, conv, window), window, replace(conv.epilogue, partial=False))
    arguments: dict[str, Argument] = {"w": plan.weight(conv.weight, "tail", pack_tail)}
    call_tail(plan, conv, kernel, x, conv.node.type.dims[2:], arguments, "tail {}x{}".format(*window.size))


def tail_of(plan: Planner, conv: Convolution, window: Window) -> tuple[int, int, int, bool]:
    """(blocks of input channels, output channels, P, whether it slides)."""
    co, ci = conv.weight.shape[:2]
    free = plan.target.registers - (1 if plan.target.has_fma else 2)  # for a pixel, and its product before the sum
    pixels = max(p for p in (1, 2, 4, 8, 16) if p == 1 or co * (p + 1) <= free)
    taps, dense = window.size[1], window.stride[1] == window.dilation[1] == 1
    fits = plan.target.has_fma and co * (pixels + taps) <= free - 2 and co * pixels * taps <= MOST_UNROLLED
    return -(-ci // LANES), co, pixels, dense and fits


def call_tail(
    plan: Planner,
    conv: Convolution,
    kernel: ConvTail,
    x_image: Node,
    out: tuple[int, ...],
    arguments: dict[str, Argument],
    label: str,
) -> None:
    """Add the call of a kernel that reads the image `x_image` and writes one of height and width `out`; `arguments` has
    the weights, and what images do not need."""
    (n, _, height, width), (out_height, out_width) = x_image.type.dims, out
    left, covered = kernel.window.before[1], -(-out_width // LANES) * LANES
    x = plan.blocked(x_image, left, max(0, kernel.window.reach(covered) - left - width))
    rows = max(1, min(ROWS, n * out_height // (UNITS_PER_THREAD * plan.threads)))
    bands = -(-out_height // rows)
    arguments = {
        **arguments,
        **x.arguments("x"),
        **({"r": plan.planar(conv.node.inputs[conv.layer.residual])} if conv.layer.residual is not None else {}),
        **conv.channel_arguments(plan),
        **dict(zip(SIZES, (height, width, out_height, out_width), strict=True)),
        "bands": bands,
        "rows": rows,
        "zeros": plan.zero_row(x),
    }
    asked = only_asked_of(plan, conv.node)
    if asked:
        answering = replace(kernel, answers=asked.answers)
        asked.call(plan, answering, arguments, n * bands, conv.node, label=f"{label} to pixels")
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

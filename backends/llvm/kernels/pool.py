"""max_pool2d and avg_pool2d: rows first, then columns, each row in the scratch of the thread.

for output row (n, c, y) of the unit:
    row[x] = fold of x[y·s + d·i, x] over i                            (rows outside the image are left out)
    for a window of 4 or more columns: row[x] = fold of row[x + j·m·d] over j < 4, for m = 1, 4, 16, …
    y[x] = fold of the few shifted rows that make up the window, divided by its count for a mean

With stride 1, tall windows are cut at every Kh-th row (van Herk 1992, Gil & Werman 1993): each is the end of one piece
and the start of the next one, and these are folded row by row, so the work per pixel does not depend on the height. It
grows with the logarithm of the width, in the first cache, where scanning along a row would transpose it. Both only
add what belongs to the window: nothing is subtracted again, so nothing is lost, and a NaN stays in its windows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graphsr.ir import Node
from graphsr.op import Array
from graphsr.ops import AvgPool2d, MaxPool2d

from ..kernel import Argument, Kernel, blocked_slots
from ..loops import FLOAT, I64, IVECTOR, LANES, PTR, VECTOR_BYTES, Function, Index, Value
from .folding import Folding
from .layout import lane_masks, without_padding, zero_halo
from .row import band, bands_of, float_table, load_row, over_row, permute, plane_address, row_bytes, store_row

if TYPE_CHECKING:
    from ..plan import Planner
    from ..target import Target

TALL = 5
"""Rows of a window from which it is cut."""

SIZES = ("height", "width", "out_height", "out_width", "planes", "bands", "rows", "reach", "pitch")
"""Planes of an image (channels, or blocks of them); bands of a plane, output rows of each; columns of a padded row that
windows read, and bytes of one in the scratch."""


@dataclass(frozen=True)
class Pool(Kernel):
    """Unit: a band of output rows of one plane. See above."""

    folding: Folding
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    before: tuple[int, int]
    """Padding at the top and on the left."""
    blocked: bool
    partial: bool
    """Whether the last block has lanes beyond the channels: they are set to zero."""

    @property
    def is_tall(self) -> bool:
        return self.stride[0] == self.dilation[0] == 1 and self.kernel[0] >= TALL

    @property
    def is_mean(self) -> bool:
        return self.folding.kind == "sum"

    @property
    def scratch_rows(self) -> int:
        """Two for the columns; the pieces of a cut window, one that is neutral, and the piece that grows."""
        return 2 + (self.kernel[0] + 2 if self.is_tall else 0)

    @property
    def pixel(self) -> int:
        """Bytes."""
        return VECTOR_BYTES if self.blocked else 4

    def slots(self) -> Mapping[str, str]:
        images = {**blocked_slots("x"), **blocked_slots("y")} if self.blocked else {"x": PTR, "y": PTR}
        counts = {"row_count": PTR, "column_count": PTR} if self.is_mean else {}
        lanes = {"lanes": PTR} if self.partial else {}
        return {**images, **counts, **lanes, **dict.fromkeys(SIZES, I64)}

    def body(self, k: Function, target: Target) -> None:
        row, rest = k.scratch, k.scratch + k["pitch"]
        if self.is_tall:
            self._cut_windows(k, row, rest)
            return
        with band(k, k.unit, k["out_height"], k["bands"], k["rows"]) as (plane, y):
            source = plane_address(k, self.blocked, "x", plane, k["height"])
            self._before(k, row)
            self._fold_rows(k, source, y, row + self.before[1] * self.pixel)
            self._columns(k, row, rest, plane, y)

    def _over(self, k: Function, count: Index, body: Callable[[Value, Value | None], None]) -> None:
        """body(byte in the row, mask) for all vectors of `count` pixels."""
        if self.blocked:
            with k.loop(count) as x:
                body(x * VECTOR_BYTES, None)
        else:
            over_row(k, count, lambda x, mask: body(x * 4, mask))

    def _over_scratch(self, k: Function, count: Index, body: Callable[[Value], None]) -> None:
        """body(byte in the row) for vectors that cover `count` pixels: there is room behind a row of the scratch."""
        with k.loop(count, step=1 if self.blocked else LANES) as x:
            body(x * self.pixel)

    def _load(self, k: Function, at: Value) -> Value:
        """From the scratch."""
        return k.load(at, self.folding.type, align=4)

    # --- rows -------------------------------------------------------------------------------------------------

    def _fold_rows(self, k: Function, source: Value, y: Value, row: Value) -> None:
        """row = fold of the rows under the window of output row y that lie in the image."""
        top, d, nbytes = y * self.stride[0] - self.before[0], self.dilation[0], row_bytes(k, self.blocked, "x")
        first = (k.maximum(0 - top, 0) + (d - 1)) // d
        last = k.minimum((k.maximum(k["height"] - top, 0) + (d - 1)) // d, self.kernel[0])

        def pixels(at: Value, mask: Value | None) -> None:
            @k.fold(last, [self.folding.neutral(k)], start=first)
            def total(i: Value, total: list[Value]) -> list[Value]:
                x = load_row(k, source + (top + i * d) * nbytes + at, mask)
                return [self.folding.join(k, total[0], self.folding.enter(k, x))]

            k.store(total[0], row + at, align=4)

        self._over(k, k["width"], pixels)

    def _cut_windows(self, k: Function, row: Value, rest: Value) -> None:
        """Unit: Kh output rows, whose windows are cut behind row Kh − 1 of the first one."""
        kh, width = self.kernel[0], k["width"]
        ends, growing = rest + k["pitch"], rest + k["pitch"] * (kh + 2)
        plane, first = k.unit // k["bands"], k.unit % k["bands"] * kh
        source, nbytes = plane_address(k, self.blocked, "x", plane, k["height"]), row_bytes(k, self.blocked, "x")
        self._fill(k, growing, width)
        self._fill(k, ends + k["pitch"] * kh, width)
        with k.loop(kh) as i:
            end = ends + (kh - 1 - i) * k["pitch"]
            self._join_row(k, source, nbytes, first + (kh - 1 - self.before[0]) - i, end + k["pitch"], end)
        with k.loop(k.minimum(k["out_height"] - first, kh)) as i:
            with k.when(i > 0):
                self._join_row(k, source, nbytes, first + i + (kh - 1 - self.before[0]), growing, growing)
            self._before(k, row)
            data, end = row + self.before[1] * self.pixel, ends + i * k["pitch"]
            self._fold_into(k, width, [end, growing], data)
            self._columns(k, row, rest, plane, first + i)

    def _join_row(self, k: Function, source: Value, nbytes: Value, y: Value, given: Value, to: Value) -> None:
        """to = given joined with row y of the image, or just given where that lies outside."""
        inside = (y >= 0) & (y < k["height"])

        def join(at: Value, mask: Value | None) -> None:
            x = self.folding.enter(k, load_row(k, source + y * nbytes + at, mask))
            k.store(self.folding.join(k, self._load(k, given + at), x), to + at, align=4)

        with k.when(inside):
            self._over(k, k["width"], join)
        with k.when(inside ^ 1):
            self._over_scratch(k, k["width"], lambda at: k.store(self._load(k, given + at), to + at, align=4))

    # --- columns ----------------------------------------------------------------------------------------------

    def _columns(self, k: Function, row: Value, rest: Value, plane: Value, y: Value) -> None:
        """Fold a row, whose pixels follow the padding, along x, and write the output row."""
        self._behind(k, row)
        terms = self._windows(k, row, rest)
        out = plane_address(k, self.blocked, "y", plane, k["out_height"]) + y * row_bytes(k, self.blocked, "y")
        step = self.stride[1]
        if step > 1 and not self.blocked:
            self._fold_into(k, k["reach"], terms, row)
            self._subsample(k, row, rest)
            terms, step = [rest], 1
        height_count = k.load(k["row_count"] + y * 4, FLOAT) if self.is_mean else None

        def pixels(at: Value, mask: Value | None) -> None:
            value = self.folding.leave(k, self._joined(k, terms, at * step))
            if height_count is not None:
                value = value / self._count(k, height_count, at)
            if self.partial:
                lanes = k.load(k["lanes"] + plane % k["planes"] * VECTOR_BYTES, IVECTOR)
                value = without_padding(k, value, lanes)
            store_row(k, value, out + at, mask)

        self._over(k, k["out_width"], pixels)
        if self.blocked:
            zero_halo(k, out, k["out_width"], k["y_left"], k["y_right"])

    def _count(self, k: Function, height_count: Value, at: Value) -> Value:
        """How many pixels the mean is of; in the blocked layout a row has one count per vector."""
        if self.blocked:
            return k.splat(height_count * k.load(k["column_count"] + at // LANES, FLOAT))
        return k.splat(height_count) * k.load(k["column_count"] + at, align=4)

    def _before(self, k: Function, row: Value) -> None:
        """Neutral pixels on the left of a row; the last vector may reach into the row, which is written later."""
        for at in range(0, self.before[1] * self.pixel, VECTOR_BYTES):
            k.store(self.folding.neutral(k), row + at, align=4)

    def _behind(self, k: Function, row: Value) -> None:
        """Neutral pixels on the right."""
        first = k["width"] + self.before[1]
        self._fill(k, row + first * self.pixel, k["reach"] - first)

    def _fill(self, k: Function, row: Value, count: Value) -> None:
        """Neutral pixels."""
        self._over_scratch(k, count, lambda at: k.store(self.folding.neutral(k), row + at, align=4))

    def _windows(self, k: Function, row: Value, rest: Value) -> list[Value]:
        """Addresses of shifted rows whose fold is that of the window. `row` becomes the fold of m = 1, 4, 16, …
        neighbours; a sum collects what is left of the width in `rest`, a maximum lets the last two overlap."""
        width, step = self.kernel[1], self.dilation[1] * self.pixel
        m, done, collected = 1, 0, False
        while 4 * m <= width:
            if self.is_mean and (digit := width // m % 4):
                terms = [row + (done + j * m) * step for j in range(digit)] + [rest] * collected
                self._fold_into(k, k["reach"], terms, rest)
                done, collected = done + digit * m, True
            self._fold_into(k, k["reach"], [row + j * m * step for j in range(4)], row)
            m *= 4
        if self.is_mean:
            return [row + (done + j * m) * step for j in range(width // m)] + [rest] * collected
        return [row + min(j, width - m) * step for j in range(0, width, m)]

    def _fold_into(self, k: Function, count: Index, terms: list[Value], to: Value) -> None:
        """to[x] = fold of term[x] over the terms. `to` may be the first of them: reading is ahead of writing."""
        self._over_scratch(k, count, lambda at: k.store(self._joined(k, terms, at), to + at, align=4))

    def _joined(self, k: Function, terms: list[Value], at: Value) -> Value:
        value = self._load(k, terms[0] + at)
        for term in terms[1:]:
            value = self.folding.join(k, value, self._load(k, term + at))
        return value

    def _subsample(self, k: Function, row: Value, to: Value) -> None:
        """to[x] = row[s·x]"""
        picks = [divmod(x * self.stride[1], LANES) for x in range(LANES)]
        vectors = sorted({vector for vector, _ in picks})
        with k.loop(k["out_width"], step=LANES) as x:
            at = row + x * (4 * self.stride[1])
            given = [self._load(k, at + vector * VECTOR_BYTES) for vector in vectors]
            picked = permute(k, given, [(vectors.index(vector), lane) for vector, lane in picks])
            k.store(picked, to + x * 4, align=4)


def lower(plan: Planner, node: Node) -> None:
    """Blocked images stay blocked, planar ones planar."""
    from ..plan import NoKernel

    op, source = node.op, node.inputs[0]
    assert isinstance(op, MaxPool2d | AvgPool2d)
    if node.type.dtype != "float32":
        raise NoKernel(f"only float32, not {node.type.dtype}")
    blocked, channels = plan.is_blocked(source), node.type.dims[1]
    folding = Folding("max" if isinstance(op, MaxPool2d) else "sum")
    partial = blocked and folding.kind == "max" and channels % LANES != 0
    kernel = Pool(folding, op.kernel, op.stride, op.dilation, (op.padding[0], op.padding[1]), blocked, partial)
    arguments, units = _geometry(kernel, source, node)
    if kernel.is_mean:
        assert isinstance(op, AvgPool2d)
        counts = (float_table(_counts(op, a, source.type.dims[2 + a], node.type.dims[2 + a])) for a in (0, 1))
        arguments |= dict(zip(("row_count", "column_count"), counts, strict=True))
    if partial:
        arguments["lanes"] = lane_masks(channels)
    if blocked:
        arguments |= {**plan.blocked(source).arguments("x"), **plan.new_blocked(node).arguments("y")}
    else:
        arguments |= {"x": plan.planar(source), "y": plan.new_planar(node)}
    scratch = -(-_pitch(arguments) * kernel.scratch_rows // VECTOR_BYTES) * VECTOR_BYTES
    size = "x".join(map(str, op.kernel))
    plan.call(node, kernel, arguments, units, label=f"{folding.kind} {size}", scratch=scratch)


def _geometry(kernel: Pool, source: Node, node: Node) -> tuple[dict[str, Argument], int]:
    """The values of `SIZES`, and how many units there are."""
    (n, channels, height, width), (out_height, out_width) = source.type.dims, node.type.dims[2:]
    planes = -(-channels // LANES) if kernel.blocked else channels
    span = kernel.dilation[1] * (kernel.kernel[1] - 1) + 1
    reach = (out_width - 1) * kernel.stride[1] + span
    beyond = kernel.stride[1] if kernel.blocked else LANES * (kernel.stride[1] + 2)  # where last vectors end
    pitch = (max(reach, kernel.before[1] + width) + span + beyond + LANES) // LANES * LANES * kernel.pixel
    if kernel.is_tall:
        bands, rows = -(-out_height // kernel.kernel[0]), kernel.kernel[0]
    else:
        bands, rows = bands_of(out_height, out_width * kernel.pixel, n * planes)
    values = (height, width, out_height, out_width, planes, bands, rows, reach, pitch)
    return dict(zip(SIZES, values, strict=True)), n * planes * bands


def _pitch(arguments: Mapping[str, Argument]) -> int:
    pitch = arguments["pitch"]
    assert isinstance(pitch, int)
    return pitch


def _counts(op: AvgPool2d, a: int, size: int, out: int) -> Array:
    """How many pixels of each window count, along height (a = 0) or width (1); 1 where there are none."""
    before, after = (op.padding[a], op.padding[a + 2]) if op.count_include_pad else (0, 0)
    first = np.arange(out) * op.stride[a] - op.padding[a]
    position = first + op.dilation[a] * np.arange(op.kernel[a])[:, None]
    counts: Array = ((position >= -before) & (position < size + after)).sum(axis=0)
    return np.maximum(counts, 1)

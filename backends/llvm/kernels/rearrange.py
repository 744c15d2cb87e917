"""depth_to_space and space_to_depth: channels become pixels, and back.

planar:            for row (n, c, h) of the unit, i: for 16 pixels:
                       b vectors of the rows b·i + j, interleaved in registers, b vectors out side by side  [and back]
blocked to planar: for 16 pixels: all channels transposed into the scratch; then for (c, i) as above
           pixels: the same, but as `quantise` has them, all channels side by side: the numbers are never written
blocked:           for each pixel, output block, cell (i, j): one vector, put together from those that hold its lanes
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, TypeAlias

from graphsr.ir import Node
from graphsr.ops import DepthToSpace, SpaceToDepth

from ..kernel import Argument, Kernel, blocked_slots
from ..loops import FLOAT, I64, LANES, PTR, VECTOR_BYTES, Function, Index, Value
from .layout import transpose, zero_halo
from .quantise import Answers, only_asked_of
from .row import (
    STREAM_BYTES,
    band,
    bands_of,
    deinterleave,
    interleave,
    interleaved,
    load_row,
    over_row,
    permute,
    store_row,
    streamed,
)

if TYPE_CHECKING:
    from ..plan import Planner
    from ..target import Target

LanePick: TypeAlias = "tuple[tuple[int, ...], int] | None"
"""(which vector of a pixel, which lane of it), or zero."""

MOST_VECTORS = 8
"""The largest block that is interleaved in registers; others go element by element."""
FEW_VECTORS, NARROW = 3, 4
"""So few vectors are in registers as they are; of more where registers are narrow, so many lanes of each."""

GEOMETRY = ("height", "width", "channels", "image", "channel", "cell", "bands", "rows", "stream")
"""Height, width and planes of one cell in the small image; bytes in it from image to image, between the planes of the
first cell of two channels, and of two cells of a channel; bands per (image, channel, i), rows of a band; 1 to write
past the caches."""


@dataclass(frozen=True)
class PlanarRearrange(Kernel):
    """Unit: a band of rows h of (image, channel, i). `back`: from the large image to the small one."""

    block: int
    back: bool

    def slots(self) -> Mapping[str, str]:
        return {"x": PTR, "y": PTR, **dict.fromkeys(GEOMETRY, I64)}

    def body(self, k: Function, target: Target) -> None:
        b, width = self.block, k["width"]
        small, large = (k["y"], k["x"]) if self.back else (k["x"], k["y"])
        with k.narrowed(_lanes(k, self.block)), band(k, k.unit, k["height"], k["bands"], k["rows"]) as (group, h):
            plane, i = group // b, group % b
            n, c = plane // k["channels"], plane % k["channels"]
            cells = small + n * k["image"] + c * k["channel"] + i * b * k["cell"] + h * width * 4
            line = large + ((plane * k["height"] + h) * b + i) * width * (b * 4)
            rows = [cells + j * k["cell"] for j in range(b)] if b <= MOST_VECTORS else []
            if not rows:
                self._one_by_one(k, cells, line)
            else:
                streamed(k, k["stream"], rows if self.back else [line], lambda past: self._row(k, rows, line, past))

    def _row(self, k: Function, rows: list[Value], line: Value, past: bool) -> None:
        width = k["width"]
        if self.back:
            over_row(k, width, lambda x, mask: split_row(k, line, rows, x, mask, width, past))
        else:
            over_row(k, width, lambda x, mask: merge_rows(k, rows, line, x, mask, width, past))

    def _one_by_one(self, k: Function, cells: Value, line: Value) -> None:
        with k.loop(self.block) as j, k.loop(k["width"]) as x:
            small, large = cells + j * k["cell"] + x * 4, line + (x * self.block + j) * 4
            source, target = (large, small) if self.back else (small, large)
            k.store(k.load(source, FLOAT), target)


def merge_rows(
    k: Function, rows: list[Value], line: Value, x: Value, mask: Value | None, width: Value, past: bool
) -> None:
    """A vector of each of b rows -> b vectors of a line, past the caches or not."""
    b = len(rows)
    for m, merged in enumerate(interleave(k, [load_row(k, row + x * 4, mask) for row in rows])):
        inside = _mask(k, mask, (width - x) * b - m * k.lanes_now)
        store_row(k, merged, line + (x * b + m * k.lanes_now) * 4, inside, past_caches=past)


def split_row(
    k: Function, line: Value, rows: list[Value], x: Value, mask: Value | None, width: Value, past: bool
) -> None:
    """b vectors of a line -> a vector of each of b rows, past the caches or not."""
    b = len(rows)
    masks = [_mask(k, mask, (width - x) * b - m * k.lanes_now) for m in range(b)]
    given = [load_row(k, line + (x * b + m * k.lanes_now) * 4, masks[m]) for m in range(b)]
    for row, pixels in zip(rows, deinterleave(k, given), strict=True):
        store_row(k, pixels, row + x * 4, mask, past_caches=past)


def _lanes(k: Function, block: int) -> int:
    """How long the vectors should be of which so many are interleaved: without indices of lanes, which would take
    registers, the instructions of narrow targets move four lanes."""
    return LANES if block <= FEW_VECTORS or k.register == LANES else NARROW


def _mask(k: Function, mask: Value | None, count: Value) -> Value | None:
    return None if mask is None else k.first_lanes(count)


@dataclass(frozen=True)
class UnblockPixels(Kernel):
    """depth_to_space from a blocked image to a planar one. Unit: row h of image n."""

    channels: int
    """Of the output."""
    block: int
    mode: str

    def slots(self) -> Mapping[str, str]:
        return {**blocked_slots("x"), "y": PTR, "height": I64, "width": I64}

    @property
    def blocks(self) -> int:
        return -(-self.channels * self.block**2 // LANES)

    def scratch(self, target: Target) -> int:
        return self.blocks * LANES * VECTOR_BYTES

    def body(self, k: Function, target: Target) -> None:
        b, width = self.block, k["width"]
        n, h = k.unit // k["height"], k.unit % k["height"]

        def tile(x: Value, mask: Value | None) -> None:
            self.stage(k, x)
            with k.loop(self.channels) as c, k.loop(b) as i:
                line = k["y"] + (((n * self.channels + c) * k["height"] + h) * b + i) * width * (b * 4)
                first, cell = self.staged(k, c, i)
                if b <= MOST_VECTORS:
                    with k.narrowed(_lanes(k, b)):
                        for m in range(LANES * b // k.lanes_now):
                            done = m * k.lanes_now
                            inside = _mask(k, mask, (width - x) * b - done)
                            store_row(k, self.line(k, c, i, m), line + (x * b + done) * 4, inside)
                else:
                    with k.loop(k.minimum(width - x, LANES)) as p, k.loop(b) as j:
                        value = k.load(first + j * cell + p * 4, FLOAT)
                        k.store(value, line + ((x + p) * b + j) * 4)

        over_row(k, width, tile)

    def stage(self, k: Function, x: Value) -> None:
        """16 pixels of all channels, [channels][16], by squares as wide as a register."""
        last = k["width"] - 1
        with k.loop(self.blocks) as block, k.pieces() as piece, k.loop(LANES, step=k.lanes_now) as first:
            source = k["x"] + k.unit * k["x_row"] + block * k["x_block"] + piece
            pixels = [k.load(source + k.minimum(x + first + p, last) * VECTOR_BYTES) for p in range(k.lanes_now)]
            square = k.scratch + block * (LANES * VECTOR_BYTES) + piece * LANES + first * 4
            for c, vector in enumerate(transpose(k, pixels)):
                k.store(vector, square + c * VECTOR_BYTES)

    def staged(self, k: Function, c: Index, i: Index) -> tuple[Value, int]:
        """Where the staged vector of channel c, cell (i, 0) lies, and the bytes from there to that of the next cell."""
        cell, channel = (1, self.block**2) if self.mode == "crd" else (self.channels, 1)
        return k.scratch + (c * channel + i * (self.block * cell)) * VECTOR_BYTES, cell * VECTOR_BYTES

    def line(self, k: Function, c: Index, i: Index, m: int) -> Value:
        """Of line i of a channel the m-th vector that is made of 16 staged pixels."""
        first, cell = self.staged(k, c, i)
        pixels, m = divmod(m, self.block)
        return interleaved(k, [k.load(first + j * cell + pixels * 4 * k.lanes_now) for j in range(self.block)], m)


@dataclass(frozen=True)
class UnblockPicture(Kernel):
    """The same with `quantise` and `all_finite`. Unit: row h of image n."""

    shuffle: UnblockPixels
    answers: Answers

    def slots(self) -> Mapping[str, str]:
        return {**self.shuffle.slots(), **self.answers.slots()}

    def scratch(self, target: Target) -> int:
        return self.shuffle.scratch(target) + self.answers.scratch + VECTOR_BYTES

    def body(self, k: Function, target: Target) -> None:
        b, width, answers = self.shuffle.block, k["width"], self.answers
        line = k.scratch + self.shuffle.scratch(target)
        memory = line + VECTOR_BYTES
        assert answers.pixels
        nbytes = answers.pixels.nbytes

        def tile(x: Value, mask: Value | None) -> None:
            self.shuffle.stage(k, x)
            with k.loop(b) as i:
                place = k["y"] + ((k.unit * b + i) * width + x) * (b * nbytes)
                for m in range(b):
                    with k.loop(answers.channels) as c:
                        k.store(self.shuffle.line(k, c, i, m), line)
                        with k.pieces() as piece:
                            answers.take(k, memory, c, piece, k.load(line + piece))
                    left = None if mask is None else (width - x) * b - m * LANES
                    answers.put(k, memory, place + m * (LANES * nbytes), left)

        answers.begin(k, memory)
        over_row(k, width, tile)
        answers.end(k, memory)


@dataclass(frozen=True)
class BlockedRearrange(Kernel):
    """Both images blocked. Unit: row h of image n of the small image. `back`: from the large image to the small one."""

    channels: int
    """Of the large image."""
    block: int
    mode: str
    back: bool

    def slots(self) -> Mapping[str, str]:
        return {**blocked_slots("x"), **blocked_slots("y"), "width": I64}

    def body(self, k: Function, target: Target) -> None:
        b, cells = self.block, self.block**2
        small, large = ("y", "x") if self.back else ("x", "y")
        small_row = k[small] + k.unit * k[f"{small}_row"]
        large_rows = [k[large] + (k.unit * b + i) * k[f"{large}_row"] for i in range(b)]
        with k.loop(k["width"]) as x:

            def in_small(block: int) -> Value:
                return small_row + k[f"{small}_block"] * block + x * VECTOR_BYTES

            def in_large(i: int, j: int, block: int) -> Value:
                return large_rows[i] + k[f"{large}_block"] * block + (x * b + j) * VECTOR_BYTES

            if self.back:
                for first in range(0, self.channels * cells, LANES):
                    _gather(k, in_small(first // LANES), in_large, [self._large(first + s) for s in range(LANES)])
            else:
                for i, j, first in product(range(b), range(b), range(0, self.channels, LANES)):
                    picks = [self._small(first + c, i, j) for c in range(LANES)]
                    _gather(k, in_large(i, j, first // LANES), in_small, picks)
        width, rows = (k["width"], [small_row]) if self.back else (k["width"] * b, large_rows)
        blocks = -(-self.channels * (cells if self.back else 1) // LANES)
        with k.loop(blocks) as block:
            for row in rows:
                zero_halo(k, row + block * k["y_block"], width, k["y_left"], k["y_right"])

    def _small(self, c: int, i: int, j: int) -> LanePick:
        """(block,), lane in the small image of channel c of cell (i, j)."""
        if c >= self.channels:
            return None
        cell = i * self.block + j
        block, lane = divmod(c * self.block**2 + cell if self.mode == "crd" else cell * self.channels + c, LANES)
        return (block,), lane

    def _large(self, s: int) -> LanePick:
        """(i, j, block), lane in the large image of channel s of the small one."""
        cells = self.block**2
        if s >= self.channels * cells:
            return None
        c, cell = divmod(s, cells) if self.mode == "crd" else divmod(s, self.channels)[::-1]
        return (*divmod(cell, self.block), c // LANES), c % LANES


def _gather(k: Function, out: Value, place: Callable[..., Value], picks: list[LanePick]) -> None:
    """Write the vector whose lanes are lanes of vectors at `place(*where)`."""
    sources = sorted({pick[0] for pick in picks if pick})
    vectors = [k.load(place(*where)) for where in sources]
    k.store(permute(k, vectors, [(sources.index(pick[0]), pick[1]) if pick else None for pick in picks]), out)


def lower(plan: Planner, node: Node) -> None:
    """Blocked images become planar where few channels are left; planar ones stay planar."""
    from ..plan import LEAST_BLOCKED, NoKernel

    op, source = node.op, node.inputs[0]
    assert isinstance(op, DepthToSpace | SpaceToDepth)
    if node.type.dtype != "float32":
        raise NoKernel(f"only float32, not {node.type.dtype}")
    back = isinstance(op, SpaceToDepth)
    small, large = (node, source) if back else (source, node)
    n, _, height, width = small.type.dims
    channels, b, label = large.type.dims[1], op.block, node.op.name.replace("_", " ")
    if not plan.is_blocked(source):
        arguments, units = _planar_geometry(op, n, channels, height, width)
        arguments |= {"x": plan.planar(source), "y": plan.new_planar(node)}
        plan.call(node, PlanarRearrange(b, back), arguments, units, label=label)
    elif back or channels >= LEAST_BLOCKED:
        arguments = {**plan.blocked(source).arguments("x"), **plan.new_blocked(node).arguments("y"), "width": width}
        plan.call(node, BlockedRearrange(channels, b, op.mode, back), arguments, n * height, label=f"{label} in blocks")
    else:
        arguments = {**plan.blocked(source).arguments("x"), "height": height, "width": width}
        kernel = UnblockPixels(channels, b, op.mode)
        asked = only_asked_of(plan, node) if b <= MOST_VECTORS else None
        if asked:
            picture = UnblockPicture(kernel, asked.answers)
            asked.call(plan, picture, arguments, n * height, node, label=f"{label} to pixels")
        else:
            arguments["y"] = plan.new_planar(node)
            plan.call(node, kernel, arguments, n * height, label=f"{label} to planar")


def _planar_geometry(
    op: DepthToSpace | SpaceToDepth, n: int, channels: int, height: int, width: int
) -> tuple[dict[str, Argument], int]:
    """The values of `GEOMETRY`, and how many units there are."""
    b, plane = op.block, height * width * 4
    channel, cell = (b * b * plane, plane) if op.mode == "crd" else (plane, channels * plane)
    bands, rows = bands_of(height, b * width * 4, n * channels * b)
    image = channels * b * b * plane
    values = (height, width, channels, image, channel, cell, bands, rows, int(n * image >= STREAM_BYTES))
    return dict(zip(GEOMETRY, values, strict=True)), n * channels * b * bands

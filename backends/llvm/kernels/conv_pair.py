"""Two 3x3 convolutions in one: thin -> wide -> thin (WDSR's blocks), the wide image never leaves the cache.

    for step of G tile rows, down a strip of S tile columns:
        V = Bᵀ d B of (S+1)·G tiles of the thin input
        for each 16·`vectors` wide channels:
            M = V·U₁, Y = Aᵀ M A and its epilogue to a small image of these channels: 6G rows below the last 2 kept
            W = Bᵀ Y B of S·G tiles; N += W·U₂            both products as in conv_winograd
        the output is Aᵀ N A and its epilogue

The wide image exists for one panel of channels and one step at a time, in scratch. Its last two rows are kept for the
next step, so that nothing is computed twice down the strip; across, a strip computes one tile column more than it
writes. Tiles of the first convolution lie one pixel lower and to the left of those of the second, everywhere in the
image: the result does not depend on how it is cut into strips and units.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graphsr.op import Array

from ..kernel import Argument, Kernel, blocked_slots
from ..loops import I64, LANES, PTR, VECTOR_BYTES, Function, Index, Value
from ..tensor import Buffer
from .epilogue import Epilogue
from .layout import row_of_image, zero_pixels
from .register_tile import in_registers
from .winograd_stages import Groups, multiply, transform_columns, transform_input, transform_rows
from .winograd_weights import transform_weights

if TYPE_CHECKING:
    from ..plan import Planner
    from ..target import Target
    from ..weight_forms import WeightForm
    from .conv import Convolution

UNIT = 5
"""Entries of a unit: image, first tile column, columns, first tile row, rows."""


@dataclass(frozen=True)
class ConvPair(Kernel):
    """See the loop nest above. Unit: a strip, or a part of one."""

    ci_blocks: int
    wide_panels: int
    co_panels: int
    vectors: int
    rows: tuple[int, int]
    """R of the two products."""
    m: int
    epilogues: tuple[Epilogue, Epilogue]
    columns: int = 22
    """Most tile columns of a strip."""
    step: int = 2
    """G, tile rows of a step."""

    @property
    def points(self) -> int:
        return (self.m + 2) ** 2

    @property
    def line(self) -> int:
        """Bytes of the channels of a panel in one pixel or point."""
        return self.vectors * VECTOR_BYTES

    @property
    def tiles(self) -> tuple[int, int]:
        """Most tiles of a step in the two convolutions, rounded up to register tiles."""
        wide, thin = self.rows
        return -(-(self.columns + 1) * self.step // wide) * wide, -(-self.columns * self.step // thin) * thin

    @property
    def v_point(self) -> int:
        return self.tiles[0] * self.ci_blocks * VECTOR_BYTES + VECTOR_BYTES

    @property
    def w_point(self) -> int:
        return self.tiles[1] * self.line + VECTOR_BYTES

    @property
    def tile_bytes(self) -> int:
        """Bytes of M and N for one tile and panel."""
        return (self.points + 1) * self.line

    @property
    def wide_row(self) -> int:
        """Bytes of a row of one block of the small wide image."""
        return (self.columns + 1) * self.m * VECTOR_BYTES

    def _areas(self) -> dict[str, int]:
        """Scratch by name, in bytes. W takes the place of M, which is dead by then."""
        wide_rows = self.step * self.m + 2
        return {
            "v": self.points * self.v_point,
            "m": max(self.tiles[0] * self.tile_bytes, self.points * self.w_point),
            "n": self.co_panels * self.tiles[1] * self.tile_bytes,
            "wide": wide_rows * self.vectors * self.wide_row,
            "kept": 2 * self.wide_panels * self.vectors * self.wide_row,
            "temporary": self.points * VECTOR_BYTES,
        }

    def scratch(self, target: Target) -> int:
        return sum(self._areas().values())

    @property
    def blocking(self) -> str:
        return f"{in_registers(self.rows[0], self.vectors)}, strips of {self.columns} tiles"

    def slots(self) -> Mapping[str, str]:
        residual = blocked_slots("r") if self.epilogues[1].residual else {}
        prefixed = {f"{name}{i}": t for i, e in enumerate(self.epilogues) for name, t in e.slots().items()}
        pointers = dict.fromkeys(("u0", "u1", "units", "zeros", "not_finite"), PTR)
        sizes = dict.fromkeys(("height", "width"), I64)
        return {**blocked_slots("x"), **blocked_slots("y"), **residual, **pointers, **prefixed, **sizes}

    def body(self, k: Function, target: Target) -> None:
        _Body(self, k).write()


class _Body:
    """The code of a `ConvPair`, with the addresses of its scratch."""

    def __init__(self, kernel: ConvPair, k: Function) -> None:
        self.kernel, self.k = kernel, k
        self.areas: dict[str, Value] = {}
        at = k.scratch
        for name, nbytes in kernel._areas().items():
            self.areas[name] = at
            at = at + nbytes
        entries = [k.load(k["units"] + k.unit * (8 * UNIT) + 8 * i, I64) for i in range(UNIT)]
        self.image, self.tx, self.columns, self.ty, self.rows = entries

    def write(self) -> None:
        k, kernel = self.k, self.kernel
        g = kernel.step
        steps = (self.rows + (g - 1)) // g
        with k.loop(steps + 1) as number:
            # The first turn computes the one tile row above the strip, for the two rows that are kept of it.
            above = number.equals(0)
            first = k.select(above, self.ty - 1, self.ty + (number - 1) * g)
            count = k.select(above, k.literal(1), k.minimum(self.ty + self.rows - first, g))
            wide = Groups.of(k, count * (self.columns + 1), kernel.rows[0])
            self._transform_thin(first, count, wide)
            with k.when(number > 0):
                self._clear_sums()
            with k.loop(kernel.wide_panels) as panel:
                self._widen(panel, first, count, wide)
                with k.when(number > 0):
                    self._narrow(panel, count)
                self._keep(panel, count)
            with k.when(number > 0):
                self._finish(first, count)

    def _transform_thin(self, first: Value, count: Value, groups: Groups) -> None:
        """V of the tiles of the first convolution: tile (g, s) reads from pixel (m·(first+g), m·(tx+s) − 2)."""
        k, kernel, m = self.k, self.kernel, self.kernel.m
        with k.loop(count) as g:
            y, x = (first + g) * m, (self.tx * m - 2) * VECTOR_BYTES
            rows = [row_of_image(k, self.image, y + i) + x for i in range(m + 2)]
            with k.loop(kernel.ci_blocks) as block, k.loop(self.columns + 1) as s:
                place = self._place("v", g * (self.columns + 1) + s, block, kernel.ci_blocks, groups)
                at = block * k["x_block"] + s * (m * VECTOR_BYTES)
                tile = [row + at for row in rows]
                temporary, not_finite = self.areas["temporary"], k["not_finite"]
                transform_input(k, m, tile, temporary, place, kernel.v_point, not_finite=not_finite)

    def _place(self, area: str, tile: Value, block: Index, blocks: int, groups: Groups) -> Value:
        """Where the vectors of a tile and block go: [group][block][row of the group][16]."""
        group, row = groups.place(tile)
        return self.areas[area] + ((group * blocks + block) * groups.rows + row) * VECTOR_BYTES

    def _clear_sums(self) -> None:
        k = self.k
        with k.loop(self.kernel._areas()["n"], step=VECTOR_BYTES) as at:
            k.store(k.vector(0.0), self.areas["n"] + at)

    def _widen(self, panel: Value, first: Value, count: Value, groups: Groups) -> None:
        """The wide image of one panel: its products, and Y with its epilogue below the two rows kept."""
        k, kernel, m = self.k, self.kernel, self.kernel.m
        room, line = kernel.rows[0], kernel.line
        with k.loop(kernel.points) as xi:
            u = k["u0"] + (panel * kernel.points + xi) * (kernel.ci_blocks * LANES * line)

            def compute(r: int, group: Value, tile: Value) -> None:
                a = self.areas["v"] + xi * kernel.v_point + group * (kernel.ci_blocks * room * VECTOR_BYTES)
                zeros = [k.vector(0.0)] * (r * kernel.vectors)
                total = multiply(k, a, u, kernel.ci_blocks, r, zeros, group, max(1, kernel.tiles[0] // room), room)
                self._store_sums(total, self.areas["m"] + tile * kernel.tile_bytes + xi * line)

            groups.each(compute)
        with k.loop(count) as g, k.loop(self.columns + 1) as s, k.loop(kernel.vectors) as vector:
            source = self.areas["m"] + (g * (self.columns + 1) + s) * kernel.tile_bytes + vector * VECTOR_BYTES
            row_bytes = kernel.vectors * kernel.wide_row
            out = self.areas["wide"] + vector * kernel.wide_row + s * (m * VECTOR_BYTES) + (g * m + 2) * row_bytes
            with k.pieces() as piece:
                transform_columns(k, m, source + piece, line, self.areas["temporary"])
                channels = kernel.epilogues[0].begin(k, panel * kernel.vectors + vector, "0", piece)

                def write(i: Value, pixels: list[Value]) -> None:
                    row = out + i * row_bytes + piece
                    for j, value in enumerate(pixels):
                        k.store(channels.apply(k, value), row + j * VECTOR_BYTES)

                transform_rows(k, m, self.areas["temporary"], m, write)
            self._clear_outside(out, (first + g) * m + 1, (self.tx + s) * m - 1, row_bytes)

    def _clear_outside(self, tile: Value, top: Value, left: Value, row_bytes: int) -> None:
        """Zeros where a tile of the wide image lies outside of it: the second convolution's padding."""
        k, m = self.k, self.kernel.m
        whole = (top >= 0) & (left >= 0) & (top + m <= k["height"]) & (left + m <= k["width"])
        with k.when(whole ^ 1), k.loop(m) as i, k.loop(m) as j:
            y, x = top + i, left + j
            inside = (y >= 0) & (x >= 0) & (y < k["height"]) & (x < k["width"])
            with k.when(inside ^ 1):
                k.store(k.vector(0.0), tile + i * row_bytes + j * VECTOR_BYTES)

    def _store_sums(self, total: list[Value], place: Value, more: bool = False) -> None:
        """The sums of a group, or `more` of those that are there: sums of sums round less than long ones."""
        k, kernel = self.k, self.kernel
        for n, value in enumerate(total):
            row, vector = divmod(n, kernel.vectors)
            at = place + (row * kernel.tile_bytes + vector * VECTOR_BYTES)
            k.store(k.load(at) + value if more else value, at)

    def _narrow(self, panel: Value, count: Value) -> None:
        """Put the kept rows above the panel's image, transform it, and add its products to the sums."""
        k, kernel, m = self.k, self.kernel, self.kernel.m
        row_bytes = kernel.vectors * kernel.wide_row
        self._copy(self.areas["kept"] + panel * (2 * row_bytes), self.areas["wide"])
        room, line = kernel.rows[1], kernel.line
        groups = Groups.of(k, count * self.columns, room)
        with k.loop(count) as g, k.loop(kernel.vectors) as block, k.loop(self.columns) as s:
            top = self.areas["wide"] + g * (m * row_bytes) + block * kernel.wide_row + s * (m * VECTOR_BYTES)
            rows = [top + i * row_bytes for i in range(m + 2)]
            place = self._place("m", g * self.columns + s, block, kernel.vectors, groups)
            transform_input(k, m, rows, self.areas["temporary"], place, kernel.w_point, ahead=False)
        with k.loop(kernel.points) as xi, k.loop(kernel.co_panels) as p:
            u = k["u1"] + ((panel * kernel.points + xi) * kernel.co_panels + p) * (kernel.vectors * LANES * line)

            def compute(r: int, group: Value, tile: Value) -> None:
                a = self.areas["m"] + xi * kernel.w_point + group * (room * line)
                place = self.areas["n"] + (p * kernel.tiles[1] + tile) * kernel.tile_bytes + xi * line
                zeros = [k.vector(0.0)] * (r * kernel.vectors)
                total = multiply(k, a, u, kernel.vectors, r, zeros, group, max(1, kernel.tiles[1] // room), room)
                self._store_sums(total, place, more=True)

            groups.each(compute)

    def _keep(self, panel: Value, count: Value) -> None:
        """Keep the last two rows of the panel's image for the next step."""
        kernel = self.kernel
        row_bytes = kernel.vectors * kernel.wide_row
        last = self.areas["wide"] + count * (kernel.m * row_bytes)
        self._copy(last, self.areas["kept"] + panel * (2 * row_bytes))

    def _copy(self, source: Value, target: Value) -> None:
        """Two rows of a panel."""
        k = self.k
        with k.loop(2 * self.kernel.vectors * self.kernel.wide_row, step=VECTOR_BYTES) as at:
            k.store(k.load(source + at), target + at)

    def _finish(self, first: Value, count: Value) -> None:
        """The output of a step."""
        k, kernel, m = self.k, self.kernel, self.kernel.m
        with k.loop(kernel.co_panels) as p, k.loop(count) as g, k.loop(self.columns) as s, k.loop(kernel.vectors) as v:
            tile = (p * kernel.tiles[1] + g * self.columns + s) * kernel.tile_bytes
            block = p * kernel.vectors + v
            top, left = (first + g) * m, (self.tx + s) * m
            at_row = self.image * k["height"] + top
            out = k["y"] + at_row * k["y_row"] + block * k["y_block"] + left * VECTOR_BYTES
            residual = None
            if kernel.epilogues[1].residual:
                residual = k["r"] + at_row * k["r_row"] + block * k["r_block"] + left * VECTOR_BYTES
            with k.pieces() as piece:
                source = self.areas["n"] + tile + v * VECTOR_BYTES + piece
                transform_columns(k, m, source, kernel.line, self.areas["temporary"])
                channels = kernel.epilogues[1].begin(k, block, "1", piece)

                def write(i: Value, pixels: list[Value]) -> None:
                    row = out + i * k["y_row"] + piece
                    r = residual + i * k["r_row"] + piece if residual is not None else None
                    for j, value in enumerate(pixels):
                        y = channels.apply(k, value, r + j * VECTOR_BYTES if r is not None else None)
                        k.store(y, row + j * VECTOR_BYTES)
                    self._halo(row, left)

                count = k.minimum(k["height"] - top, m)
                transform_rows(k, m, self.areas["temporary"], count, write, not_finite=k["not_finite"])

    def _halo(self, row: Value, left: Value) -> None:
        """Zeros left of the first tile of a row, and right of the image, over what the last tile wrote there."""
        k, m = self.k, self.kernel.m
        with k.when(left.equals(0)):
            zero_pixels(k, row + k["y_left"] * -VECTOR_BYTES, k["y_left"])
        with k.when(left + m >= k["width"]):
            zero_pixels(k, row + (k["width"] - left) * VECTOR_BYTES, k["y_right"])


def cut_strips(n: int, tile_rows: int, tile_columns: int, most: int, step: int, threads: int) -> Array:
    """[units, 5] strips of at most `most` tile columns, each cut into parts where threads would idle otherwise."""
    strips = -(-tile_columns // most)
    parts = next(p for p in range(1, threads + 1) if strips * n * p % threads == 0)
    parts = min(parts, -(-tile_rows // step))
    units = []
    for image in range(n):
        for s in range(strips):
            left, right = s * tile_columns // strips, (s + 1) * tile_columns // strips
            for part in range(parts):
                top, bottom = part * tile_rows // parts, (part + 1) * tile_rows // parts
                units.append((image, left, right - left, top, bottom - top))
    return np.array(units, np.int64).reshape(-1, UNIT)


def lower_pair(plan: Planner, first: Convolution, second: Convolution, m: int) -> None:
    """Add the call for two convolutions."""
    x_node = first.node.inputs[0]
    n, ci, height, width = x_node.type.dims
    tile_rows, tile_columns = -(-height // m), -(-width // m)
    covered = tile_columns * m
    # The last tile of the first convolution reads α pixels from m·columns − 2 on.
    x = plan.blocked(x_node, 2, covered + m - width)
    residual = second.residual(plan, covered - width)
    y = plan.new_blocked(second.node, 0, covered - width)
    vectors, rows = (2, (12, 11)) if plan.target.vector_bits >= 512 else (1, (plan.target.rows,) * 2)
    wide, co_panels = len(first.order) // LANES // vectors, len(second.order) // LANES // vectors
    kernel = ConvPair(-(-ci // LANES), wide, co_panels, vectors, rows, m, (first.epilogue, second.epilogue))
    epilogues = [conv.epilogue_arguments(plan) for conv in (first, second)]
    units = cut_strips(n, tile_rows, tile_columns, kernel.columns, kernel.step, plan.threads)
    arguments: dict[str, Argument] = {
        **x.arguments("x"),
        **y.arguments("y"),
        **(residual.arguments("r") if residual else {}),
        **{f"{name}{i}": value for i, values in enumerate(epilogues) for name, value in values.items()},
        "u0": _pack_widen(plan, first, kernel),
        "u1": _pack_narrow(plan, second, kernel),
        "units": units,
        "zeros": plan.zero_row(x),
        "not_finite": plan.not_finite,
        "height": height,
        "width": width,
    }
    label = f"winograd F({m},3) pair"
    plan.call(first.node, kernel, arguments, len(units), label=label, covers=(second.node,))


def _pack_widen(plan: Planner, conv: Convolution, kernel: ConvPair) -> WeightForm | Buffer:
    """U₁[panel][ξ][Ci][16·vectors]"""
    panel, block = np.meshgrid(np.arange(kernel.wide_panels), np.arange(kernel.ci_blocks), indexing="ij")
    point = kernel.ci_blocks * LANES * kernel.line
    places = panel * (kernel.points * point) + block * (LANES * kernel.line)
    form = f"pair widen {kernel.m} {kernel.vectors}"
    return transform_weights(plan, conv, form, kernel.m, kernel.vectors, places, point)


def _pack_narrow(plan: Planner, conv: Convolution, kernel: ConvPair) -> WeightForm | Buffer:
    """U₂[panel of wide channels][ξ][panel of output channels][channel of the panel][16·vectors]"""
    blocks = kernel.wide_panels * kernel.vectors
    panel, block = np.meshgrid(np.arange(kernel.co_panels), np.arange(blocks), indexing="ij")
    wide, within = block // kernel.vectors, block % kernel.vectors
    one = kernel.vectors * LANES * kernel.line
    point = kernel.co_panels * one
    places = wide * (kernel.points * point) + panel * one + within * (LANES * kernel.line)
    form = f"pair narrow {kernel.m} {kernel.vectors}"
    return transform_weights(plan, conv, form, kernel.m, kernel.vectors, places, point)

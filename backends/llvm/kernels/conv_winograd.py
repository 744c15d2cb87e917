"""conv2d by Winograd's F(m, 3): 3x3, stride 1, on blocked images.

    for t in the tiles of the unit:                        where tile t is read and written
    for b in Ci/16, t: V[ξ][t/R][b][t%R][16] = Bᵀ d B      input transform, vectors of 16 channels
    for chunk of panels: for row of ξ: U[ξ][p] = G g Gᵀ    of this row and chunk, where U is not given
        for ξ in row: for p in chunk: for t/R:
            M[p][t][ξ] = Σ_c V[ξ][t][c] · U[p][ξ][c]       R x `vectors` accumulators, a part of Ci at a time
    for p in chunk, t: Y = Aᵀ M A, epilogue, to the rows   output transform; pixel shuffle is its addresses

(Lavin & Gray 2015, section 4.1.) Tiles are numbered through the batch; a unit is a run of them. Where a unit's tiles do
not fill groups of R, some groups have R − 1: their products take as much less time. A panel is a group of
16·`vectors` output channels. U is packed in the order in which the loops read it, and the next panel is prefetched
meanwhile. V, M and the tile table are scratch of the thread.

A large U takes longer to read from beyond the second cache than to make from the nine taps of each channel. So each
thread makes it for itself: a row of ξ of one panel at a time, which stays in the second cache, for more tiles at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graphsr.forksafe import once
from graphsr.op import Array
from graphsr.ops.winograd import matrices

from ..kernel import Argument, Kernel, blocked_slots
from ..loops import FLOAT, I64, LANES, PTR, VECTOR_BYTES, Function, Index, Value
from ..memory import aligned
from .epilogue import Epilogue
from .layout import row_of_image, zero_pixels
from .register_tile import in_registers, register_tile_of
from .winograd_stages import Groups, multiply, transform_columns, transform_input, transform_rows
from .winograd_taps import TAPS, taps_of
from .winograd_transform import apply_matrix
from .winograd_weights import MANY_CHANNELS, is_large, transform_weights

if TYPE_CHECKING:
    from ..plan import Planner
    from ..target import Target
    from .conv import Convolution

MADE_FOR = 22
"""Register tiles of a unit for which U is made: so many that making it is little beside the products."""
LONG_SUM = 9
"""Blocks of input channels that are not summed up without a stop."""
UNEVEN = 1.03
"""How much longer the busiest thread may compute for whole register tiles' sake."""
OUT, RESIDUAL, ROWS, TX, PLACE, ABOVE = 0, 1, 2, 3, 4, 5
"""8-byte entries of the tile table for one tile; from the last on, the addresses of its α rows, for each slice."""


@dataclass(frozen=True)
class ConvWinograd(Kernel):
    """See the loop nest above."""

    ci_blocks: int
    panels: int
    vectors: int
    """Vectors of output channels in a panel."""
    rows: int
    """R, tiles in a register tile."""
    m: int
    epilogue: Epilogue
    tiles: int = 44
    """Most tiles in a unit, a multiple of R: how far apart things lie in V."""
    chunk: int = 1
    """Panels between two output transforms."""
    made: bool = False
    """Whether U is made here, of the taps that are given in its place."""
    shuffle: int = 1
    """Pixel-shuffle factor s: block g·(blocks/s²) + b is block b of the pixels (g/s, g%s) of each s x s cell."""
    slices: int = 0
    """Taps along the depth of volumes, whose slices lie as images one below the other; 0 for images. The channels of
    all slices that an output meets are the input channels of its tile."""

    @property
    def alpha(self) -> int:
        return self.m + 2

    @once
    def v_point(self) -> int:
        """Bytes of V for one ξ; one cache line more, so that the α² stores of a tile spread over the cache."""
        return self.tiles * self.ci_blocks * VECTOR_BYTES + VECTOR_BYTES

    @once
    def m_tile(self) -> int:
        """Bytes of M for one tile and panel, with two lines more for the same reason."""
        return (self.alpha**2 + 1) * self.vectors * VECTOR_BYTES

    @property
    def m_panel(self) -> int:
        return self.m_tile * self.tiles

    @property
    def u_panel(self) -> int:
        """Bytes of U for one panel and one ξ."""
        return self.ci_blocks * LANES * self.vectors * VECTOR_BYTES

    @property
    def u_point(self) -> int:
        """Bytes of U for one ξ of a chunk; where it is made, two lines more for the same reason."""
        return self.chunk * self.u_panel + self.made * self.vectors * VECTOR_BYTES

    @property
    def unkept_bytes(self) -> int:
        """Of the whole U, where it is made here."""
        return self.made * self.alpha**2 * self.panels * self.u_panel

    @property
    def blocking(self) -> str:
        return f"{in_registers(self.rows, self.vectors)}, {self.tiles} tiles in cache"

    @property
    def blocks_of_a_sum(self) -> int:
        """Blocks of input channels that are summed up in registers. Sums of sums round less than long ones, and the
        transforms magnify what the products have lost: a third less is lost with 192 channels in three parts, for 1 %
        of the time. F(2, 3) is taken for its digits, and sums up 32 channels at a time."""
        if self.m == 2:
            return 2 if self.ci_blocks % 2 == 0 else self.ci_blocks
        parts = next((n for n in (3, 2) if self.ci_blocks % n == 0), 1)
        return self.ci_blocks // parts if self.ci_blocks >= LONG_SUM else self.ci_blocks

    @property
    def tile_bytes(self) -> int:
        """Bytes of the tile table for one tile."""
        return 8 * (ABOVE + max(1, self.slices) * self.alpha)

    def slots(self) -> Mapping[str, str]:
        residual = blocked_slots("r") if self.epilogue.residual else {}
        depth = ("depth", "out_depth", "slice_step", "slice_space", "front") if self.slices else ()
        sizes = ("height", "width", "out_height", "out_width", "tile_rows", "tile_columns", "top", "pad_left")
        return {
            **blocked_slots("x"),
            **blocked_slots("y"),
            **residual,
            "u": PTR,
            **({"g": PTR} if self.made else {}),
            "units": PTR,
            "zeros": PTR,
            "not_finite": PTR,
            **self.epilogue.slots(),
            **dict.fromkeys((*sizes, *depth), I64),
        }

    def scratch(self, target: Target) -> int:
        v, m, u = self.alpha**2 * self.v_point, self.chunk * self.m_panel, self.made * self.alpha * self.u_point
        return v + m + self._table_bytes + self.alpha**2 * VECTOR_BYTES + u

    @property
    def _table_bytes(self) -> int:
        return -(-self.tiles * self.tile_bytes // VECTOR_BYTES) * VECTOR_BYTES

    def body(self, k: Function, target: Target) -> None:
        v = k.scratch
        m = v + self.alpha**2 * self.v_point
        table = m + self.chunk * self.m_panel
        temporary = table + self._table_bytes
        first = k.load(k["units"] + k.unit * 16, I64)
        count = k.load(k["units"] + k.unit * 16 + 8, I64)
        groups = Groups.of(k, count, self.rows)
        self._locate(k, table, first, count, groups)
        with k.loop(self.ci_blocks) as block, k.loop(count) as t:
            self._transform_input(k, table, v, temporary, block, t)
        with k.loop(self.panels // self.chunk) as c:
            with k.loop(self.alpha) as i:
                u = self._row_of_u(k, c, i, temporary + self.alpha**2 * VECTOR_BYTES)
                with k.loop(self.alpha) as j, k.loop(self.chunk) as p:
                    xi = i * self.alpha + j
                    self._multiply(k, v, m, xi, u + j * self.u_point + p * self.u_panel, p, groups)
            with k.loop(self.chunk) as p, k.loop(count) as t, k.loop(self.vectors) as vector:
                self._transform_output(k, table, m, temporary, c * self.chunk + p, p, t, vector)

    def _locate(self, k: Function, table: Value, first: Value, count: Value, groups: Groups) -> None:
        """Write the tile table."""
        m = self.m
        with k.loop(count) as t:
            tile, entry = first + t, table + t * self.tile_bytes
            row, tx = tile // k["tile_columns"], tile % k["tile_columns"]
            n, ty = row // k["tile_rows"], row % k["tile_rows"]
            column = (tx * m - k["pad_left"]) * VECTOR_BYTES
            self._locate_rows(k, n, ty * m - k["top"], column, entry + 8 * ABOVE)
            out_row = (n * k["out_height"] + ty * m) * self.shuffle
            out = k["y"] + out_row * k["y_row"] + tx * (m * self.shuffle * VECTOR_BYTES)
            k.store(out, entry + 8 * OUT)
            if self.epilogue.residual:
                k.store(k["r"] + out_row * k["r_row"] + tx * (m * VECTOR_BYTES), entry + 8 * RESIDUAL)
            k.store(k.minimum(k["out_height"] - ty * m, m), entry + 8 * ROWS)
            k.store(tx, entry + 8 * TX)
            group, within = groups.place(t)
            k.store((group * (self.ci_blocks * self.rows) + within) * VECTOR_BYTES, entry + 8 * PLACE)

    def _locate_rows(self, k: Function, n: Value, top: Value, column: Value, entry: Value) -> None:
        """Write where the α rows of a tile of image n, or of each slice that it meets, begin."""
        if not self.slices:
            for i in range(self.alpha):
                k.store(row_of_image(k, n, top + i) + column, entry + 8 * i)
            return
        volume, z = n // k["out_depth"], n % k["out_depth"]
        with k.loop(self.slices) as tap:
            place = z * k["slice_step"] + tap * k["slice_space"] - k["front"]
            inside = (place >= 0) & (place < k["depth"])
            for i in range(self.alpha):
                row = k.select(inside, row_of_image(k, volume * k["depth"] + place, top + i), k["zeros"])
                k.store(row + column, entry + tap * (8 * self.alpha) + 8 * i)

    def _transform_input(self, k: Function, table: Value, v: Value, temporary: Value, block: Value, t: Value) -> None:
        entry = table + t * self.tile_bytes
        above, channel = entry + 8 * ABOVE, block * k["x_block"]
        if self.slices:
            blocks = self.ci_blocks // self.slices
            above, channel = above + block // blocks * (8 * self.alpha), block % blocks * k["x_block"]
        rows = [k.load(above + 8 * i, PTR) + channel for i in range(self.alpha)]
        place = v + k.load(entry + 8 * PLACE, I64) + block * (self.rows * VECTOR_BYTES)
        transform_input(k, self.m, rows, temporary, place, self.v_point)

    def _row_of_u(self, k: Function, c: Value, i: Value, made: Value) -> Value:
        """Where U begins for row i of ξ of a chunk: as it is given, or after it was made."""
        if not self.made:
            return k["u"] + (c * self.alpha + i) * (self.alpha * self.u_point)
        _, G, _ = matrices(self.m)
        line = self.vectors * VECTOR_BYTES
        row = [k.load(k["g"] + i * (4 * LANES) + 4 * n, FLOAT) for n in range(3)]
        with k.loop(self.chunk) as p, k.loop(self.ci_blocks * LANES) as channel, k.loop(line, step=VECTOR_BYTES) as at:
            taps = k["u"] + ((c * self.chunk + p) * (self.ci_blocks * LANES) + channel) * (TAPS * line) + at
            with k.pieces() as piece:
                g = [[k.load(taps + (3 * n + j) * line + piece) for n in range(3)] for j in range(3)]
                r0, r1, r2 = map(k.splat, row)
                columns = [k.fma(g2, r2, k.fma(g1, r1, g0 * r0)) for g0, g1, g2 in g]
                for j, value in enumerate(apply_matrix(k, G, columns)):
                    k.store(value, made + p * self.u_panel + channel * line + at + piece + j * self.u_point)
        return made

    def _multiply(self, k: Function, v: Value, m: Value, xi: Value, u: Value, p: Value, groups: Groups) -> None:
        """M of all tiles for one panel and one ξ."""
        v_of_xi, m_of_xi = v + xi * self.v_point, m + p * self.m_panel + xi * (self.vectors * VECTOR_BYTES)

        def compute(rows: int, group: Value, first: Value) -> None:
            a = v_of_xi + group * (self.ci_blocks * self.rows * VECTOR_BYTES)
            zeros = [k.vector(0.0)] * (rows * self.vectors)
            blocks, groups_of_unit = self.blocks_of_a_sum, self.tiles // self.rows
            with k.loop(self.ci_blocks, step=blocks) as b:
                part = b, blocks
                total = multiply(k, a, u, self.ci_blocks, rows, zeros, group, groups_of_unit, self.rows, part)
                for i, value in enumerate(total):
                    r, n = divmod(i, self.vectors)
                    place = m_of_xi + first * self.m_tile + (r * self.m_tile + n * VECTOR_BYTES)
                    if blocks < self.ci_blocks:
                        value = value + k.select(b.equals(0), k.vector(0.0), k.load(place))
                    k.store(value, place)

        groups.each(compute)

    def _transform_output(
        self, k: Function, table: Value, m: Value, temporary: Value, panel: Index, p: Value, t: Value, vector: Value
    ) -> None:
        """Y of one tile and one block of channels, to the image."""
        entry, block = table + t * self.tile_bytes, panel * self.vectors + vector
        source = m + p * self.m_panel + t * self.m_tile + vector * VECTOR_BYTES
        with k.pieces() as piece:
            transform_columns(k, self.m, source + piece, self.vectors * VECTOR_BYTES, temporary)
            channels = self.epilogue.begin(k, block, piece=piece)
            out, step = self._output(k, entry, block)
            residual = k.load(entry + 8 * RESIDUAL, PTR) + block * k["r_block"] if self.epilogue.residual else None

            def write(i: Value, pixels: list[Value]) -> None:
                row = out + i * k["y_row"] * self.shuffle + piece
                r = residual + i * k["r_row"] + piece if residual is not None else None
                for j, y in enumerate(pixels):
                    y = channels.apply(k, y, r + j * VECTOR_BYTES if r is not None else None)
                    k.store(y, row + j * step)
                    k.prefetch(row + (j + self.m) * step, write=True)
                    if r is not None:
                        k.prefetch(r + (j + self.m) * VECTOR_BYTES)
                self._write_halo(k, entry, row, block)

            transform_rows(k, self.m, temporary, k.load(entry + 8 * ROWS, I64), write, not_finite=k["not_finite"])

    def _output(self, k: Function, entry: Value, block: Value) -> tuple[Value, int]:
        """Address of the first pixel of a tile in a block of channels, and the bytes between two of its pixels."""
        out = k.load(entry + 8 * OUT, PTR)
        if self.shuffle == 1:
            return out + block * k["y_block"], VECTOR_BYTES
        blocks = self.panels * self.vectors // self.shuffle**2
        cell, inner = block // blocks, block % blocks
        dy, dx = cell // self.shuffle, cell % self.shuffle
        out = out + inner * k["y_block"] + dy * k["y_row"] + dx * VECTOR_BYTES
        return out, self.shuffle * VECTOR_BYTES

    def _write_halo(self, k: Function, entry: Value, row: Value, block: Value) -> None:
        """Zeros left of the first tile of a row, and right of the last one."""
        tx, start = k.load(entry + 8 * TX, I64), row
        if self.shuffle > 1:
            within = block // (self.panels * self.vectors // self.shuffle**2) % self.shuffle
            start = row + within * -VECTOR_BYTES
        with k.when(tx.equals(0)):
            zero_pixels(k, start + k["y_left"] * -VECTOR_BYTES, k["y_left"])
        with k.when(tx.equals(k["tile_columns"] - 1)):  # over what the tile wrote there
            width = k["out_width"] * self.shuffle
            zero_pixels(k, start + (width - tx * (self.m * self.shuffle)) * VECTOR_BYTES, k["y_right"])


def lower_winograd(plan: Planner, conv: Convolution, m: int) -> None:
    """Add the call for a 3x3 convolution."""
    x_node = conv.node.inputs[0]
    n, _, height, width = x_node.type.dims
    _, _, out_height, out_width = conv.node.type.dims
    top, left, _, _ = conv.op.padding
    tile_rows, tile_columns = -(-out_height // m), -(-out_width // m)
    covered = tile_columns * m
    x = plan.blocked(x_node, left, max(0, covered + 2 - left - width))
    residual = conv.residual(plan, covered - out_width)
    y = plan.new_blocked(conv.result, 0, (covered - out_width) * conv.shuffle)
    kernel = choose_blocking(plan, conv, m)
    units = cut_tiles(n * tile_rows * tile_columns, kernel.tiles, kernel.rows, plan.threads)
    arguments = {
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
    }
    note = f"makes {kernel.unkept_bytes / 1e6:.1f} MB of weights that memory='high' keeps" if kernel.made else ""
    covers = (conv.shuffled,) if conv.shuffled else ()
    plan.call(conv.node, kernel, arguments, len(units), label=f"winograd F({m},3)", note=note, covers=covers)


def choose_blocking(plan: Planner, conv: Convolution, m: int) -> ConvWinograd:
    """Register tile and cache blocking for these channels."""
    ci_blocks, blocks = -(-conv.weight.shape[1] // LANES), len(conv.order) // LANES
    vectors, rows = register_tile_of(plan.target, blocks)
    panels = blocks // vectors
    # V is to stay in the second cache from panel to panel. With many channels it does not fit: then it is made for
    # more tiles at once, so that U passes less often, and read for two panels at a time.
    many = ci_blocks >= MANY_CHANNELS // LANES and panels % 2 == 0
    tiles, chunk = (4 * rows, 2) if many else (2 * rows, 1)
    made = is_large(conv.weight.shape, m) and conv.node.inputs[1] not in plan.kept
    if made:
        tiles, chunk = MADE_FOR * rows, 1
    return ConvWinograd(ci_blocks, panels, vectors, rows, m, conv.epilogue, tiles, chunk, made, conv.shuffle)


def cut_tiles(total: int, most: int, rows: int, threads: int) -> Array:
    """[units, 2] first tile and count: runs of at most `most` tiles, as long as can be, since each unit reads all of U;
    equally many for each thread. Runs are of whole register tiles, which are the fastest, unless one thread would have
    markedly more to do: then all runs are equally long."""
    groups = -(-total // rows)
    parts = min(groups, threads * -(-groups * rows // (threads * most)))
    part = np.arange(parts + 1, dtype=np.int64)
    whole, equal = np.minimum(part * groups // parts * rows, total), part * total // parts
    longer = _longest(np.diff(whole), rows, threads) > UNEVEN * _longest(np.diff(equal), rows, threads)
    ends = equal if longer else whole
    return np.stack([ends[:-1], np.diff(ends)], axis=1)


def _longest(counts: Array, rows: int, threads: int) -> int:
    """Rows of the register tiles that the busiest thread computes for units of so many tiles."""
    computed = np.maximum(counts, -(-counts // rows) * (rows - 1))
    return max(int(share.sum()) for share in np.array_split(computed, threads))


def weights(plan: Planner, conv: Convolution, kernel: ConvWinograd) -> dict[str, Argument]:
    """U[chunk][ξ][panel][Ci][16·vectors], in the order in which it is read, or what it is made of."""
    if kernel.made:
        _, G, _ = matrices(kernel.m)
        rows = np.zeros((kernel.alpha, LANES), np.float32)
        rows[:, :3] = G
        return {"u": taps_of(plan, conv, kernel.vectors), "g": aligned(rows)}
    panel, block = np.meshgrid(np.arange(kernel.panels), np.arange(kernel.ci_blocks), indexing="ij")
    chunk, within = panel // kernel.chunk, panel % kernel.chunk
    point = kernel.chunk * kernel.u_panel
    places = chunk * (kernel.alpha**2 * point) + within * kernel.u_panel + block * (kernel.u_panel // kernel.ci_blocks)
    form = conv.form(f"winograd {kernel.m} {kernel.vectors} {kernel.chunk}")
    return {"u": transform_weights(plan, conv, form, kernel.m, kernel.vectors, places, point)}

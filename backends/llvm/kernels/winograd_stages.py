"""The stages that the Winograd kernels share: Bᵀ d B of a tile, the products of a register tile, Aᵀ M A of a tile.

A tile lives in a temporary of α² vectors in the first cache between the two passes of a transform: fully unrolled,
its α² values would not fit the registers.

A transform mixes all pixels of a tile: one that is NaN or infinite makes NaN of its neighbours, too. So the kernels
notice it, and the program computes the network once more with plain sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graphsr.ops.winograd import matrices

from ..loops import LANES, VECTOR_BYTES, Function, Index, Value
from .register_tile import UNROLL, register_tile
from .winograd_transform import apply_matrix

AHEAD = 2
"""Tiles between the one that is transformed and the one whose pixels are fetched."""


def transform_input(
    k: Function,
    m: int,
    rows: Sequence[Value],
    temporary: Value,
    place: Value,
    point: int,
    *,
    ahead: bool = True,
    not_finite: Value | None = None,
) -> None:
    """V = Bᵀ d B of one tile and block. `rows`: addresses of the α rows of d; V[ξ] goes to `place` + ξ·`point`.

    Writes 1 to `not_finite`, if it is given, where d is not finite: the points 0 and ∞ together are made of all of it.
    """
    a, (_, _, BT) = m + 2, matrices(m)
    with k.loop(a) as j:
        for row in rows[2:] if ahead else ():  # the first two were read with the tiles above
            k.prefetch(row + (j + AHEAD * m) * VECTOR_BYTES)
        with k.pieces() as piece:
            at = j * VECTOR_BYTES + piece
            d = [k.load(row + at) for row in rows]
            for n, value in enumerate(apply_matrix(k, BT, d)):
                k.store(value, temporary + at + n * (a * VECTOR_BYTES))
    with k.pieces() as piece:

        @k.fold(a, [k.vector(0.0)])
        def corners(i: Value, total: list[Value]) -> list[Value]:
            source, target = temporary + i * (a * VECTOR_BYTES) + piece, place + i * (a * point) + piece
            values = apply_matrix(k, BT, [k.load(source + n * VECTOR_BYTES) for n in range(a)])
            for n, value in enumerate(values):
                k.store(value, target + n * point)
            return total if not_finite is None else [total[0] + (values[0] + values[-1])]

        if not_finite is not None:
            _notice(k, corners[0], not_finite)


@dataclass(frozen=True)
class Groups:
    """Tiles in register tiles of R or, where they do not fill these, R − 1: the first `full` of `count` have R."""

    k: Function
    rows: int
    count: Value
    full: Value

    @staticmethod
    def of(k: Function, tiles: Value, rows: int) -> Groups:
        count = (tiles + (rows - 1)) // rows
        return Groups(k, rows, count, k.maximum(tiles - count * (rows - 1), 0))

    def place(self, tile: Value) -> tuple[Value, Value]:
        """The group of a tile, and its row there."""
        k, behind = self.k, tile - self.full * self.rows
        in_full = behind < 0
        group = k.select(in_full, tile // self.rows, self.full + behind // (self.rows - 1))
        return group, k.select(in_full, tile % self.rows, behind % (self.rows - 1))

    def each(self, compute: Callable[[int, Value, Value], None]) -> None:
        """`compute(rows, group, first tile)` for all groups."""
        with self.k.loop(self.full) as group:
            compute(self.rows, group, group * self.rows)
        with self.k.loop(self.count, start=self.full) as group:
            compute(self.rows - 1, group, self.full + group * (self.rows - 1))


def multiply(
    k: Function,
    a: Value,
    u: Value,
    ci_blocks: int,
    rows: int,
    initial: Sequence[Value],
    group: Value,
    shares: int,
    room: int = 0,
    part: tuple[Index, int] | None = None,
) -> list[Value]:
    """`initial` + V·U of R tiles and one panel: a[block][R][16], u[Ci][16·vectors]. With `room` for more than R tiles,
    a[block][room][16]. Of all blocks, or of a `part` of them: the first, and how many.

    The next panel lies behind this one; each of `shares` groups of tiles fetches its share of it meanwhile.
    """
    room = room or rows
    first, count = part or (0, ci_blocks)
    line = len(initial) // rows * VECTOR_BYTES
    panel = ci_blocks * LANES * line
    ahead = u + panel

    @k.fold(count, initial)
    def total(of_part: Value, total: list[Value]) -> list[Value]:
        block = of_part + first
        a_block, u_block = a + block * (room * VECTOR_BYTES), u + block * (LANES * line)

        @k.fold(LANES, total, step=UNROLL)
        def total_of_block(q: Value, total: list[Value]) -> list[Value]:
            done = (block * LANES + q) * line
            for n in range(-(-UNROLL * line // (shares * VECTOR_BYTES))):
                k.prefetch(ahead + (group * panel + done) // shares + n * VECTOR_BYTES)
            for n in range(-(-UNROLL * room // LANES)):  # V two blocks further
                k.prefetch(a_block + (q + 2 * LANES) * (4 * room) + n * VECTOR_BYTES, level=3)
            offsets = range(0, 4 * UNROLL, 4)
            return register_tile(k, total, a_block + q * 4, u_block + q * line, rows, VECTOR_BYTES, offsets)

        return total_of_block

    return total


def transform_columns(k: Function, m: int, source: Value, line: int, temporary: Value) -> None:
    """The first half of Aᵀ M A: M[ξ] of the tile lies at `source` + ξ·`line`; the result goes to the temporary."""
    a, (AT, _, _) = m + 2, matrices(m)
    with k.loop(a) as j:
        d = [k.load(source + j * line + i * (a * line)) for i in range(a)]
        for n, value in enumerate(apply_matrix(k, AT, d)):
            k.store(value, temporary + j * VECTOR_BYTES + n * (a * VECTOR_BYTES))


def transform_rows(
    k: Function,
    m: int,
    temporary: Value,
    count: Index,
    write: Callable[[Value, list[Value]], None],
    *,
    not_finite: Value | None = None,
) -> None:
    """The second half, `count` of the m rows: `write(i, pixels)` takes the m pixels of row i. Writes 1 to `not_finite`,
    if it is given, where M is not finite.

    Every M[ξ] is a term of one of the corners of Y: the points 0 and ∞ of the first and the last pixel of a row or
    column alone, the others of both. No sum that has a NaN or an infinity among its terms is finite.
    """
    a, (AT, _, _) = m + 2, matrices(m)

    @k.fold(count, [k.vector(0.0)])
    def corners(i: Value, total: list[Value]) -> list[Value]:
        line = temporary + i * (a * VECTOR_BYTES)
        pixels = apply_matrix(k, AT, [k.load(line + j * VECTOR_BYTES) for j in range(a)])
        write(i, pixels)
        return total if not_finite is None else [total[0] + (pixels[0] + pixels[-1])]

    if not_finite is not None:
        _notice(k, corners[0], not_finite)


def _notice(k: Function, total: Value, not_finite: Value) -> None:
    """Write 1 where a sum is not finite."""
    nothing = total - total
    with k.when(k.any(k.compare("uno", nothing, nothing))):
        k.store(k.literal(1), not_finite)

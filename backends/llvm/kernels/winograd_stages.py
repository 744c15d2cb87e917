"""The stages that the Winograd kernels share: Bᵀ d B of a tile, the products of a register tile, Aᵀ M A of a tile.

A tile lives in a temporary of α² vectors in the first cache between the two passes of a transform: fully unrolled,
its α² values would not fit the registers.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphsr.ops.winograd import matrices

from ..loops import LANES, VECTOR_BYTES, Function, Value
from .register_tile import UNROLL, register_tile
from .winograd_transform import apply_matrix

AHEAD = 2
"""Tiles between the one that is transformed and the one whose pixels are fetched."""


def transform_input(
    k: Function, m: int, rows: Sequence[Value], temporary: Value, place: Value, point: int, ahead: bool = True
) -> None:
    """V = Bᵀ d B of one tile and block. `rows`: addresses of the α rows of d; V[ξ] goes to `place` + ξ·`point`."""
    a, (_, _, BT) = m + 2, matrices(m)
    with k.loop(a) as j:
        for row in rows[2:] if ahead else ():  # the first two were read with the tiles above
            k.prefetch(row + (j + AHEAD * m) * VECTOR_BYTES)
        with k.pieces() as piece:
            at = j * VECTOR_BYTES + piece
            d = [k.load(row + at) for row in rows]
            for n, value in enumerate(apply_matrix(k, BT, d)):
                k.store(value, temporary + at + n * (a * VECTOR_BYTES))
    with k.loop(a) as i, k.pieces() as piece:
        source, target = temporary + i * (a * VECTOR_BYTES) + piece, place + i * (a * point) + piece
        d = [k.load(source + n * VECTOR_BYTES) for n in range(a)]
        for n, value in enumerate(apply_matrix(k, BT, d)):
            k.store(value, target + n * point)


def multiply(
    k: Function, a: Value, u: Value, ci_blocks: int, rows: int, initial: Sequence[Value], group: Value, shares: int
) -> list[Value]:
    """`initial` + V·U of R tiles and one panel: a[block][R][16], u[Ci][16·vectors].

    The next panel lies behind this one; each of `shares` groups of tiles fetches its share of it meanwhile.
    """
    line = len(initial) // rows * VECTOR_BYTES
    panel = ci_blocks * LANES * line
    ahead = u + panel

    @k.fold(ci_blocks, initial)
    def total(block: Value, total: list[Value]) -> list[Value]:
        a_block, u_block = a + block * (rows * VECTOR_BYTES), u + block * (LANES * line)

        @k.fold(LANES, total, step=UNROLL)
        def total_of_block(q: Value, total: list[Value]) -> list[Value]:
            done = (block * LANES + q) * line
            for n in range(-(-UNROLL * line // (shares * VECTOR_BYTES))):
                k.prefetch(ahead + (group * panel + done) // shares + n * VECTOR_BYTES)
            for n in range(-(-UNROLL * rows // LANES)):  # V two blocks further
                k.prefetch(a_block + (q + 2 * LANES) * (4 * rows) + n * VECTOR_BYTES, level=3)
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


def transform_row(k: Function, m: int, temporary: Value, i: Value) -> list[Value]:
    """The second half: the m pixels of row i of the tile."""
    a, (AT, _, _) = m + 2, matrices(m)
    return apply_matrix(k, AT, [k.load(temporary + i * (a * VECTOR_BYTES) + j * VECTOR_BYTES) for j in range(a)])

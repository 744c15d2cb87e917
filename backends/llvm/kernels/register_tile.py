"""The register tile: the innermost product of every convolution, and its shape.

    for each k:
        `vectors` vectors of output channels are loaded, R scalars are loaded into all lanes,
        R x `vectors` accumulators take a multiply-add each

Loads are the other limit beside the multiply-adds: R + `vectors` of them for R · `vectors` multiply-adds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..kernel import Kernel
from ..loops import FLOAT, LANES, VECTOR_BYTES, Function, Value

if TYPE_CHECKING:
    from ..target import Target

UNROLL = 4
"""Steps of k per turn of the innermost loop; with many more, LLVM moves loads far ahead and spills."""
LATENCY = 4
"""Cycles from a multiply-add to the next one of the same accumulator."""


def register_tile(
    k: Function, total: list[Value], a: Value, b: Value, rows: int, stride: int, offsets: Sequence[int]
) -> list[Value]:
    """For each offset o: total[r][n] += a[r·stride + o] · b[n], b going on by one line of vectors. All in bytes."""
    return register_tile_at(k, total, [a + r * stride for r in range(rows)], b, offsets)


def register_tile_at(
    k: Function, total: list[Value], a: Sequence[Value], b: Value, offsets: Sequence[int]
) -> list[Value]:
    """The same for rows at addresses of their own: total[r][n] += a[r][o] · b[n]."""
    total, vectors = list(total), len(total) // len(a)
    for step, offset in enumerate(offsets):
        right = [k.load(b + (step * vectors + n) * VECTOR_BYTES) for n in range(vectors)]
        for r, row in enumerate(a):
            left = k.splat(k.load(row + offset, FLOAT))
            for n in range(vectors):
                total[r * vectors + n] = k.fma(left, right[n], total[r * vectors + n])
    return total


class InRegisters(Kernel):
    """Base of kernels that compute a register tile at a time; `explain()` says how large it is."""

    rows: int
    vectors: int

    @property
    def blocking(self) -> str:
        return in_registers(self.rows, self.vectors)


def in_registers(rows: int, vectors: int) -> str:
    """For `explain()`."""
    return f"{rows}x{LANES * vectors} in registers"


def register_tile_of(target: Target, blocks: int) -> tuple[int, int]:
    """(vectors, rows) of the register tile for so many blocks of output channels: accumulators fill the registers but
    for the operands. A panel divides the blocks, so that nothing is computed in vain."""
    if target.vector_bits < 512:
        return 1, target.rows
    for vectors, rows in ((2, 11), (3, 8), (5, 5), (7, 3)):
        if blocks % vectors == 0:
            return vectors, rows
    return 1, 22


def direct_tile_of(target: Target, blocks: int) -> tuple[int, int]:
    """The same for direct convolution, where addresses take the other registers: one for every row. Where four
    registers make a vector, more than four rows leave no room to load ahead."""
    vectors, rows = register_tile_of(target, blocks)
    if target.vector_bits == 128:
        return vectors, min(rows, 4)
    return vectors, min(rows, 12, 22 // vectors if vectors > 3 else rows)


def pointwise_tile_of(target: Target, blocks: int, width: int) -> tuple[int, int]:
    """The same for products in rows of `width` pixels, which need no addresses: the tile that takes the fewest cycles
    for a row, of those with R pixels at most; the first of about equal ones, so that most widths share their code.

    A step of a tile takes a cycle for two multiply-adds, and was measured to take about a fifth for each load.
    """
    if target.vector_bits < 512:
        return 1, min(register_tile_of(target, 1)[1], width)

    def cycles(tile: tuple[int, int]) -> float:
        vectors, rows = tile
        return -(-width // rows) * max(vectors * rows / 2 + (vectors + rows) / 5, LATENCY) / vectors

    every = [(v, r) for v in (4, 3, 2, 5, 1) for r in (6, 8, 12, 5, 7, 10, 4, 3, 2, 1) if v * (r + 1) <= 29]
    fitting = [tile for tile in every if blocks % tile[0] == 0 and tile[1] <= width]
    least = min(map(cycles, fitting))
    return next(tile for tile in fitting if cycles(tile) <= 1.05 * least)


def accumulators(target: Target) -> int:
    """Vectors of 16 floats that can be summed up at a time, with registers left for the operands."""
    return target.rows * target.panels

"""Winograd convolution F(m, 3) over BLAS, block by block (see `graphsr.ops.winograd` for the maths).

For a block of T tiles, α = m + 2, each of the α² positions of a tile being one matrix product:

    for each chunk of input channels c:
        P[c, h, w]     = padded input pixels under the block
        Q[i, j, c, t]  = P[c, m·row(t) + i, m·column(t) + j]          # overlapping tiles, gathered
        H[i, y, c, t]  = Σ_j Bᵀ[y, j] Q[i, j, c, t]                   # α products [α, α] @ [α, c·T]
        V[x, y, c, t]  = Σ_i Bᵀ[x, i] H[i, y, c, t]
    M[x, y, o, t] = Σ_c U[x, y, o, c] V[x, y, c, t]                   # α² products [Co, Ci] @ [Ci, T]
    for each chunk of output channels o:
        Z[y, i, o, t]  = Σ_x Aᵀ[i, x] M[x, y, o, t]
        Y[i, o, t, j]  = Σ_y Z[y, i, o, t] A[y, j]                    # t, j: the pixels of a row, side by side
        output[o, m·row(t) + i, m·column(t) + j] = epilogue(Y[i, o, t, j])

The transforms are products with tiny matrices as well: BLAS runs them at several times the speed of the element-wise
sums that they could be written as, because a ufunc pass is limited by memory. Chunks keep them in the cache.

The transforms mix all pixels of a tile, and would spread a NaN or an infinity among them: blocks that read one are
computed as plain sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import prod
from typing import Any

import numpy as np

from graphsr.ir import Node
from graphsr.op import Array
from graphsr.ops import Conv2d
from graphsr.ops.winograd import R as TAPS
from graphsr.ops.winograd import matrices

from .blas_conv import Im2col
from .layer import Epilogue
from .numpy_kernel import (
    Blocked,
    Region,
    carve,
    copy_padded,
    cut,
    finish,
    scratch_bytes,
    slices,
    temporaries,
    windows,
)
from .weights import WeightCache

TILES = 128
"""Tiles of a block. Enough for the products to run near full speed, few enough that V and M stay in the cache of one
core for narrow layers (measured for 64 to 256 channels: flat from 64 to 256)."""
CHUNK = 4096
"""Channels times tiles that are transformed at once: α² times as many numbers, three times over, fit in 2 MB."""


@dataclass(frozen=True)
class Winograd(Blocked):
    """A 3x3 convolution with stride 1, units = blocks of tiles of one image."""

    m: int
    weight: Array
    """U[α, α, Ci, Co]: BLAS reads it faster this way round when there are few output channels."""
    padding: tuple[int, int, int, int]
    blocks: tuple[Region, ...]
    """In tiles."""
    epilogue: Epilogue
    plain: Callable[[Region], Im2col]
    """The same convolution as a plain sum, of some pixels, a row in a unit."""

    @property
    def label(self) -> str:
        block = self.blocks[0]
        return f"winograd_f{self.m}, {block.height} tile rows x {block.width} tiles per block"

    def _scratch(self, tiles: Region) -> int:
        dtype = self.weight.dtype
        work = max(scratch_bytes(dtype, *shapes) for shapes in (self._input(tiles), self._output(tiles)))
        extra = temporaries(self.epilogue, prod(self._output(tiles)[1]) * dtype.itemsize)
        return scratch_bytes(dtype, *self._products(tiles)) + work + extra

    def run(self, unit: int, inputs: Sequence[Array], output: Array, scratch: Array) -> None:
        tiles = self.blocks[unit]
        a, ci, co, t = len(self.weight), *self.weight.shape[2:], tiles.area
        V, M, work = carve(scratch, output.dtype, *self._products(tiles))
        if not self._transform_input(inputs[0][tiles.n], tiles, V, work):
            self._sum_plainly(self._pixels(tiles, output), inputs, output)
            return
        U = self.weight.reshape(a * a, ci, co).swapaxes(1, 2)
        np.matmul(U, V.reshape(a * a, ci, t), out=M.reshape(a * a, co, t))
        self._transform_output(M, tiles, inputs, output, work)

    def _sum_plainly(self, pixels: Region, inputs: Sequence[Array], output: Array) -> None:
        """In memory of its own: no more than a row of pixels takes, and seldom asked for."""
        plain = self.plain(pixels)
        scratch = np.empty(plain.scratch, np.uint8)
        for row in range(plain.units):
            plain.run(row, inputs, output, scratch)

    def _transform_input(self, x: Array, tiles: Region, V: Array, work: Array) -> bool:
        """x[Ci, H, W] -> V[α, α, Ci, T]. False, and V is not complete, where x is not finite."""
        BT, a = _transforms(self.m, x.dtype)[1], len(V)
        for c in slices(len(x), self._channels(tiles)):
            P, Q, H, _ = carve(work, x.dtype, *self._input(tiles, c.stop - c.start))
            top, left = tiles.top * self.m - self.padding[0], tiles.left * self.m - self.padding[1]
            copy_padded(x[c], P, top, left)
            if not np.isfinite(P).all():
                return False
            gathered = windows(P, (a, a), (tiles.height, tiles.width), (self.m, self.m), (1, 1))
            np.copyto(Q.reshape(a, a, len(P), tiles.height, tiles.width), gathered.transpose(1, 2, 0, 3, 4))
            np.matmul(BT, Q, out=H)
            np.matmul(BT, H.swapaxes(0, 1), out=V[:, :, c].reshape(Q.shape).swapaxes(0, 1))
        return True

    def _transform_output(self, M: Array, tiles: Region, inputs: Sequence[Array], output: Array, work: Array) -> None:
        """M[α, α, Co, T] -> the pixels of these tiles in output[N, Co, Ho, Wo]"""
        m, a = self.m, self.m + TAPS - 1
        AT = _transforms(m, M.dtype)[0]
        pixels = self._pixels(tiles, output)
        for c in slices(M.shape[2], self._channels(tiles)):
            Z, Y, plane, _ = carve(work, M.dtype, *self._output(tiles, c.stop - c.start))
            np.matmul(AT, M[:, :, c].reshape(a, a, -1).swapaxes(0, 1), out=Z)
            np.matmul(Z.transpose(1, 2, 0), AT.T, out=Y)
            rows = Y.reshape(m, c.stop - c.start, tiles.height, tiles.width * m)
            np.copyto(plane.reshape(-1, tiles.height, m, tiles.width * m), rows.transpose(1, 2, 0, 3))
            values = plane[:, : pixels.height, : pixels.width]
            finish(self.epilogue, values, output, inputs, pixels, c)

    def _pixels(self, tiles: Region, output: Array) -> Region:
        """Where the tiles lie in the output; the last ones may reach over its edge."""
        m, (height, width) = self.m, output.shape[2:]
        return Region(
            tiles.n, tiles.top * m, min(tiles.bottom * m, height), tiles.left * m, min(tiles.right * m, width)
        )

    def _channels(self, tiles: Region) -> int:
        return max(1, CHUNK // tiles.area)

    def _products(self, tiles: Region) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shapes of V and M."""
        a, ci, co = len(self.weight), *self.weight.shape[2:]
        return (a, a, ci, tiles.area), (a, a, co, tiles.area)

    def _input(self, tiles: Region, channels: int | None = None) -> tuple[tuple[int, ...], ...]:
        """Shapes of P, Q and H for a chunk of channels (default: the largest)."""
        a, m, c = len(self.weight), self.m, channels or min(self._channels(tiles), self.weight.shape[2])
        return (c, tiles.height * m + 2, tiles.width * m + 2), (a, a, c * tiles.area), (a, a, c * tiles.area)

    def _output(self, tiles: Region, channels: int | None = None) -> tuple[tuple[int, ...], ...]:
        """Shapes of Z, Y and the plane of pixels for a chunk of channels (default: the largest)."""
        a, m, c = len(self.weight), self.m, channels or min(self._channels(tiles), self.weight.shape[3])
        return (a, m, c * tiles.area), (m, c * tiles.area, m), (c, tiles.height * m, tiles.width * m)


def winograd_kernel(node: Node, conv: Conv2d, epilogue: Epilogue, weights: WeightCache) -> Winograd:
    """The kernel of a node whose convolution chose `winograd_fm`; its weight is a constant."""
    m = int(conv.algorithm[-1])
    n, _, height, width = node.type.dims
    weight = weights.get(node.inputs[1].value, conv.algorithm, lambda w: transform_weight(w, m))
    blocks = cut(n, -(-height // m), -(-width // m), TILES)

    def plain(pixels: Region) -> Im2col:
        rows = (replace(pixels, top=row, bottom=row + 1) for row in range(pixels.top, pixels.bottom))
        co, ci, *_ = node.inputs[1].type.dims
        return Im2col(conv, (co, ci, TAPS, TAPS), tuple(rows), epilogue, weight.dtype)

    return Winograd(m, weight, conv.padding, blocks, epilogue, plain)


def transform_weight(weight: Array, m: int) -> Array:
    """U = G g Gᵀ for every pair of channels: weight[Co, Ci, 3, 3] -> U[α, α, Ci, Co], rounded once.

    As one product, (G ⊗ G) · vec(g), in float64; a band of output channels at a time, for its memory.
    """
    G = matrices(m)[1]
    co, ci = weight.shape[:2]
    U = np.empty((len(G), len(G), ci, co), weight.dtype)
    for c in slices(co, 16):
        band = np.kron(G, G) @ weight[c].reshape(-1, TAPS * TAPS).T.astype(np.float64)
        U[..., c] = band.reshape(len(G), len(G), -1, ci).swapaxes(2, 3)
    return U


@cache
def _transforms(m: int, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """Aᵀ and Bᵀ in the dtype of the data."""
    AT, _, BT = matrices(m)
    return AT.astype(dtype), BT.astype(dtype)

"""Exact convolution over BLAS: im2col, its counterpart for few outputs (kn2row and col2im), and depthwise sums.

im2col      block of the output = weight[Co, Ci·Kh·Kw] @ columns[Ci·Kh·Kw, block] (Chellapilla et al. 2006); a 1x1
            kernel with stride 1 needs no copy.
kn2row      taps[Kh·Kw·Co, rows] = weight[Kh·Kw·Co, Ci] @ x[Ci, rows], every tap added where it belongs (Vasudevan,
            Anderson & Gregg 2017): 9·Co numbers are moved per pixel instead of 9·Ci, so it wins for Co < Ci.
col2im      the same for a transposed convolution: only the places differ.
depthwise   one multiply-add per tap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from graphsr.forksafe import once
from graphsr.ir import Node
from graphsr.op import Array
from graphsr.ops import Conv2d, ConvTranspose2d

from .layer import Epilogue
from .numpy_kernel import (
    Blocked,
    Region,
    bands,
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

PIXELS = 512
"""Output pixels of an im2col block: below, BLAS spends its time on packing the weights (measured)."""
SCRATCH = 4 << 20
"""Bytes of working memory of one thread that a block should not exceed: the order of an L2 cache."""
CACHE = 64 << 10
"""Numbers that a depthwise block works on at once."""


@dataclass(frozen=True)
class Im2col(Blocked):
    """y[g, Cog, block] = weight[g, Cog, K] @ columns[g, K, block] with K = Cig·Kh·Kw; units = blocks of an image."""

    conv: Conv2d
    kernel: tuple[int, int, int, int]
    """Shape of the weight, [Co, Cig, Kh, Kw]."""
    blocks: tuple[Region, ...]
    epilogue: Epilogue
    dtype: np.dtype[Any]

    @property
    def label(self) -> str:
        block = self.blocks[0]
        name = "gemm 1x1" if self._is_pointwise else "im2col"
        return f"{name}, {block.height} rows x {block.width} per block"

    def _scratch(self, block: Region) -> int:
        (co, cig, kh, kw), count = self.kernel, (block.height, block.width)
        values = scratch_bytes(self.dtype, (co, block.area))
        if not self._is_pointwise:
            ci = cig * self.conv.groups
            values += scratch_bytes(self.dtype, (ci, kh, kw, *count), (ci, *under(self.conv, (kh, kw), count)))
        return values + temporaries(self.epilogue, co * block.area * self.dtype.itemsize)

    def run(self, unit: int, inputs: Sequence[Array], output: Array, scratch: Array) -> None:
        block, groups = self.blocks[unit], self.conv.groups
        co, height, width = output.shape[1:]
        inside = slice(block.top * width + block.left, (block.bottom - 1) * width + block.right)
        values, work = carve(scratch, output.dtype, (groups, co // groups, block.area))
        if self._is_pointwise:
            columns = inputs[0][block.n].reshape(groups, -1, height * width)[:, :, inside]
        else:
            columns = self._columns(inputs[0][block.n], block, work).reshape(groups, -1, block.area)
        np.matmul(inputs[1].reshape(groups, co // groups, -1), columns, out=values)
        finish(self.epilogue, values.reshape(co, block.height, block.width), output, inputs, block, slice(None))

    def _columns(self, x: Array, block: Region, scratch: Array) -> Array:
        """columns[c, i, j, r, q] = x[c, s·r + d·i − p_top, s·q + d·j − p_left], zero outside x[C, H, W]."""
        kernel, count = self.kernel[2:], (block.height, block.width)
        columns, window, _ = carve(
            scratch, x.dtype, (len(x), *kernel, *count), (len(x), *under(self.conv, kernel, count))
        )
        (sh, sw), (top, left) = self.conv.stride, self.conv.padding[:2]
        copy_padded(x, window, block.top * sh - top, block.left * sw - left)
        np.copyto(columns, windows(window, kernel, count, self.conv.stride, self.conv.dilation))
        return columns

    @property
    def _is_pointwise(self) -> bool:
        conv = self.conv
        return self.kernel[2:] == (1, 1) and conv.stride == (1, 1) and conv.padding == (0, 0, 0, 0)


def under(conv: Conv2d, kernel: tuple[int, int], count: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the input under a block of `count` outputs."""
    height, width = ((count[a] - 1) * conv.stride[a] + (kernel[a] - 1) * conv.dilation[a] + 1 for a in (0, 1))
    return height, width


@dataclass(frozen=True)
class Scatter:
    """taps[g, Kh·Kw·Cog, rows] = weight[g, Kh·Kw·Cog, Cig] @ x[g, Cig, rows]; then, for each tap (i, j),
    y[o, s·h + o_i, s·w + o_j] += taps[i, j, o, h, w]; units = bands of output rows of an image.

    o_i = d·i − p_top for a transposed convolution; p_top − d·i for a convolution with stride 1.
    """

    name: str
    weight: Array
    """[g, Kh, Kw, Cog, Cig]"""
    stride: tuple[int, int]
    offsets: tuple[tuple[int, ...], tuple[int, ...]]
    """o_i for every i and o_j for every j."""
    input_shape: tuple[int, ...]
    bands: tuple[tuple[int, slice], ...]
    """Image and output rows of every unit."""
    epilogue: Epilogue
    width: int
    """Of the output."""

    @property
    def label(self) -> str:
        rows = self.bands[0][1]
        return f"{self.name}, {rows.stop - rows.start} rows per block"

    @property
    def units(self) -> int:
        return len(self.bands)

    @once
    def scratch(self) -> int:
        return max(self._scratch(rows) for _, rows in self.bands)

    def _scratch(self, rows: slice) -> int:
        groups, _, _, cog, _ = self.weight.shape
        values = (groups, cog, rows.stop - rows.start, self.width)
        extra = temporaries(self.epilogue, prod(values) * self.weight.itemsize)
        return scratch_bytes(self.weight.dtype, self._taps(self._source(rows)), values) + extra

    def run(self, unit: int, inputs: Sequence[Array], output: Array, scratch: Array) -> None:
        n, rows = self.bands[unit]
        x = inputs[0][n]
        groups, kh, kw, cog, cig = self.weight.shape
        source = self._source(rows)
        height = rows.stop - rows.start
        taps, values, _ = carve(scratch, output.dtype, self._taps(source), (groups, cog, height, self.width))
        pixels = x.reshape(groups, cig, -1)[:, :, source.start * x.shape[2] : source.stop * x.shape[2]]
        np.matmul(self.weight.reshape(groups, -1, cig), pixels, out=taps.reshape(groups, kh * kw * cog, -1))
        values[...] = 0
        for i, oi in enumerate(self.offsets[0]):
            h = sources(rows, self.stride[0], oi, x.shape[1])
            for j, oj in enumerate(self.offsets[1]):
                w = sources(slice(0, self.width), self.stride[1], oj, x.shape[2])
                if h.start < h.stop and w.start < w.stop:
                    place = values[:, :, places(h, self.stride[0], oi - rows.start), places(w, self.stride[1], oj)]
                    place += taps[:, i, j, :, h.start - source.start : h.stop - source.start, w]
        block = Region(n, rows.start, rows.stop, 0, self.width)
        finish(self.epilogue, values.reshape(-1, height, self.width), output, inputs, block, slice(None))

    def _source(self, rows: slice) -> slice:
        """The input rows that the output rows read."""
        reached = [sources(rows, self.stride[0], offset, self.input_shape[2]) for offset in self.offsets[0]]
        used = [h for h in reached if h.start < h.stop]
        return slice(min((h.start for h in used), default=0), max((h.stop for h in used), default=0))

    def _taps(self, source: slice) -> tuple[int, ...]:
        return (*self.weight.shape[:4], source.stop - source.start, self.input_shape[3])


def sources(target: slice, step: int, offset: int, size: int) -> slice:
    """Those h in 0..size−1 whose place s·h + offset lies in `target`; start >= stop where there is none."""
    first = -((offset - target.start) // step)  # ⌈(start − offset) / s⌉
    return slice(max(0, first), min(size, (target.stop - 1 - offset) // step + 1))


def places(source: slice, step: int, offset: int) -> slice:
    """The places s·h + offset of a range of h that is not empty."""
    first = source.start * step + offset
    return slice(first, first + (source.stop - 1 - source.start) * step + 1, step)


@dataclass(frozen=True)
class Depthwise(Blocked):
    """y[c, block] = Σ_i Σ_j weight[c, i, j] · x[c, shifted block], Co = Ci = groups; units = bands of an image."""

    conv: Conv2d
    channels: int
    kernel: tuple[int, int]
    blocks: tuple[Region, ...]
    epilogue: Epilogue
    dtype: np.dtype[Any]

    @property
    def label(self) -> str:
        return f"depthwise, {self.blocks[0].height} rows x {self.blocks[0].width} per block"

    def _scratch(self, block: Region) -> int:
        c = min(self._channels(block), self.channels)
        extra = temporaries(self.epilogue, self.dtype.itemsize * c * block.area)
        return scratch_bytes(self.dtype, *self._shapes(block, c)) + extra

    def run(self, unit: int, inputs: Sequence[Array], output: Array, scratch: Array) -> None:
        block, (x, weight) = self.blocks[unit], inputs[:2]
        (sh, sw), (top, left) = self.conv.stride, self.conv.padding[:2]
        for c in slices(x.shape[1], self._channels(block)):
            window, product, y, _ = carve(scratch, x.dtype, *self._shapes(block, c.stop - c.start))
            copy_padded(x[block.n, c], window, block.top * sh - top, block.left * sw - left)
            taps = windows(window, self.kernel, (block.height, block.width), self.conv.stride, self.conv.dilation)
            np.multiply(taps[:, 0, 0], weight[c, 0, 0, 0, None, None], out=y)
            for i, j in list(np.ndindex(*self.kernel))[1:]:
                np.multiply(taps[:, i, j], weight[c, 0, i, j, None, None], out=product)
                np.add(y, product, out=y)
            finish(self.epilogue, y, output, inputs, block, c)

    def _channels(self, block: Region) -> int:
        return max(1, CACHE // block.area)

    def _shapes(self, block: Region, channels: int) -> tuple[tuple[int, ...], ...]:
        """Of the padded input under a block, of one product and of the sum."""
        count = (block.height, block.width)
        return (channels, *under(self.conv, self.kernel, count)), (channels, *count), (channels, *count)


def conv_kernel(node: Node, conv: Conv2d, epilogue: Epilogue, weights: WeightCache) -> Im2col | Depthwise | Scatter:
    """The kernel of an exact convolution, by its shape. "im2col" in the graph admits its counterpart kn2row as well."""
    n, co, height, width = node.type.dims
    weight = node.inputs[1]
    _, cig, kh, kw = weight.type.dims
    dtype = np.dtype(node.type.dtype)
    if conv.algorithm == "direct" and cig == 1 and conv.groups == co:
        return Depthwise(conv, co, (kh, kw), cut(n, height, width, CACHE // 4), epilogue, dtype)
    if _kn2row_wins(conv, node):
        top, left = conv.padding[:2]
        form = weights.get(weight.value, "kn2row", lambda w: np.ascontiguousarray(w.transpose(2, 3, 0, 1)[None]))
        offsets = (
            tuple(top - conv.dilation[0] * i for i in range(kh)),
            tuple(left - conv.dilation[1] * j for j in range(kw)),
        )
        return _scatter("kn2row", node, form, (1, 1), offsets, epilogue)
    area = max(1, min(PIXELS, SCRATCH // (conv.groups * cig * kh * kw * dtype.itemsize)))
    return Im2col(conv, (co, cig, kh, kw), cut(n, height, width, area), epilogue, dtype)


def _kn2row_wins(conv: Conv2d, node: Node) -> bool:
    """Fewer outputs than inputs, and taps that only differ in where they are added. The weights must be finite,
    because padding is skipped instead of multiplied."""
    weight = node.inputs[1]
    co, ci, kh, kw = weight.type.dims
    exact = conv.stride == (1, 1) and conv.groups == 1 and kh * kw > 1 and co < ci
    return exact and weight.is_const and bool(np.isfinite(weight.value).all())


def transpose_kernel(node: Node, conv: ConvTranspose2d, epilogue: Epilogue, weights: WeightCache) -> Scatter:
    """The kernel of a transposed convolution with constant weight[Ci, Cog, Kh, Kw]."""

    def tap_major(weight: Array) -> Array:
        grouped = weight.reshape(conv.groups, -1, *weight.shape[1:])
        return np.ascontiguousarray(grouped.transpose(0, 3, 4, 2, 1))

    weight = weights.get(node.inputs[1].value, f"col2im, {conv.groups} groups", tap_major)
    kh, kw = weight.shape[1:3]
    top, left = conv.padding[:2]
    offsets = (
        tuple(conv.dilation[0] * i - top for i in range(kh)),
        tuple(conv.dilation[1] * j - left for j in range(kw)),
    )
    return _scatter("col2im", node, weight, conv.stride, offsets, epilogue)


def _scatter(
    name: str,
    node: Node,
    weight: Array,
    stride: tuple[int, int],
    offsets: tuple[tuple[int, ...], tuple[int, ...]],
    epilogue: Epilogue,
) -> Scatter:
    n, _, height, width = node.type.dims
    x = node.inputs[0].type.dims
    per_row = prod(weight.shape[:4]) * x[3] * weight.itemsize // stride[0]
    cut_rows = bands(height, max(per_row, 1), max(SCRATCH, 4 * per_row))
    units = tuple((image, rows) for image in range(n) for rows in cut_rows)
    return Scatter(name, weight, stride, offsets, x, units, epilogue, width)

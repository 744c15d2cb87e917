"""What the kernels of the numpy backend share: their form, how work is cut, scratch, and the epilogue of a block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, Protocol

import numpy as np

from graphsr.forksafe import once
from graphsr.op import Array, Op
from graphsr.ops import Relu

from .layer import Epilogue
from .plan import ALIGNMENT

MIN_BLOCKS = 8
"""Blocks that an image is cut into if they do not get too small, so that several threads have work."""


class Kernel(Protocol):
    """How one node is computed, cut into units that can run at the same time and in any order."""

    @property
    def label(self) -> str:
        """What `explain()` says."""

    @property
    def units(self) -> int:
        """How many pieces the work has. Never depends on the number of threads."""

    @property
    def scratch(self) -> int:
        """Bytes of working memory that each thread needs."""

    def run(self, unit: int, inputs: Sequence[Array], output: Array, scratch: Array) -> None:
        """Compute one piece of the output. Inputs and output are contiguous; `scratch` is uint8, aligned."""


@dataclass(frozen=True, slots=True)
class Region:
    """Rows top..bottom−1 and columns left..right−1 of image n of a batch."""

    n: int
    top: int
    bottom: int
    left: int
    right: int

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def area(self) -> int:
        return self.height * self.width

    def of(self, image: Array, channels: slice = slice(None)) -> Array:
        """The view [C, height, width] of image[N, C, H, W]."""
        return image[self.n, channels, self.top : self.bottom, self.left : self.right]


def cut(batch: int, height: int, width: int, area: int) -> tuple[Region, ...]:
    """Cover `batch` images by regions of at most `area` positions: whole rows, or parts of one row where a row is
    longer. The cut of an image depends on its size only, so equal images give equal bits anywhere in a batch."""
    if width > area:
        segments = -(-width // area)
        columns = [(k * width // segments, (k + 1) * width // segments) for k in range(segments)]
        rows = [(r, r + 1) for r in range(height)]
    else:
        columns = [(0, width)]
        rows = [(band.start, band.stop) for band in bands(height, width, area)]
    return tuple(Region(n, *row, *column) for n in range(batch) for row in rows for column in columns)


class Blocked:
    """Base of the kernels whose units are blocks of the output, each with scratch according to its size."""

    blocks: tuple[Region, ...]

    @property
    def units(self) -> int:
        return len(self.blocks)

    @once
    def scratch(self) -> int:
        one_of_each_size = {(block.height, block.width): block for block in self.blocks}.values()
        return max(self._scratch(block) for block in one_of_each_size)

    def _scratch(self, block: Region) -> int:
        """Bytes for one block."""
        raise NotImplementedError


def bands(rows: int, size: int, most: int) -> list[slice]:
    """Cut `rows` rows of `size` elements evenly into bands of at most `most` elements (but one row at least), and
    into `MIN_BLOCKS` bands where these still have a quarter of that."""
    smaller = max(-(-rows // MIN_BLOCKS), -(-most // (4 * max(size, 1))))
    count = -(-rows // max(1, min(most // max(size, 1), smaller)))
    return [slice(k * rows // count, (k + 1) * rows // count) for k in range(count)]


def slices(size: int, step: int) -> Iterator[slice]:
    """0..size in steps; the last one may be shorter."""
    return (slice(start, min(start + step, size)) for start in range(0, size, step))


def scratch_bytes(dtype: np.dtype[Any], *shapes: tuple[int, ...]) -> int:
    """Bytes that `carve` takes for arrays of these shapes."""
    return sum(-(-prod(shape) * dtype.itemsize // ALIGNMENT) * ALIGNMENT for shape in shapes)


def carve(scratch: Array, dtype: np.dtype[Any], *shapes: tuple[int, ...]) -> list[Array]:
    """Arrays of these shapes side by side in the scratch, and the bytes that are left."""
    arrays, start = [], 0
    for shape in shapes:
        arrays.append(np.ndarray(shape, dtype, scratch, start))
        start += scratch_bytes(dtype, shape)
    return [*arrays, scratch[start:]]


def copy_padded(x: Array, block: Array, top: int, left: int) -> None:
    """block[c, r, q] = x[c, top + r, left + q], and zero outside x[C, H, W]."""
    (_, height, width), (_, rows, columns) = x.shape, block.shape
    r0, r1 = min(max(-top, 0), rows), max(min(height - top, rows), 0)
    c0, c1 = min(max(-left, 0), columns), max(min(width - left, columns), 0)
    if r0 >= r1 or c0 >= c1:
        block[:] = 0
        return
    if r1 - r0 < rows:
        block[:, :r0] = block[:, r1:] = 0
    if c1 - c0 < columns:
        block[:, r0:r1, :c0] = block[:, r0:r1, c1:] = 0
    block[:, r0:r1, c0:c1] = x[:, top + r0 : top + r1, left + c0 : left + c1]


def windows(
    block: Array, kernel: tuple[int, int], count: tuple[int, int], step: tuple[int, int], dilation: tuple[int, int]
) -> Array:
    """The view [C, Kh, Kw, rows, columns] of block[C, H, W] with element block[c, d·i + s·r, d·j + s·q]."""
    sc, sh, sw = block.strides
    strides = (sc, dilation[0] * sh, dilation[1] * sw, step[0] * sh, step[1] * sw)
    return np.ndarray((len(block), *kernel, *count), block.dtype, block, 0, strides)


def finish(
    epilogue: Epilogue, source: Array, output: Array, inputs: Sequence[Array], region: Region, channels: slice
) -> None:
    """Apply the epilogue to a block source[C, h, w] in scratch, which is overwritten, and write it to its place in the
    output[N, Co, H, W].

    Only the last step writes to the output: there, the rows of a block lie far apart, often at powers of two, and
    evict each other from the cache.
    """
    real = source.dtype.type
    steps: list[tuple[Callable[..., object], tuple[object, ...]]] = []
    if epilogue.bias is not None:
        steps.append((np.add, (source, inputs[epilogue.bias][channels, None, None])))
    if epilogue.residual is not None:
        residual = region.of(inputs[epilogue.residual], channels)
        if epilogue.alpha != 1:
            steps.append((np.multiply, (source, real(epilogue.alpha))))
        steps.append((np.add, (source, residual if epilogue.beta == 1 else residual * real(epilogue.beta))))
    if epilogue.activation is not None:
        steps.append((partial(activate, epilogue.activation), (source,)))
    *before, (last, arguments) = steps or [(np.positive, (source,))]
    for step, operands in before:
        step(*operands, out=source)
    last(*arguments, out=region.of(output, channels))


def temporaries(epilogue: Epilogue, nbytes: int) -> int:
    """Bytes that `finish` allocates for a block of `nbytes`."""
    scaled = epilogue.residual is not None and epilogue.beta != 1
    return nbytes if scaled or not isinstance(epilogue.activation, Relu | None) else 0


def activate(activation: Op, x: Array, out: Array) -> None:
    """out = activation(x); they may be the same array."""
    match activation:
        case Relu():
            np.maximum(x, x.dtype.type(0), out=out)
        case _:
            np.copyto(out, activation.forward(x))

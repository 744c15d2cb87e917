"""Kernels that move or combine elements without a product of matrices, in blocks that stay in cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np

from graphsr.forksafe import once
from graphsr.op import Array, Op
from graphsr.ops import Activation, DepthToSpace

from .numpy_kernel import activate, slices

ELEMENTS = 1 << 16
"""Of a block: large beside the cost of a NumPy call, small enough for a cache."""


@dataclass(frozen=True)
class Elementwise:
    """An op whose output element depends on the input elements at its place only, with broadcasting; units = blocks
    along the first axes. The output may be the memory of an input."""

    op: Op
    shape: tuple[int, ...]
    itemsize: int

    label = "element-wise"

    @property
    def units(self) -> int:
        return len(self._blocks)

    @property
    def scratch(self) -> int:
        """Blocks that `forward` allocates: a scaled copy of each input and the result."""
        return 3 * self.itemsize * min(ELEMENTS, prod(self.shape))

    def run(self, unit: int, inputs: Sequence[Array], output: Array, scratch: Array) -> None:
        block = self._blocks[unit]
        arguments = [np.broadcast_to(x, self.shape)[block] for x in inputs]
        if isinstance(self.op, Activation):
            activate(self.op, arguments[0], output[block])
        else:
            np.copyto(output[block], self.op.forward(*arguments))

    @once
    def _blocks(self) -> tuple[Any, ...]:
        return blocks(self.shape)


def blocks(shape: tuple[int, ...]) -> tuple[Any, ...]:
    """Indices that cover an array, such as (n, slice of channels): each of the leading axes, and a range of the first
    after which few elements remain."""
    if not shape:
        return (...,)
    axis = next(k for k in range(len(shape)) if prod(shape[k + 1 :]) <= ELEMENTS)
    step = max(1, ELEMENTS // max(1, prod(shape[axis + 1 :])))
    leading = product(*map(range, shape[:axis]))
    return tuple((*first, part) for first in leading for part in slices(shape[axis], step))


@dataclass(frozen=True)
class PerChannel:
    """Element-wise in x[N, C, …] with parameters [C] or [1]; units = ranges of channels of one image. The output may
    be the memory of x."""

    op: Op
    shape: tuple[int, ...]
    itemsize: int

    label = "element-wise, per channel"

    @property
    def units(self) -> int:
        return len(self._blocks)

    @property
    def scratch(self) -> int:
        """Blocks that `forward` allocates: intermediate results and the last one."""
        return 3 * self.itemsize * min(max(ELEMENTS, prod(self.shape[2:])), prod(self.shape))

    def run(self, unit: int, inputs: Sequence[Array], output: Array, scratch: Array) -> None:
        n, c = self._blocks[unit]
        parameters = (v if len(v) == 1 else v[c] for v in inputs[1:])
        np.copyto(output[n : n + 1, c], self.op.forward(inputs[0][n : n + 1, c], *parameters))

    @once
    def _blocks(self) -> tuple[tuple[int, slice], ...]:
        return channel_blocks(self.shape)


def channel_blocks(shape: tuple[int, ...]) -> tuple[tuple[int, slice], ...]:
    """Image and range of channels, covering [N, C, …]."""
    parts = list(slices(shape[1], max(1, ELEMENTS // max(1, prod(shape[2:])))))
    return tuple((n, part) for n in range(shape[0]) for part in parts)


@dataclass(frozen=True)
class Shuffle:
    """`DepthToSpace` as b² strided copies; units = ranges of channels of one image."""

    op: DepthToSpace
    shape: tuple[int, ...]
    """Of the output, [N, C, b·H, b·W]."""

    label = "strided copies"
    scratch = 0

    @property
    def units(self) -> int:
        return len(self._blocks)

    def run(self, unit: int, inputs: Sequence[Array], output: Array, scratch: Array) -> None:
        n, c = self._blocks[unit]
        b, (channels, height, width) = self.op.block, self.shape[1:]
        sizes = (channels, b, b) if self.op.mode == "crd" else (b, b, channels)
        x = inputs[0][n].reshape(*sizes, height // b, width // b)
        x = x if self.op.mode == "crd" else x.transpose(2, 0, 1, 3, 4)
        y = output[n, c].reshape(-1, height // b, b, width // b, b)
        for i in range(b):
            for j in range(b):
                y[:, :, i, :, j] = x[c, i, j]

    @once
    def _blocks(self) -> tuple[tuple[int, slice], ...]:
        return channel_blocks(self.shape)


@dataclass(frozen=True)
class Forward:
    """The op's own `forward`, for every op without a kernel; one unit."""

    op: Op
    label = "forward (no kernel)"
    units = 1
    scratch = 0

    def run(self, unit: int, inputs: Sequence[Array], output: Array, scratch: Array) -> None:
        np.copyto(output, self.op.forward(*inputs))


@dataclass(frozen=True)
class View:
    """The first input in another shape, when the plan lets both be the same memory; otherwise a copy."""

    label = "view"
    units = 1
    scratch = 0

    def run(self, unit: int, inputs: Sequence[Array], output: Array, scratch: Array) -> None:
        np.copyto(output.reshape(-1), inputs[0].reshape(-1))

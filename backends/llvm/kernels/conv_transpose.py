"""conv_transpose2d as one direct convolution per phase of the output.

    for phase (ry, rx) of s x s:                           a step of the program each
        pixels (s·q + ry, s·r + rx) of y = a convolution of x, stride 1, with the taps that meet these pixels

Output row o gets weight row i from input row h where s·h + d·i − p = o, so the taps of a phase are those with
(ry + p − d·i) % s = 0, and they lie d / gcd(s, d) input rows apart. All that is computed is used.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from math import gcd
from typing import TYPE_CHECKING

from graphsr.ir import Node
from graphsr.op import Array
from graphsr.ops import ConvTranspose2d

from ..loops import LANES
from .conv import convolution_of
from .conv_direct import Part, call_direct, direct_kernel, pack_blocked

if TYPE_CHECKING:
    from ..plan import Planner


@dataclass(frozen=True)
class Phase:
    """One dimension of a phase."""

    first: int
    """The first of its output rows; they lie `stride` apart."""
    count: int
    taps: list[int]
    """Weight rows, from the one that meets the upmost input row."""
    before: int
    """Input rows that the first output row reaches above the image; negative below its top row."""


def lower(plan: Planner, node: Node) -> None:
    """Add a call per phase."""
    from ..plan import NoKernel

    conv = convolution_of(plan, node)
    op = conv.op
    assert isinstance(op, ConvTranspose2d)
    ci, co_of_group, kh, kw = conv.weight.shape
    if op.groups > 1 and (ci // op.groups % LANES or co_of_group % LANES):
        raise NoKernel("groups are not whole blocks of 16 channels")
    rows = phases(op, 0, node.type.dims[2], kh)
    columns = phases(op, 1, node.type.dims[3], kw)
    spacing = (op.dilation[0] // gcd(op.dilation[0], op.stride[0]), op.dilation[1] // gcd(op.dilation[1], op.stride[1]))
    for row, column in product(rows, columns):
        size = (len(row.taps), len(column.taps))
        kernel = replace(direct_kernel(plan, conv, size, (1, 1), spacing), spread=op.stride)

        def pack(weight: Array, row: Phase = row, column: Phase = column, vectors: int = kernel.vectors) -> Array:
            return pack_blocked(conv, vectors, as_conv(weight, op.groups)[:, :, row.taps][:, :, :, column.taps])

        form = conv.form(f"transposed {kernel.vectors} {row.taps} {column.taps}")
        part = Part((row.count, column.count), (row.before, column.before), (row.first, column.first))
        label = f"transposed {kh}x{kw}, phase {row.first},{column.first}"
        nbytes = conv.weight.nbytes * size[0] * size[1] // (kh * kw)
        call_direct(plan, conv, kernel, part, plan.weight(conv.weight, form, pack, nbytes), label)


def phases(op: ConvTranspose2d, axis: int, size: int, kernel: int) -> list[Phase]:
    """The phases along rows (axis 0) or columns of an output of this size that have any pixels."""
    s, d, p = op.stride[axis], op.dilation[axis], op.padding[axis]
    found = []
    for first in range(min(s, size)):
        taps = [i for i in reversed(range(kernel)) if (first + p - d * i) % s == 0]
        before = -((first + p - d * taps[0]) // s) if taps else 0
        found.append(Phase(first, -(-(size - first) // s), taps, before))
    return found


def as_conv(weight: Array, groups: int) -> Array:
    """weight[Ci, Co/g, Kh, Kw] -> [Co, Ci/g, Kh, Kw]"""
    ci, co, *kernel = weight.shape
    by_group = weight.reshape(groups, ci // groups, co, *kernel).swapaxes(1, 2)
    return by_group.reshape(groups * co, ci // groups, *kernel)

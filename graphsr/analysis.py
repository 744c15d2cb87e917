"""What can be said about a network without running it: cost per pixel and receptive field."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from graphsr.dim import Dim, Size
from graphsr.errors import GraphsrError
from graphsr.ir import Graph, Input, Node
from graphsr.ops import ConvTranspose2d, ConvTransposeNd, Fused

MOST_POSITIONS = 1 << 22
"""Of a window: more than any network has, and so many that going through them takes seconds."""
MOST_FOLDED_POSITIONS = 1 << 12
"""Of a window under which a constant is computed ahead: `forward` goes through them one by one."""
FAR = 10_000
"""An output position so far inside that padding plays no part."""


def macs(graph: Graph) -> Size:
    """Multiply-accumulates of one run; an `int` when the graph is bound."""
    total: Size = 0
    for node in graph.nodes():
        total = total + node.op.macs(tuple(child.type for child in node.inputs), node.type)
    return total


def macs_per_pixel(graph: Graph, sizes: Sequence[int] = (240, 256)) -> float | None:
    """Multiply-accumulates for each pixel of the (only) image input, from an image of the first of these sizes that the
    network takes, the same for height and width; None where it has no such input or takes none of them."""
    if len(graph.inputs) != 1 or graph.inputs[0].type.rank != 4:
        return None
    (node,) = graph.inputs
    for size in sizes:
        shape = [n if isinstance(n, int) else fill for n, fill in zip(node.type.shape, (1, 3, size, size), strict=True)]
        try:
            total = macs(graph.bind({node.name: tuple(shape)}))
        except GraphsrError:
            continue
        return None if isinstance(total, Dim) else total / (shape[0] * shape[2] * shape[3])
    return None


def padded_bytes(node: Node) -> int:
    """Bytes of the array that the windows of a convolution or a pool slide over, padding included, which `forward`
    takes besides input and result. 0 for other nodes; open sizes count as 1."""
    op = _slides(node)
    if op is None:
        return 0
    x = node.type if isinstance(op, ConvTranspose2d | ConvTransposeNd) else node.inputs[0].type
    shape = [size if isinstance(size, int) else 1 for size in x.shape]
    axes = len(op.stride)
    for axis in range(axes):
        shape[2 + axis] += op.padding[axis] + op.padding[axis + axes]
    return prod(shape) * np.dtype(x.dtype).itemsize


def window_positions(node: Node) -> int:
    """Elements of the window of a convolution or a pool along its axes, 1 for other nodes."""
    op = _slides(node)
    if op is None:
        return 1
    return prod(op.kernel if hasattr(op, "kernel") else node.inputs[1].type.dims[-len(op.stride) :])


def _slides(node: Node) -> Any:
    """The convolution or pool that a node computes, if it does."""
    op = node.op.base if isinstance(node.op, Fused) else node.op
    return op if hasattr(op, "stride") and hasattr(op, "padding") else None


def receptive_field(graph: Graph) -> tuple[int, int] | None:
    """Height and width of the input window that one output pixel sees, of the output that sees most; None when it sees
    the whole image.

    Exact interval arithmetic backwards through `Op.needs`, for every phase of the upscaling.
    """
    sides = []
    for axis in (2, 3):
        outputs = dict.fromkeys(graph.outputs.values())
        phases = [_window(graph, y, position, axis) for y in outputs for position in range(FAR, FAR + 16)]
        if any(phase is None for phase in phases):
            return None
        sides.append(max(high - low + 1 for low, high in filter(None, phases)))
    return sides[0], sides[1]


def _window(graph: Graph, output: Node, position: int, axis: int) -> tuple[int, int] | None:
    """First and last input pixel that the output's pixel at `position` reads, None for all of them."""
    wanted = {output: (position, position)}
    seen: list[tuple[int, int]] = []
    for node in reversed(list(graph.nodes())):
        if node not in wanted or node.is_const:
            continue
        low, high = wanted[node]
        if isinstance(node.op, Input):
            seen.append((low, high))
            continue
        if node.type.rank != 4:
            return None
        need = node.op.needs(low, high, axis, *(child.type for child in node.inputs))
        if need is None:
            return None
        for child in node.inputs:
            before = wanted.get(child, need)
            wanted[child] = (min(before[0], need[0]), max(before[1], need[1]))
    return (min(low for low, _ in seen), max(high for _, high in seen)) if seen else None

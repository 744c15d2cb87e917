"""choose_conv_algorithm: how each convolution is computed, visible in the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf, prod

import numpy as np

from graphsr.ir import Graph, Node, TensorType, replace_node
from graphsr.ops import Conv2d, ConvNd, Fused
from graphsr.ops.conv import winograd_fits
from graphsr.ops.conv_nd import winograd_fits_nd
from graphsr.ops.winograd import ERROR, matrices
from graphsr.passes.rewrite import rewrite

TRANSFORM_COST = 4.0
"""Cost of a multiplication in a Winograd transform, where one in the matrix products costs 1. The products run from
registers; a transform loads and stores an element for every few operations, and ran 2 to 4 times slower per
multiplication in compiled code. This is why few channels do not pay: the transforms cost Ci + Co, what they
save is in proportion to Ci·Co."""


def choose_conv_algorithm(
    graph: Graph,
    *,
    max_error: float = ERROR[4],
    tiles: Sequence[int] = tuple(ERROR),
    transform_cost: float = TRANSFORM_COST,
    lanes: int = 1,
    volumes: bool = False,
) -> Graph:
    """conv2d(algorithm=…): the cheapest of those whose rounding error is below `max_error`. With `volumes`, also
    conv_nd(algorithm=…) over three axes and more.

    Winograd's F(m, 3), m in `tiles`, is open to 3x3 convolutions with constant weights, stride 1, dilation 1 and one
    group, where `ERROR[m]` (in units of the output's deviation, float32) is within the bound. The default admits
    F(4, 3), which is about as exact as a plain sum. Costs are multiplications per output, those for tiles that
    stick out included when the sizes are known. The others are "im2col", or "direct" where there is nothing to
    gather: 1x1 kernels, and depthwise ones, whose matrices would have a single row.

    Backends set the parameters with `functools.partial`.
    """

    def rule(node: Node, uses: Mapping[Node, int]) -> Node:
        conv = node.op.base if isinstance(node.op, Fused) else node.op
        if not isinstance(conv, (Conv2d, ConvNd) if volumes else Conv2d):
            return node
        algorithm = _choose(conv, node, max_error, tiles, transform_cost, lanes)
        if algorithm == conv.algorithm:
            return node
        conv = replace(conv, algorithm=algorithm)
        return replace_node(node, op=replace(node.op, base=conv) if isinstance(node.op, Fused) else conv)

    return rewrite(graph, rule)


def _choose(
    conv: Conv2d | ConvNd, node: Node, max_error: float, tiles: Sequence[int], transform_cost: float, lanes: int
) -> str:
    weight = node.inputs[1]
    co, ci, *kernel = weight.type.dims
    if isinstance(conv, Conv2d):
        if kernel == [1, 1] or (ci == 1 and conv.groups > 1):
            return "direct"
        exact, fits = "im2col", winograd_fits(conv, (kernel[0], kernel[1]))
    else:
        exact, fits = "direct", winograd_fits_nd(conv, tuple(kernel))
    ci, co = (-(-channels // lanes) * lanes for channels in (ci, co))
    ci *= prod(kernel[:-2])
    best, least = exact, float(9 * ci * co)
    if weight.is_const and fits:
        precision = float(np.finfo(node.type.dtype).eps / np.finfo("float32").eps)
        for m in tiles:
            cost = winograd_cost(m, ci, co, transform_cost) * tile_waste(m, node.type)
            if ERROR[m] * precision <= max_error and cost < least:
                best, least = f"winograd_f{m}", cost
    return best


def winograd_cost(m: int, ci: int, co: int, transform_cost: float = TRANSFORM_COST) -> float:
    """Multiplications per output pixel of F(m, 3): α²·Ci·Co per tile of m² pixels, and the two transforms.

    Bᵀ d B takes 2α times the non-zero entries of Bᵀ per input channel, Aᵀ M A takes α + m times those of Aᵀ per
    output channel. The plain sum takes 9·Ci·Co.
    """
    AT, _, BT = matrices(m)
    a = len(BT)
    transforms = 2 * a * np.count_nonzero(BT) * ci + (a + m) * np.count_nonzero(AT) * co
    return float(a * a * ci * co + transform_cost * transforms) / m**2


def tile_waste(m: int, output: TensorType) -> float:
    """Computed outputs per wanted output: 1 while the size is open, more where the last tiles stick out."""
    waste = 1.0
    for size in output.shape[-2:]:
        if isinstance(size, int):
            waste *= -(-size // m) * m / size if size else inf
    return waste

"""lp_pool_nd: y = (Σ |x|^p)^(1/p) = (count · mean |x|^p)^(1/p): powers, the pool of their means, and roots.

The mean is that of a window whose every position counts, inside x or not, so `count` is that of the whole window.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from graphsr.ir import Node
from graphsr.op import Op
from graphsr.ops import Abs, AvgPool2d, AvgPoolNd, LpPoolNd, Mul, Pow, Sqrt

from .elementwise import Reference
from .parts import constant, loop, operand, part

if TYPE_CHECKING:
    from ..plan import Planner


def lower(plan: Planner, node: Node) -> None:
    """Blocked images stay blocked, everything else is planar."""
    from ..plan import NoKernel

    op = node.op
    assert isinstance(op, LpPoolNd)
    if node.type.dtype != "float32":
        raise NoKernel(f"only float32, not {node.type.dtype}")
    mean = part(plan, node, _mean(op, node), _powers(plan, node, op.p))
    count = constant(np.array(prod(op.kernel), np.float32))
    loop(plan, node, (Mul(), (operand(mean), count)), *_root(op.p))


def _powers(plan: Planner, node: Node, p: int) -> Node:
    """|x|^p"""
    x = node.inputs[0]
    if p == 2:
        return part(plan, node, Mul(), x, x)
    size = part(plan, node, Abs(), x)
    return size if p == 1 else part(plan, node, Pow(), size, Node.const(np.array(p, np.float32)))


def _root(p: int) -> tuple[tuple[Op, tuple[Reference, ...]], ...]:
    """The p-th root of the step before."""
    if p == 2:
        return ((Sqrt(), (0,)),)
    return ((Pow(), (0, constant(np.array(1 / p, np.float32)))),) if p > 1 else ()


def _mean(op: LpPoolNd, node: Node) -> Op:
    """The pool of means, with as much padding as the windows reach over in ceil mode."""
    axes = len(op.kernel)
    padding = list(op.padding)
    if op.ceil_mode:
        sizes = zip(node.inputs[0].type.dims[2:], node.type.dims[2:], strict=True)
        for a, (size, windows) in enumerate(sizes):
            end = op.stride[a] * (windows - 1) + op.span(a)
            padding[axes + a] = max(0, end - op.padding[a] - size)
    if axes == 2:
        top, left, bottom, right = padding
        kernel, stride, dilation = ((sizes[0], sizes[1]) for sizes in (op.kernel, op.stride, op.dilation))
        return AvgPool2d(kernel, stride, (top, left, bottom, right), False, True, dilation)
    return AvgPoolNd(op.kernel, op.stride, tuple(padding), op.dilation, False, True)

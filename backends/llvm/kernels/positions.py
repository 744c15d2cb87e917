"""triangle, one_hot and hardmax: whatever is chosen by its position along an axis.

Each is one loop of element-wise steps, in which positions are constants that are broadcast:

    triangle:  y = x where j ≥ i + k [j ≤ i + k], else 0
    one_hot:   y = on where (i + depth where i < 0, else i) = k, else off
    hardmax:   y = NaN where max x is NaN, else 1 where argmax x = k, else 0; the extremum and its place come first
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from graphsr.ir import Node
from graphsr.op import Op
from graphsr.ops import (
    Add,
    ArgMax,
    Equal,
    GreaterEqual,
    Hardmax,
    IsNan,
    Less,
    LessEqual,
    OneHot,
    ReduceMax,
    Slice,
    Triangle,
    Where,
)

from .elementwise import Operand
from .elementwise_planar import ITEMSIZE
from .parts import constant, loop, operand, part

if TYPE_CHECKING:
    from ..plan import Planner

EXACT = 2**24
"""Up to here float32 has every integer."""


def lower(plan: Planner, node: Node) -> None:
    """Lower by op."""
    from ..plan import NoKernel

    for dtype in (node.type.dtype, node.inputs[0].type.dtype):
        if dtype not in ITEMSIZE:
            raise NoKernel(f"only {', '.join(ITEMSIZE)}, not {dtype}")
    match node.op:
        case Triangle():
            _triangle(plan, node, node.op)
        case OneHot():
            _one_hot(plan, node, node.op)
        case Hardmax():
            _hardmax(plan, node, node.op)


def _triangle(plan: Planner, node: Node, op: Triangle) -> None:
    x, (height, width) = node.inputs[0], node.type.dims[-2:]
    column, row = constant(np.arange(width)), constant(np.arange(height)[:, None] + op.k)
    inside: Op = GreaterEqual() if op.upper else LessEqual()
    zero = constant(np.zeros((), x.type.dtype))
    loop(plan, node, (inside, (column, row)), (Where(), (0, operand(x), zero)))


def _one_hot(plan: Planner, node: Node, op: OneHot) -> None:
    from ..plan import NoKernel

    indices, values = node.inputs
    dtype, axis = indices.type.dtype, op.axis % node.type.rank
    depth = node.type.dims[axis]
    if dtype == "bool" or ("float" in dtype and depth > EXACT):
        raise NoKernel(f"indices of {dtype} up to {depth}")
    given = Operand(indices, (*indices.type.dims[:axis], 1, *indices.type.dims[axis:]))
    none, count = constant(np.zeros((), dtype)), constant(np.full((), depth, dtype))
    off, on = (Operand(_element(plan, node, values, i), ()) for i in (0, 1))
    loop(
        plan,
        node,
        (Less(), (given, none)),
        (Add(), (given, count)),
        (Where(), (0, 1, given)),
        (Equal(), (2, _positions(node, axis, dtype))),
        (Where(), (3, on, off)),
    )


def _hardmax(plan: Planner, node: Node, op: Hardmax) -> None:
    x, axis = node.inputs[0], op.axis % node.type.rank
    place, most = (part(plan, node, search, x) for search in (ArgMax(axis), ReduceMax((axis,))))
    one, zero, nan = (constant(np.array(value, np.float32)) for value in (1, 0, np.nan))
    loop(
        plan,
        node,
        (Equal(), (operand(place), _positions(node, axis, place.type.dtype))),
        (Where(), (0, one, zero)),
        (IsNan(), (operand(most),)),
        (Where(), (2, nan, 1)),
    )


def _positions(node: Node, axis: int, dtype: str) -> Operand:
    """0, 1, … along an axis of the node."""
    behind = node.type.rank - 1 - axis
    return constant(np.arange(node.type.dims[axis], dtype=dtype).reshape(-1, *[1] * behind))


def _element(plan: Planner, node: Node, vector: Node, i: int) -> Node:
    """One element of a vector, where it lies."""
    element = Node(Slice((i,), (i + 1,), (0,), (1,)), (vector,), node.name, node.origin)
    plan.view(element, vector, i * ITEMSIZE[vector.type.dtype])
    return element

"""remove_dead: nodes that change nothing disappear."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from graphsr.ir import Graph, Node
from graphsr.ops import (
    Add,
    AvgPool2d,
    Concat,
    DepthToSpace,
    Div,
    Linear,
    MaxPool2d,
    Mul,
    Pad,
    Reshape,
    Resize,
    Slice,
    SpaceToDepth,
    Split,
    Sub,
    Transpose,
)
from graphsr.passes.rewrite import rewrite


def remove_dead(graph: Graph) -> Graph:
    """identity(x) -> x, where every element stays what it is, NaN and −0 included

    Nodes that nothing reads need no pass: a graph is what its outputs reach. What goes here is the linear activation,
    a reshape to the same shape, a transpose in order, padding by nothing, slicing and splitting off everything, a
    concatenation of one value, shuffles and pools of 1x1, nearest resizing by 1, and x·1, x/1, x − 0, x + (−0); but
    not x + 0, since −0 + 0 is 0.
    """
    return rewrite(graph, _rule)


def _rule(node: Node, uses: Mapping[Node, int]) -> Node:
    for i, x in enumerate(node.inputs):
        if x.type == node.type and (_moves_nothing(node) or _is_neutral(node, i)):
            return x
    return node


def _moves_nothing(node: Node) -> bool:
    """Whether an op that only moves elements leaves them in place, given that an input has the type of the output."""
    match node.op:
        case Linear() | Reshape() | Split() | Concat():
            return True
        case Slice(steps=steps):
            return all(step == 1 for step in steps)
        case Transpose(axes):
            return [axis % len(axes) for axis in axes] == list(range(len(axes)))
        case Pad(padding):
            return not any(padding)
        case DepthToSpace(block) | SpaceToDepth(block):
            return block == 1
        case MaxPool2d((1, 1), _, padding) | AvgPool2d((1, 1), _, padding):
            return not any(padding)
        case Resize((1.0, 1.0), None, "nearest"):
            return True
    return False


def _is_neutral(node: Node, i: int) -> bool:
    """Whether the operand beside input i of an arithmetic node is a constant that changes no value."""
    if not isinstance(node.op, Add | Sub | Mul | Div) or not node.inputs[1 - i].is_const:
        return False
    other = node.inputs[1 - i].value
    match node.op:
        case Mul():
            return bool((other == 1).all())
        case Div():
            return i == 0 and bool((other == 1).all())
        case Sub():
            return i == 0 and bool(((other == 0) & ~np.signbit(other)).all())
        case _:
            return bool(((other == 0) & np.signbit(other)).all())

"""Ops that are said in other ops: each part is lowered as a node of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphsr.ir import Node
from graphsr.op import Op

if TYPE_CHECKING:
    from ..plan import Planner


def part(plan: Planner, whole: Node, op: Op, *inputs: Node) -> Node:
    """A step of the way to the value of `whole`, lowered. Raises `NoKernel`."""
    from . import lower

    node = Node(op, inputs, whole.name, whole.origin)
    lower(plan, node)
    return node


def pair(sizes: tuple[int, ...], nothing: int = 1) -> tuple[int, int]:
    """Of an image, where there is one size: that of the row."""
    return (nothing, sizes[0]) if len(sizes) == 1 else (sizes[0], sizes[1])


def border(padding: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Top, left, bottom, right of (before each axis…, behind each axis…)."""
    axes = len(padding) // 2
    (top, left), (bottom, right) = pair(padding[:axes], 0), pair(padding[axes:], 0)
    return top, left, bottom, right

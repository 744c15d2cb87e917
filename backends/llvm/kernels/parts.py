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

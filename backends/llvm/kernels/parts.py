"""Ops that are said in other ops: each part is lowered as a node of its own, or as a step of one loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphsr.ir import Node
from graphsr.op import Array, Op

from .elementwise import Chain, Operand, Reference
from .elementwise_blocked import can_be_blocked, lower_blocked
from .elementwise_planar import lower_planar

if TYPE_CHECKING:
    from ..plan import Planner


def part(plan: Planner, whole: Node, op: Op, *inputs: Node) -> Node:
    """A step of the way to the value of `whole`, lowered. Raises `NoKernel`."""
    from . import lower

    node = Node(op, inputs, whole.name, whole.origin)
    lower(plan, node)
    return node


def loop(plan: Planner, node: Node, *steps: tuple[Op, tuple[Reference, ...]]) -> None:
    """Compute the node by element-wise steps in one loop; numbers among their operands are earlier steps."""
    chain = Chain((node,), steps)
    (lower_blocked if can_be_blocked(plan, chain) else lower_planar)(plan, chain)


def operand(node: Node) -> Operand:
    """A value as an operand of such a loop."""
    return Operand(node, node.type.dims)


def constant(value: Array) -> Operand:
    """An array as an operand of such a loop."""
    return operand(Node.const(value))

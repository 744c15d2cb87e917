"""fold_constants: what depends on constants alone is computed now."""

from __future__ import annotations

from collections.abc import Mapping

from graphsr.ir import Const, Graph, Input, Node
from graphsr.passes.rewrite import rewrite

LIMIT = 64 * 2**20
"""Bytes; a larger result is folded only if it takes no more memory than what it is computed from."""


def fold_constants(graph: Graph) -> Graph:
    """f(c₁, c₂, …) -> const, when every input is a constant and the result is not needlessly large.

    Ops without inputs (an array of one value, a range) are among them. This is how weight normalisation, transposed
    weights and shape arithmetic disappear. The result is the one of the op's `forward`, bit for bit. A small constant
    that an op blows up (an expanded scalar) stays an op.
    """
    return rewrite(graph, _rule)


def _rule(node: Node, uses: Mapping[Node, int]) -> Node:
    if isinstance(node.op, Input | Const) or not node.type.is_bound:
        return node
    if not all(child.is_const for child in node.inputs):
        return node
    if node.type.nbytes > max(LIMIT, sum(child.type.nbytes for child in node.inputs)):
        return node
    return Node.const(node.op.forward(*(child.value for child in node.inputs)), node.name, node.origin)

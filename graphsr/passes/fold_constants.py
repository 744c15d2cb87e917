"""fold_constants: what depends on constants alone is computed now."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from graphsr.analysis import MOST_FOLDED_POSITIONS, padded_bytes, window_positions
from graphsr.ir import Const, Graph, Input, Node
from graphsr.passes.rewrite import rewrite

LIMIT = 64 * 2**20
"""Bytes; a larger result is folded only if it takes no more memory than what it is computed from."""
GROWTH = 256 * 2**20
"""Bytes that all results together may take beyond what they are computed from: a small file can ask for much."""
MOST_MACS = 2**30


def fold_constants(graph: Graph) -> Graph:
    """f(c₁, c₂, …) -> const, when every input is a constant and the result is not needlessly large.

    Ops without inputs (an array of one value, a range) are among them. This is how weight normalisation, transposed
    weights and shape arithmetic disappear. The result is the one of the op's `forward`, bit for bit. A small constant
    that an op blows up (an expanded scalar) stays an op.
    """
    return rewrite(graph, _new_rule())


def _new_rule() -> Callable[[Node, Mapping[Node, int]], Node]:
    """The rule for one graph, with all of `GROWTH` left."""
    left = GROWTH

    def rule(node: Node, uses: Mapping[Node, int]) -> Node:
        nonlocal left
        if not _may_fold(node, left):
            return node
        left -= max(0, node.type.nbytes - _read(node))
        return Node.const(node.op.forward(*(child.value for child in node.inputs)), node.name, node.origin)

    return rule


def _may_fold(node: Node, growth: int) -> bool:
    """Whether a node is a constant that may be computed now, of at most so many bytes beyond its inputs."""
    if isinstance(node.op, Input | Const) or not node.type.is_bound:
        return False
    if not all(child.is_const for child in node.inputs):
        return False
    read = _read(node)
    if node.type.nbytes - read > growth or node.type.nbytes > max(LIMIT, read):
        return False
    macs = node.op.macs(tuple(child.type for child in node.inputs), node.type)
    is_little = isinstance(macs, int) and macs <= MOST_MACS and window_positions(node) <= MOST_FOLDED_POSITIONS
    return is_little and padded_bytes(node) <= max(LIMIT, read)


def _read(node: Node) -> int:
    return sum(child.type.nbytes for child in node.inputs)

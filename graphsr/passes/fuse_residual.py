"""fuse_residual: the residual connection becomes the epilogue of the layer before it."""

from __future__ import annotations

from collections.abc import Mapping

from graphsr.ir import Graph, Node
from graphsr.ops import Fused, Shortcut
from graphsr.passes.linear import LAYERS, sum_factors
from graphsr.passes.rewrite import merge, rewrite


def fuse_residual(graph: Graph) -> Graph:
    """α·conv(x) + β·r  ->  Fused(conv, residual=Shortcut(α, β))(x, …, r)

    Condition: the layer's output is read by this sum alone, and r has the same shape (no broadcasting). If both
    terms are such layers, the second is fused, as it comes later in the order of the graph.
    """
    return rewrite(graph, _rule)


def _rule(node: Node, uses: Mapping[Node, int]) -> Node:
    factors = sum_factors(node)
    if factors is None:
        return node
    alpha, beta = factors
    x1, x2 = node.inputs
    for layer, residual, factor in ((x2, x1, Shortcut(beta, alpha)), (x1, x2, Shortcut(alpha, beta))):
        if isinstance(layer.op, LAYERS) and uses[layer] == 1:
            return merge(Fused(layer.op, residual=factor), (*layer.inputs, residual), layer, node)
    return node

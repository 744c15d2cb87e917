"""fuse_dense: a product with a known matrix, and the bias behind it, become the layer that they are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphsr.ir import Graph, Node
from graphsr.ops import Add, Dense, MatMul
from graphsr.passes.linear import Uses
from graphsr.passes.rewrite import merge, rewrite


def fuse_dense(graph: Graph) -> Graph:
    """x·W              ->  Dense(x, Wᵀ)
    Dense(x, W) + b  ->  Dense(x, W, b)

    This is how exporters write the layers of transformers, whose input has more axes than a matrix. The meaning is the
    same bit for bit, as `Dense` multiplies by the transposed weight; Wᵀ is a view, which takes no memory.

    Condition: W is a constant matrix of floating-point numbers that is not empty; b is a constant, broadcast over all
    axes but the last; the product without b is read by this sum alone.
    """
    return rewrite(graph, _new_rule())


def _new_rule() -> Callable[[Node, Uses], Node]:
    """The rule for one graph: a weight of several products is transposed once, so that it stays one weight."""
    transposed: dict[Node, Node] = {}

    def rule(node: Node, uses: Uses) -> Node:
        match node:
            case Node(MatMul(), (x, w)) if _is_weight(w):
                weight = transposed.setdefault(w, Node.const(w.value.T, w.name, w.origin))
                return merge(Dense(), (x, weight), node)
            case Node(Add(), (a, b)):
                return _with_bias(a, b, node, uses) or _with_bias(b, a, node, uses) or node
        return node

    return rule


def _is_weight(node: Node) -> bool:
    return node.is_const and node.type.rank == 2 and node.value.size > 0 and node.value.dtype.kind == "f"


def _with_bias(layer: Node, constant: Node, total: Node, uses: Uses) -> Node | None:
    """The layer with the constant as its bias [O]; None if it has one already, or the sum is no such layer."""
    match layer:
        case Node(Dense(), (x, weight)) if uses[layer] == 1 and layer.type == total.type and weight.is_const:
            *before, last = (1, *constant.type.shape)
            if constant.is_const and last in (1, weight.type.shape[0]) and all(n == 1 for n in before):
                bias = np.broadcast_to(constant.value.reshape(-1), weight.type.dims[:1])
                return merge(Dense(), (x, weight, Node.const(bias, constant.name, constant.origin)), layer, total)
    return None

"""fuse_activation: an activation becomes the epilogue of the layer before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from graphsr.ir import Graph, Node
from graphsr.ops import Activation, Conv2d, ConvTranspose2d, Dense, Fused, Leaky, PRelu
from graphsr.passes.rewrite import merge, rewrite


def fuse_activation(graph: Graph) -> Graph:
    """f(layer(x))  ->  Fused(layer, activation=f)(x), and f(α·layer(x) + β·r) likewise

    Condition: the layer's output is read by the activation alone. A `PRelu` whose slopes are all equal is the
    `Leaky` of that slope and is fused as such.
    """
    return rewrite(graph, _rule)


def _rule(node: Node, uses: Mapping[Node, int]) -> Node:
    match node:
        case Node(PRelu(), (x, slope)) if slope.is_const and len(set(slope.value.tolist())) == 1:
            return Node(Leaky(float(slope.value[0])), (x,), node.name, node.origin)
        case Node(Activation() as activation, (Node() as layer,)) if uses[layer] == 1:
            match layer.op:
                case Conv2d() | ConvTranspose2d() | Dense():
                    return merge(Fused(layer.op, activation), layer.inputs, layer, node)
                case Fused(_, None, _):
                    return merge(replace(layer.op, activation=activation), layer.inputs, layer, node)
    return node

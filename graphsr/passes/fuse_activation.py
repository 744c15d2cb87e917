"""fuse_activation: an activation becomes the epilogue of the layer before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from graphsr.ir import Graph, Node
from graphsr.ops import Activation, DepthToSpace, Fused, Leaky, PRelu
from graphsr.passes.linear import LAYERS
from graphsr.passes.rewrite import merge, rewrite


def fuse_activation(graph: Graph) -> Graph:
    """f(layer(x))  ->  Fused(layer, activation=f)(x), and f(α·layer(x) + β·r) likewise
    f(shuffle(layer(x)))  ->  shuffle(Fused(layer, activation=f)(x)), as f is the same for every element

    Condition: the layer's output is read by the activation alone. A `PRelu` whose slopes are all equal is the
    `Leaky` of that slope and is fused as such.
    """
    return rewrite(graph, _rule)


def _rule(node: Node, uses: Mapping[Node, int]) -> Node:
    match node:
        case Node(PRelu(), (x, slope)) if slope.is_const and len(set(slope.value.tolist())) == 1:
            return Node(Leaky(float(slope.value[0])), (x,), node.name, node.origin)
        case Node(Activation() as f, (Node(DepthToSpace(), (layer,)) as shuffle,)) if uses[shuffle] == 1:
            fused = _fuse(f, layer, node, uses)
            return node if fused is None else shuffle.with_inputs((fused,))
        case Node(Activation() as f, (layer,)):
            return _fuse(f, layer, node, uses) or node
    return node


def _fuse(activation: Activation, layer: Node, node: Node, uses: Mapping[Node, int]) -> Node | None:
    """The layer with the activation of `node`; None if it is no layer, has one already, or is read by others."""
    if uses[layer] != 1:
        return None
    match layer.op:
        case Fused(_, None, _):
            return merge(replace(layer.op, activation=activation), layer.inputs, layer, node)
        case op if isinstance(op, LAYERS):
            return merge(Fused(op, activation), layer.inputs, layer, node)
    return None

"""fold_batchnorm: batch normalisation at inference is a scale and a shift, and neighbouring layers have both."""

from __future__ import annotations

from graphsr.ir import Graph, Node
from graphsr.ops import BatchNorm
from graphsr.passes.linear import Uses, absorb, affine_of, is_layer, scale_inputs
from graphsr.passes.rewrite import rewrite


def fold_batchnorm(graph: Graph) -> Graph:
    """batch_norm(W∗x + b)  ->  W'∗x + b'   with W' = W·scale/√(var+ε), b' = (b − mean)·scale/√(var+ε) + bias
    W∗batch_norm(x) + b  ->  W'∗x + b'   with the factors on the input channels of W

    Condition: the statistics and weights are constants, the value in between is read once. The second form is exact
    only where every tap meets a pixel, so it needs a convolution without padding, or a normalisation without shift.
    A normalisation with no such neighbour stays.
    """
    return rewrite(graph, _rule)


def _rule(node: Node, uses: Uses) -> Node:
    if isinstance(node.op, BatchNorm):
        found = affine_of(node)
        return (found and absorb(*found, node, uses)) or node
    if is_layer(node) and isinstance(node.inputs[0].op, BatchNorm) and uses[node.inputs[0]] == 1:
        found = affine_of(node.inputs[0])
        return (found and scale_inputs(node, found[1], found[0], node.inputs[0])) or node
    return node

"""fold_scale: scales, shifts and mean-shift convolutions disappear into the weights of their neighbours."""

from __future__ import annotations

import numpy as np

from graphsr.ir import Graph, Node
from graphsr.ops import BatchNorm, Conv2d, Shortcut
from graphsr.passes.linear import (
    Uses,
    absorb,
    affine_map,
    affine_of,
    has_constant_parameters,
    is_layer,
    is_pointwise,
    parameters,
    scale_inputs,
    with_parameters,
)
from graphsr.passes.rewrite import rewrite


def fold_scale(graph: Graph) -> Graph:
    """s·(W∗x + b) + t  ->  (s·W)∗x + (s·b + t)               per channel, also through sums and depth_to_space
    W∗(s·x + t) + b  ->  (W·s)∗x + (b + Σ W·t)                where t = 0 or nothing is padded
    α·(W∗x + b) + β·r  ->  1·(α·W∗x + α·b) + β·r              residual scaling
    A·(W∗x + b) + c  ->  (A·W)∗x + (A·b + c)                  A a convolution 1x1
    W∗(A·x + c) + b  ->  (W·A)∗x + (b + Σ W·c)                where c = 0 or nothing is padded

    Condition: constants, and the value in between is read once. The last two multiply matrices, and are left where
    the product would cost more multiplications than its factors, as in a low-rank pair of layers.
    """
    return rewrite(graph, _rule)


def _rule(node: Node, uses: Uses) -> Node:
    for fold in (_after, _residual, _before, _pointwise_after, _pointwise_before):
        folded = fold(node, uses)
        if folded is not None:
            return folded
    return node


def _after(node: Node, uses: Uses) -> Node | None:
    """s·layer(x) + t"""
    found = None if isinstance(node.op, BatchNorm) else affine_of(node)
    return found and absorb(*found, node, uses)


def _residual(node: Node, uses: Uses) -> Node | None:
    """α·layer(x) + β·r; a factor of 0 or 1 stays."""
    if not isinstance(node.op, Shortcut):
        return None
    factors = [node.op.alpha, node.op.beta]
    terms = list(node.inputs)
    for i, (factor, term) in enumerate(zip(factors, terms, strict=True)):
        if factor in (0, 1) or not is_layer(term):
            continue
        found = affine_map(term, node.type, factor, 0)
        scaled = found and absorb(*found, node, uses)
        if scaled is not None:
            factors[i], terms[i] = 1.0, scaled
    if terms == list(node.inputs):
        return None
    return Node(Shortcut(*factors), tuple(terms), node.name, node.origin)


def _before(node: Node, uses: Uses) -> Node | None:
    """layer(s·x + t)"""
    if not is_layer(node) or uses[node.inputs[0]] != 1:
        return None
    before = node.inputs[0]
    found = None if isinstance(before.op, BatchNorm) else affine_of(before)
    return found and scale_inputs(node, found[1], found[0], before)


def _pointwise_after(node: Node, uses: Uses) -> Node | None:
    """A·conv(x) + c, with A [Co2, Co1]: W'[o] = Σ_k A[o,k]·W[k], b' = A·b + c"""
    match node:
        case Node(Conv2d(), (Node(Conv2d(groups=1)) as conv, *_)) if is_pointwise(node) and uses[conv] == 1:
            if not has_constant_parameters(conv):
                return None
            (A, c), (weight, bias) = parameters(node), parameters(conv)
            A = A[:, :, 0, 0]
            product = np.tensordot(A, weight, axes=1)
            if product.size <= weight.size + A.size:
                return with_parameters(conv, conv.inputs[0], product, A @ bias + c, node)
    return None


def _pointwise_before(node: Node, uses: Uses) -> Node | None:
    """conv(A·x + c), with A [C1, C0]: W'[o,k] = Σ_i W[o,i]·A[i,k], b'[o] = b[o] + Σ_i W[o,i]·c[i]"""
    match node:
        case Node(Conv2d(_, padding, _, 1), (before, *_)) if is_pointwise(before) and uses[before] == 1:
            if not has_constant_parameters(node):
                return None
            (A, c), (weight, bias) = parameters(before), parameters(node)
            A = A[:, :, 0, 0]
            product = np.einsum("oihw,ik->okhw", weight, A)
            if product.size <= weight.size + A.size and not (any(padding) and c.any()):
                shift = np.einsum("oihw,i->o", weight, c)
                return with_parameters(node, before.inputs[0], product, bias + shift, before)
    return None

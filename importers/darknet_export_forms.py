"""Other forms of what darknet has words for, brought into those that are written.

A graph may come from the passes, which fuse layers with what follows, or from a file of another format, which has other
words for the same function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from graphsr.ir import Graph, Node, TensorType
from graphsr.op import Array, Op
from graphsr.ops import (
    Activation,
    Add,
    Clip,
    Div,
    Elu,
    Floor,
    Fused,
    Greater,
    HardTan,
    Leaky,
    Less,
    Logistic,
    Mul,
    PRelu,
    Relie,
    Relu,
    Relu6,
    Reshape,
    Softmax,
    SoftPlus,
    Sub,
    Tanh,
    Transpose,
    Where,
)
from graphsr.passes import fuse_dense

from .darknet_activations import COMPOSED, PLAIN
from .darknet_export_composed import Rebuilt

SAME: tuple[tuple[Activation, Activation], ...] = (
    *((op, op) for op in PLAIN.values()),
    (Clip(-1.0, 1.0), HardTan()),
    (Clip(0.0, 6.0), Relu6()),
    (Clip(0.0, float("inf")), Relu()),
    (Leaky(0.01), Relie()),
    (Leaky(0.0), Relu()),
)
"""Pairs of an activation and of the same one that has a word."""


def _of(op: Op, *inputs: Node | float) -> Node:
    return Node(op, tuple(v if isinstance(v, Node) else Node.const(np.array(v, np.float32)) for v in inputs))


def _stair(x: Node) -> Node:
    flat, half = _of(Floor(), _of(Mul(), _of(Floor(), x), 0.5)), _of(Floor(), _of(Mul(), x, 0.5))
    rest = _of(Sub(), x, _of(Mul(), half, 2.0))
    return _of(Add(), flat, _of(Relu(), _of(Sub(), rest, 1.0)))


def _plse(x: Node) -> Node:
    low, middle, high = (_of(Add(), _of(Mul(), x, a), b) for a, b in ((0.01, 0.04), (0.125, 0.5), (0.01, 0.96)))
    upper = _of(Where(), _of(Greater(), x, 4.0), high, middle)
    return _of(Where(), _of(Less(), x, -4.0), low, upper)


def _lhtan(x: Node) -> Node:
    high = _of(Add(), _of(Mul(), x, 0.001), 0.999)
    upper = _of(Where(), _of(Greater(), x, 1.0), high, x)
    return _of(Where(), _of(Less(), x, 0.0), _of(Mul(), x, 0.001), upper)


def _hard_mish(x: Node) -> Node:
    u = _of(Clip(-2.0, 0.0), x)
    return _of(Add(), _of(Relu(), x), _of(Add(), u, _of(Mul(), _of(Mul(), u, u), 0.5)))


SPELLED: dict[str, tuple[Callable[[Node], Node], ...]] = {
    "swish": (lambda x: _of(Mul(), x, _of(Logistic(), x)), lambda x: _of(Mul(), _of(Logistic(), x), x)),
    "mish": (lambda x: _of(Mul(), x, _of(Tanh(), _of(SoftPlus(), x))),),
    "stair": (_stair,),
    "plse": (_plse,),
    "lhtan": (_lhtan,),
    "hard_mish": (_hard_mish,),
}
"""Activations for which ONNX has no operator, as they stand in its files."""
X = Node.input("x", TensorType("float32", (1, 1, 1, 1)))
PATTERNS = [(word, form(X)) for word, forms in SPELLED.items() for form in forms]


def unfused(graph: Graph) -> Graph:
    """fused(x, …, r) -> activation(α·base(x, …) + β·r)"""

    def rule(old: Node, node: Node) -> Node:
        if not isinstance(node.op, Fused):
            return node
        op, inputs = node.op, node.inputs
        y = Node(op.base, inputs[:-1] if op.residual else inputs, node.name, node.origin)
        if op.residual:
            y = Node(op.residual, (y, inputs[-1]), node.name, node.origin)
        return Node(op.activation, (y,), node.name, node.origin) if op.activation else y

    return graph.map(rule)


def with_words(graph: Graph) -> Graph:
    """Activations as those that darknet has a word for, where they are equal in float32; or made up of such."""

    def rule(old: Node, node: Node) -> Node:
        if isinstance(node.op, Activation):
            same = next((known for op, known in SAME if _equal(op, node.op)), None)
            if same is not None:
                return node if same == node.op else Node(same, node.inputs, node.name, node.origin)
        for word, pattern in PATTERNS:
            found = dict[Node, Node]()
            if type(pattern.op) is type(node.op) and _matches(pattern, node, found):
                return _activated(word, found[X], node)
        if isinstance(node.op, Softmax):
            return _tempered(node, node.op)
        if isinstance(node.op, Leaky):
            return _bent(node, np.full(1, node.op.slope, np.float32))
        if isinstance(node.op, PRelu) and node.inputs[1].is_const:
            return _bent(node, node.inputs[1].value)
        return node

    return graph.map(rule)


def with_layers(graph: Graph) -> Graph:
    """Products with constants as connected layers, and transposes that move only axes of size 1 as reshapes."""

    def rule(old: Node, node: Node) -> Node:
        if not isinstance(node.op, Transpose):
            return node
        (x,) = node.inputs
        moved = [axis % x.type.rank for axis in node.op.axes if x.type.shape[axis] != 1]
        return Node(Reshape(node.type.shape), (x,), node.name, node.origin) if moved == sorted(moved) else node

    return fuse_dense(graph).map(rule)


def _equal(a: Op, b: Op) -> bool:
    """Whether two ops have the same attributes, slopes and bounds as float32."""
    match a, b:
        case (Leaky(p), Leaky(q)) | (Elu(p), Elu(q)):
            return np.float32(p) == np.float32(q)
        case Clip(low, high), Clip(low2, high2):
            return np.float32(low) == np.float32(low2) and np.float32(high) == np.float32(high2)
    return a == b


def _matches(pattern: Node, node: Node, found: dict[Node, Node]) -> bool:
    """Whether `node` is the pattern; `found` says which node stands for each of its own."""
    if pattern in found:
        return found[pattern] is node
    found[pattern] = node
    if pattern is X:
        return not node.is_const
    if pattern.is_const:
        return node.is_const and node.value.size == 1 and bool(node.value.ravel()[0] == pattern.value)
    alike = pattern.op == node.op and len(pattern.inputs) == len(node.inputs)
    return alike and all(_matches(a, b, found) for a, b in zip(pattern.inputs, node.inputs, strict=True))


def _activated(word: str, x: Node, node: Node) -> Node:
    """x under an activation, in the place of `node`."""
    return Node(PLAIN[word], (x,), node.name, node.origin) if word in PLAIN else COMPOSED[word](Rebuilt(x), x)


def _tempered(node: Node, op: Softmax) -> Node:
    """softmax(x / t) is one of temperature t."""
    (scaled,) = node.inputs
    if not isinstance(scaled.op, Div) or not scaled.inputs[1].is_const or scaled.inputs[1].value.size != 1:
        return node
    temperature = float(scaled.inputs[1].value.ravel()[0]) * op.temperature
    x = scaled.inputs[0]
    if temperature <= 0 or x.type != node.type:
        return node
    return Node(replace(op, temperature=temperature), (x,), node.name, node.origin)


def _bent(node: Node, slope: Array) -> Node:
    """max(0, x) − slope·max(0, −x), which is x for x > 0 and else slope·x, without a rounding of its own"""
    (x, *_), dtype = node.inputs, node.type.dtype
    factor = slope.astype(dtype).reshape(-1, *[1] * (x.type.rank - 2))

    def make(op: Op, *inputs: Node) -> Node:
        return Node(op, inputs, node.name, node.origin)

    below = make(Relu(), make(Mul(), x, Node.const(np.full(1, -1, dtype))))
    return make(Add(), make(Relu(), x), make(Mul(), below, Node.const(-factor)))

"""The plain ONNX operators that mean the same as each op: `WRITERS`, from op class to a small function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from graphsr.ir import Node
from graphsr.op import Array, Op
from graphsr.ops import Add, Concat, Conv2d, DepthToSpace, Div, Fused, Leaky, Mul, PRelu, Relu, Shortcut, Sub, Tanh


class Writer:
    """Collects the operators and the constants of a file; names of helpers derive from the node that needs them."""

    def __init__(self, taken: set[str]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._taken = set(taken)

    def fresh(self, base: str) -> str:
        """A name that nothing else has."""
        name, suffix = base, 2
        while name in self._taken:
            name, suffix = f"{base}_{suffix}", suffix + 1
        self._taken.add(name)
        return name

    def constant(self, value: Array, base: str) -> str:
        name = self.fresh(base)
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], output, **attributes))
        return output


Rule = Callable[[Writer, Any, tuple[Node, ...], list[str], str], object]
"""(writer, op, input nodes, their names, name of the result): adds the operators of one node."""


def _plain(operator: str) -> Rule:
    """An op without attributes that ONNX has under the same meaning."""
    return lambda w, op, nodes, x, y: w.add(operator, x, y)


def _conv(w: Writer, op: Conv2d, nodes: tuple[Node, ...], x: list[str], y: str) -> None:
    """Winograd is a way to compute the same convolution: the weights in the graph are the plain ones."""
    kernel = list(nodes[1].type.dims[2:])
    how = {"strides": list(op.stride), "pads": list(op.padding), "dilations": list(op.dilation), "group": op.groups}
    w.add("Conv", x, y, kernel_shape=kernel, **how)


def _prelu(w: Writer, op: PRelu, nodes: tuple[Node, ...], x: list[str], y: str) -> None:
    """ONNX broadcasts the slopes from the right, so they get axes for height and width."""
    shape = w.constant(np.array([-1, *[1] * (nodes[0].type.rank - 2)], np.int64), f"{y}.shape")
    w.add("PRelu", [x[0], w.add("Reshape", [x[1], shape], w.fresh(f"{y}.slope"))], y)


def _shortcut(w: Writer, op: Shortcut, nodes: tuple[Node, ...], x: list[str], y: str) -> None:
    """α·x₁ + β·x₂ as Mul, where the factor is not one, and Add."""
    terms = []
    for term, factor, node in zip(x, (op.alpha, op.beta), nodes, strict=True):
        if factor != 1:
            value = np.array(factor, node.type.dtype)
            term = w.add("Mul", [term, w.constant(value, f"{y}.factor")], w.fresh(f"{y}.term"))
        terms.append(term)
    w.add("Add", terms, y)


WRITERS: dict[type[Op], Rule] = {
    Add: _plain("Add"),
    Sub: _plain("Sub"),
    Mul: _plain("Mul"),
    Div: _plain("Div"),
    Relu: _plain("Relu"),
    Tanh: _plain("Tanh"),
    Conv2d: _conv,
    PRelu: _prelu,
    Shortcut: _shortcut,
    Leaky: lambda w, op, nodes, x, y: w.add("LeakyRelu", x, y, alpha=op.slope),
    Concat: lambda w, op, nodes, x, y: w.add("Concat", x, y, axis=op.axis),
    DepthToSpace: lambda w, op, nodes, x, y: w.add("DepthToSpace", x, y, blocksize=op.block, mode=op.mode.upper()),
}


def missing(op: Op) -> list[str]:
    """The names of the ops in this one (the parts of a fused op) that cannot be written."""
    if isinstance(op, Fused):
        parts = [part for part in (op.base, op.residual, op.activation) if part is not None]
        return [name for part in parts for name in missing(part)]
    return [] if type(op) in WRITERS else [op.name]

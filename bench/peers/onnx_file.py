"""A graph as an ONNX model: what onnxruntime and OpenVINO read, and what MNN converts."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from graphsr.ir import Const, Graph, Input, Node
from graphsr.op import Array
from graphsr.ops import (
    Add,
    Concat,
    Conv2d,
    DepthToSpace,
    Div,
    Leaky,
    MaxPool2d,
    Mul,
    PRelu,
    Relu,
    Reshape,
    Resize,
    Shortcut,
    Sub,
    Tanh,
)
from graphsr.textform import node_names

OPSET = 17
IR_VERSION = 8  # of the same time as the opset: engines refuse a newer one than they know

PLAIN = {Relu: "Relu", PRelu: "PRelu", Tanh: "Tanh", Add: "Add", Sub: "Sub", Mul: "Mul", Div: "Div"}
"""Ops without attributes that ONNX has under the same meaning, for the operands that the networks give them."""


def onnx_model(graph: Graph) -> onnx.ModelProto:
    """A bound graph of float32 values as a model with plain operators and sizes that are known.

    Raises `NotImplementedError` for an op that no compared network has.
    """
    names = node_names(graph) | {node: name for name, node in graph.outputs.items()}
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []
    for node in graph.nodes():
        if isinstance(node.op, Const):
            constants.append(numpy_helper.from_array(_operand(node, graph), names[node]))
        elif not isinstance(node.op, Input):
            made, extra = _nodes(node, [names[child] for child in node.inputs], names[node])
            nodes += made
            constants += extra
    proto = helper.make_graph(
        nodes,
        "graphsr",
        [_value(node, names[node]) for node in graph.inputs],
        [_value(node, names[node]) for node in graph.outputs.values()],
        constants,
    )
    return helper.make_model(proto, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def _nodes(node: Node, inputs: list[str], output: str) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """The operators of one node, and constants that only they read."""
    match node.op:
        case Conv2d() as conv:
            attributes: dict[str, Any] = {
                "kernel_shape": list(node.inputs[1].type.dims[2:]),
                "strides": list(conv.stride),
                "pads": list(conv.padding),
                "dilations": list(conv.dilation),
                "group": conv.groups,
            }
            return [helper.make_node("Conv", inputs, [output], output, **attributes)], []
        case MaxPool2d(dilation=(1, 1), ceil_mode=False) as pool:
            attributes = {
                "kernel_shape": list(pool.kernel),
                "strides": list(pool.stride),
                "pads": list(pool.padding),
            }
            return [helper.make_node("MaxPool", inputs, [output], output, **attributes)], []
        case DepthToSpace(block, mode):
            return [helper.make_node("DepthToSpace", inputs, [output], output, blocksize=block, mode=mode.upper())], []
        case Shortcut(alpha, beta):
            return _sum(inputs, (alpha, beta), output)
        case Leaky(slope):
            return [helper.make_node("LeakyRelu", inputs, [output], output, alpha=slope)], []
        case Concat(axis):
            return [helper.make_node("Concat", inputs, [output], output, axis=axis)], []
        case Reshape():
            shape = numpy_helper.from_array(np.array(node.type.dims, np.int64), f"{output}.shape")
            return [helper.make_node("Reshape", [*inputs, shape.name], [output], output)], [shape]
        case Resize(scale, None, "nearest", "asymmetric", "floor"):
            return _nearest(inputs, scale, output)
        case op if type(op) in PLAIN:
            return [helper.make_node(PLAIN[type(op)], inputs, [output], output)], []
    raise NotImplementedError(f"{node.where()}: not written to ONNX by the bench")


def _sum(
    inputs: list[str], factors: tuple[float, float], output: str
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """α·x₁ + β·x₂ as Mul, where the factor is not one, and Add."""
    nodes, constants, terms = [], [], []
    for position, (term, factor) in enumerate(zip(inputs, factors, strict=True)):
        if factor != 1:
            constants.append(numpy_helper.from_array(np.array([factor], np.float32), f"{output}.factor{position}"))
            scaled = f"{output}.term{position}"
            nodes.append(helper.make_node("Mul", [term, constants[-1].name], [scaled], scaled))
            term = scaled
        terms.append(term)
    return [*nodes, helper.make_node("Add", terms, [output], output)], constants


def _nearest(
    inputs: list[str], scale: tuple[float, float], output: str
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Every pixel repeated: y[d] = x[⌊d / scale⌋]."""
    scales = numpy_helper.from_array(np.array((1, 1, *scale), np.float32), f"{output}.scales")
    how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return [helper.make_node("Resize", [*inputs, "", scales.name], [output], output, **how)], [scales]


def _operand(constant: Node, graph: Graph) -> Array:
    """The array; PReLU's vector of slopes gets axes for height and width, which ONNX broadcasts from the right."""
    read_as_slope = any(isinstance(node.op, PRelu) and node.inputs[1] is constant for node in graph.nodes())
    return constant.value.reshape(-1, 1, 1) if read_as_slope else constant.value


def _value(node: Node, name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, node.type.dims)

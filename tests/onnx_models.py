"""Small ONNX models for tests, built with onnx.helper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Array: TypeAlias = npt.NDArray[Any]
Shape: TypeAlias = Sequence[int | str | None]


def node(
    op_type: str, inputs: str, outputs: str, name: str = "", domain: str = "", **attributes: Any
) -> onnx.NodeProto:
    """A node; inputs and outputs are names with spaces between them, "-" is left out."""
    ins, outs = ([("" if n == "-" else n) for n in names.split()] for names in (inputs, outputs))
    return helper.make_node(op_type, ins, outs, name=name, domain=domain, **attributes)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Shape],
    outputs: Sequence[str] = ("y",),
    weights: Mapping[str, Array] | None = None,
    opset: int = 17,
    functions: Sequence[onnx.FunctionProto] = (),
    kinds: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    """A model. Inputs are float32 unless `kinds` says otherwise; the types of outputs are not declared."""
    given = [
        helper.make_tensor_value_info(name, (kinds or {}).get(name, TensorProto.FLOAT), shape)
        for name, shape in inputs.items()
    ]
    results = [helper.make_empty_tensor_value_info(name) for name in outputs]
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(list(nodes), "test", given, results, tensors)
    imports = [helper.make_opsetid("", opset)] + [helper.make_opsetid(f.domain, 1) for f in functions[:1]]
    made = helper.make_model(graph, opset_imports=imports, functions=list(functions), ir_version=8)
    assert isinstance(made, onnx.ModelProto)
    return made


def weight(*shape: int) -> Array:
    """Numbers that are all different, in (-1, 1)."""
    size = int(np.prod(shape))
    return ((np.arange(size) * 7919 % (2 * size + 1)) / (size + 0.5) - 1).reshape(shape).astype(np.float32)


def upscaler() -> onnx.ModelProto:
    """What exporters write: shape code for a size, a constant through Identity, a pixel shuffle of three nodes."""
    nodes = [
        node("Identity", "w0", "w1", "copy"),
        node("Conv", "x w1 b0", "a", "head", pads=[1, 1, 1, 1]),
        node("Relu", "a", "r", "act"),
        node("Shape", "r", "s", "shape"),
        node("Gather", "s zero", "n", "batch", axis=0),
        node("Gather", "s two", "h", "height", axis=0),
        node("Gather", "s three", "w", "width", axis=0),
        node("Mul", "h two", "h2", "twice_h"),
        node("Mul", "w two", "w2", "twice_w"),
        node("Unsqueeze", "n axis0", "n1", "u0"),
        node("Unsqueeze", "h axis0", "h1", "u1"),
        node("Unsqueeze", "w axis0", "ww1", "u2"),
        node("Unsqueeze", "h2 axis0", "h21", "u3"),
        node("Unsqueeze", "w2 axis0", "w21", "u4"),
        node("Concat", "n1 three1 two1 two1 h1 ww1", "s1", "c1", axis=0),
        node("Concat", "n1 three1 h21 w21", "s2", "c2", axis=0),
        node("Reshape", "r s1", "r1", "blocks"),
        node("Transpose", "r1", "r2", "swap", perm=[0, 1, 4, 2, 5, 3]),
        node("Reshape", "r2 s2", "y", "pixels"),
    ]
    integers = {"zero": 0, "two": 2, "three": 3, "axis0": [0], "two1": [2], "three1": [3]}
    weights = {"w0": weight(12, 3, 3, 3), "b0": weight(12)}
    numbers = {name: np.array(value, np.int64) for name, value in integers.items()}
    return model(nodes, {"x": ["N", 3, "H", "W"]}, weights=weights | numbers)


def with_function() -> onnx.ModelProto:
    """A model-local function with an attribute of its own, called twice."""
    body = [
        helper.make_node("LeakyRelu", ["v"], ["t"]),
        helper.make_node("Add", ["t", "v"], ["out"]),
    ]
    body[0].attribute.append(onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT))
    function = helper.make_function("local", "Twice", ["v"], ["out"], body, [helper.make_opsetid("", 17)], ["slope"])
    nodes = [
        node("Twice", "x", "a", "first", "local", slope=0.5),
        node("Twice", "a", "y", "second", "local", slope=0.25),
    ]
    return model(nodes, {"x": ["N", 4]}, functions=[function])

"""A graph as an ONNX file of plain operators (set 17) that other engines read; open sizes keep their names."""

from __future__ import annotations

import os

import numpy as np
import onnx
from onnx import helper, numpy_helper

from graphsr.atomic import atomic_path
from graphsr.errors import ModelError
from graphsr.ir import Const, Graph, Input, Node
from graphsr.ops import Fused
from graphsr.textform import node_names

from .onnx_export_ops import WRITERS, Writer, missing

OPSET = 17
IR_VERSION = 8  # of the same time as the opset: engines refuse a newer one than they know
LARGEST = 2**31 - 1  # bytes of one protobuf message


def export(graph: Graph, path: str | os.PathLike[str]) -> None:
    """Write the graph. The same graph gives the same bytes; on failure no file is left, or the old one.

    Raises `ModelError` with all that cannot be written, and where the file cannot be made.
    """
    made = onnx_model(graph)
    if made.ByteSize() > LARGEST:
        raise ModelError(f"the model takes {made.ByteSize()} bytes, an ONNX file at most {LARGEST}")
    try:
        with atomic_path(path) as partial:
            partial.write_bytes(made.SerializeToString(deterministic=True))
    except OSError as error:
        raise ModelError(f"cannot be written: {error.strerror or error}") from error


def onnx_model(graph: Graph) -> onnx.ModelProto:
    """The graph as a model. Raises `ModelError` with every node that has no ONNX form."""
    refuse_unwritable(graph)
    names = node_names(graph)
    writer = Writer(set(names.values()) | set(graph.outputs))
    for node in graph.nodes():
        if isinstance(node.op, Const):
            writer.constants.append(numpy_helper.from_array(node.value, names[node]))
        elif not isinstance(node.op, Input):
            _write(writer, node, [names[child] for child in node.inputs], names[node])
    for name, node in graph.outputs.items():
        if name != names[node]:
            if name in names.values():
                raise ModelError(f"output {name!r} has the name of another node: rename one of them")
            writer.add("Identity", [names[node]], name)
    inputs = [_value(node, names[node]) for node in graph.inputs]
    outputs = [_value(node, name) for name, node in graph.outputs.items()]
    made = helper.make_graph(writer.nodes, "graphsr", inputs, outputs, writer.constants)
    opset = [helper.make_opsetid("", OPSET)]
    return helper.make_model(made, opset_imports=opset, ir_version=IR_VERSION, producer_name="graphsr")


def refuse_unwritable(graph: Graph) -> None:
    lines = [
        f"  {node.where()}: {', '.join(names)}"
        for node in graph.nodes()
        if not isinstance(node.op, Const | Input) and (names := missing(node.op))
    ]
    if lines:
        raise ModelError("\n".join(["these ops cannot be written as ONNX:", *lines]))


def _write(writer: Writer, node: Node, inputs: list[str], output: str) -> None:
    """One node; a fused one as its parts, one after the other."""
    op, nodes = node.op, node.inputs
    if not isinstance(op, Fused):
        WRITERS[type(op)](writer, op, nodes, inputs, output)
        return
    count = len(inputs) - bool(op.residual)
    stages = [(op.base, nodes[:count], inputs[:count])]
    if op.residual:
        stages.append((op.residual, (node, nodes[-1]), inputs[-1:]))
    if op.activation:
        stages.append((op.activation, (node,), []))
    before: list[str] = []
    for number, (part, read, rest) in enumerate(stages, 1):
        name = output if number == len(stages) else writer.fresh(f"{output}.{part.name}")
        WRITERS[type(part)](writer, part, read, before + rest, name)
        before = [name]


def _value(node: Node, name: str) -> onnx.ValueInfoProto:
    sizes = [size if isinstance(size, int) else str(size) for size in node.type.shape]
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(node.type.dtype)), sizes)

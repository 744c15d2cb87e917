"""A graph as an ONNX file of plain operators (set 17) that other engines read; open sizes keep their names."""

from __future__ import annotations

import os
from collections.abc import Mapping

import onnx
from onnx import helper, numpy_helper

from graphsr.atomic import atomic_path
from graphsr.errors import ModelError
from graphsr.ir import Const, Graph, Input, Node, TensorType
from graphsr.op import Op
from graphsr.ops import Fused
from graphsr.textform import node_names

from .onnx_export_ops import REFUSED, RULES
from .onnx_export_writer import Site, UnwritableError, Value, Writer, onnx_dtype
from .onnx_reader import INPUT_RANGE

OPSET = 17
IR_VERSION = 8  # of the same time as the opset: engines refuse a newer one than they know
LARGEST = 2**31 - 1  # bytes of one protobuf message


def export(graph: Graph, path: str | os.PathLike[str], input_range: float | None = None) -> None:
    """Write the graph and, as metadata, which value white has. The same graph gives the same bytes; on failure no file
    is left, or the old one.

    Raises `ModelError` with all that cannot be written, and where the file cannot be made.
    """
    made = onnx_model(graph)
    if input_range is not None:
        helper.set_model_props(made, {INPUT_RANGE: f"{input_range:.17g}"})
    if made.ByteSize() > LARGEST:
        raise ModelError(f"the model takes {made.ByteSize()} bytes, an ONNX file at most {LARGEST}")
    try:
        onnx.checker.check_model(made, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"ONNX has not all of these operators for these types: {error}") from error
    try:
        with atomic_path(path) as partial:
            partial.write_bytes(made.SerializeToString(deterministic=True))
    except OSError as error:
        raise ModelError(f"cannot be written: {error.strerror or error}") from error


def onnx_model(graph: Graph) -> onnx.ModelProto:
    """The graph as a model. Raises `ModelError` with every node that has no ONNX form."""
    nodes = node_names(graph)
    names = _value_names(graph, nodes)
    given = {names[node]: node.type for node in graph.inputs}
    writer = Writer(given, {*names.values(), *graph.outputs})
    reasons: list[str] = []
    for node in graph.nodes():
        if isinstance(node.op, Const):
            writer.constants.append(numpy_helper.from_array(node.value, names[node]))
        elif not isinstance(node.op, Input):
            try:
                _write(writer, node, names, nodes[node])
            except UnwritableError as error:
                reasons.append(f"  {node.where()}: {error}")
    if reasons:
        raise ModelError("\n".join(["these ops cannot be written as ONNX:", *reasons]))
    for name, node in graph.outputs.items():
        if name != names[node]:
            writer.settle(names[node], name, name)
    inputs = [_value(type_, name) for name, type_ in given.items()]
    outputs = [_value(node.type, name) for name, node in graph.outputs.items()]
    made = helper.make_graph(writer.nodes, "graphsr", inputs, outputs, writer.constants)
    opset = [helper.make_opsetid("", OPSET)]
    return helper.make_model(made, opset_imports=opset, ir_version=IR_VERSION, producer_name="graphsr")


def _value_names(graph: Graph, nodes: Mapping[Node, str]) -> dict[Node, str]:
    """What the value of each node is called: an output as the graph calls it, an input as its node, the others too as
    long as no output has that name."""
    names = {node: nodes[node] for node in graph.inputs}
    for name, node in graph.outputs.items():
        if not isinstance(node.op, Input | Const):
            names.setdefault(node, name)
    for name, node in graph.outputs.items():
        if any(given is not node and nodes[given] == name for given in graph.inputs):
            raise ModelError(f"output {name!r} has the name of another input: rename one of them")
    taken = {*names.values(), *graph.outputs}
    for node, base in nodes.items():
        if node not in names:
            name, suffix = base, 2
            while name in taken and graph.outputs.get(name) is not node:
                name, suffix = f"{base}_{suffix}", suffix + 1
            taken.add(name)
            names[node] = name
    return names


def _write(writer: Writer, node: Node, names: Mapping[Node, str], called: str) -> None:
    """One node; a fused one as its parts, one after the other."""
    read = tuple(Value(names[child], child.type, child.value if child.is_const else None) for child in node.inputs)
    if not isinstance(node.op, Fused):
        _write_op(Site(writer, called, read, node.type), node.op, names[node])
        return
    count = len(read) - bool(node.op.residual)
    read, residual = read[:count], read[count:]
    parts = [part for part in (node.op.base, node.op.residual, node.op.activation) if part is not None]
    for part in parts:
        site = Site(writer, f"{called}.{part.name}", read, part.infer(*(value.type for value in read)))
        name = names[node] if part is parts[-1] else writer.fresh(site.name)
        _write_op(site, part, name)
        read, residual = (Value(name, site.output), *residual), ()


def _write_op(site: Site, op: Op, name: str) -> None:
    """The result is called `name`."""
    rule = RULES.get(type(op))
    if rule is None:
        raise UnwritableError(REFUSED.get(type(op), "it has no rule"))
    result = rule(site, op, *(value.name for value in site.inputs))
    site.writer.settle(result, name, site.name)


def _value(type_: TensorType, name: str) -> onnx.ValueInfoProto:
    sizes = [size if isinstance(size, int) else str(size) for size in type_.shape]
    return helper.make_tensor_value_info(name, onnx_dtype(type_.dtype), sizes)

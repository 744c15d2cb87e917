"""onnxruntime behind our exporter, as a backend: an oracle that nobody here wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime

from graphsr.backend import Backend, Executable
from graphsr.errors import ModelError
from graphsr.explain import Step
from graphsr.importers.onnx_export import onnx_model
from graphsr.ir import Const, Graph, Input, Node
from graphsr.op import Array
from graphsr.ops import Gru, Lstm, MaxPoolNd, SimpleRnn
from graphsr.passes import Pass, run_passes

NOT_IN_DOUBLE = (Gru, Lstm, SimpleRnn)
"""Operators that say only at the call that they have no float64."""


class OnnxRuntime(Backend):
    """Writes the graph as ONNX, after passes or before any, checks the file and runs it with onnxruntime."""

    name = "onnxruntime"

    def __init__(self, passes: Sequence[Pass] = ()) -> None:
        self.passes = passes

    def supports(self, node: Node) -> bool:
        """What can be written, as far as onnxruntime has a kernel for it in the dtype of the node."""
        if isinstance(node.op, Input | Const):
            return True
        inputs = tuple(Node.input(f"x{i}", child.type) for i, child in enumerate(node.inputs))
        try:
            made = onnx_model(Graph(inputs, {"y": Node(node.op, inputs)}))
        except ModelError:
            return False
        return _has_kernels(made, node)

    def compile(self, graph: Graph, *, threads: int | None = None) -> Executable:
        optimised = run_passes(graph, self.passes)
        return Executable(Written(session(onnx_model(optimised))), optimised, 1)

    def program(self, graph: Graph, threads: int) -> Session:
        return Session(session(onnx_model(graph)))


class Written(OnnxRuntime):
    """One file for all sizes."""

    def __init__(self, file: Any) -> None:
        super().__init__()
        self.file = file

    def program(self, graph: Graph, threads: int) -> Session:
        return Session(self.file)


@dataclass(frozen=True)
class Session:
    """A file that onnxruntime has loaded."""

    file: Any
    threads: int = 1
    planned_bytes: int = 0

    def run(self, inputs: Sequence[Array]) -> Sequence[Array]:
        names = [value.name for value in self.file.get_inputs()]
        outputs: Sequence[Array] = self.file.run(None, dict(zip(names, map(np.asarray, inputs), strict=True)))
        return outputs

    def steps(self) -> Sequence[Step]:
        return ()


def session(model: onnx.ModelProto) -> Any:
    """The model, once onnx's own checker has nothing to say against it, in onnxruntime on one thread."""
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # what it has to say comes as an exception
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _has_kernels(model: onnx.ModelProto, node: Node) -> bool:
    """onnxruntime has no float64 for a part of its operators, and none of its pools take padding as wide as the kernel,
    which matters for indices alone (the exporter writes other pools otherwise)."""
    op, dtypes = node.op, {type_.dtype for type_ in (node.type, *(child.type for child in node.inputs))}
    if isinstance(op, MaxPoolNd) and op.output == "indices" and max(op.padding) >= min(op.kernel):
        return False
    if dtypes <= {"float32", "int64", "int32", "bool"}:
        return True
    if isinstance(op, NOT_IN_DOUBLE):
        return False
    try:
        session(model)
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented:
        return False
    return True

"""An ONNX file as a `Model`. Imports onnx, which `onnx_file` does only when there is one to read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from graphsr.errors import ModelError
from graphsr.ir import Graph
from graphsr.model import Model
from graphsr.op import Array
from graphsr.verify import verify

from . import (
    onnx_ops_attention,
    onnx_ops_conv,
    onnx_ops_elementwise,
    onnx_ops_index,
    onnx_ops_recurrent,
    onnx_ops_reduce,
    onnx_ops_resize,
    onnx_ops_shape,
)
from .byte_source import open_source
from .onnx_graph import Builder
from .onnx_reader import MAX_BYTES, MAX_MEMORY, Source, narrow_floats, read_model, white_of
from .onnx_values import OpenValueError

FAMILIES = (
    onnx_ops_attention,
    onnx_ops_conv,
    onnx_ops_elementwise,
    onnx_ops_index,
    onnx_ops_recurrent,
    onnx_ops_reduce,
    onnx_ops_resize,
    onnx_ops_shape,
)
"""The modules that fill the table of operators."""


def import_model(
    path: str | os.PathLike[str],
    *,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    values: Mapping[str, Array] | None = None,
    input_range: float | None = None,
    max_memory: int = MAX_MEMORY,
) -> Model:
    """The network of an ONNX file; see `onnx_file.load`."""
    source = read_model(path, max_memory)
    try:
        graph = build_graph(source, shapes or {}, values or {})
    except OpenValueError as error:
        raise ModelError(f"{error}\n{_advice(error)}") from error
    with open_source(path, MAX_BYTES) as file:
        digest = file.sha256()
    scale, model = _scale(graph), source.model
    said = white_of(model)
    assumed = scale is not None and input_range is None and said is None
    return Model(
        graph,
        architecture=model.graph.name or "ONNX",
        scale=scale,
        input_range=float(input_range if input_range is not None else said or 1),
        inferred={
            "operator set": ", ".join(f"{i.domain or 'ai.onnx'} {i.version}" for i in model.opset_import),
            **{name: WIDENED[name] for name in sorted(narrow_floats(model))},
        },
        assumptions=(ASSUMED_RANGE,) if assumed else (),
        provenance={
            "file": Path(path).name,
            "format": "ONNX",
            "producer": f"{model.producer_name} {model.producer_version}".strip() or "not named",
            "sha256": digest,
        },
    )


WIDENED = {
    "float16": "held and computed in float32, inputs and outputs too; only a Cast to float16 rounds",
    "bfloat16": "held and computed in float32, inputs and outputs too",
}
ASSUMED_RANGE = "input_range=1: the file does not say which value white has. Set input_range= to change it."


def build_graph(source: Source, shapes: Mapping[str, tuple[int, ...]], values: Mapping[str, Array]) -> Graph:
    """The graph of a message, with some shapes and values fixed. Raises `ModelError`, `OpenValueError`."""
    names = {value.name for value in source.model.graph.input}
    unknown = sorted((shapes.keys() | values.keys()) - names)
    if unknown:
        raise ModelError(f"the model has no input {', '.join(unknown)}, its inputs are {', '.join(sorted(names))}")
    graph = Builder(source, shapes, values).build()
    verify(graph)
    return graph


def _advice(error: OpenValueError) -> str:
    """What the caller can do."""
    texts = []
    if error.inputs:
        example = ", ".join(f"{name!r}: array" for name in sorted(error.inputs))
        texts.append(f"give values={{{example}}}: the network is built for these values")
    if error.shapes:
        texts.append("give shapes={'input name': (1, 3, 224, 224)} with the sizes of every input that has open ones")
    return "; ".join(texts)


def _scale(graph: Graph) -> int | None:
    """How much larger the image gets, for a network that is an upscaler by its types."""
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        return None
    (x,), (y,) = graph.input_types().values(), graph.output_types().values()
    if x.rank != 4 or y.rank != 4 or x.shape[:2] != y.shape[:2] or x.shape[1] not in (1, 3):
        return None
    for scale in range(1, 17):
        if y.shape[2:] == tuple(n * scale for n in x.shape[2:]):
            return scale
    return None

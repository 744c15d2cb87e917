"""graphsr's own models (.safetensors): the graph as text, what is known about it, and its constants."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from graphsr.errors import GraphError, ModelError
from graphsr.model import Model
from graphsr.op import Array
from graphsr.textform import node_names, parse_graph, print_graph
from graphsr.verify import verify

from .byte_source import open_source
from .safetensors_file import read_safetensors, write_safetensors

SUFFIX = ".safetensors"
SAVES = (SUFFIX,)
FORMAT = "graphsr-model-1"
MARKER = f'"format":"{FORMAT}"'.encode()
"""Stands at the beginning of the file, in the metadata's first entry."""
HALF_MAX = float(np.finfo(np.float16).max)
MAX_BYTES = 1 << 34
"""Larger files are refused."""


def matches(path: Path, head: bytes) -> bool:
    """Whether the file says that it is ours."""
    return MARKER in head.replace(b" ", b"")[:256]


def load(path: str | os.PathLike[str], **options: Any) -> Model:
    """The model that `save` wrote. Takes no options: the file says everything.

    Raises `ModelError` for a file that is damaged or not consistent.
    """
    if options:
        raise ModelError(f"{path}: a graphsr model takes no options, got {', '.join(sorted(options))}")
    with open_source(path, MAX_BYTES) as source:
        tensors, metadata = read_safetensors(source, may_be_empty=True)  # a graph needs no constants
    try:
        return _model(tensors, metadata)
    except (GraphError, ModelError) as error:
        raise ModelError(f"{path}: {error}") from error


def save(model: Model, path: str | os.PathLike[str], *, dtype: str = "float32", overwrite: bool = False) -> None:
    """Write a model to one .safetensors file, which is replaced with or without `overwrite`; it appears whole or not
    at all.

    With `dtype="float16"` the learned float32 constants of two or more dimensions are stored in half precision and
    widened by `load`; biases and fixed constants, a few bytes, stay exact.
    Raises `ModelError` for another suffix or dtype, and for weights that half precision cannot hold.
    """
    if Path(path).suffix.lower() != SUFFIX:
        raise ModelError(f"{os.fspath(path)}: models are saved as {SUFFIX} files")
    if dtype not in ("float32", "float16"):
        raise ModelError(f"dtype must be float32 or float16, got {dtype!r}")
    tensors = {name: node.value for node, name in node_names(model.graph).items() if node.is_const}
    if dtype == "float16":
        tensors = _halved(model, tensors)
    known = {
        "architecture": model.architecture,
        "scale": model.scale,
        "input_range": model.input_range,
        "inferred": dict(model.inferred),
        "assumptions": list(model.assumptions),
        "provenance": dict(model.provenance),
        "fixed": sorted(model.fixed),
        "widen": dtype == "float16",
    }
    metadata = {"format": FORMAT, "graph": print_graph(model.graph), "model": json.dumps(known)}
    try:
        write_safetensors(path, tensors, metadata)
    except OSError as error:
        raise ModelError(f"{os.fspath(path)}: cannot be written: {error.strerror or error}") from error


def _halved(model: Model, tensors: Mapping[str, Array]) -> dict[str, Array]:
    if any(array.dtype == np.float16 for array in tensors.values()):
        raise ModelError("a graph that computes in float16 cannot be stored as float16: it would be widened at load")
    halved = dict(tensors)
    for name, array in tensors.items():
        if array.dtype == np.float32 and array.ndim >= 2 and name not in model.fixed:
            largest = float(np.abs(array).max(initial=0.0))
            if np.isfinite(largest) and largest > HALF_MAX:
                raise ModelError(f"{name} holds {largest:g}, beyond half precision ({HALF_MAX:g}): save as float32")
            halved[name] = array.astype(np.float16)
    return halved


def _model(tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> Model:
    if metadata.get("format") != FORMAT:
        raise ModelError(f"the format is {metadata.get('format')!r}, expected {FORMAT!r}: made by another version?")
    known = _known(metadata.get("model", ""))
    if known.pop("widen"):
        tensors = {
            name: array.astype(np.float32) if array.dtype == np.float16 else array for name, array in tensors.items()
        }
    graph = parse_graph(metadata.get("graph", ""), tensors)
    verify(graph)
    unused = tensors.keys() - {name for node, name in node_names(graph).items() if node.is_const}
    if unused:
        raise ModelError(f"the file holds tensors that its graph does not name: {', '.join(sorted(unused)[:8])}")
    return Model(graph, **known)


def _known(text: str) -> dict[str, Any]:
    """The fields of `Model` beside the graph, checked: the file is not trusted."""
    try:
        known = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"the metadata entry 'model' is not JSON: {error}") from error
    if not isinstance(known, dict) or known.keys() != _FIELDS.keys():
        raise ModelError(f"the metadata entry 'model' must be an object with the keys {', '.join(_FIELDS)}")
    for name, fits in _FIELDS.items():
        if not fits(known[name]):
            raise ModelError(f"the metadata entry 'model' has an impossible {name}: {str(known[name])[:80]}")
    return {**known, "assumptions": tuple(known["assumptions"]), "fixed": frozenset(known["fixed"])}


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict) and _is_texts(list(value.values()))


_FIELDS: dict[str, Callable[[Any], bool]] = {
    "architecture": lambda value: isinstance(value, str),
    "scale": lambda value: value is None or (type(value) is int and value > 0),
    "input_range": lambda value: type(value) in (int, float) and 0 < value < float("inf"),
    "inferred": _is_mapping,
    "assumptions": _is_texts,
    "provenance": _is_mapping,
    "fixed": _is_texts,
    "widen": lambda value: isinstance(value, bool),
}

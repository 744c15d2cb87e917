"""ONNX networks (.onnx), of operator sets 1 to 28, with external data beside them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from graphsr.errors import GraphError, ModelError
from graphsr.model import Model

SUFFIX = ".onnx"
SAVES = (SUFFIX,)
OPTIONS = ("shapes", "values", "input_range", "max_memory")


def matches(path: Path, head: bytes) -> bool:
    """Whether this is an ONNX model. The format has no signature: its suffix says so."""
    return path.suffix.lower() == SUFFIX


def load(path: str | os.PathLike[str], **options: Any) -> Model:
    """The network of an ONNX file.

    `shapes={"input": (1, 3, 224, 224)}` fixes sizes that the file leaves open, where a network needs that;
    `values={"axes": array}` gives inputs that are read while the network is built (shapes, axes), which are inputs of
    the model no more; `input_range` is the value of white for an upscaler (by default what graphsr wrote into the file,
    else 1); `max_memory` bounds the bytes of the tensors (8 GiB by default). A model in float16 or bfloat16 is read as
    float32, its inputs and outputs too, which `Model.inferred` says; a cast to float16 in it rounds.

    Raises `ModelError` with all that is not supported, and for a file that is damaged.
    """
    unknown = sorted(options.keys() - set(OPTIONS))
    if unknown:
        raise ModelError(
            f"{path}: an ONNX model has no option {', '.join(unknown)}; its options are {', '.join(OPTIONS)}"
        )
    from .onnx_import import import_model  # takes a moment, and memory: only when an ONNX file is read

    try:
        return import_model(path, **options)
    except (ModelError, GraphError) as error:
        name = os.fspath(path)
        raise ModelError(str(error) if str(error).startswith(f"{name}: ") else f"{name}: {error}") from error


def save(model: Model, path: str | os.PathLike[str], *, dtype: str = "float32", overwrite: bool = False) -> None:
    """Write the graph of the model with plain operators; open sizes keep their names. Metadata hold `input_range`.

    There is one file, which is replaced with or without `overwrite`.
    Raises `ModelError` with all that ONNX cannot express, and for another dtype than float32.
    """
    if dtype != "float32":
        raise ModelError(f"{os.fspath(path)}: ONNX files are saved with dtype float32, got {dtype!r}")
    from .onnx_export import export

    try:
        export(model.graph, path, model.input_range)
    except ModelError as error:
        raise ModelError(f"{os.fspath(path)}: {error}") from error

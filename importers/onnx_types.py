"""The types that an ONNX model declares for its inputs, with names for the sizes that it leaves open."""

from __future__ import annotations

import re

import onnx

from graphsr.dim import RESERVED, Dim, Size
from graphsr.errors import ModelError
from graphsr.ir import TensorType

from .onnx_reader import dtype_of
from .onnx_values import OpenValueError


def input_type(value: onnx.ValueInfoProto, shape: tuple[int, ...] | None) -> TensorType:
    """The type of a model's input; `shape` replaces what the file says about open sizes.

    Raises `ModelError` for what is no tensor, `OpenValueError` when not even the number of axes is known.
    """
    what = f"input {value.name!r}"
    if not value.type.HasField("tensor_type"):
        raise ModelError(f"{what} is no tensor, but a sequence, map or optional value")
    tensor = value.type.tensor_type
    dtype = dtype_of(tensor.elem_type, what)
    if not tensor.HasField("shape"):
        if shape is None:
            raise OpenValueError(f"{what} has no declared shape", shapes=True)
        return TensorType(dtype, tuple(shape))
    declared = tuple(_size(value.name, axis, dim) for axis, dim in enumerate(tensor.shape.dim))
    if shape is None:
        return TensorType(dtype, declared)
    fits = len(shape) == len(declared) and all(
        isinstance(a, Dim) or a == b for a, b in zip(declared, shape, strict=True)
    )
    if not fits:
        raise ModelError(f"{what} is {TensorType(dtype, declared)}, which the shape {shape} does not fit")
    return TensorType(dtype, tuple(shape))


def _size(name: str, axis: int, dim: onnx.TensorShapeProto.Dimension) -> Size:
    """A size; one that is left open is named as in the file, or after the input and the axis."""
    if dim.HasField("dim_value"):
        if dim.dim_value < 0:
            raise ModelError(f"input {name!r} has a negative size {dim.dim_value}")
        return int(dim.dim_value)
    given = dim.dim_param if re.fullmatch(r"[A-Za-z_]\w*", dim.dim_param, re.ASCII) else ""
    return Dim.symbol(given if given and given not in RESERVED else f"{_identifier(name)}_{axis}")


def _identifier(name: str) -> str:
    """The name with everything but letters, digits and _ replaced, and a letter in front."""
    return "x_" + re.sub(r"\W", "_", name, flags=re.ASCII)

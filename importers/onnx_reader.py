"""ONNX files as bytes: the protobuf message, its tensors as arrays, and external data. Nothing here is trusted.

The message is parsed by protobuf alone; onnx's checker and shape inference, which are C++ and have crashed on damaged
files, are not called. Sizes are Python integers and compared with what the file holds before memory is taken.
"""

from __future__ import annotations

import math
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError, Message

from graphsr.errors import ModelError
from graphsr.op import Array

from .byte_source import ByteSource, open_source

MAX_BYTES = 1 << 31
"""protobuf reads no larger messages; what is larger has external data."""
MAX_MEMORY = 8 << 30

DTYPES: dict[int, str] = {
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.DOUBLE: "float64",
    onnx.TensorProto.FLOAT16: "float32",
    onnx.TensorProto.BFLOAT16: "float32",
    onnx.TensorProto.INT64: "int64",
    onnx.TensorProto.INT32: "int32",
    onnx.TensorProto.INT8: "int8",
    onnx.TensorProto.UINT8: "uint8",
    onnx.TensorProto.UINT16: "uint16",
    onnx.TensorProto.BOOL: "bool",
}
"""The element types that graphs can hold, and what they are held in: float16 and bfloat16 are widened to float32, which
has all their numbers. Arithmetic is not rounded to them in between, and does not overflow there; a Cast to float16
rounds."""
NARROW: dict[int, str] = {onnx.TensorProto.FLOAT16: "float16", onnx.TensorProto.BFLOAT16: "bfloat16"}
"""The types that are widened, by the names that NumPy and its extensions have for them."""

FIELDS = {"float32": "float_data", "float64": "double_data", "int64": "int64_data"}
"""Where a tensor without raw bytes keeps its elements; all other types are in int32_data."""


INPUT_RANGE = "graphsr.input_range"
"""Key of the metadata that say which value white has."""


@dataclass(frozen=True)
class Source:
    """A message with what reading its tensors needs: the folder of external data, and the memory they may take."""

    model: onnx.ModelProto
    folder: Path | None = None
    max_memory: int = MAX_MEMORY
    taken: list[int] = field(default_factory=list)
    """Bytes of the tensors so far, after each of them."""

    def array(self, tensor: onnx.TensorProto, what: str) -> Array:
        """The elements of a tensor, read-only. Raises `ModelError` where the file does not hold what it declares."""
        dtype, shape = dtype_of(tensor.data_type, what), tuple(tensor.dims)
        if any(n < 0 for n in shape):
            raise ModelError(f"{what} has a negative size: {list(shape)}")
        stored = NARROW.get(tensor.data_type, dtype)
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        taken = nbytes + (self.taken[-1] if self.taken else 0)
        if taken > self.max_memory:
            raise ModelError(f"{what} needs {nbytes} bytes: with it the tensors exceed max_memory={self.max_memory}")
        self.taken.append(taken)
        nbytes = math.prod(shape) * _storage(stored).itemsize
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            data = self._external(tensor, nbytes, what)
        else:
            data = _inline(tensor, stored, nbytes, what)
        array = data.view(_storage(stored)).reshape(shape)
        if dtype == "bool":
            array = array.view(np.uint8) != 0  # any other byte than 0 and 1 would be an invalid bool
        elif stored == "float16":
            array = array.view(stored).astype(dtype)
        elif stored == "bfloat16":  # the upper half of a float32
            array = (array.astype(np.uint32) << 16).view(dtype)
        array.setflags(write=False)
        return array

    def _external(self, tensor: onnx.TensorProto, nbytes: int, what: str) -> Array:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        unknown = entries.keys() - {"location", "offset", "length", "checksum"}
        if unknown or "location" not in entries:
            raise ModelError(f"{what}: external data needs a location and no {', '.join(sorted(unknown)) or 'more'}")
        offset, length = (
            _number(entries.get(key, default), what) for key, default in (("offset", "0"), ("length", ""))
        )
        if length not in (None, nbytes):
            raise ModelError(f"{what}: its shape needs {nbytes} bytes, the external data has {length}")
        if self.folder is None:
            raise ModelError(f"{what} is external data, but the model was not read from a file: save it as one file")
        path = contained(self.folder, entries["location"], what)
        with open_source(path, 1 << 62) as source:
            _check_opened(source, path, what)
            return source.read_array(offset or 0, nbytes, what)


def read_model(path: str | os.PathLike[str], max_memory: int = MAX_MEMORY) -> Source:
    """The message in a file. Raises `ModelError` when it is absent, too large or no ONNX model."""
    with open_source(path, MAX_BYTES) as source:
        data = source.read(0, source.size, "whole file")
    return Source(parse(data, os.fspath(path)), Path(path).parent, max_memory)


def parse(data: bytes, name: str) -> onnx.ModelProto:
    """The message in these bytes."""
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except (DecodeError, RecursionError) as error:
        raise ModelError(f"{name}: not an ONNX model, or a damaged one: {error}") from error
    if not model.HasField("graph") or not model.opset_import:
        raise ModelError(f"{name}: not an ONNX model: it has no graph or imports no operators")
    _check_texts(model, name)
    return model


def narrow_floats(message: Message) -> set[str]:
    """Which of float16 and bfloat16 anything in the message is declared as, or cast to."""
    match message:
        case onnx.TensorProto(data_type=code) | onnx.TypeProto.Tensor(elem_type=code) if code in NARROW:
            return {NARROW[code]}
        case onnx.AttributeProto(name="to", i=code) if code in NARROW:
            return {NARROW[code]}
        case onnx.AttributeProto(name="to", s=b"FLOAT16" | b"BFLOAT16" as name):
            return {name.decode().lower()}
    found = set[str]()
    for entry, value in message.ListFields():
        if entry.type == entry.TYPE_MESSAGE:
            found.update(*(narrow_floats(part) for part in ([value] if isinstance(value, Message) else value)))
    return found


def widened(array: Array) -> Array:
    """An array of float16 or bfloat16 as float32, others as they are."""
    return array.astype(np.float32) if array.dtype.name in NARROW.values() else array


def _check_texts(message: Message, name: str) -> None:
    """All names are text: protobuf gives bytes for what is no UTF-8."""
    for entry, value in message.ListFields():
        if entry.type == entry.TYPE_STRING:
            if any(isinstance(text, bytes) for text in ([value] if isinstance(value, str | bytes) else value)):
                raise ModelError(f"{name}: damaged: a {entry.name} of {message.DESCRIPTOR.name} is no text")
        elif entry.type == entry.TYPE_MESSAGE:
            for part in [value] if isinstance(value, Message) else value:
                _check_texts(part, name)


def dtype_of(code: int, what: str) -> str:
    """The dtype of an element type of ONNX."""
    if code not in DTYPES:
        name = next((name for name, number in onnx.TensorProto.DataType.items() if number == code), str(code))
        raise ModelError(f"{what} has elements of type {name}; supported are {', '.join(DTYPES.values())}")
    return DTYPES[code]


def contained(folder: Path, location: str, what: str) -> Path:
    """The file of external data: inside the model's folder, reached through no link, and no link itself.

    The checks are those that onnx made its own after CVE-2022-25882, CVE-2024-27318, CVE-2026-27489 and -34446.
    """
    parts = location.replace("\\", "/").split("/")
    if not location or "\0" in location or location[0] in "/\\" or ":" in parts[0] or ".." in parts:
        raise ModelError(f"{what}: external data must lie beside the model, not at {location!r}")
    path = folder
    for part in parts:
        path = path / part
        try:
            mode = path.lstat()
        except (OSError, ValueError) as error:
            raise ModelError(f"{what}: external data {location!r} cannot be found beside the model: {error}") from error
        if stat.S_ISLNK(mode.st_mode):
            raise ModelError(f"{what}: external data {location!r} is reached through a symbolic link: copy the file")
    if not stat.S_ISREG(mode.st_mode) or mode.st_nlink > 1:
        raise ModelError(f"{what}: external data {location!r} must be a regular file with one name (no hard link)")
    return path


def _check_opened(source: ByteSource, path: Path, what: str) -> None:
    """The opened file is the one that was checked: nothing was put in its place meanwhile."""
    if not source.is_at(path):
        raise ModelError(f"{what}: external data {path.name!r} changed while it was opened")


def _inline(tensor: onnx.TensorProto, dtype: str, nbytes: int, what: str) -> Array:
    """The bytes of a tensor inside the message."""
    name = FIELDS.get(dtype, "int32_data")
    filled = [f for f in (*FIELDS.values(), "int32_data", "string_data", "uint64_data") if len(getattr(tensor, f))]
    raw = tensor.raw_data
    if (raw and filled) or filled not in ([], [name]):
        raise ModelError(f"{what}: {dtype} elements expected in raw_data or {name}, found {', '.join(filled)}")
    if not filled:
        data = np.frombuffer(raw, np.uint8)
    else:
        stored = _storage(dtype)
        values = np.array(getattr(tensor, name))
        if name == "int32_data" and dtype != "bool" and not _fits(values, stored):
            raise ModelError(f"{what}: a value is outside the range of {dtype}")
        data = values.astype(stored).view(np.uint8)
    if len(data) != nbytes:
        raise ModelError(f"{what}: its shape {list(tensor.dims)} needs {nbytes} bytes, the file has {len(data)}")
    return data.copy() if data.ctypes.data % 8 else data


def _storage(dtype: str) -> np.dtype[np.generic]:
    """What the elements are read as: float16 and bfloat16 as their bits."""
    return np.dtype("uint16" if dtype in NARROW.values() else dtype)


def _fits(values: Array, dtype: np.dtype[np.generic]) -> bool:
    limits = np.iinfo(dtype)  # type: ignore[type-var]  # an integer type: floats are in fields of their own
    return bool(limits.min <= values.min() and values.max() <= limits.max)


def _number(text: str, what: str) -> int | None:
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ModelError(f"{what}: external data has {text!r} where a number of bytes is expected")
    return int(text)


def white_of(model: onnx.ModelProto) -> float | None:
    """The value of white, as graphsr writes it beside a network; None where the file says nothing."""
    for text in (p.value for p in model.metadata_props if p.key == INPUT_RANGE):
        try:
            white = float(text)
        except ValueError:
            white = math.nan
        if not 0 < white < math.inf:
            raise ModelError(f"metadata {INPUT_RANGE} must be a positive number, got {text[:40]!r}")
        return white
    return None

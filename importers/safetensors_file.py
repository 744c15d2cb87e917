"""safetensors (https://github.com/huggingface/safetensors, "Format"): reader and writer.

Layout: 8 bytes N, little-endian; N bytes of JSON, {"name": {"dtype": "F32", "shape": […], "data_offsets": [begin,
end]}, …, "__metadata__": {string: string}}; then the elements, row-major and little-endian. Offsets count from
the end of the header, and together they cover the rest of the file without gap or overlap.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from graphsr.atomic import atomic_path
from graphsr.errors import ModelError
from graphsr.op import Array

from .byte_source import ByteSource
from .stored_tensors import MAX_DIMENSION, MAX_RANK, decode, element_size

MAX_HEADER_BYTES = 16 << 20
"""The format allows 100 MB; parsed JSON takes ten times its text, and 65536 tensors need a tenth of this."""
MAX_TENSORS = 1 << 16
_MAX_VALUES = 20 * MAX_TENSORS

KIND_OF = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}
"""The format's names of element types, and ours. Others (F8_E4M3, F4, …) are refused by their name."""
_NAME_OF = {kind: name for name, kind in KIND_OF.items()}


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of the header: element type, shape, and the bytes of the file that hold it."""

    kind: str
    shape: tuple[int, ...]
    begin: int
    end: int


def looks_like_safetensors(head: bytes) -> bool:
    """Whether a file begins with the length of a header and a JSON object; it may still be cut off."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 40


def read_safetensors(source: ByteSource, *, may_be_empty: bool = False) -> tuple[dict[str, Array], dict[str, str]]:
    """(read-only tensors in the order of the header, metadata); ModelError where the file breaks the format, and where
    it holds no tensors, which the format permits."""
    entries, metadata = read_safetensors_header(source)
    if not entries and not may_be_empty:
        raise source.error("header", "there are no tensors in it")
    tensors = {}
    for name, entry in entries.items():
        raw = source.read_array(entry.begin, entry.end - entry.begin, f"tensor {name!r}")
        tensors[name] = decode(raw, entry.kind).reshape(entry.shape)
    return tensors, metadata


def read_safetensors_header(source: ByteSource) -> tuple[dict[str, TensorEntry], dict[str, str]]:
    """(entries in the order of the header, metadata), all checked against the size of the file."""
    length = int.from_bytes(source.read(0, 8, "header"), "little")
    if length > source.size - 8:
        raise source.error(
            "header", f"it claims {length} bytes; the file has {source.size}: it is cut off or no safetensors"
        )
    if length > MAX_HEADER_BYTES:
        raise source.error("header", f"{length} bytes (at most {MAX_HEADER_BYTES} are allowed)")
    header = _parse(source, source.read(8, length, "header"))
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise source.error("header, __metadata__", "not a mapping of strings to strings")
    entries = {name: _entry(source, name, value, 8 + length) for name, value in header.items()}
    _check_cover(source, entries, 8 + length)
    return entries, metadata


def _parse(source: ByteSource, text: bytes) -> dict[str, object]:
    """The JSON object, names unique. The values are counted before the parser makes objects of them."""
    if text.count(b",") + text.count(b"[") + text.count(b"{") > _MAX_VALUES:
        raise source.error("header", f"more values than {MAX_TENSORS} tensors have")

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        result = dict(pairs)
        if len(result) != len(pairs):
            raise ValueError("a name occurs twice")
        return result

    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:  # ValueError: JSON, UTF-8, repeated names, endless digits
        raise source.error("header", f"not the JSON that the format asks for: {error}") from error
    if not isinstance(header, dict) or len(header) > MAX_TENSORS:
        raise source.error("header", f"not a JSON object of at most {MAX_TENSORS} tensors")
    return header


def _entry(source: ByteSource, name: str, value: object, data_start: int) -> TensorEntry:
    place = f"tensor {name[:80]!r}"
    match value:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [begin, end], **rest} if not rest:
            pass
        case _:
            raise source.error(place, "its header is not {dtype, shape, data_offsets: [begin, end]}")
    numbers = [*shape, begin, end]
    if len(shape) > MAX_RANK or any(type(n) is not int or not 0 <= n <= MAX_DIMENSION for n in numbers):
        raise source.error(
            place, f"its shape or offsets are not integers in the range of a file, or over {MAX_RANK} dimensions"
        )
    itemsize = element_size(KIND_OF.get(dtype, dtype[:40]), source, place)
    if prod(shape) * itemsize != end - begin:
        raise source.error(
            place, f"shape {shape} of {dtype} is {prod(shape) * itemsize} bytes, its offsets span {end - begin}"
        )
    if 0 in shape and prod(n for n in shape if n) > MAX_DIMENSION:  # NumPy multiplies before it meets the zero
        raise source.error(place, f"impossible shape of an empty tensor: {shape}")
    return TensorEntry(KIND_OF[dtype], tuple(shape), data_start + begin, data_start + end)


def _check_cover(source: ByteSource, entries: Mapping[str, TensorEntry], at: int) -> None:
    """The tensors cover the bytes from `at` to the end of the file once."""
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != at:
            raise source.error(
                f"tensor {name[:80]!r}", f"it begins at byte {entry.begin}, the tensor before it ends at {at}"
            )
        at = entry.end
    if at != source.size:
        raise source.error("end", f"the tensors end at byte {at}, the file at {source.size}: it is cut off or damaged")


def write_safetensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Array], metadata: Mapping[str, str] | None = None
) -> None:
    """Write `tensors` and `metadata` in the order given; equal arguments give equal bytes.

    The file appears whole or not at all.

    ModelError for an element type that the format does not know, or the name "__metadata__"; OSError as `open`.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    blocks = []
    at = 0
    for name, array in tensors.items():
        dtype = _NAME_OF.get(array.dtype.name)
        if dtype is None or name == "__metadata__":
            raise ModelError(
                f"{os.fspath(path)}: tensor {name!r} of {array.dtype} cannot be stored in a safetensors file"
            )
        block = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [at, at + block.nbytes]}
        at += block.nbytes
        blocks.append(block)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)  # so that the elements are aligned in a memory map
    with atomic_path(path) as partial, partial.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for block in blocks:
            file.write(block.data)

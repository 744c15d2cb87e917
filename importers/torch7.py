"""Torch7 (LuaTorch) `.t7` files in binary mode: a tree of objects, with the tensors in it.

The layout is that of `File:readObject` (torch7/File.lua), `Tensor_(read)` and `Storage_(read)` (generic/Tensor.c,
generic/Storage.c); cutorch shares it. Numbers are little-endian, int 4 bytes, long 8 bytes:

    object   = int tag, then
    0 nil
    1 number    double
    2 string    int n, n bytes
    3 table     int reference; if it is new: int n, n × (key object, value object)
    4 torch     int reference; if it is new: string "V 1", string class name, body of the class
    5 boolean   int
    6 7 8 function   (not 6: int reference; if it is new:) int n, n bytes of Lua bytecode, object with the upvalues
    body of a tensor    int rank, long size[rank], long stride[rank], long offset from 1, object: storage or nil
    body of a storage   long n, n elements
    any other body      object: the table of its fields

Functions are skipped; nothing in the file is run.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np

from graphsr.errors import ModelError
from graphsr.op import Array

from .byte_source import ByteSource
from .stored_tensors import MAX_RANK, Budget, Layout, decode, element_size, view

MAX_OBJECTS = 250_000
"""An EDSR of 32 blocks has about 5000."""
MAX_DEPTH = 100
MAX_STRING = 1 << 20
MAX_PATH = 512
_NIL, _NUMBER, _STRING, _TABLE, _TORCH, _BOOLEAN, _FUNCTION = range(7)
_REFERENCED_FUNCTIONS = (7, 8)

_KIND_OF = {
    "Double": "float64",
    "Float": "float32",
    "Half": "float16",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Cuda": "float32",
    "CudaDouble": "float64",
    "CudaHalf": "float16",
    "CudaLong": "int64",
    "CudaInt": "int32",
    "CudaShort": "int16",
    "CudaChar": "int8",
    "CudaByte": "uint8",
}
_TENSOR_CLASSES = {f"torch.{prefix}Tensor": kind for prefix, kind in _KIND_OF.items()}
_STORAGE_CLASSES = {f"torch.{prefix}Storage": kind for prefix, kind in _KIND_OF.items()}


@dataclass(eq=False)
class Torch7Object:
    """An object of a Torch class, such as nn.Sequential, with the table of its fields.

    Values are None, bool, float, str, dict (a table), Torch7Object, NumPy array (tensor or storage) and LuaFunction.
    Keys of tables are str, int (whole numbers; Lua counts from 1) and float; pairs with another key are left out.
    """

    class_name: str
    fields: dict[object, object] = field(default_factory=dict)


@dataclass(frozen=True)
class LuaFunction:
    """The place of a function; its bytecode is not kept."""


def looks_like_torch7(head: bytes) -> bool:
    """Whether a file begins like a table or object in binary mode. There is no magic number."""
    if len(head) < 16:
        return False
    tag, reference, length = struct.unpack_from("<3i", head)
    if tag not in (_TABLE, _TORCH) or not 0 < reference < MAX_OBJECTS:
        return False
    if tag == _TABLE:
        return length >= 0 and int.from_bytes(head[12:16], "little") <= max(_REFERENCED_FUNCTIONS)
    return 0 < length < 64 and head[12 : 12 + length].isascii()


def looks_like_torch7_text(head: bytes) -> bool:
    """Whether a file begins like a table or object in ASCII mode: one number per line."""
    lines = head.split(b"\n")
    return len(lines) > 3 and lines[0] in (b"3", b"4") and all(line.isdigit() for line in lines[1:3])


def read_torch7(source: ByteSource, max_bytes: int) -> tuple[dict[str, Array], object]:
    """(tensors by their path in the tree, the tree). Paths join field names and table keys with dots, such as
    "modules.1.weight"; an object that is reached again keeps its first path. ModelError for damaged files."""
    reader = _Reader(source, Budget.of(source, max_bytes))
    tree = reader.read("root", 0)
    if reader.at != source.size:
        raise source.error("end", f"the object ends at byte {reader.at}, the file at {source.size}: it is damaged")
    tensors = _tensors(tree, source)
    if not tensors:
        raise source.error("contents", "there are no tensors in it")
    return tensors, tree


@dataclass
class _Reader:
    """A position in the file and the objects that have been read, by their reference."""

    source: ByteSource
    budget: Budget
    at: int = 0
    count: int = 0
    known: dict[int, object] = field(default_factory=dict)

    def read(self, path: str, depth: int) -> object:
        """The object at the current position; `path` is its place in the tree, for errors."""
        self.count += 1
        if depth > MAX_DEPTH or self.count > MAX_OBJECTS:
            raise self.error(path, f"more than {MAX_DEPTH} levels or {MAX_OBJECTS} objects")
        tag = self.take_int(path)
        if tag == _NIL:
            return None
        if tag == _NUMBER:
            (value,) = struct.unpack("<d", self.take(8, path))
            return value
        if tag == _STRING:
            return self.take_string(path, MAX_STRING)
        if tag == _BOOLEAN:
            return self.take_int(path) == 1
        if tag == _FUNCTION:
            return self.skip_function(path, depth)
        if tag not in (_TABLE, _TORCH, *_REFERENCED_FUNCTIONS):
            raise self.error(path, f"type {tag} does not exist in Torch7 files")
        reference = self.take_int(path)
        if reference in self.known:
            return self.known[reference]
        if tag == _TABLE:
            return self.read_table(path, depth, reference)
        if tag == _TORCH:
            return self.read_torch_object(path, depth, reference)
        self.known[reference] = LuaFunction()
        return self.skip_function(path, depth)

    def read_table(self, path: str, depth: int, reference: int) -> dict[object, object]:
        """A table; it is known before its values are read, since they may refer to it."""
        table: dict[object, object] = {}
        self.known[reference] = table
        for _ in range(self.take_length(path, 8)):
            key = self.read(path, depth + 1)
            if isinstance(key, float) and key.is_integer() and abs(key) < 1 << 53:
                key = int(key)
            simple = type(key) in (str, int, float)
            value = self.read(f"{path}.{key}"[-MAX_PATH:] if simple else path, depth + 1)
            if simple:
                table[key] = value
        return table

    def read_torch_object(self, path: str, depth: int, reference: int) -> object:
        class_name = self.take_string(path, 128)
        if class_name.startswith("V "):  # the version of the class; the oldest files have none
            class_name = self.take_string(path, 128)
        if class_name in _TENSOR_CLASSES:
            self.known[reference] = array = self.read_tensor(path, depth, _TENSOR_CLASSES[class_name])
            return array
        if class_name in _STORAGE_CLASSES:
            self.known[reference] = array = self.read_storage(path, _STORAGE_CLASSES[class_name])
            return array
        self.known[reference] = known = Torch7Object(class_name)
        path = f"{path} ({class_name})"[-MAX_PATH:]
        fields = self.read(path, depth + 1) if self.tag_at(self.at) == _TABLE else None
        if not isinstance(fields, dict):
            raise self.error(path, "this class is not saved as a table of fields, so it cannot be read")
        known.fields = fields
        return known

    def read_tensor(self, path: str, depth: int, kind: str) -> Array:
        rank = self.take_int(path)
        if not 0 <= rank <= MAX_RANK:
            raise self.error(path, f"a tensor of {rank} dimensions")
        self.refuse_short_longs(path, rank)
        numbers = struct.unpack(f"<{2 * rank + 1}q", self.take(8 * (2 * rank + 1), path))
        storage = self.read(path, depth + 1)
        empty = decode(np.empty(0, np.uint8), kind)
        if storage is None or rank == 0:
            return empty
        if not isinstance(storage, np.ndarray) or storage.ndim != 1 or storage.dtype != empty.dtype:
            raise self.error(path, f"a tensor of {kind} whose storage is something else")
        layout = Layout(numbers[-1] - 1, numbers[:rank], numbers[rank:-1])
        return view(storage, layout, self.budget, path)

    def refuse_short_longs(self, path: str, rank: int) -> None:
        """ModelError when only as 4-byte longs the numbers are followed by a storage, which is an object or nil."""
        longs = 2 * rank + 1
        if self.tag_at(self.at + 8 * longs) in (_NIL, _TORCH):
            return
        if self.tag_at(self.at + 4 * longs) in (_NIL, _TORCH):
            raise self.error(
                path, "longs of 4 bytes (the file is from Windows or a 32-bit system); save it again on 64-bit Linux"
            )

    def tag_at(self, at: int) -> int | None:
        return int.from_bytes(self.source.read(at, 4, "root"), "little") if at + 4 <= self.source.size else None

    def read_storage(self, path: str, kind: str) -> Array:
        (count,) = struct.unpack("<q", self.take(8, path))
        size = element_size(kind, self.source, path)
        if not 0 <= count <= (self.source.size - self.at) // size:
            raise self.error(path, f"a storage of {count} elements, more than the rest of the file: cut off or damaged")
        self.at += count * size
        return decode(self.source.read_array(self.at - count * size, count * size, path), kind)

    def skip_function(self, path: str, depth: int) -> LuaFunction:
        length = self.take_length(path, 1)
        self.at += length
        self.read(path, depth + 1)  # the upvalues, which may be referred to later
        return LuaFunction()

    def take(self, count: int, path: str) -> bytes:
        data = self.source.read(self.at, count, path)
        self.at += count
        return data

    def take_int(self, path: str) -> int:
        return int.from_bytes(self.take(4, path), "little", signed=True)

    def take_length(self, path: str, least: int) -> int:
        """A number of items that take at least `least` bytes each."""
        length = self.take_int(path)
        if not 0 <= length <= (self.source.size - self.at) // least:
            raise self.error(path, f"a length of {length}, more than the rest of the file: cut off or damaged")
        return length

    def take_string(self, path: str, limit: int) -> str:
        length = self.take_length(path, 1)
        if length > limit:
            raise self.error(path, f"a string of {length} bytes (at most {limit} are allowed)")
        data = self.take(length, path)
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            return data.decode("latin-1")  # Lua's strings are bytes

    def error(self, path: str, problem: str) -> ModelError:
        return self.source.error(f"{path!r}, before byte {self.at}", problem)


def _tensors(tree: object, source: ByteSource) -> dict[str, Array]:
    """Every tensor and storage below `tree` by its path. Tables and objects are entered once, so cycles end."""
    found: dict[str, Array] = {}
    seen: set[int] = set()
    waiting = [("", tree)]
    while waiting:
        path, value = waiting.pop()
        if len(path) > MAX_PATH or (isinstance(value, np.ndarray) and path in found):
            raise source.error(f"{path[:80]!r}", f"two tensors have this path, or it is over {MAX_PATH} characters")
        if isinstance(value, np.ndarray):
            found[path or "tensor"] = value
        if isinstance(value, Torch7Object):
            value = value.fields
        if isinstance(value, dict) and id(value) not in seen:
            seen.add(id(value))
            below = [(f"{path}.{key}" if path else str(key), child) for key, child in value.items()]
            waiting.extend(reversed(below))
    return found

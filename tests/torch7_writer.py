"""Torch7 (`.t7`) files in binary mode, written as `File:writeObject` of torch7/File.lua writes them on 64-bit Linux.

Only what networks need: numbers, strings, booleans, tables (dict; a list is a table with keys 1, 2, …), tensors
(NumPy arrays) and objects of classes with a table of fields.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

CLASS_OF = {
    "float64": "Double",
    "float32": "Float",
    "float16": "Half",
    "int64": "Long",
    "int32": "Int",
    "int16": "Short",
    "int8": "Char",
    "uint8": "Byte",
}


@dataclass(frozen=True, eq=False)
class Nn:
    """An object of a Torch class, such as Nn("nn.Identity")."""

    class_name: str
    fields: Mapping[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Cuda:
    """An array to be saved as torch.CudaTensor (float32), torch.CudaDoubleTensor, …."""

    array: Array


@dataclass(frozen=True, eq=False)
class Function:
    """A Lua function: bytecode and upvalues."""

    bytecode: bytes
    upvalues: Any


def t7_bytes(value: Any, *, long_size: int = 8) -> bytes:
    """The file that `torch.save(name, value)` writes; `long_size=4` as on Windows."""
    writer = _Writer(long_size)
    writer.write(value)
    return b"".join(writer.parts)


class _Writer:
    def __init__(self, long_size: int) -> None:
        self.parts: list[bytes] = []
        self.long = "<q" if long_size == 8 else "<i"
        self.references: dict[int, int] = {}
        self.alive: list[Any] = []  # so that no id is used twice

    def put_int(self, value: int) -> None:
        self.parts.append(struct.pack("<i", value))

    def string(self, text: str) -> None:
        data = text.encode()
        self.put_int(len(data))
        self.parts.append(data)

    def longs(self, *values: int) -> None:
        self.parts.extend(struct.pack(self.long, value) for value in values)

    def is_new(self, tag: int, value: object) -> bool:
        """Write the tag and the reference; True when the body must follow."""
        self.put_int(tag)
        known = id(value) in self.references
        self.alive.append(value)
        self.put_int(self.references.setdefault(id(value), len(self.references) + 1))
        return not known

    def write(self, value: Any) -> None:
        match value:
            case None:
                self.put_int(0)
            case bool():
                self.put_int(5)
                self.put_int(int(value))
            case int() | float():
                self.put_int(1)
                self.parts.append(struct.pack("<d", value))
            case str():
                self.put_int(2)
                self.string(value)
            case dict() | list():
                self.table(value)
            case np.ndarray():
                self.tensor(value, value, "")
            case Cuda(array):
                self.tensor(value, array, "Cuda")
            case Nn():
                if self.is_new(4, value):
                    self.string("V 1")
                    self.string(value.class_name)
                    self.write(dict(value.fields))
            case Function():
                if self.is_new(8, value):
                    self.put_int(len(value.bytecode))
                    self.parts.append(value.bytecode)
                    self.write(value.upvalues)
            case _:
                raise TypeError(f"cannot be written as Torch7: {value!r}")

    def table(self, value: dict[Any, Any] | list[Any]) -> None:
        if self.is_new(3, value):
            items = value if isinstance(value, dict) else dict(enumerate(value, 1))
            self.put_int(len(items))
            for key, item in items.items():
                self.write(key)
                self.write(item)

    def tensor(self, value: object, array: Array, prefix: str) -> None:
        """A tensor over a storage of its own."""
        if not self.is_new(4, value):
            return
        kind = prefix + (CLASS_OF[array.dtype.name] if (prefix, array.dtype.name) != ("Cuda", "float32") else "")
        self.string("V 1")
        self.string(f"torch.{kind}Tensor")
        self.put_int(array.ndim)
        self.longs(*array.shape)
        self.longs(*(int(np.prod(array.shape[axis + 1 :])) for axis in range(array.ndim)))
        self.longs(1)
        if array.ndim == 0:
            self.put_int(0)
            return
        data = np.ascontiguousarray(array).tobytes()
        self.is_new(4, data)
        self.string("V 1")
        self.string(f"torch.{kind}Storage")
        self.longs(array.size)
        self.parts.append(data)


def sequential(*modules: Nn) -> Nn:
    return Nn("nn.Sequential", {"modules": list(modules), "train": False})


def skip(*modules: Nn) -> Nn:
    """x + modules(x), as LimBee/NTIRE2017 builds it."""
    branches = Nn("nn.ConcatTable", {"modules": [sequential(*modules), Nn("nn.Identity")]})
    return sequential(branches, Nn("nn.CAddTable", {"inplace": True}))


def convolution(weight: Array, bias: Array, *, class_name: str = "cudnn.SpatialConvolution") -> Nn:
    """weight [Co, Ci, Kh, Kw], bias [Co]; stride 1, padding that keeps the size."""
    co, ci, kh, kw = weight.shape
    numbers = {"nInputPlane": ci, "nOutputPlane": co, "kH": kh, "kW": kw, "dH": 1, "dW": 1}
    padding = {"padH": kh // 2, "padW": kw // 2, "groups": 1}
    return Nn(class_name, {**numbers, **padding, "weight": Cuda(weight), "bias": Cuda(bias)})


def relu() -> Nn:
    return Nn("cudnn.ReLU", {"inplace": True, "mode": "CUDNN_ACTIVATION_RELU"})


def mul_constant(factor: float) -> Nn:
    return Nn("nn.MulConstant", {"constant_scalar": factor, "inplace": False})


def pixel_shuffle(factor: int) -> Nn:
    return Nn("nn.PixelShuffle", {"upscaleFactor": factor, "upscaleFactorSquared": factor * factor})

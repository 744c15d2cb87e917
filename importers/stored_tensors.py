"""Element types of checkpoint files, and tensors as views of a storage: offset, size and stride, all checked.

PyTorch and Torch7 keep a tensor as a flat storage and the numbers (offset, size[], stride[]); element (i, j, …)
is storage[offset + i·stride[0] + j·stride[1] + …]. The numbers come from the file, so they are checked in
Python integers, which do not wrap, before NumPy sees them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from graphsr.op import Array

from .byte_source import ByteSource

STORED_AS = {
    "float64": "f8",
    "float32": "f4",
    "float16": "f2",
    "bfloat16": "u2",  # the upper half of a float32; widened to it
    "int64": "i8",
    "int32": "i4",
    "int16": "i2",
    "int8": "i1",
    "uint64": "u8",
    "uint32": "u4",
    "uint16": "u2",
    "uint8": "u1",
    "bool": "u1",
}
"""The element types that are read, by PyTorch's names, and how NumPy calls the bytes in the file."""

MAX_RANK = 32
MAX_DIMENSION = 1 << 40
COPY_ALLOWANCE = 1 << 20
"""Bytes that expanded tensors may take beyond the size of the file."""


@dataclass(frozen=True)
class Layout:
    """Where the elements of a tensor lie in its storage; everything counts elements."""

    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass
class Budget:
    """What the tensors of one file may still take: in all, and by copying out of their storage.

    A file of 1 kB can describe a tensor of any size by stride 0 (`expand`), or name one storage thousands of times.
    """

    source: ByteSource
    total: int
    copied: int

    @classmethod
    def of(cls, source: ByteSource, max_bytes: int) -> Budget:
        return cls(source, max_bytes, source.size + COPY_ALLOWANCE)

    def take(self, count: int, place: str, *, copy: bool) -> None:
        self.total -= count
        if copy:
            self.copied -= count
        if self.total < 0:
            raise self.source.error(place, "the tensors take more memory than allowed (max_bytes)")
        if self.copied < 0:
            raise self.source.error(
                place, "expanded and overlapping tensors would take more memory than the whole file"
            )


def element_size(kind: str, source: ByteSource, place: str) -> int:
    """Bytes per element of `kind`; ModelError for a type that is not read, such as float8_e4m3fn or complex64."""
    code = STORED_AS.get(kind)
    if code is None:
        raise source.error(place, f"element type {kind!r} is not supported (supported: {', '.join(STORED_AS)})")
    return np.dtype(code).itemsize


def decode(raw: npt.NDArray[np.uint8], kind: str, *, big_endian: bool = False) -> Array:
    """Bytes [n·itemsize] -> elements [n] in native byte order, read-only; bfloat16 becomes float32."""
    stored = np.dtype(STORED_AS[kind])
    elements = raw.view(stored.newbyteorder(">" if big_endian else "<")).astype(stored, copy=False)
    if kind == "bfloat16":
        elements = (elements.astype(np.uint32) << 16).view(np.float32)
    elif kind == "bool":
        elements = elements != 0
    elements.flags.writeable = False
    return elements


def view(storage: Array, layout: Layout, budget: Budget, place: str) -> Array:
    """The tensor that `layout` describes: a read-only C-contiguous array, without a copy where that is possible.

    ModelError when the layout does not stay inside the storage, has a negative number, or is expanded beyond
    the budget.
    """
    _check_layout(layout, storage.size, budget.source, place)
    if 0 in layout.size:
        return _read_only(np.empty(layout.size, storage.dtype))
    itemsize = storage.dtype.itemsize
    count = prod(layout.size) * itemsize
    # The stride of a dimension of size 1 means nothing and may be any number.
    strides = tuple(0 if n == 1 else step * itemsize for n, step in zip(layout.size, layout.stride, strict=True))
    contiguous = strides == _contiguous_strides(layout.size, itemsize)
    budget.take(count, place, copy=not contiguous)
    array: Array = np.ndarray(layout.size, storage.dtype, storage, layout.offset * itemsize, strides)
    return _read_only(array if contiguous else array.copy(order="C"))


def _check_layout(layout: Layout, stored: int, source: ByteSource, place: str) -> None:
    size, stride, offset = layout.size, layout.stride, layout.offset
    if len(size) != len(stride) or len(size) > MAX_RANK:
        raise source.error(place, f"{len(size)} sizes and {len(stride)} strides (equal, at most {MAX_RANK}, expected)")
    if offset < 0 or any(n < 0 or n > MAX_DIMENSION for n in size) or any(step < 0 for step in stride):
        raise source.error(place, f"impossible layout: offset {offset}, size {size}, stride {stride}")
    if 0 in size:
        empty_but_huge = prod(n for n in size if n) > MAX_DIMENSION  # NumPy multiplies before it meets the zero
        if empty_but_huge or offset > stored:
            raise source.error(place, f"impossible layout of an empty tensor: offset {offset}, size {size}")
        return
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if last >= stored:
        raise source.error(
            place, f"offset {offset}, size {size}, stride {stride} reach element {last}; the storage has {stored}"
        )


def _contiguous_strides(size: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Byte strides of a C-contiguous array, 0 for the dimensions of size 1."""
    strides = []
    step = itemsize
    for n in reversed(size):
        strides.append(0 if n == 1 else step)
        step *= n
    return tuple(reversed(strides))


def _read_only(array: Array) -> Array:
    array.flags.writeable = False
    return array

"""Memory that compiled code works on: the arena of a network, and aligned copies of constants."""

from __future__ import annotations

import math
import mmap

import numpy as np

from graphsr.forksafe import ForkSafeLock
from graphsr.op import Array

LINE = 64
"""Bytes of a cache line, and of a vector."""
PAGE = 1 << 21
"""Bytes of a huge page."""


def pages(nbytes: int) -> Array:
    """Fresh zeroed memory, in huge pages where the system has them."""
    length = -(-nbytes // PAGE) * PAGE if nbytes > PAGE else max(nbytes, 1)
    # Private, unlike the default of `mmap`: a forked child must not write into its parent's arena.
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    memory = mmap.mmap(-1, length, **private)
    if nbytes > PAGE and hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8)


class Memory:
    """The arena of a backend, shared by the programs of all sizes of all its executables: one run at a time uses it."""

    def __init__(self) -> None:
        self.lock = ForkSafeLock()
        self.results = Results()
        self._arena = pages(0)

    @property
    def held_bytes(self) -> int:
        return self._arena.nbytes

    def at_least(self, nbytes: int) -> Array:
        """The arena, made larger if need be. Hold the lock."""
        if self._arena.nbytes < nbytes:
            self._arena = pages(0)  # gives the old one back first
            self._arena = pages(nbytes)
        return self._arena


class Results:
    """Memory for the arrays that are returned. When nobody holds one any more, nor a view of it, its memory is kept for
    the next result: the system clears every new page, which for large images takes longer than computing them."""

    LEAST = 1 << 20
    """Bytes; the allocator keeps smaller ones by itself."""

    def __init__(self) -> None:
        self._spare: Array | None = None

    def empty(self, shape: tuple[int, ...], dtype: str) -> Array:
        """An array that begins on a cache line, as kernels need that write whole lines past the caches."""
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        if nbytes < self.LEAST:
            memory = lines(nbytes)
        else:
            spare, self._spare = self._spare, None
            if spare is None or not nbytes <= spare.nbytes <= 2 * nbytes + PAGE:
                spare = pages(nbytes)
            memory = np.asarray(_Lease(spare, self))
        return memory[:nbytes].view(dtype).reshape(shape)

    def give_back(self, memory: Array) -> None:
        self._spare = memory


class _Lease:
    """Memory as long as an array or a view of one is based on it."""

    def __init__(self, memory: Array, results: Results) -> None:
        self._memory, self._results = memory, results
        self.__array_interface__ = memory.__array_interface__

    def __del__(self) -> None:
        self._results.give_back(self._memory)


def lines(nbytes: int) -> Array:
    """Memory that begins on a cache line, as the allocator left it."""
    memory = np.empty(nbytes + LINE, np.uint8)
    return memory[-memory.ctypes.data % LINE :][:nbytes]


def aligned(array: Array, extra: int = 0) -> Array:
    """A contiguous copy that begins on a cache line, with `extra` bytes behind it that may be prefetched."""
    copy = lines(array.nbytes + extra)[: array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy

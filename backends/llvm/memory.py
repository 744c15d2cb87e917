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
    """The arena of an executable, shared by the programs of all its sizes: one run at a time uses it."""

    def __init__(self) -> None:
        self.lock = ForkSafeLock()
        self._arena = pages(0)

    def at_least(self, nbytes: int) -> Array:
        """The arena, made larger if need be. Hold the lock."""
        if self._arena.nbytes < nbytes:
            self._arena = pages(0)  # gives the old one back first
            self._arena = pages(nbytes)
        return self._arena


def empty(shape: tuple[int, ...], dtype: str) -> Array:
    """An array of its own that begins on a cache line, as kernels need that write whole lines past the caches."""
    nbytes = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(nbytes + LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    return memory[start : start + nbytes].view(dtype).reshape(shape)


def aligned(array: Array, extra: int = 0) -> Array:
    """A contiguous copy that begins on a cache line, with `extra` bytes behind it that may be prefetched."""
    memory = np.empty(array.nbytes + extra + 64, np.uint8)
    start = -memory.ctypes.data % 64
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy

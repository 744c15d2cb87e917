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
    """Fresh zeroed memory, in huge pages where the system has them. Raises `MemoryError` with the size."""
    length = -(-nbytes // PAGE) * PAGE if nbytes > PAGE else max(nbytes, 1)
    # Private, unlike the default of `mmap`: a forked child must not write into its parent's arena.
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    try:
        memory = mmap.mmap(-1, length, **private)
    except OSError as error:
        raise MemoryError(f"{length / 1e9:.1f} GB cannot be had: {error.strerror}") from error
    if nbytes > PAGE and hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8)


class Memory:
    """The arena of a backend, shared by the programs of all sizes of all its executables: one run at a time uses it.

    It is as large as the largest run wants, for the system clears every new page. When `PATIENCE` runs in a row want
    less than a quarter of it, it is given back, and so is the memory for results.
    """

    PATIENCE = 16

    def __init__(self) -> None:
        self.lock = ForkSafeLock()
        self.results = Results()
        self._arena = pages(0)
        self._much_smaller = 0
        """Runs in a row that wanted less than a quarter of the arena."""

    @property
    def held_bytes(self) -> int:
        return self._arena.nbytes + self.results.held_bytes

    def at_least(self, nbytes: int) -> Array:
        """The arena for a run. Hold the lock."""
        self._much_smaller = self._much_smaller + 1 if 4 * nbytes < self._arena.nbytes - PAGE else 0
        if self._much_smaller == self.PATIENCE:
            self._much_smaller = 0
            self.results.forget()
            self._arena = pages(0)
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

    @property
    def held_bytes(self) -> int:
        spare = self._spare
        return spare.nbytes if spare is not None else 0

    def forget(self) -> None:
        """Give the kept memory back to the system."""
        self._spare = None


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

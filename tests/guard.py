"""Arrays whose ends lie against pages that nobody may touch: one byte outside them is a SIGSEGV.

    x = guarded((3, 5), np.float32)                      # ends at the guard behind it
    x = guarded((3, 5), np.float32, side="before")       # begins at the guard before it
    x = guarded((3, 5), np.float32, misaligned=4)        # ends 4 bytes before the guard

Only compiled code is caught at it, by the death of the process: run it in one of its own where a failure is expected.
"""

from __future__ import annotations

import ctypes
import mmap
from typing import Literal

import numpy as np
from numpy.typing import DTypeLike

from graphsr.op import Array

PAGE = mmap.PAGESIZE
_NO_ACCESS = 0  # PROT_NONE


def guarded(
    shape: tuple[int, ...],
    dtype: DTypeLike,
    *,
    side: Literal["before", "behind"] = "behind",
    misaligned: int = 0,
    fill: Array | None = None,
) -> Array:
    """A writable array with a guard page on both sides, flush with the one on `side`.

    `misaligned` moves it away from that guard by so many bytes: into every alignment that an input may have. `fill` is
    copied into it; otherwise the bytes are 0xFF, which is NaN in floats. The pages go with the array.
    """
    nbytes = int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
    inner = -(-(nbytes + misaligned) // PAGE) * PAGE
    memory = mmap.mmap(-1, inner + 2 * PAGE)
    pages = np.frombuffer(memory, np.uint8)
    pages[PAGE : PAGE + inner] = 0xFF
    for guard in (0, PAGE + inner):
        _protect(int(pages.ctypes.data) + guard, PAGE)
    start = PAGE + misaligned if side == "before" else PAGE + inner - misaligned - nbytes
    array = pages[start : start + nbytes].view(dtype).reshape(shape)
    if fill is not None:
        array[...] = fill
    return array


def is_intact(array: Array) -> bool:
    """Whether the bytes between an array of `guarded` and its guards are still those that it began with."""
    if not array.size:  # NumPy does not tell where it lies
        return True
    pages = array.base
    assert isinstance(pages, np.ndarray)
    start = int(array.ctypes.data) - int(pages.ctypes.data)
    return bool((pages[PAGE:start] == 0xFF).all() and (pages[start + array.nbytes : -PAGE] == 0xFF).all())


def _protect(address: int, nbytes: int) -> None:
    mprotect = ctypes.CDLL(None, use_errno=True).mprotect
    if mprotect(ctypes.c_void_p(address), ctypes.c_size_t(nbytes), _NO_ACCESS) != 0:
        raise OSError(ctypes.get_errno(), "mprotect")

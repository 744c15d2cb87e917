"""Weights in the form that kernels read, kept for all sizes of an image; the numpy and the llvm backend use it."""

from __future__ import annotations

import weakref
from collections.abc import Callable

from graphsr.forksafe import ForkSafeLock
from graphsr.op import Array


class WeightCache:
    """Weights in the form that a kernel wants, made once and kept for as long as the weights themselves: shared by
    the programs of all sizes and by all threads."""

    def __init__(self) -> None:
        self._lock = ForkSafeLock()
        self._made: dict[tuple[int, str], tuple[weakref.ref[Array], Array]] = {}

    def get(self, weight: Array, form: str, make: Callable[[Array], Array]) -> Array:
        """`make(weight)`, remembered under the identity of the array and the name of the form."""
        key = (id(weight), form)
        with self._lock():
            known = self._made.get(key)
            if known is None or known[0]() is not weight:
                made = make(weight)
                made.setflags(write=False)
                known = (weakref.ref(weight, lambda _: self._made.pop(key, None)), made)
                self._made[key] = known
            return known[1]

    def rearranged(self, weight: Array, form: str, make: Callable[[Array], Array]) -> Array:
        """The same numbers in another shape or order: weights again, of which there are forms in turn."""
        return WeightCache.get(self, weight, form, make)

    def has(self, weight: Array, form: str) -> bool:
        """Whether the weight was made into this form."""
        with self._lock():
            known = self._made.get((id(weight), form))
            return known is not None and known[0]() is weight

    @property
    def nbytes(self) -> int:
        return sum(made.nbytes for _, made in list(self._made.values()))

"""Threads of the numpy backend: a pool per run, and BLAS held to one thread per worker meanwhile.

Work is cut into units whose boundaries never depend on the number of threads, so results have the same bits for any
number. NumPy releases the interpreter lock inside matmul and the ufuncs, so the units run in parallel. A pool lives
for one run only: nothing survives into a forked child, and nothing idles between runs.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController


class Team:
    """The caller and `threads - 1` helpers; a context manager."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads - 1, "graphsr-numpy", _blas_of_this_thread) if threads > 1 else None

    def __enter__(self) -> Team:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def for_each(self, units: int, work: Callable[[int, int], None]) -> None:
        """`work(unit, worker)` for every unit in 0..units-1, each once; returns when all are done.

        Workers are numbered 0..threads-1, and take the next unit when they are free. The first error is raised
        after every worker has stopped, so that no memory is in use when the caller goes on.
        """
        helpers = min(self.threads, units) - 1
        following = itertools.count()  # next() on it is atomic

        def drain(worker: int) -> None:
            with np.errstate(all="ignore"):  # NaN and infinities flow through silently, whichever thread meets them
                while (unit := next(following)) < units:
                    work(unit, worker)

        futures: list[Future[None]] = []
        try:
            if self._pool is not None:
                futures += [self._pool.submit(drain, worker) for worker in range(1, helpers + 1)]
            drain(0)
        finally:
            wait(futures)
        for future in futures:
            future.result()


class _Limit:
    """How many runs hold BLAS to one thread now, and what to go back to."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.runs = 0
        self.before: list[int | None] = []


_limit = _Limit()
if hasattr(os, "register_at_fork"):
    # A child must not inherit a lock that another thread of its parent held.
    os.register_at_fork(after_in_child=lambda: globals().update(_limit=_Limit()))


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """BLAS calls inside run on the calling thread alone.

    For most libraries the setting is global to the process: it is made by the first run that enters and undone by
    the last that leaves, so overlapping runs neither disturb each other nor leave it changed; other code that calls
    BLAS meanwhile gets one thread too. Where it belongs to a thread (OpenBLAS over OpenMP), each run undoes its own.
    A BLAS that threadpoolctl does not know (such as Apple's Accelerate) stays as it is.
    """
    limit = _limit
    with limit.lock:
        if limit.runs == 0:
            limit.before = [library.num_threads for library in _blas()]
        limit.runs += 1
        _blas_of_this_thread()
    try:
        yield
    finally:
        with limit.lock:
            limit.runs -= 1
            for library, threads in zip(_blas(), limit.before, strict=True):
                if limit.runs == 0 or _is_per_thread(library):
                    _set_threads(library, threads)


@cache
def _blas() -> tuple[Any, ...]:
    """threadpoolctl's controllers of the BLAS libraries. Finding them takes a millisecond, setting one microseconds."""
    return tuple(ThreadpoolController().select(user_api="blas").lib_controllers)


def _blas_of_this_thread() -> None:
    for library in _blas():
        _set_threads(library, 1)


def _is_per_thread(library: Any) -> bool:
    return getattr(library, "threading_layer", None) == "openmp"


def _set_threads(library: Any, threads: int | None) -> None:
    """Since threadpoolctl 3.8 a process-wide limit obeys the Python thread that set it first and ignores all others,
    until that thread clears its claim. The last run to leave may be another one, so the claim is cleared each time."""
    clear = getattr(library, "clear_controlling_thread", None)
    if clear is not None:
        clear(force=True)
    library.set_num_threads(threads)
    if clear is not None:
        clear(force=True)

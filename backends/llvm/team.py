"""Native threads that enter a compiled function together: wake-up, join, Ctrl-C, fork."""

from __future__ import annotations

import ctypes
import os
import threading
from _thread import allocate_lock

_ENTRY = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)


class _Job:
    """One call of an entry by all threads."""

    def __init__(self, entry: int, context: int, threads: int) -> None:
        self.entry, self.context, self.left = _ENTRY(entry), context, threads
        self.lock, self.done = allocate_lock(), allocate_lock()
        self.done.acquire()


class Team:
    """The worker threads for a number of threads."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._reset()

    def _reset(self) -> None:
        self._gate = allocate_lock()
        self._job: _Job | None = None
        self._starts = [allocate_lock() for _ in range(self.threads)]
        self._started = 0

    def run(self, entry: int, context: int, stop: int) -> None:
        """Call `void entry(ptr context, i64 thread, i64 threads)` on every thread; returns when all have left."""
        with self._gate:
            while self._started < self.threads:
                index = self._started
                self._starts[index].acquire()
                threading.Thread(target=self._work, args=(index,), name=f"graphsr-{index}", daemon=True).start()
                self._started += 1
            job = self._job = _Job(entry, context, self.threads)
            interrupt: BaseException | None = None
            while True:
                try:
                    for start in self._starts:
                        if start.locked():
                            start.release()
                    job.done.acquire()
                    break
                except BaseException as error:
                    ctypes.c_int64.from_address(stop).value = 1
                    interrupt = interrupt or error
            if interrupt is not None:
                raise interrupt

    def _work(self, index: int) -> None:
        start, last = self._starts[index], None
        while True:
            start.acquire()
            job = self._job
            if job is None or job is last:
                continue
            last = job
            job.entry(job.context, index, self.threads)
            with job.lock:
                job.left -= 1
                if job.left == 0:
                    job.done.release()


_teams: dict[int, Team] = {}
_lock = allocate_lock()


def team(threads: int) -> Team:
    """The team of that many threads, shared by the whole process."""
    with _lock:
        if threads not in _teams:
            _teams[threads] = Team(threads)
        return _teams[threads]


def _after_fork() -> None:
    global _lock
    _lock = allocate_lock()
    for each in _teams.values():
        each._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

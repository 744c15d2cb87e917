"""Locks that a forked child can use."""

from __future__ import annotations

import os
import threading
import weakref


class ForkSafeLock:
    """Gives a `threading.Lock` that is free in a forked child: `with lock():`

    The thread that may have held it does not exist there. For locks whose protected state is whole at every moment, or
    made anew by whoever takes the lock. The lock itself, and not this object, is entered: that is one step in C, which
    Ctrl-C cannot cut in two.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _locks.add(self)

    def __call__(self) -> threading.Lock:
        return self._lock


_locks: weakref.WeakSet[ForkSafeLock] = weakref.WeakSet()


def _renew() -> None:
    for lock in _locks:
        lock._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)

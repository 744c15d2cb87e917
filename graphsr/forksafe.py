"""Locks that a forked child can use, and values that need none."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

Value = TypeVar("Value")


class once(Generic[Value]):  # noqa: N801 - a decorator, like `property`
    """A property that is computed when it is first asked for, and kept. Two threads that ask at once may both compute.

    `functools.cached_property` holds a lock of the whole class meanwhile (before Python 3.12): a process that is forked
    at that moment waits for it for ever.
    """

    def __init__(self, compute: Callable[[Any], Value]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> once[Value]: ...

    @overload
    def __get__(self, instance: object, owner: type) -> Value: ...

    def __get__(self, instance: object | None, owner: type) -> once[Value] | Value:
        if instance is None:
            return self
        value = instance.__dict__[self._name] = self._compute(instance)
        return value


class ForkSafeLock:
    """Gives a `threading.RLock` that is free in a forked child: `with lock():`

    The thread that may have held it does not exist there. For locks whose protected state is whole at every moment, or
    made anew by whoever takes the lock. The lock itself, and not this object, is entered: that is one step in C, which
    Ctrl-C cannot cut in two. It can be taken again by the thread that holds it, since a signal handler runs there: what
    it must not do twice at a time asks `is_mine` before.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        _locks.add(self)

    def __call__(self) -> threading.RLock:
        return self._lock

    def is_mine(self) -> bool:
        """Whether the calling thread holds the lock."""
        owned: bool = self._lock._is_owned()  # type: ignore[attr-defined]  # as threading.Condition asks
        return owned


_locks: weakref.WeakSet[ForkSafeLock] = weakref.WeakSet()


def _renew() -> None:
    for lock in _locks:
        lock._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)

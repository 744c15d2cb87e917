"""The compiled kernels of this process: each description is compiled once, for all networks and sizes."""

from __future__ import annotations

from collections.abc import Iterable

from graphsr.forksafe import ForkSafeLock

from .driver import ENTRY, driver_text
from .jit import Code, compile_ir
from .kernel import Kernel
from .loops import module
from .target import Target


class Library:
    """Kernels of one target by description."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._lock = ForkSafeLock()
        self._codes: dict[Kernel, Code] = {}
        self._driver: Code | None = None

    def add(self, kernels: Iterable[Kernel]) -> None:
        """Compile those that are new, together."""
        with self._lock():
            new = sorted(set(kernels) - set(self._codes), key=lambda kernel: kernel.symbol)
            if new:
                code = compile_ir(module([kernel.function(self.target) for kernel in new]), self.target)
                self._codes.update(dict.fromkeys(new, code))

    def address(self, kernel: Kernel) -> int:
        """Where the code of a kernel that was added begins."""
        return self._codes[kernel].address(kernel.symbol)

    @property
    def entry(self) -> int:
        """The address of the parallel region."""
        with self._lock():
            if self._driver is None:
                self._driver = compile_ir(driver_text(self.target.triple), self.target)
            return self._driver.address(ENTRY)


_libraries: dict[Target, Library] = {}
_lock = ForkSafeLock()


def library(target: Target) -> Library:
    """The library of a target, shared by the whole process."""
    with _lock():
        return _libraries.setdefault(target, Library(target))

"""The compiled kernels of this process: each description is compiled once, for all networks and sizes.

On disk lie two kinds of objects: the code of some IR (`jit.compile_ir`), and that of all kernels of a network, found by
the network and by the source code of what would write the IR. With the second, a process that loads a network again
neither plans it for all sizes nor writes any IR.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import TypeAlias

import graphsr.ops
from graphsr.forksafe import ForkSafeLock

from . import cache as objects
from .driver import ENTRY, driver_text
from .jit import Code, compile_ir, defined, emit_object, is_shown, link
from .kernel import Kernel
from .loops import module
from .target import Target

HERE = Path(__file__).parent
SOURCES = (HERE, Path(graphsr.ops.__file__).parent)
"""Folders whose code decides what the code of a kernel is, given its description."""

Object: TypeAlias = tuple[tuple[str, ...], bytes]
"""The names of its functions, and an object file."""


class Library:
    """Kernels of one target by description."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._lock = ForkSafeLock()
        self._codes: dict[Kernel, Code] = {}
        self._networks: dict[str, Code] = {}
        """Code that came with a network, by symbol."""
        self._driver: Code | None = None

    def add(self, kernels: Iterable[Kernel]) -> None:
        """Compile those that are new, together."""
        with self._lock():
            self._compile(self._new(kernels))

    def add_network(self, network: str, kernels: Callable[[], Iterable[Kernel]]) -> None:
        """The same for all kernels of a network, `kernels()`: nobody asks which ones where the disk has them."""
        sources = None if is_shown() else digest_of_sources()
        key = objects.key(f"{sources}\n{network}", self.target)
        entry = objects.load(key) if sources else None
        if entry is not None:
            with self._lock():
                self._link(_unpack(entry))
            return
        every = set(kernels())
        with self._lock():
            new = self._new(every)
            if sources is None or len(new) < len(every) or not all(map(_is_ours, new)):
                self._compile(new)  # those of other networks, and of others' sources, would be missing in the entry
            elif new:
                made = [(defined(text), emit_object(text, self.target)) for text in self._modules(new)]
                objects.store(key, _pack(made))
                self._link(made)

    def _new(self, kernels: Iterable[Kernel]) -> list[Kernel]:
        """Those without code, in an order that does not depend on the process."""
        unknown = set(kernels) - set(self._codes)
        self._codes.update({k: self._networks[k.symbol] for k in unknown if k.symbol in self._networks})
        return sorted(unknown - set(self._codes), key=lambda kernel: kernel.symbol)

    def _compile(self, kernels: list[Kernel]) -> None:
        codes = [compile_ir(text, self.target) for text in self._modules(kernels)]
        self._codes.update({k: code for code in codes for k in kernels if k.symbol in code.symbols})

    def _link(self, made: list[Object]) -> None:
        for symbols, image in made:
            self._networks.update(dict.fromkeys(symbols, link(image, symbols)))

    def _modules(self, kernels: list[Kernel]) -> list[str]:
        """Their IR: those whose loops are compiled alike are compiled together."""
        alike = ([k for k in kernels if k.running_pointers == running] for running in (False, True))
        return [module([kernel.function(self.target) for kernel in those]) for those in alike if those]

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


@cache
def digest_of_sources() -> str | None:
    """Of all that decides what the code of a kernel is, given its description; None where the sources are not there."""
    digest, found = hashlib.sha256(), False
    for file in (file for folder in SOURCES for file in sorted(folder.rglob("*.py"))):
        digest.update(file.read_bytes())
        found = True
    return digest.hexdigest() if found else None


def _is_ours(kernel: Kernel) -> bool:
    """Whether its code follows from `SOURCES`."""
    return type(kernel).__module__.startswith(f"{__package__}.")


def _pack(made: list[Object]) -> bytes:
    """[[symbols, bytes], ...] as a line of JSON, then the objects."""
    header = json.dumps([[symbols, len(image)] for symbols, image in made])
    return b"\n".join([header.encode(), b"".join(image for _, image in made)])


def _unpack(entry: bytes) -> list[Object]:
    header, _, rest = entry.partition(b"\n")
    made = []
    for symbols, length in json.loads(header):
        made.append((tuple(symbols), rest[:length]))
        rest = rest[length:]
    return made

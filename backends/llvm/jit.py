"""IR text -> machine code: in this process, as an object file, or as assembly for the reader.

    text -> [cache] -> verify -> object code -> link into the process -> addresses

No IR passes: kernels are written in the shape in which they should run, and passes gained nothing. What is run is
always linked from an object, whether it comes from the cache or was made a moment ago.

GRAPHSR_DEBUG=3 prints the IR to standard error, 4 the assembly too; GRAPHSR_DUMP=folder writes both as files, named by
their first function and the key of the cache.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import llvmlite.binding as llvm

from graphsr.debug import dump, dumps, level
from graphsr.errors import BackendError

from . import cache as objects
from .loops import AS_WRITTEN
from .target import Target

OPTIMISATION = 2
"""Of the code generator (0..3): 3 gives the same code, 0 code that is three times slower."""

_DECLARATION = re.compile(r'^declare [^@\n]*@"?((?!llvm\.)[\w.$-]+)"?\(', re.MULTILINE)
_DEFINITION = re.compile(r'^define (?!.*\b(?:private|internal) )[^@\n]*@"?([\w.$-]+)"?\(', re.MULTILINE)

_lock = threading.RLock()
"""LLVM is entered by one thread at a time. A fork waits for it, so that a child never inherits LLVM half way through a
compilation."""
_turn = threading.RLock()
"""Held by a fork from when it begins to wait. Who is about to compile lets it go first: locks know no queue, and a
thread that compiles again and again would keep the fork out."""

if hasattr(os, "register_at_fork"):
    for held in (_lock, _turn):  # the last one registered is the first one acquired
        os.register_at_fork(before=held.acquire, after_in_parent=held.release, after_in_child=held.release)


class Code:
    """Functions in the memory of this process. They live as long as this object does."""

    def __init__(self, image: bytes, symbols: tuple[str, ...]) -> None:
        builder = llvm.JITLibraryBuilder().add_object_img(image).add_current_process()
        for symbol in symbols:
            builder.export_symbol(symbol)
        engine = llvm.create_lljit_compiler(use_jit_link=True, suppress_errors=True)
        self._library = builder.link(engine, "graphsr")  # keeps the engine; the code goes when it goes
        self.symbols = frozenset(symbols)
        self._addresses = {symbol: int(self._library[symbol]) for symbol in symbols}

    def __del__(self) -> None:
        """Unload under the lock, like all use of LLVM: a fork in the middle of it would leave the child a held lock."""
        library = getattr(self, "_library", None)  # absent where linking failed
        if library is not None and _lock is not None:  # at the end of the interpreter, module names are gone
            with _lock:
                del self._library, library

    def address(self, symbol: str) -> int:
        """Where the code of a function begins."""
        if symbol not in self._addresses:
            raise BackendError(f"compiled code has no function {symbol!r}; it has {', '.join(self._addresses)}")
        return self._addresses[symbol]


def compile_ir(text: str, target: Target, *, cached: bool = True) -> Code:
    """Machine code of an IR module, linked into this process. Thread-safe.

    External functions, such as `sched_yield`, are those of the process. With `cached`, the object code is taken from
    the cache on disk and put there. Raises `BackendError` for IR that LLVM refuses, and for functions that are absent.
    """
    key = objects.key(text, target)
    _show(text, target, key)
    image = objects.load(key) if cached else None
    if image is None:
        image = emit_object(text, target)
        if cached:
            objects.store(key, image)
    return link(image, defined(text), text)


def link(image: bytes, symbols: tuple[str, ...], text: str = "") -> Code:
    """Place object code in this process; `text` is the IR that it was made from, for error messages. Thread-safe."""
    with _llvm(text):
        return Code(image, symbols)


def defined(text: str) -> tuple[str, ...]:
    """Names of the functions that IR defines for others."""
    return tuple(_DEFINITION.findall(text))


def is_shown() -> bool:
    """Whether somebody wants to read what is compiled."""
    return level() >= 3 or dumps()


def emit_object(text: str, target: Target) -> bytes:
    """The module as a relocatable object file, also for a machine that is not this one."""
    with _llvm(text):
        machine = _machine(target)
        with _addresses(text):
            image: bytes = machine.emit_object(_parse(text, machine, target))
        return image


def emit_assembly(text: str, target: Target) -> str:
    """The module as assembly, also for a machine that is not this one."""
    with _llvm(text):
        machine = _machine(target)
        with _addresses(text):
            return str(machine.emit_assembly(_parse(text, machine, target)))


def _parse(text: str, machine: llvm.TargetMachine, target: Target) -> llvm.ModuleRef:
    module = llvm.parse_assembly(text)
    module.triple = target.triple
    module.data_layout = str(machine.target_data)
    module.verify()
    return module


@contextmanager
def _addresses(text: str) -> Iterator[None]:
    """Compile the addresses in the loops of a module as its first line says: `AS_WRITTEN` is without LLVM's pass "loop
    strength reduction", whose switch is one for the whole process, and put back at once."""
    if not text.startswith(AS_WRITTEN):
        yield
        return
    llvm.set_option("graphsr", "-disable-lsr=true")
    try:
        yield
    finally:
        llvm.set_option("graphsr", "-disable-lsr=false")


@cache
def _machine(target: Target) -> llvm.TargetMachine:
    """Position-independent code: linked objects lie anywhere in memory."""
    return llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=OPTIMISATION, reloc="pic", codemodel="small"
    )


@cache
def _initialise() -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


@contextmanager
def _llvm(text: str) -> Iterator[None]:
    """Sole use of LLVM; what it says is wrong is told with the function and the line in question."""
    with _turn:  # a fork that waits goes first
        pass
    with _lock:
        _initialise()
        try:
            yield
        except RuntimeError as error:
            raise BackendError(
                f"the llvm backend wrote code that LLVM refuses ({_where(text, str(error))}): "
                f"{str(error).strip()}\nThis is a bug in graphsr: please report it, with the output of GRAPHSR_DEBUG=3"
            ) from error


def _where(text: str, message: str) -> str:
    """The function, and the line if LLVM names one."""
    found = re.search(r"<string>:(\d+):", message)
    names = _DEFINITION.findall(text)
    if not found:
        absent = [name for name in _DECLARATION.findall(text) if not llvm.address_of_symbol(name)]
        return f"module of {', '.join(names) or 'no function'}; not in this process: {', '.join(absent) or 'nothing'}"
    lines = text.splitlines()
    number = min(int(found[1]), len(lines))
    above = _DEFINITION.findall("\n".join(lines[:number]))
    return f"function {above[-1] if above else '(none)'}, line {number}: {lines[number - 1].strip() if lines else ''}"


def _show(text: str, target: Target, key: str) -> None:
    if not is_shown():
        return
    first = next(iter(_DEFINITION.findall(text)), "module")
    if level() >= 3:
        print(f"; graphsr: IR of {first} for {target.name}\n{text}", file=sys.stderr)
    if level() >= 4:
        print(f"# graphsr: assembly of {first} for {target.name}\n{emit_assembly(text, target)}", file=sys.stderr)
    if dumps():
        dump(f"{first[:60]}_{key[:16]}.ll", text)
        dump(f"{first[:60]}_{key[:16]}.s", emit_assembly(text, target))

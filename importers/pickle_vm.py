"""A virtual machine for the few pickle opcodes that checkpoints use. It imports nothing and calls nothing.

A pickle is a program for a stack machine (PEP 307; `pickletools` in the standard library documents every opcode).
Python's own unpickler is not used even with an allow-list of classes, because its C code trusts the numbers in
the program: a 9-byte pickle that stores at memo index 2**27 takes 2 GB. Here

- only the opcodes below exist; every other one is refused by its name;
- a global is a pair of strings that the caller's `Rules` turn into an inert stand-in or refuse;
- calls, attribute updates and persistent ids go to the same `Rules`, which work on stand-ins;
- the numbers of opcodes and bytes, and the length of strings and integers, are bounded.

Values are None, bool, int, float, str, tuple, list, dict and what the rules return. A dict takes only
simple keys: hashing a nested tuple can take exponential time, and its recursion is not guarded in C.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable
from typing import Protocol

from graphsr.errors import ModelError

from .byte_source import ByteSource

MAX_OPCODES = 250_000
"""About 20 opcodes describe a tensor, so this is room for 4000 parameters with the state of their optimiser."""
MAX_BYTES = 8 << 20
MAX_STRING = 1 << 20
MAX_NAME = 256
MAX_INTEGER_BYTES = 16
_WINDOW = 1 << 16


class Rules(Protocol):
    """What a pickle may name, and what its calls mean. Each method raises ValueError with the reason to refuse."""

    def find(self, module: str, name: str) -> object:
        """The stand-in for the global `module.name`."""

    def call(self, function: object, arguments: tuple[object, ...]) -> object:
        """The result of REDUCE or NEWOBJ."""

    def build(self, target: object, state: object) -> None:
        """Give `target` its state (opcode BUILD)."""

    def persistent(self, identity: object) -> object:
        """The stand-in for an object that is stored outside the pickle."""


def load_pickle(source: ByteSource, start: int, end: int, rules: Rules, place: str) -> tuple[object, int]:
    """Run the pickle that begins at `start` and must stop before `end`: its value and the offset behind it.

    ModelError, with the offset, for everything that is not allowed or makes no sense.
    """
    return _Machine(_Stream(source, start, end, place), rules).run()


class _Stream:
    """The bytes of the pickle, through a window so that opcodes of one byte cost no system call."""

    def __init__(self, source: ByteSource, start: int, end: int, place: str) -> None:
        self._source, self._start, self._place = source, start, place
        self._end = min(end, source.size, start + MAX_BYTES)
        self._window = b""
        self._window_at = start
        self._next = 0  # in the window

    @property
    def position(self) -> int:
        return self._window_at + self._next

    def error(self, problem: str) -> ModelError:
        return self._source.error(f"{self._place}, byte {self.position - self._start}", problem)

    def take(self, count: int) -> bytes:
        if self._next + count > len(self._window):
            self._fill(count)
            if count > len(self._window):
                raise self.error(f"{count} more bytes are needed; the pickle ends or is longer than {MAX_BYTES} bytes")
        data = self._window[self._next : self._next + count]
        self._next += count
        return data

    def line(self) -> str:
        """The name up to the next newline, which is taken and left out."""
        if self._next + MAX_NAME >= len(self._window):
            self._fill(MAX_NAME + 1)
        last = self._window.find(b"\n", self._next, self._next + MAX_NAME + 1)
        if last < 0:
            raise self.error(f"a module or class name of more than {MAX_NAME} bytes")
        name = self.text(self._window[self._next : last])
        if not name.isprintable():
            raise self.error("a module or class name with unprintable characters")
        self._next = last + 1
        return name

    def text(self, data: bytes) -> str:
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.error("a string is not UTF-8") from error

    def _fill(self, count: int) -> None:
        """Let the window begin at the next byte and have at least `count` bytes if the pickle has."""
        at = self.position
        size = min(max(count, _WINDOW), self._end - at)
        self._window, self._window_at, self._next = self._source.read(at, size, self._place), at, 0


class _Machine:
    """Stack, marks and memo. Each method below is one opcode and is entered in `_OPCODES`."""

    def __init__(self, stream: _Stream, rules: Rules) -> None:
        self.stream = stream
        self.rules = rules
        self.stack: list[object] = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}  # a dict: a huge index costs no more than a small one

    def run(self) -> tuple[object, int]:
        stream, take = self.stream, self.stream.take
        for _ in range(MAX_OPCODES):
            code = take(1)[0]
            if code == _STOP:
                value = self.pop()
                if self.stack or self.marks:
                    raise stream.error("the pickle stops with more than one value on its stack")
                return value, stream.position
            action = _OPCODES.get(code)
            if action is None:
                raise stream.error(f"opcode {_opcode_name(code)} does not occur in checkpoints and is refused")
            action(self)
        raise stream.error(f"more than {MAX_OPCODES} opcodes")

    def pop(self) -> object:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise self.stream.error("the pickle takes a value from an empty stack")
        return self.stack.pop()

    def top(self) -> object:
        value = self.pop()
        self.stack.append(value)
        return value

    def pop_mark(self) -> list[object]:
        """The values above the last mark; the mark goes too."""
        if not self.marks:
            raise self.stream.error("the pickle uses a mark that it did not set")
        mark = self.marks.pop()
        values = self.stack[mark:]
        del self.stack[mark:]
        return values

    def number(self, size: int, *, signed: bool = False) -> int:
        return int.from_bytes(self.stream.take(size), "little", signed=signed)

    def protocol(self) -> None:
        self.number(1)  # newer protocols differ by their opcodes, which are refused by name

    def mark(self) -> None:
        self.marks.append(len(self.stack))

    def push_tuple(self, count: int) -> None:
        first = len(self.stack) - count
        if first < (self.marks[-1] if self.marks else 0):
            raise self.stream.error(f"the pickle makes a tuple of {count} values and has fewer on its stack")
        self.stack[first:] = [tuple(self.stack[first:])]

    def push_marked_tuple(self) -> None:
        self.stack.append(tuple(self.pop_mark()))

    def push_long(self, length_size: int) -> None:
        length = self.number(length_size)
        if length > MAX_INTEGER_BYTES:
            raise self.stream.error(f"an integer of {length} bytes (at most {MAX_INTEGER_BYTES} are allowed)")
        self.stack.append(self.number(length, signed=True))

    def push_float(self) -> None:
        (value,) = struct.unpack(">d", self.stream.take(8))
        self.stack.append(value)

    def push_string(self, length_size: int) -> None:
        length = self.number(length_size)
        if length > MAX_STRING:
            raise self.stream.error(f"a string of {length} bytes (at most {MAX_STRING} are allowed)")
        self.stack.append(self.stream.text(self.stream.take(length)))

    def put(self, index_size: int) -> None:
        self.memo[self.number(index_size)] = self.top()

    def get(self, index_size: int) -> None:
        index = self.number(index_size)
        if index not in self.memo:
            raise self.stream.error(f"memo entry {index} is read before it is written")
        self.stack.append(self.memo[index])

    def set_items(self, values: list[object]) -> None:
        target = self.top()
        if type(target) is not dict:
            raise self.stream.error(f"items are set on a {_kind(target)}, not on a dict")
        if len(values) % 2:
            raise self.stream.error("a key without a value")
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[self.checked_key(key)] = value

    def set_item(self) -> None:
        value = self.pop()
        self.set_items([self.pop(), value])

    def append(self, values: list[object]) -> None:
        target = self.top()
        if type(target) is not list:
            raise self.stream.error(f"values are appended to a {_kind(target)}, not to a list")
        target.extend(values)

    def checked_key(self, key: object) -> object:
        try:
            return simple_key(key)
        except ValueError as error:
            raise self.stream.error(str(error)) from error

    def push_global(self) -> None:
        module, name = self.stream.line(), self.stream.line()
        self.push_ruled(f"{module}.{name}", lambda: self.rules.find(module, name))

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        if type(arguments) is not tuple:
            raise self.stream.error(f"a call with a {_kind(arguments)} in place of its arguments")
        self.push_ruled("call", lambda: self.rules.call(function, arguments))

    def build(self) -> None:
        state, target = self.pop(), self.top()
        try:
            self.rules.build(target, state)
        except ValueError as error:
            raise self.stream.error(f"state: {error}") from error

    def persistent(self) -> None:
        identity = self.pop()
        self.push_ruled("persistent id", lambda: self.rules.persistent(identity))

    def push_ruled(self, what: str, make: Callable[[], object]) -> None:
        try:
            self.stack.append(make())
        except ValueError as error:
            raise self.stream.error(f"{what}: {error}") from error


def simple_key(key: object) -> object:
    """`key` if it may be a key of a dict, else ValueError.

    Integers are bounded because equal hashes are easy to make from long ones (hash(n) is n modulo 2**61 - 1), and
    a dict full of them takes quadratic time.
    """
    if type(key) is int and not -(1 << 63) <= key < 1 << 63:
        raise ValueError("an integer of more than 64 bits as a key")
    if key is not None and type(key) not in (str, int, float, bool):
        raise ValueError(f"a {_kind(key)} as a key (only strings and numbers are allowed)")
    return key


def _kind(value: object) -> str:
    return type(value).__name__.lstrip("_")


def _opcode_name(code: int) -> str:
    known = pickletools.code2op.get(chr(code))  # type: ignore[attr-defined]
    return known.name if known else f"0x{code:02x}"


_STOP = ord(".")

_OPCODES: dict[int, Callable[[_Machine], None]] = {
    0x80: _Machine.protocol,  # PROTO
    ord("N"): lambda m: m.stack.append(None),
    0x88: lambda m: m.stack.append(True),  # NEWTRUE
    0x89: lambda m: m.stack.append(False),  # NEWFALSE
    ord("K"): lambda m: m.stack.append(m.number(1)),  # BININT1
    ord("M"): lambda m: m.stack.append(m.number(2)),  # BININT2
    ord("J"): lambda m: m.stack.append(m.number(4, signed=True)),  # BININT
    0x8A: lambda m: m.push_long(1),  # LONG1
    0x8B: lambda m: m.push_long(4),  # LONG4
    ord("G"): _Machine.push_float,  # BINFLOAT
    ord("U"): lambda m: m.push_string(1),  # SHORT_BINSTRING, from Python 2
    ord("T"): lambda m: m.push_string(4),  # BINSTRING, from Python 2
    ord("X"): lambda m: m.push_string(4),  # BINUNICODE
    ord("("): _Machine.mark,
    ord(")"): lambda m: m.push_tuple(0),  # EMPTY_TUPLE
    0x85: lambda m: m.push_tuple(1),
    0x86: lambda m: m.push_tuple(2),
    0x87: lambda m: m.push_tuple(3),
    ord("t"): _Machine.push_marked_tuple,  # TUPLE
    ord("]"): lambda m: m.stack.append([]),  # EMPTY_LIST
    ord("a"): lambda m: m.append([m.pop()]),  # APPEND
    ord("e"): lambda m: m.append(m.pop_mark()),  # APPENDS
    ord("}"): lambda m: m.stack.append({}),  # EMPTY_DICT
    ord("s"): _Machine.set_item,  # SETITEM
    ord("u"): lambda m: m.set_items(m.pop_mark()),  # SETITEMS
    ord("q"): lambda m: m.put(1),  # BINPUT
    ord("r"): lambda m: m.put(4),  # LONG_BINPUT
    ord("h"): lambda m: m.get(1),  # BINGET
    ord("j"): lambda m: m.get(4),  # LONG_BINGET
    ord("c"): _Machine.push_global,  # GLOBAL
    ord("Q"): _Machine.persistent,  # BINPERSID
    ord("R"): _Machine.reduce,  # REDUCE
    0x81: _Machine.reduce,  # NEWOBJ: cls(*args) is a call too
    ord("b"): _Machine.build,  # BUILD
}

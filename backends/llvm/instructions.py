"""Straight-line LLVM IR: typed values, arithmetic, memory.

What a kernel writes between its loops, see `loops.py`, from where kernels import all of this. Integers known to Python
are folded on the way.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Union

LANES = 16
"""Floats in a vector on every target; where registers are narrower, LLVM splits it."""
VECTOR_BYTES = 4 * LANES

I64, I32, I1, PTR, FLOAT, DOUBLE = "i64", "i32", "i1", "ptr", "float", "double"
VECTOR, IVECTOR, MASK = f"<{LANES} x float>", f"<{LANES} x i32>", f"<{LANES} x i1>"

Index = Union["Value", int]
"""An i64: known now, or when the kernel runs."""


@dataclass(frozen=True, eq=False, slots=True)
class Value:
    """A typed SSA value, or a literal. Operators on i64 are integer (division and remainder unsigned), on floats and
    vectors IEEE; `ptr + n` is n bytes further."""

    function: Instructions
    type: str
    text: str

    def __add__(self, other: Index) -> Value:
        if self.type == PTR:
            return self.function.offset(self, other)
        return self.function.binary("add", self, other)

    def __sub__(self, other: Index) -> Value:
        return self.function.binary("sub", self, other)

    def __mul__(self, other: Index) -> Value:
        return self.function.binary("mul", self, other)

    def __rmul__(self, other: int) -> Value:
        return self.function.binary("mul", self, other)

    def __radd__(self, other: int) -> Value:
        return self.function.binary("add", self, other)

    def __rsub__(self, other: int) -> Value:
        return self.function.binary("sub", self.function.literal(other, self.type), self)

    def __truediv__(self, other: Value) -> Value:
        return self.function.binary("div", self, other)

    def __floordiv__(self, other: Index) -> Value:
        return self.function.binary("udiv", self, other)

    def __mod__(self, other: Index) -> Value:
        return self.function.binary("urem", self, other)

    def __and__(self, other: Index) -> Value:
        return self.function.binary("and", self, other)

    def __or__(self, other: Index) -> Value:
        return self.function.binary("or", self, other)

    def __xor__(self, other: Index) -> Value:
        return self.function.binary("xor", self, other)

    def __lshift__(self, other: Index) -> Value:
        return self.function.binary("shl", self, other)

    def __rshift__(self, other: Index) -> Value:
        return self.function.binary("lshr", self, other)

    def __neg__(self) -> Value:
        if is_float(self.type):
            return self.function.emit(f"fneg {self.type} {self.text}", self.type)
        return 0 - self

    def __lt__(self, other: Index) -> Value:
        return self.function.compare("lt", self, other)

    def __le__(self, other: Index) -> Value:
        return self.function.compare("le", self, other)

    def __gt__(self, other: Index) -> Value:
        return self.function.compare("gt", self, other)

    def __ge__(self, other: Index) -> Value:
        return self.function.compare("ge", self, other)

    def equals(self, other: Index) -> Value:
        """`==`, which Python keeps for identity here."""
        return self.function.compare("eq", self, other)


def is_float(type_: str) -> bool:
    return "float" in type_ or "double" in type_


class Instructions:
    """Code for vectors of a target, one instruction after the other.

    `fma` says whether the target has fused multiply-add; without it, products are rounded before the sum. `register`
    is how many floats a register of the target holds.
    """

    def __init__(self, name: str, *, fma: bool, register: int) -> None:
        self.name = name
        self.has_fma = fma
        self.register = register
        self.lanes_now = LANES
        """Of the vectors that are written now: fewer inside `narrowed` and `pieces`."""
        self._is_sparing = False
        """Whether all constants of vectors wait in memory."""
        self._declares: dict[str, str] = {}
        self._table: dict[tuple[str, str], int] = {}
        """Constants in memory, by type and text, and how many bytes stand before each."""
        self._lines: list[str] = ["entry:"]
        self._count = 0

    # --- values -----------------------------------------------------------------------------------------------

    def literal(self, value: float, type_: str = I64) -> Value:
        """A constant; of a vector type, the same in every lane."""
        if self._is_sparing and value and type_ not in (MASK, I64, I32, I1):
            return self.stored(value, type_)
        return Value(self, type_, _constant(value, type_))

    def vector(self, value: float) -> Value:
        """The constant in every lane of a float vector."""
        return self.literal(value, VECTOR)

    def stored(self, value: float, type_: str = VECTOR) -> Value:
        """A number in every lane of a vector, loaded where it is read. LLVM moves other constants before the loop, more
        of them than there are registers, and then saves some; it leaves a load among stores where it is."""
        key = type_, _constant(value, type_)
        place = self._table.setdefault(key, sum(_size(other) for other, _ in self._table))
        return self.load(Value(self, PTR, f"@{self.name}.table") + place, type_, align=VECTOR_BYTES)

    def lanes(self, values: Sequence[float], type_: str = VECTOR) -> Value:
        """A constant vector with these lanes (booleans for a MASK)."""
        scalar = type_.removeprefix(f"<{LANES} x ").removesuffix(">")
        texts = [_hexadecimal(v, scalar) if is_float(scalar) else str(int(v)) for v in values]
        return Value(self, type_, "<" + ", ".join(f"{scalar} {text}" for text in texts) + ">")

    def splat(self, scalar: Value) -> Value:
        """A scalar in every lane."""
        type_ = f"<{LANES} x {scalar.type}>"
        first = self.emit(f"insertelement {type_} poison, {scalar.type} {scalar.text}, i32 0", type_)
        mask = f"<{LANES} x i32> zeroinitializer"
        return self.emit(f"shufflevector {type_} {first.text}, {type_} {first.text}, {mask}", type_)

    def shuffle(self, a: Value, b: Value, lanes: Sequence[int]) -> Value:
        """Lanes of a (0..15) and b (16..31), in this order."""
        mask = ", ".join(f"i32 {lane}" for lane in lanes)
        return self.emit(f"shufflevector {a.type} {a.text}, {b.type} {b.text}, <{len(lanes)} x i32> <{mask}>", a.type)

    def extract(self, vector: Value, lane: Index) -> Value:
        """One lane."""
        scalar = vector.type.removeprefix(f"<{LANES} x ").removesuffix(">")
        return self.emit(f"extractelement {vector.type} {vector.text}, {self._typed(lane, I64)}", scalar)

    def bitcast(self, value: Value, type_: str) -> Value:
        return self.emit(f"bitcast {value.type} {value.text} to {type_}", type_)

    def convert(self, how: str, value: Value, type_: str) -> Value:
        """An LLVM conversion such as "sitofp", "fptosi", "zext", "fpext"."""
        return self.emit(f"{how} {value.type} {value.text} to {type_}", type_)

    # --- arithmetic -------------------------------------------------------------------------------------------

    def binary(self, op: str, a: Index, b: Index) -> Value:
        left, right = self._same_type(a, b)
        if is_float(left.type):
            names = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
            return self.emit(f"{names[op]} {left.type} {left.text}, {right.text}", left.type)
        neutral = {"add": 0, "sub": 0, "mul": 1, "udiv": 1, "shl": 0, "lshr": 0}.get(op)
        if neutral is not None and right.text == str(neutral):
            return left
        if op in ("add", "mul") and left.text == str(neutral):
            return right
        if op == "mul" and "0" in (left.text, right.text):
            return self.literal(0, left.type)
        return self.emit(f"{op} {left.type} {left.text}, {right.text}", left.type)

    def compare(self, how: str, a: Index, b: Index) -> Value:
        """Signed for integers; ordered for floats (false where a NaN takes part), except "ne" and "uno"."""
        left, right = self._same_type(a, b)
        type_ = MASK if left.type.startswith("<") else I1
        if is_float(left.type):
            predicate = {"eq": "oeq", "ne": "une", "uno": "uno"}.get(how, f"o{how}")
            return self.emit(f"fcmp {predicate} {left.type} {left.text}, {right.text}", type_)
        predicate = how if how in ("eq", "ne") else f"s{how}"
        return self.emit(f"icmp {predicate} {left.type} {left.text}, {right.text}", type_)

    def any(self, mask: Value) -> Value:
        """Whether any lane of a mask is set (i1)."""
        return self.call(f"llvm.vector.reduce.or.v{LANES}i1", I1, mask)

    def select(self, condition: Value, a: Value, b: Value) -> Value:
        return self.emit(f"select {condition.type} {condition.text}, {a.type} {a.text}, {b.type} {b.text}", a.type)

    def minimum(self, a: Index, b: Index) -> Value:
        """Of two integers."""
        left, right = self._same_type(a, b)
        return self.select(left < right, left, right)

    def maximum(self, a: Index, b: Index) -> Value:
        """Of two integers."""
        left, right = self._same_type(a, b)
        return self.select(left > right, left, right)

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """a·b + c, rounded once where the target can."""
        if not self.has_fma:
            return a * b + c
        return self.intrinsic("fma", a, b, c)

    def intrinsic(self, name: str, *values: Value) -> Value:
        """An element-wise LLVM intrinsic of the type of its first operand: sqrt, fabs, floor, copysign, …"""
        type_ = values[0].type
        suffix = {VECTOR: f"v{LANES}f32", IVECTOR: f"v{LANES}i32", FLOAT: "f32", DOUBLE: "f64", I64: "i64", I32: "i32"}
        return self.call(f"llvm.{name}.{suffix[type_]}", type_, *values)

    def call(self, name: str, result: str, *values: Value) -> Value:
        """A call of a function that is not in this module; it is declared by the way."""
        declaration = self._in_pieces(f"declare {result} @{name}({', '.join(v.type for v in values)})")
        self._declares[self._in_pieces(name)] = declaration
        arguments = ", ".join(f"{v.type} {v.text}" for v in values)
        if result == "void":
            self._write(f"  call void @{name}({arguments})")
            return Value(self, "void", "")
        return self.emit(f"call {result} @{name}({arguments})", result)

    # --- memory -----------------------------------------------------------------------------------------------

    def offset(self, pointer: Value, nbytes: Index) -> Value:
        if (isinstance(nbytes, int) and nbytes == 0) or (isinstance(nbytes, Value) and nbytes.text == "0"):
            return pointer
        return self.emit(f"getelementptr i8, ptr {pointer.text}, {self._typed(nbytes, I64)}", PTR)

    def load(self, pointer: Value, type_: str = VECTOR, align: int = 0) -> Value:
        """A value from memory; a vector is taken to be aligned to its size unless `align` (bytes) says less."""
        return self.emit(f"load {type_}, ptr {pointer.text}, align {align or self._alignment(type_)}", type_)

    def store(self, value: Value, pointer: Value, align: int = 0, *, nontemporal: bool = False) -> None:
        """Write a value. `nontemporal` goes past the caches: for whole lines that nobody reads soon."""
        alignment = align or self._alignment(value.type)
        hint = ", !nontemporal !0" if nontemporal else ""
        self._write(f"  store {value.type} {value.text}, ptr {pointer.text}, align {alignment}{hint}")

    def load_some(self, pointer: Value, mask: Value) -> Value:
        """The lanes of the mask, zeros elsewhere; memory outside the mask is not touched. Any alignment."""
        name = f"llvm.masked.load.v{LANES}f32.p0"
        return self.call(name, VECTOR, pointer, self.literal(4, I32), mask, self.vector(0.0))

    def store_some(self, value: Value, pointer: Value, mask: Value) -> None:
        """Write the lanes of the mask only. Any alignment."""
        self.call(f"llvm.masked.store.v{LANES}f32.p0", "void", value, pointer, self.literal(4, I32), mask)

    def gather(self, pointer: Value, indices: Value) -> Value:
        """The floats of the array at `pointer` with these indices (i32 lanes). Where registers are narrower than
        vectors there is no instruction for it, and addresses are better kept out of the vector registers."""
        if self.register < LANES:
            gathered = self.vector(0.0)
            for lane in range(self.lanes_now):
                index = self.convert("sext", self.extract(indices, lane), I64)
                scalar = self.load(pointer + index * 4, FLOAT)
                insert = f"insertelement {VECTOR} {gathered.text}, float {scalar.text}, i64 {lane}"
                gathered = self.emit(insert, VECTOR)
            return gathered
        places = self.emit(f"getelementptr float, ptr {pointer.text}, {IVECTOR} {indices.text}", f"<{LANES} x ptr>")
        everywhere = self.lanes([True] * self.lanes_now, MASK)
        name = f"llvm.masked.gather.v{LANES}f32.v{LANES}p0"
        return self.call(name, VECTOR, places, self.literal(4, I32), everywhere, self.vector(0.0))

    def first_lanes(self, count: Value) -> Value:
        """The mask of lanes 0..count−1 (all of them when count ≥ 16, none when count ≤ 0)."""
        some = self.splat(self.convert("trunc", self.minimum(count, LANES), I32))
        return self.lanes(range(self.lanes_now), IVECTOR) < some

    def prefetch(self, pointer: Value, *, write: bool = False, level: int = 2) -> None:
        """Ask for a cache line early; `level` 3 is the first cache, 2 the second. Never faults."""
        self._declares["llvm.prefetch.p0"] = "declare void @llvm.prefetch.p0(ptr, i32, i32, i32)"
        self._lines.append(f"  call void @llvm.prefetch.p0(ptr {pointer.text}, i32 {int(write)}, i32 {level}, i32 1)")

    # --- how it is written ------------------------------------------------------------------------------------

    @contextmanager
    def narrowed(self, lanes: int = 0) -> Iterator[None]:
        """Code for vectors of so many lanes, by default those of a register: without a loop, unlike `pieces`.

        For loops whose steps are as long as the vectors are: a step of `lanes_now` elements.
        """
        before, self.lanes_now = self.lanes_now, lanes or self.register
        yield
        self.lanes_now = before

    def fence(self) -> None:
        """No instruction, but nothing that is read before is kept for what is read again behind it."""
        self._lines.append('  fence syncscope("singlethread") acq_rel')

    @contextmanager
    def sparing(self) -> Iterator[None]:
        """Code with more constants than there are registers: all of them are `stored`, but zeros."""
        before, self._is_sparing = self._is_sparing, True
        yield
        self._is_sparing = before

    # --- inside -----------------------------------------------------------------------------------------------

    def emit(self, instruction: str, type_: str) -> Value:
        """Append an instruction that makes a value."""
        self._count += 1
        name = f"%v{self._count}"
        self._write(f"  {name} = {instruction}")
        return Value(self, type_, name)

    def _write(self, line: str) -> None:
        self._lines.append(self._in_pieces(line))

    def _in_pieces(self, line: str) -> str:
        """IR with vectors as long as they are now."""
        if self.lanes_now == LANES:
            return line
        return line.replace(f"<{LANES} x ", f"<{self.lanes_now} x ").replace(f".v{LANES}", f".v{self.lanes_now}")

    def _alignment(self, type_: str) -> int:
        """Of vectors, and pieces of them, their size."""
        sizes = {VECTOR: 4 * self.lanes_now, IVECTOR: 4 * self.lanes_now, I64: 8, PTR: 8, DOUBLE: 8, I1: 1, "i8": 1}
        return sizes.get(type_, 4)

    def _value(self, index: Index) -> Value:
        return self.literal(index) if isinstance(index, int) else index

    def _typed(self, index: Index, type_: str) -> str:
        return f"{type_} {text_of(index)}"

    def _same_type(self, a: Index, b: Index) -> tuple[Value, Value]:
        """Both as values; a Python number takes the type of the other one."""
        if isinstance(a, Value):
            return a, b if isinstance(b, Value) else self.literal(b, a.type)
        if isinstance(b, Value):
            return self.literal(a, b.type), b
        return self.literal(a), self.literal(b)


def _size(vector: str) -> int:
    """Bytes of a whole vector of numbers."""
    return VECTOR_BYTES * (2 if "double" in vector or "i64" in vector else 1)


def _constant(value: float, type_: str) -> str:
    scalar = type_.removeprefix(f"<{LANES} x ").removesuffix(">")
    text = _hexadecimal(value, scalar) if is_float(scalar) else str(int(value))
    return text if scalar == type_ else f"splat ({scalar} {text})"


def text_of(index: Index) -> str:
    return str(index) if isinstance(index, int) else index.text


def _hexadecimal(value: float, type_: str) -> str:
    """A float literal, exactly: LLVM wants the bits of a double."""
    if type_ == FLOAT:
        (value,) = struct.unpack("f", struct.pack("f", value))
    return f"0x{struct.unpack('Q', struct.pack('d', value))[0]:016X}"

"""Kernels are written as Python that looks like the loop nest; this file turns it into LLVM IR text.

The only file that speaks LLVM's control flow; what stands between the loops is in `instructions.py`. A `Function` is
one kernel under construction: values carry their type and the usual operators, integers known to Python are folded on
the way, and loops are `with` blocks:

>>> k = Function("scale", {"x": PTR, "n": I64, "factor": FLOAT})
>>> with k.loop(k["n"]) as i:
...     x = k["x"] + i * VECTOR_BYTES
...     k.store(k.load(x) * k.splat(k["factor"]), x)
>>> print(k.text().splitlines()[0])
define void @scale(ptr %args, i64 %unit, ptr %scratch) #0 {

A loop that carries values in registers is a decorator; the name of the body then means the final values:

>>> k = Function("total", {"x": PTR, "y": PTR})
>>> @k.fold(8, [k.vector(0.0)])
... def total(i, carried):
...     return [carried[0] + k.load(k["x"] + i * VECTOR_BYTES)]
>>> k.store(total[0], k["y"])

Where a register holds fewer floats than a vector, LLVM splits vectors, and values that live at a time would need twice
or four times the registers. Code that holds many of them is written for one register at a time:

>>> k = Function("double", {"x": PTR}, register=4)
>>> with k.pieces() as piece:
...     x = k["x"] + piece
...     k.store(k.load(x) * k.vector(2.0), x)
>>> "fmul <4 x float>" in k.text()
True

Every kernel has the signature `void(ptr args, i64 unit, ptr scratch)`: `args` points to 8-byte slots (addresses,
sizes, factors: what differs from call to call), `unit` says which piece of the work to do, and `scratch` is working
memory of the calling thread. There are no IR passes behind this: what is written here is what runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from .instructions import (
    DOUBLE,
    FLOAT,
    I1,
    I32,
    I64,
    IVECTOR,
    LANES,
    MASK,
    PTR,
    VECTOR,
    VECTOR_BYTES,
    Index,
    Instructions,
    Value,
    is_float,
    text_of,
)

__all__ = [
    "AS_WRITTEN",
    "DOUBLE",
    "FLOAT",
    "I1",
    "I32",
    "I64",
    "IVECTOR",
    "LANES",
    "MASK",
    "PTR",
    "VECTOR",
    "VECTOR_BYTES",
    "Function",
    "Index",
    "Value",
    "is_float",
    "module",
]

AS_WRITTEN = "; addresses as written"
"""First line of a module whose loops compute their addresses as they are written. LLVM makes running pointers of the
addresses in others, which takes it two fifths of all its time."""


class Function(Instructions):
    """One kernel: its slots by name and type (PTR, I64 or FLOAT), and the code written so far.

    `fma` and `register` as for `Instructions`. `as_written`: see `AS_WRITTEN`.
    """

    def __init__(
        self,
        name: str,
        slots: Mapping[str, str],
        *,
        fma: bool = True,
        register: int = LANES,
        as_written: bool = False,
    ) -> None:
        super().__init__(name, fma=fma, register=register)
        self.is_as_written = as_written
        self.slots = tuple(slots)
        self._block = "entry"
        self._before: list[str] = []
        self.args = Value(self, PTR, "%args")
        self.unit = Value(self, I64, "%unit")
        self.scratch = Value(self, PTR, "%scratch")
        self._slots = {
            slot: self.emit(f"load {type_}, ptr {(self.args + 8 * index).text}, align 8", type_)
            for index, (slot, type_) in enumerate(slots.items())
        }

    def __getitem__(self, slot: str) -> Value:
        """The value of a slot."""
        return self._slots[slot]

    @contextmanager
    def loop(self, stop: Index, *, start: Index = 0, step: int = 1) -> Iterator[Value]:
        """`for i in range(start, stop, step)`; runs zero times where start ≥ stop."""
        once = isinstance(start, int) and isinstance(stop, int) and start < stop
        head = self._open(start, stop, once)
        index = Value(self, I64, f"%{head}.i")
        at = len(self._lines)
        yield index
        self._close(head, at, index, start, stop, step, [], [], once)

    def fold(
        self, stop: Index, initial: Sequence[Value], *, start: Index = 0, step: int = 1
    ) -> Callable[[Callable[[Value, list[Value]], Sequence[Value]]], list[Value]]:
        """A loop that carries values: decorates `body(i, values) -> new values` and becomes the final values.

        Where start ≥ stop the final values are the initial ones.
        """

        def run(body: Callable[[Value, list[Value]], Sequence[Value]]) -> list[Value]:
            once = isinstance(start, int) and isinstance(stop, int) and start < stop
            head = self._open(start, stop, once)
            index = Value(self, I64, f"%{head}.i")
            carried = [Value(self, v.type, f"%{head}.c{n}") for n, v in enumerate(initial)]
            at = len(self._lines)
            new = list(body(index, carried))
            return self._close(head, at, index, start, stop, step, list(initial), new, once)

        return run

    @contextmanager
    def when(self, condition: Value) -> Iterator[None]:
        """Run the block only where the condition (i1) holds."""
        then, after = self._label("then"), self._label("after")
        self._lines.append(f"  br i1 {condition.text}, label %{then}, label %{after}")
        self._begin(then)
        yield
        self._lines.append(f"  br label %{after}")
        self._begin(after)

    def rarely(
        self, condition: Value, values: Sequence[Value]
    ) -> Callable[[Callable[[], Sequence[Value]]], list[Value]]:
        """Other values where the condition (i1) holds: decorates `body() -> values` and becomes those or the given
        ones. The body is skipped, unlike what a `select` takes from."""

        def run(body: Callable[[], Sequence[Value]]) -> list[Value]:
            then, after, before = self._label("then"), self._label("after"), self._block
            self._lines.append(f"  br i1 {condition.text}, label %{then}, label %{after}")
            self._begin(then)
            others, last = body(), self._block
            self._lines.append(f"  br label %{after}")
            self._begin(after)
            return [
                self.emit(f"phi {a.type} [ {a.text}, %{before} ], [ {b.text}, %{last} ]", a.type)
                for a, b in zip(values, others, strict=True)
            ]

        return run

    @contextmanager
    def pieces(self) -> Iterator[Index]:
        """A loop over the registers that a vector takes; yields where in a vector a piece begins, in bytes.

        Inside, vectors have `lanes_now` lanes, as a register has: addresses of vectors need the bytes added, and code
        that names lanes has to name as many. No loop where a register holds a vector, nor inside of another such loop.
        """
        if self.register == self.lanes_now:
            yield 0
            return
        with self.loop(VECTOR_BYTES, step=4 * self.register) as piece, self.narrowed():
            yield piece

    def text(self) -> str:
        """The finished function. Intrinsics and tables that it needs are in `declares`."""
        signature = f"define void @{self.name}(ptr %args, i64 %unit, ptr %scratch) #0 {{"
        return "\n".join([signature, *self._lines, "  ret void", "}", ""])

    @property
    def declares(self) -> Mapping[str, str]:
        if not self._table:
            return self._declares
        types, values = ", ".join(type_ for type_, _ in self._table), ", ".join(map(" ".join, self._table))
        # not `constant`: LLVM would see through the loads
        table = f"@{self.name}.table = private global <{{ {types} }}> <{{ {values} }}>, align {VECTOR_BYTES}"
        return {**self._declares, f"{self.name}.table": table}

    # --- inside -----------------------------------------------------------------------------------------------

    def _open(self, start: Index, stop: Index, once: bool) -> str:
        """Enter a loop; its head is filled in by `_close`, when the last block and the new values are known."""
        head = self._label("loop")
        if not once:
            enter = self.compare("lt", self._value(start), stop)
            self._lines.append(f"  br i1 {enter.text}, label %{head}, label %{head}.end")
        else:
            self._lines.append(f"  br label %{head}")
        self._before.append(self._block)
        self._begin(head)
        return head

    def _close(
        self,
        head: str,
        at: int,
        index: Value,
        start: Index,
        stop: Index,
        step: int,
        initial: list[Value],
        new: list[Value],
        once: bool,
    ) -> list[Value]:
        before = self._before.pop()
        following = self.emit(f"add nsw i64 {index.text}, {step}", I64)
        latch = self._block
        again = self.compare("lt", following, stop)
        self._lines.append(f"  br i1 {again.text}, label %{head}, label %{head}.end")
        phis = [f"  {index.text} = phi i64 [ {text_of(start)}, %{before} ], [ {following.text}, %{latch} ]"]
        for n, (old, value) in enumerate(zip(initial, new, strict=True)):
            phis.append(f"  %{head}.c{n} = phi {old.type} [ {old.text}, %{before} ], [ {value.text}, %{latch} ]")
        self._lines[at:at] = map(self._in_pieces, phis)
        self._begin(f"{head}.end")
        if once:
            return new
        final = []
        for n, (old, value) in enumerate(zip(initial, new, strict=True)):
            self._write(f"  %{head}.f{n} = phi {old.type} [ {old.text}, %{before} ], [ {value.text}, %{latch} ]")
            final.append(Value(self, old.type, f"%{head}.f{n}"))
        return final

    def _label(self, kind: str) -> str:
        self._count += 1
        return f"{kind}{self._count}"

    def _begin(self, label: str) -> None:
        self._lines.append(f"{label}:")
        self._block = label


def module(functions: Sequence[Function], features: str = "") -> str:
    """The IR of a module with these functions and what they call."""
    declares: dict[str, str] = {}
    for function in functions:
        declares.update(function.declares)
    attributes = f'attributes #0 = {{ nounwind "min-legal-vector-width"="512" "prefer-vector-width"="512"{features} }}'
    first = [AS_WRITTEN] if all(function.is_as_written for function in functions) else []
    return "\n".join(
        [*first, *sorted(declares.values()), *(f.text() for f in functions), attributes, "!0 = !{i32 1}", ""]
    )

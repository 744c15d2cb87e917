"""Chains of element-wise ops on planar arrays of any rank, broadcast against each other.

    for outer index of the unit: for elements of a contiguous run, a register at a time (the last ones under a mask):
        load what runs along (what is repeated is loaded once per run); all steps; store

Axes are merged as far as all arrays allow: without broadcasting everything is one run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import TYPE_CHECKING

from ..kernel import Argument, Kernel
from ..loops import I32, I64, IVECTOR, LANES, PTR, VECTOR, Function, Value
from .axes import joined
from .elementwise_ops import Step, evaluate, holds_many, lanes_for
from .math import DOUBLES, LONGS

if TYPE_CHECKING:
    from ..plan import Planner
    from ..target import Target
    from .elementwise import Chain

CHUNK = 8192
"""Elements of a unit of work, a multiple of 16: about 32 KB of each array."""

BYTES = f"<{LANES} x i8>"
ITEMSIZE = {"float32": 4, "float64": 8, "int32": 4, "int64": 8, "bool": 1}
IN_MEMORY = {"float32": VECTOR, "float64": DOUBLES, "int32": IVECTOR, "int64": LONGS, "bool": BYTES}
"""The vector of 16 elements of a dtype, as they lie in memory."""


@dataclass(frozen=True)
class Stream:
    """An array that a planar kernel reads or writes: whether it runs along with the elements of a run, or repeats one
    of them."""

    dtype: str
    runs: bool = True

    @property
    def itemsize(self) -> int:
        return ITEMSIZE[self.dtype]

    @property
    def vector(self) -> str:
        return IN_MEMORY[self.dtype]

    def load(self, k: Function, row: Value, i: Value, mask: Value | None) -> Value:
        """16 elements from the i-th on; those of the mask only."""
        place = row + i * self.itemsize
        if mask is None:
            return self._meaning(k, k.load(place, self.vector, align=self.itemsize))
        arguments = place, k.literal(self.itemsize, I32), mask, k.literal(0, self.vector)
        return self._meaning(k, k.call(f"llvm.masked.load.{self._suffix}.p0", self.vector, *arguments))

    def load_one(self, k: Function, row: Value) -> Value:
        """The element that is repeated, in every lane."""
        scalar = self.vector.removeprefix(f"<{LANES} x ").removesuffix(">")
        return self._meaning(k, k.splat(k.load(row, scalar)))

    def store(self, k: Function, y: Value, row: Value, i: Value, mask: Value | None) -> None:
        place = row + i * self.itemsize
        if self.dtype == "bool":
            y = k.convert("zext", y, BYTES)
        if mask is None:
            k.store(y, place, align=self.itemsize)
        else:
            k.call(f"llvm.masked.store.{self._suffix}.p0", "void", y, place, k.literal(self.itemsize, I32), mask)

    def _meaning(self, k: Function, vector: Value) -> Value:
        """Truth values are masks."""
        return k.compare("ne", vector, k.literal(0, BYTES)) if self.dtype == "bool" else vector

    @property
    def _suffix(self) -> str:
        """How LLVM names the vector."""
        letter = "f" if "float" in self.dtype else "i"
        return f"v{LANES}{letter}{8 * self.itemsize}"


@dataclass(frozen=True)
class Planar(Kernel):
    """Unit: some outer indices, or a chunk of one run. See the loop nest above.

    The output is [outer][n] with the sizes `size1` … of all outer axes but the first; `x0_1` is the distance in bytes
    in x0 from one index of axis 1 to the next.
    """

    steps: tuple[Step, ...]
    inputs: tuple[Stream, ...]
    output: Stream
    axes: int
    """Outer axes."""

    def slots(self) -> Mapping[str, str]:
        pointers = {"y": PTR, **{f"x{i}": PTR for i in range(len(self.inputs))}}
        strides = {f"x{i}_{axis}": I64 for i, axis in product(range(len(self.inputs)), range(self.axes))}
        sizes = {f"size{axis}": I64 for axis in range(1, self.axes)}
        return {**pointers, **strides, **sizes, **dict.fromkeys(("n", "chunk", "chunks", "outer", "group"), I64)}

    def body(self, k: Function, target: Target) -> None:
        start = k.unit % k["chunks"] * k["chunk"]
        stop = k.minimum(start + k["chunk"], k["n"])
        first = k.unit // k["chunks"] * k["group"]
        with (
            k.loop(k.minimum(first + k["group"], k["outer"]), start=first) as outer,
            k.narrowed(lanes_for(k, self.steps)),
        ):
            self._run(k, outer, start, stop)

    def _run(self, k: Function, outer: Value, start: Value, stop: Value) -> None:
        """Elements start..stop−1 of a run."""
        out, rows = k["y"] + outer * k["n"] * self.output.itemsize, self._rows(k, outer)

        def repeated() -> dict[int, Value]:
            return {i: x.load_one(k, rows[i]) for i, x in enumerate(self.inputs) if not x.runs}

        once = {} if holds_many(self.steps) else repeated()

        def vector(i: Value, mask: Value | None = None) -> None:
            same = once or repeated()
            inputs = [same[j] if j in same else x.load(k, rows[j], i, mask) for j, x in enumerate(self.inputs)]
            self.output.store(k, evaluate(k, self.steps, inputs), out, i, mask)

        lanes = k.lanes_now
        with k.loop(stop - (lanes - 1), start=start, step=lanes) as i:
            vector(i)
        tail = start + (stop - start) // lanes * lanes
        with k.when(tail < stop):
            vector(tail, k.first_lanes(stop - tail))

    def _rows(self, k: Function, outer: Value) -> list[Value]:
        """Where the run begins in every input."""
        rows = [k[f"x{i}"] for i in range(len(self.inputs))]
        for axis in reversed(range(self.axes)):
            index = outer % k[f"size{axis}"] if axis else outer
            rows = [row + index * k[f"x{i}_{axis}"] for i, row in enumerate(rows)]
            outer = outer // k[f"size{axis}"] if axis else outer
        return rows


def lower_planar(plan: Planner, chain: Chain) -> None:
    """Add the call for a chain on planar arrays."""
    operands = chain.operands
    arguments: dict[str, Argument] = {f"x{i}": plan.planar(x.node) for i, x in enumerate(operands)}
    dtypes = [x.node.type.dtype for x in operands]
    outer, n, strides = merge_axes(chain.root.type.dims, [x.shape for x in operands])
    streams = tuple(Stream(dtype, bool(stride[-1])) for dtype, stride in zip(dtypes, strides, strict=True))
    kernel = Planar(chain.numbered, streams, Stream(chain.root.type.dtype), len(outer))
    for (i, stream), axis in product(enumerate(streams), range(len(outer))):
        arguments[f"x{i}_{axis}"] = strides[i][axis] * stream.itemsize
    arguments |= {f"size{axis}": outer[axis] for axis in range(1, len(outer))}
    chunks, group = -(-n // CHUNK), max(1, CHUNK // n)
    arguments |= {"y": plan.new_planar(chain.root), "n": n, "chunk": CHUNK, "chunks": chunks}
    arguments |= {"outer": prod(outer), "group": group}
    units = chunks * -(-prod(outer) // group)
    first, *others = chain.nodes
    plan.call(first, kernel, arguments, units, label="element-wise", note=chain.note, covers=tuple(others))


def merge_axes(shape: tuple[int, ...], operands: list[tuple[int, ...]]) -> tuple[list[int], int, list[list[int]]]:
    """The sizes of the outer axes, the length of a run, and for every operand the distance in elements between
    neighbours of each axis, 0 where it is repeated. The last axis is the run.

    >>> merge_axes((2, 3, 4, 5), [(2, 3, 4, 5), (3, 1, 1)])
    ([2, 3], 20, [[60, 20, 1], [0, 1, 0]])
    """
    padded = [(1,) * (len(shape) - len(x)) + x for x in operands]
    axes = joined(
        (size, tuple(prod(x[axis + 1 :]) if x[axis] == size else 0 for x in padded)) for axis, size in enumerate(shape)
    )
    if not axes:
        return [], 1, [[1] for _ in operands]
    sizes = [size for size, _ in axes]
    return sizes[:-1], sizes[-1], [[steps[i] for _, steps in axes] for i in range(len(operands))]

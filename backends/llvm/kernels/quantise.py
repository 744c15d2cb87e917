"""quantise and all_finite: float32 becomes pixels, and what is no number is noticed, in one pass over the memory.

    for elements of the unit, a register at a time (the last ones under a mask):
        pixels out; sum of 0·x, which is 0 for numbers and NaN for NaN and ±∞
    whether the sum is 0, to the unit's place
    then, in one unit: whether all units say so

Nobody waits for anybody, and what is found does not depend on who computes what.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from graphsr.ir import Node, TensorType
from graphsr.ops import AllFinite, Quantise
from graphsr.ops.quantise import MAXIMUM

from ..kernel import Argument, Kernel
from ..loops import I32, I64, IVECTOR, LANES, PTR, Function, Value
from ..tensor import Buffer
from .row import load_row

if TYPE_CHECKING:
    from ..plan import Planner
    from ..target import Target

CHUNK = 8192
"""Elements of a unit of work."""

BITS = {"uint8": 8, "uint16": 16}


@dataclass(frozen=True)
class Pixels:
    """How a vector of float32 becomes pixels. Part of the description of a kernel."""

    white: float
    dtype: str

    @property
    def itemsize(self) -> int:
        return BITS[self.dtype] // 8

    def of(self, k: Function, x: Value) -> Value:
        """round(clip(x / white, 0, 1) · maximum); NaN becomes 0."""
        maximum = MAXIMUM[self.dtype]
        top = 1.0
        if self.white == maximum:  # the quotient times the maximum is rounded to the same integer as x: see the test
            top = maximum
        elif self.white != 1:
            x = x / k.vector(self.white)
        x = k.select(x > k.vector(0.0), x, k.vector(0.0))
        x = k.select(x < k.vector(top), x, k.vector(top))
        if top != maximum:
            x = x * k.vector(maximum)
        whole = k.convert("fptosi", k.intrinsic("roundeven", x), IVECTOR)
        return k.convert("trunc", whole, f"<{LANES} x i{BITS[self.dtype]}>")

    def store(self, k: Function, pixels: Value, at: Value, mask: Value | None) -> None:
        if mask is None:
            k.store(pixels, at, align=self.itemsize)
        else:
            name = f"llvm.masked.store.v{LANES}i{BITS[self.dtype]}.p0"
            k.call(name, "void", pixels, at, k.literal(self.itemsize, I32), mask)


def is_zero(k: Function, total: Value) -> Value:
    """Whether all lanes are 0, none of them NaN: as a byte."""
    zeros = k.bitcast(k.compare("eq", total, k.vector(0.0)), f"i{k.lanes_now}")
    return k.convert("zext", zeros.equals(-1), "i8")


@dataclass(frozen=True)
class QuantisePlanar(Kernel):
    """x[n]. Unit: a chunk of it. Without `pixels` or `finite` that part is left out."""

    pixels: Pixels | None
    finite: bool

    def slots(self) -> Mapping[str, str]:
        written = {"y": PTR} if self.pixels else {}
        noticed = {"finite": PTR} if self.finite else {}
        return {"x": PTR, **written, **noticed, "n": I64, "chunk": I64}

    def body(self, k: Function, target: Target) -> None:
        start = k.unit * k["chunk"]
        stop = k.minimum(start + k["chunk"], k["n"])

        def vector(i: Value, total: list[Value], mask: Value | None = None) -> list[Value]:
            x = load_row(k, k["x"] + i * 4, mask)
            if self.pixels:
                self.pixels.store(k, self.pixels.of(k, x), k["y"] + i * self.pixels.itemsize, mask)
            return [k.fma(x, k.vector(0.0), t) for t in total]

        with k.narrowed():
            lanes = k.lanes_now
            whole = start + (stop - start) // lanes * lanes
            total = k.fold(whole, [k.vector(0.0)] if self.finite else [], start=start, step=lanes)(vector)

            @k.fold(stop, total, start=whole, step=lanes)
            def all_of_it(i: Value, total: list[Value]) -> list[Value]:
                return vector(i, total, k.first_lanes(stop - i))

            if self.finite:
                k.store(is_zero(k, all_of_it[0]), k["finite"] + k.unit)


@dataclass(frozen=True)
class AllTrue(Kernel):
    """x[n], bytes that are 0 or 1. One unit: whether all of them are 1."""

    def slots(self) -> Mapping[str, str]:
        return {"x": PTR, "y": PTR, "n": I64}

    def body(self, k: Function, target: Target) -> None:
        @k.fold(k["n"], [k.literal(1, "i8")])
        def everywhere(i: Value, true: list[Value]) -> list[Value]:
            return [true[0] & k.load(k["x"] + i, "i8", align=1)]

        k.store(everywhere[0], k["y"])


def lower(plan: Planner, node: Node) -> None:
    """Both questions that are asked of one array are answered at once."""
    from ..plan import NoKernel

    source = node.inputs[0]
    if source.type.dtype != "float32":
        raise NoKernel(f"only float32, not {source.type.dtype}")
    if source.type.size == 0:
        raise NoKernel("nothing to compute")
    asked = [node, *(reader for reader in plan.readers(source) if not plan.is_done(reader) and reader is not node)]
    pixels = next((reader for reader in asked if isinstance(reader.op, Quantise)), None)
    finite = next((reader for reader in asked if isinstance(reader.op, AllFinite)), None)
    lower_planar(plan, source, pixels, finite)


def lower_planar(plan: Planner, source: Node, pixels: Node | None, finite: Node | None) -> None:
    """Add the calls for a planar array."""
    n = prod(source.type.dims)
    units = -(-n // CHUNK)
    flags = Buffer(TensorType("bool", (units,)))
    arguments: dict[str, Argument] = {"x": plan.planar(source), "n": n, "chunk": CHUNK}
    if pixels:
        arguments["y"] = plan.new_planar(pixels)
    if finite:
        arguments["finite"] = flags
    first, *others = [node for node in (pixels, finite) if node]
    kernel = QuantisePlanar(pixels_of(pixels), finite is not None)
    plan.call(first, kernel, arguments, units, label=first.op.name.replace("_", " "), covers=tuple(others))
    if finite:
        call_all_true(plan, finite, flags)


def pixels_of(node: Node | None) -> Pixels | None:
    if node is None:
        return None
    assert isinstance(node.op, Quantise)
    return Pixels(float(node.op.white), node.op.dtype)


def call_all_true(plan: Planner, finite: Node, flags: Buffer) -> None:
    """Add the call that makes one answer of those of all units."""
    arguments: dict[str, Argument] = {"x": flags, "y": plan.new_planar(finite), "n": flags.type.dims[0]}
    plan.call(finite, AllTrue(), arguments, 1, label="all true")

"""quantise and all_finite: float32 becomes pixels, and what is no number is noticed, in one pass over the memory.

    for 16 pixels of the unit (the last ones under a mask):
        for each channel of those that lie side by side in the result, a register at a time:
            pixels to the scratch; sum of 0·x, which is 0 for numbers and NaN for NaN and ±∞
        pixels out, interleaved
    whether the sum is 0, to the unit's place
    then, in one unit: whether all units say so

What is found does not depend on who computes what. `Answers` and `Asked` serve kernels, too, that compute the
numbers themselves: then these are never written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from graphsr.ir import Node, TensorType
from graphsr.ops import AllFinite, Quantise
from graphsr.ops.quantise import MAXIMUM

from ..kernel import Argument, Kernel
from ..loops import I32, I64, IVECTOR, LANES, PTR, VECTOR_BYTES, Function, Index, Value
from ..tensor import Buffer
from .row import interleave, load_row, over_row

if TYPE_CHECKING:
    from ..plan import Planner
    from ..target import Target

CHUNK = 8192
"""Numbers of a unit of work, about."""

MOST_CHANNELS = 4
"""That are interleaved in registers."""

BITS = {"uint8": 8, "uint16": 16}


@dataclass(frozen=True)
class Pixels:
    """How vectors of float32 become pixels. Part of the description of a kernel."""

    white: float
    dtype: str
    channels: int = 1
    """How many lie side by side."""

    @property
    def itemsize(self) -> int:
        return BITS[self.dtype] // 8

    @property
    def nbytes(self) -> int:
        """Of one pixel."""
        return self.channels * self.itemsize

    @property
    def vector(self) -> str:
        return f"<{LANES} x i{BITS[self.dtype]}>"

    def of(self, k: Function, x: Value) -> Value:
        """round(clip(x / white, 0, 1) · maximum); NaN becomes 0."""
        maximum = MAXIMUM[self.dtype]
        top = 1.0
        if self.white == maximum:  # x divided and multiplied by the same number is rounded to the same integer
            top = maximum
        elif self.white != 1:
            x = x / k.vector(self.white)
        x = k.select(x > k.vector(0.0), x, k.vector(0.0))
        x = k.select(x < k.vector(top), x, k.vector(top))
        if top != maximum:
            x = x * k.vector(maximum)
        whole = k.convert("fptosi", k.intrinsic("roundeven", x), IVECTOR)
        return k.convert("trunc", whole, self.vector)

    def store(self, k: Function, channels: Sequence[Value], at: Value, left: Value | None) -> None:
        """16 pixels of every channel, side by side, to the first one's place; only `left` of them where it is given."""
        for m, vector in enumerate(interleave(k, channels) if len(channels) > 1 else channels):
            place = at + m * LANES * self.itemsize
            if left is None:
                k.store(vector, place, align=self.itemsize)
            else:
                mask = k.first_lanes(left * self.channels - m * LANES)
                name = f"llvm.masked.store.v{LANES}i{BITS[self.dtype]}.p0"
                k.call(name, "void", vector, place, k.literal(self.itemsize, I32), mask)


@dataclass(frozen=True)
class Answers:
    """What a kernel says of numbers that it has in registers: their pixels, whether all are finite, or both.

    Part of its description. The memory that its methods want holds the sum of 0·x, then 16 pixels of every channel.
    """

    pixels: Pixels | None
    finite: bool

    def slots(self) -> Mapping[str, str]:
        return {**({"y": PTR} if self.pixels else {}), **({"finite": PTR} if self.finite else {})}

    @property
    def channels(self) -> int:
        return self.pixels.channels if self.pixels else 1

    @property
    def scratch(self) -> int:
        """Bytes, a multiple of a vector's."""
        return (1 + self.channels) * VECTOR_BYTES

    def begin(self, k: Function, memory: Value) -> None:
        """Before the first number of a unit."""
        if self.finite:
            k.store(k.vector(0.0), memory)

    def take(self, k: Function, memory: Value, c: Index, piece: Index, x: Value) -> None:
        """16 pixels of a channel, or that piece of them."""
        if self.finite:
            k.store(k.fma(x, k.vector(0.0), k.load(memory + piece)), memory + piece)
        if self.pixels:
            size = self.pixels.itemsize
            place = memory + VECTOR_BYTES + c * (LANES * size) + piece // 4 * size
            k.store(self.pixels.of(k, x), place, align=4)

    def put(self, k: Function, memory: Value, at: Value, left: Value | None) -> None:
        """Write the 16 pixels that were taken, or `left` of them."""
        if self.pixels:
            first, nbytes, type_ = memory + VECTOR_BYTES, LANES * self.pixels.itemsize, self.pixels.vector
            channels = [k.load(first + c * nbytes, type_, align=nbytes) for c in range(self.channels)]
            self.pixels.store(k, channels, at, left)

    def end(self, k: Function, memory: Value) -> None:
        """After the last number of a unit: a byte that is 1 where all were finite."""
        if self.finite:
            zeros = k.bitcast(k.load(memory).equals(k.vector(0.0)), f"i{LANES}")
            k.store(k.convert("zext", zeros.equals(-1), "i8"), k["finite"] + k.unit)


@dataclass(frozen=True)
class QuantisePlanar(Kernel):
    """x[images, channels, n]. Unit: a chunk of an image."""

    answers: Answers

    def slots(self) -> Mapping[str, str]:
        return {"x": PTR, **self.answers.slots(), "n": I64, "chunk": I64, "chunks": I64}

    def scratch(self, target: Target) -> int:
        return self.answers.scratch

    def body(self, k: Function, target: Target) -> None:
        answers, channels, n = self.answers, self.answers.channels, k["n"]
        image, start = k.unit // k["chunks"] * n, k.unit % k["chunks"] * k["chunk"]
        width = k.minimum(k["chunk"], n - start)
        x = k["x"] + (image * channels + start) * 4

        def tile(i: Value, mask: Value | None) -> None:
            with k.loop(channels) as c, k.pieces() as piece:
                inside = None if mask is None else k.first_lanes(width - i - piece // 4)
                answers.take(k, k.scratch, c, piece, load_row(k, x + (c * n + i) * 4 + piece, inside))
            if answers.pixels:
                at = k["y"] + (image + start + i) * answers.pixels.nbytes
                answers.put(k, k.scratch, at, None if mask is None else width - i)

        answers.begin(k, k.scratch)
        over_row(k, width, tile)
        answers.end(k, k.scratch)


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


@dataclass(frozen=True)
class Asked:
    """What is asked of one array, and can be answered at once."""

    quantise: Node | None
    all_finite: Node | None

    @property
    def nodes(self) -> tuple[Node, ...]:
        return tuple(node for node in (self.all_finite, self.quantise) if node)

    @property
    def answers(self) -> Answers:
        pixels = None
        if self.quantise is not None:
            op, source = self.quantise.op, self.quantise.inputs[0]
            assert isinstance(op, Quantise)
            pixels = Pixels(float(op.white), op.dtype, source.type.dims[1] if op.channels_last else 1)
        return Answers(pixels, self.all_finite is not None)

    def call(
        self, plan: Planner, kernel: Kernel, arguments: Mapping[str, Argument], units: int, *before: Node, label: str
    ) -> None:
        """Add the calls: `kernel` writes pixels to "y" and what each unit finds to "finite", along with the values of
        the nodes `before`."""
        answers: dict[str, Argument] = {}
        flags = Buffer(TensorType("bool", (units,)))
        if self.quantise:
            answers["y"] = plan.new_planar(self.quantise)
        if self.all_finite:
            answers["finite"] = flags
        first, *others = (*before, *self.nodes)
        note = ", ".join(node.op.name for node in (first, *others)) if others else ""
        plan.call(first, kernel, {**arguments, **answers}, units, label=label, note=note, covers=tuple(others))
        if self.all_finite:
            answer: dict[str, Argument] = {"x": flags, "y": plan.new_planar(self.all_finite), "n": units}
            plan.call(self.all_finite, AllTrue(), answer, 1, label="all true")


def asked_of(plan: Planner, source: Node) -> Asked:
    """What is still asked of a value, each question once."""
    open_ = [node for node in plan.readers(source) if not plan.is_done(node)]
    quantise = next((node for node in open_ if isinstance(node.op, Quantise)), None)
    return Asked(quantise, next((node for node in open_ if isinstance(node.op, AllFinite)), None))


def only_asked_of(plan: Planner, source: Node) -> Asked | None:
    """The same if pixels side by side are among it, and nobody else wants the value."""
    asked = asked_of(plan, source)
    if plan.is_returned(source) or set(plan.readers(source)) != set(asked.nodes):
        return None
    channels = asked.answers.channels
    beside = asked.quantise is not None and channels == source.type.dims[1] and channels <= MOST_CHANNELS
    return asked if beside and source.type.size else None


def lower(plan: Planner, node: Node) -> None:
    """All questions that are asked of one array are answered at once; the second one of a kind by itself."""
    from ..plan import NoKernel

    source = node.inputs[0]
    if source.type.dtype != "float32":
        raise NoKernel(f"only float32, not {source.type.dtype}")
    if source.type.size == 0:
        raise NoKernel("nothing to compute")
    asked = asked_of(plan, source)
    answers = asked.answers
    if answers.channels > MOST_CHANNELS:
        if node is asked.quantise:
            raise NoKernel(f"{answers.channels} channels side by side")
        asked, answers = Asked(None, node), Answers(None, True)
    channels = answers.channels
    images = source.type.dims[0] if channels > 1 else 1
    n = prod(source.type.dims) // (images * channels)
    chunk = CHUNK // channels // LANES * LANES
    chunks = -(-n // chunk)
    arguments: dict[str, Argument] = {"x": plan.planar(source), "n": n, "chunk": chunk, "chunks": chunks}
    label = asked.nodes[-1].op.name.replace("_", " ")
    asked.call(plan, QuantisePlanar(answers), arguments, images * chunks, label=label)

"""What the machine can do, to hold kernels against: multiply-adds from registers, and copying.

FmaPeak:  for i in TURNS: 24 accumulators take a multiply-add each
CopyRate: for each vector of the unit's part: y = x
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..kernel import Call, Kernel
from ..loops import I64, LANES, PTR, VECTOR_BYTES, Function, Value
from ..memory import LINE, pages
from ..segment import segment
from .register_tile import accumulators

if TYPE_CHECKING:
    from ..library import Library
    from ..target import Target

TURNS = 200_000
COPIED = 64 << 20
"""Bytes; larger than most caches."""
STEP = 4 * VECTOR_BYTES
"""Bytes copied in one turn."""
REPEATS = 5


@dataclass(frozen=True)
class FmaPeak(Kernel):
    """See above. Enough independent accumulators to hide the latency, few enough for the registers."""

    accumulators: int

    def slots(self) -> Mapping[str, str]:
        return {"y": PTR}

    def body(self, k: Function, target: Target) -> None:
        factor = k.load(k["y"])

        @k.fold(TURNS, [k.vector(float(n)) for n in range(self.accumulators)])
        def total(_: Value, total: list[Value]) -> list[Value]:
            return [k.fma(factor, factor, value) for value in total]

        for n, value in enumerate(total):
            k.store(value, k.scratch + n * VECTOR_BYTES)

    def scratch(self, target: Target) -> int:
        return self.accumulators * VECTOR_BYTES


@dataclass(frozen=True)
class CopyRate(Kernel):
    """See above. Units are equal parts, of whole `STEP`s."""

    def slots(self) -> Mapping[str, str]:
        return {"x": PTR, "y": PTR, "bytes": I64}

    def body(self, k: Function, target: Target) -> None:
        start = k.unit * k["bytes"]
        with k.loop(k["bytes"], step=STEP) as at:
            for n in range(STEP // VECTOR_BYTES):
                k.store(k.load(k["x"] + start + at + n * VECTOR_BYTES), k["y"] + start + at + n * VECTOR_BYTES)


def measure(library: Library, threads: int) -> tuple[float, float]:
    """(floating-point operations, bytes read and written) per second of all threads together: the best of a few."""
    target = library.target
    count = accumulators(target)
    factor = pages(LINE).view(np.float32)
    units = 4 * threads
    fma = Call(FmaPeak(count), {"y": factor}, units, count * VECTOR_BYTES)
    x, y = pages(COPIED), pages(COPIED)
    part = COPIED // units // STEP * STEP
    copy = Call(CopyRate(), {"x": x, "y": y, "bytes": part}, units)
    flops = 2.0 * LANES * count * TURNS * units
    return flops / _best(fma, library, threads), 2 * part * units / _best(copy, library, threads)


def _best(call: Call, library: Library, threads: int) -> float:
    """Seconds of the fastest of a few runs."""
    nbytes = max(LINE, call.scratch)
    scratch = pages(nbytes * threads)
    part = segment([call], library, nbytes, threads)
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        part.run(threads, lambda _: 0, scratch.ctypes.data)
        times.append(time.perf_counter() - start)
    return min(times)

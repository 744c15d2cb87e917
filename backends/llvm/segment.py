"""Calls in the form that the parallel region reads: a table of kernels, and the slots of all calls."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from graphsr.op import Array
from graphsr.threads import processors

from .driver import HEADER, STEP, counters
from .kernel import Call, Kernel
from .library import Library
from .loops import FLOAT
from .memory import LINE, pages
from .plan import resolve
from .team import team
from .tensor import Buffer


@dataclass(frozen=True, eq=False)
class Segment:
    """Consecutive calls: one pass of the team through the parallel region. Its arrays are read by compiled code."""

    calls: tuple[Call, ...]
    """Kept because they hold the packed weights that the slots point to."""
    entry: int
    header: Array
    table: Array
    counters: Array
    slots: Array
    """The slots of all calls, one call after the other."""
    moving: tuple[tuple[int, Buffer], ...]
    """Which slots hold addresses that differ from run to run."""
    checked: tuple[Call, ...]
    """The calls whose inputs may turn out to be wrong."""

    def run(self, threads: int, address: Callable[[Buffer], int], scratch: int, times: Array | None = None) -> None:
        """Let the team do all calls. `times` [calls + 1, threads] takes the clock of each thread, at first and when it
        ends its part of a call; without it, no more threads take part than there are processors now: some may have been
        taken away since the plan was made, and threads that share one would only wait for each other."""
        for index, buffer in self.moving:
            self.slots[index] = address(buffer)
        self.counters[:] = 0
        self.header["stop"] = 0
        self.header["scratch"] = scratch
        self.header["times"] = 0 if times is None else times.ctypes.data
        header = self.header.ctypes.data
        team(min(threads, processors()) if times is None else threads).run(self.entry, header, header)


def segment(calls: Sequence[Call], library: Library, scratch_bytes: int, threads: int) -> Segment:
    """Compile what is new and fill the tables. `scratch_bytes` is that of one thread."""
    library.add({call.kernel for call in calls})
    slots: list[int] = []
    moving: list[tuple[int, Buffer]] = []
    table = np.zeros(len(calls), STEP)
    starts = []
    for row, call in zip(table, calls, strict=True):
        starts.append(8 * len(slots))
        for slot, type_ in call.kernel.slots().items():
            value = resolve(call.arguments[slot])
            if isinstance(value, Buffer):
                moving.append((len(slots), value))
            slots.append(_bits(value, type_))
        row["kernel"], row["units"] = library.address(call.kernel), call.units
    filled = np.array(slots, np.int64)
    table["arguments"] = filled.ctypes.data + np.array(starts, np.int64)
    count = counters(len(calls), threads)
    header = np.zeros((), HEADER)
    header["steps"], header["table"] = len(calls), table.ctypes.data
    header["counters"], header["scratch_bytes"] = count.ctypes.data, scratch_bytes
    checked = tuple(call for call in calls if type(call.kernel).check is not Kernel.check)
    return Segment(tuple(calls), library.entry, header, table, count, filled, tuple(moving), checked)


def run_once(call: Call, library: Library, threads: int) -> None:
    """Do one call now; none of its arguments is a buffer."""
    scratch_bytes = -(-call.scratch // LINE) * LINE
    scratch = pages(scratch_bytes * threads)
    segment([call], library, scratch_bytes, threads).run(threads, lambda _: 0, scratch.ctypes.data)


def _bits(value: object, type_: str) -> int:
    """What the 8 bytes of a slot hold, as an integer; 0 for a buffer, whose address comes with the run."""
    match value:
        case Buffer():
            return 0
        case np.ndarray():
            return int(value.ctypes.data)
        case int() | float() if type_ == FLOAT:
            return int.from_bytes(struct.pack("<f", value), "little")
        case int():
            return value
    raise TypeError(f"a slot of type {type_} cannot hold {value!r}")

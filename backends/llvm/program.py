"""A bound graph in the compiled form: the tables of the parallel region, filled from the plan."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from graphsr.backend import Step, node_macs
from graphsr.op import Array

from .driver import HEADER, STEP, counters
from .kernel import Call
from .library import Library
from .loops import FLOAT
from .memory import Memory, pages
from .plan import Fallback, Plan, Work, resolve
from .team import team
from .tensor import Buffer


@dataclass(frozen=True, eq=False)
class Segment:
    """Consecutive calls: one pass of the team through the parallel region. Arrays that compiled code reads."""

    works: tuple[Work, ...]
    header: Array
    table: Array
    counters: Array
    arguments: Array
    """The slots of all calls, one call after the other."""
    moving: tuple[tuple[int, Buffer], ...]
    """Which slots hold addresses that differ from run to run."""


class LlvmProgram:
    """See `graphsr.backend.Program`."""

    def __init__(self, plan: Plan, library: Library, memory: Memory, threads: int) -> None:
        self.plan = plan
        self.threads = threads
        self._memory = memory
        self._library = library
        self._zeros = pages(plan.zeros.nbytes)
        library.add({work.step.kernel for work in plan.works if isinstance(work.step, Call)})
        self._segments = tuple(self._build())

    @property
    def planned_bytes(self) -> int:
        return self.plan.planned_bytes

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        with self._memory.lock:
            places = _Places(self.plan, self._memory.at_least(self.plan.arena_bytes), self._zeros, inputs)
            for segment in self._segments:
                if isinstance(segment, Fallback):
                    result = segment.node.op.forward(*(places.array(buffer) for buffer in segment.inputs))
                    places.array(segment.output)[...] = result
                else:
                    self._enter(segment, places)
            return places.results()

    def _enter(self, segment: Segment, places: _Places) -> None:
        """Let the team run a segment."""
        for index, buffer in segment.moving:
            segment.arguments[index] = places.address(buffer)
        segment.counters[:] = 0
        segment.header["stop"] = 0
        segment.header["scratch"] = places.scratch
        header = segment.header.ctypes.data
        team(self.threads).run(self._library.entry, header, header)

    def _build(self) -> Iterator[Segment | Fallback]:
        """Cut the steps where Python has to run."""
        calls: list[Work] = []
        for work in self.plan.works:
            if isinstance(work.step, Fallback):
                if calls:
                    yield self._segment(calls)
                    calls = []
                yield work.step
            else:
                calls.append(work)
        if calls:
            yield self._segment(calls)

    def _segment(self, works: list[Work]) -> Segment:
        slots: list[int] = []
        moving: list[tuple[int, Buffer]] = []
        table = np.zeros(len(works), STEP)
        starts = []
        for row, work in zip(table, works, strict=True):
            call = work.step
            assert isinstance(call, Call)
            starts.append(len(slots))
            for slot, type_ in call.kernel.slots().items():
                value = resolve(call.arguments[slot])
                if isinstance(value, Buffer):
                    moving.append((len(slots), value))
                    value = 0
                slots.append(_bits(value, type_))
            row["kernel"], row["units"] = self._library.address(call.kernel), call.units
        arguments = np.array(slots, np.int64)
        table["arguments"] = arguments.ctypes.data + 8 * np.array(starts)
        header = np.zeros((), HEADER)
        header["steps"], header["table"] = len(works), table.ctypes.data
        count = counters(len(works))
        header["counters"], header["scratch_bytes"] = count.ctypes.data, self.plan.scratch_bytes
        return Segment(tuple(works), header, table, count, arguments, tuple(moving))

    def steps(self) -> list[Step]:
        return [_line(work) for work in self.plan.works]


class _Places:
    """Where the buffers of one run lie."""

    def __init__(self, plan: Plan, arena: Array, zeros: Array, inputs: Sequence[Array]) -> None:
        self._plan = plan
        self._arena = arena
        self._outside: dict[Buffer, Array] = {plan.zeros: zeros, **plan.constants}
        self._outside.update(zip(plan.inputs, (np.ascontiguousarray(x) for x in inputs), strict=True))
        for buffer in plan.outputs:
            root = plan.alias.get(buffer, buffer)
            if root not in self._outside:
                self._outside[root] = np.empty(root.type.dims, root.type.dtype)

    @property
    def scratch(self) -> int:
        return int(self._arena.ctypes.data) + self._plan.scratch_offset

    def address(self, buffer: Buffer) -> int:
        """Where the buffer's address points: its origin."""
        root = self._plan.alias.get(buffer, buffer)
        if root in self._outside:
            return int(self._outside[root].ctypes.data) + buffer.origin
        return int(self._arena.ctypes.data) + self._plan.offsets[buffer] + buffer.origin

    def array(self, buffer: Buffer) -> Array:
        """A planar buffer as an array."""
        root = self._plan.alias.get(buffer, buffer)
        if root in self._outside:
            return self._outside[root].reshape(buffer.type.dims)
        start = self._plan.offsets[buffer]
        return self._arena[start : start + buffer.nbytes].view(buffer.type.dtype).reshape(buffer.type.dims)

    def results(self) -> list[Array]:
        """Each output in an array of its own: what was given, or is returned twice, is copied."""
        given = {*self._plan.inputs, *self._plan.constants}
        seen: set[Buffer] = set()
        results = []
        for buffer in self._plan.outputs:
            root = self._plan.alias.get(buffer, buffer)
            array = self.array(buffer)
            results.append(array.copy() if root in given or root in seen else array)
            seen.add(root)
        return results


def _bits(value: object, type_: str) -> int:
    """What the 8 bytes of a slot hold, as an integer."""
    if type_ == FLOAT:
        return int.from_bytes(struct.pack("<f", value), "little")
    if isinstance(value, np.ndarray):
        return int(value.ctypes.data)
    assert isinstance(value, int)
    return value


def _line(work: Work) -> Step:
    """What `explain()` says of a step."""
    nodes = (work.node, *work.covers)
    nbytes = nodes[-1].type.nbytes
    macs = 0 if work.label.startswith("to ") else sum(node_macs(node) for node in nodes)
    return Step(work.node.name, work.node.op.name, work.label, macs, nbytes, work.note)

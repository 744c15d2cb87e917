"""A bound graph that can run: compiled segments, and calls of `forward` between them where a kernel is missing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby

import numpy as np

from graphsr.backend import node_macs
from graphsr.errors import BackendError
from graphsr.explain import Profile, Step
from graphsr.forksafe import once
from graphsr.op import Array

from .kernel import Call
from .kernels.peak import measure
from .kernels.winograd_weights import wanted_tile
from .library import Library
from .memory import Memory, pages
from .plan import Fallback, Plan, Work
from .segment import Segment, segment
from .team import ALREADY_RUNNING
from .tensor import Buffer, Zeros
from .weight_forms import weight_bytes


class NotFinite(Exception):  # noqa: N818 - a reason, not an error
    """A run met NaN or infinities in a Winograd transform, which spreads them to other pixels."""


class LlvmProgram:
    """See `graphsr.backend.Program`. `without_winograd` makes the program for inputs that this one has no exact answer
    to: NaN and infinities are to be where NumPy has them."""

    def __init__(
        self,
        plan: Plan,
        library: Library,
        memory: Memory,
        threads: int,
        without_winograd: Callable[[], LlvmProgram],
        choices: Callable[[], str],
    ) -> None:
        self.plan = plan
        self.threads = threads
        self.choices = choices
        self._without_winograd = without_winograd
        self._memory = memory
        self._library = library
        self._zeros = pages(plan.zeros.nbytes)
        self._parts = tuple(self._build(library))

    @property
    def planned_bytes(self) -> int:
        return self.plan.planned_bytes

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        try:
            return self._run(inputs, None, [])
        except NotFinite:
            return self._plain.run(inputs)

    @once
    def _plain(self) -> LlvmProgram:
        return self._without_winograd()

    def profile(self, inputs: Sequence[Array], repeats: int) -> Profile:
        """See `graphsr.backend.Profiled`. The peaks are measured between the runs."""
        clocks = {
            p: np.zeros((len(p.calls) + 1, self.threads), np.int64) for p in self._parts if isinstance(p, Segment)
        }
        per_step, totals, flops, bandwidth = [], [], 0.0, 0.0
        for _ in range(repeats + 1):  # the first run touches the memory
            milliseconds: list[float] = []
            start = time.perf_counter()
            self._run(inputs, clocks, milliseconds)
            totals.append(1e3 * (time.perf_counter() - start))
            per_step.append(milliseconds)
            peak = measure(self._library, self.threads)
            flops, bandwidth = max(flops, peak[0]), max(bandwidth, peak[1])
        times = np.median(per_step[1:], axis=0).tolist()
        total = float(np.median(totals[1:]))
        return Profile(tuple(self.steps()), tuple(times), total, self.threads, flops, bandwidth)

    def _run(
        self, inputs: Sequence[Array], clocks: Mapping[Segment, Array] | None, milliseconds: list[float]
    ) -> list[Array]:
        """One run. With `clocks` for the segments, the time of every step is added to `milliseconds`."""
        if self._memory.lock.is_mine():
            raise BackendError(ALREADY_RUNNING)
        with self._memory.lock():
            self.plan.not_finite[0] = 0
            places = _Places(self.plan, self._memory, self._zeros, inputs)
            for part in self._parts:
                start = time.perf_counter()
                if isinstance(part, Segment):
                    part.run(self.threads, places.address, places.scratch, clocks[part] if clocks else None)
                    if clocks is None and self.plan.not_finite[0]:
                        raise NotFinite
                    for call in part.checked:
                        call.kernel.check(call.arguments)
                else:
                    arrays = [*map(places.array, part.inputs)]
                    if clocks is None and wanted_tile(part.node) and not np.isfinite(arrays[0]).all():
                        raise NotFinite
                    places.array(part.output)[...] = part.node.op.forward(*arrays)
                if clocks is not None:
                    elapsed = 1e3 * (time.perf_counter() - start)
                    milliseconds += _shares(clocks[part], elapsed) if isinstance(part, Segment) else [elapsed]
            return places.results()

    def _build(self, library: Library) -> Iterator[Segment | Fallback]:
        """The steps, cut where Python has to run."""
        for is_call, group in groupby((work.step for work in self.plan.works), lambda step: isinstance(step, Call)):
            if is_call:
                calls = [step for step in group if isinstance(step, Call)]
                yield segment(calls, library, self.plan.scratch_bytes, self.threads)
            else:
                yield from (step for step in group if isinstance(step, Fallback))

    def steps(self) -> list[Step]:
        return [step_of(work) for work in self.plan.works]


class _Places:
    """Where the buffers of one run lie."""

    def __init__(self, plan: Plan, memory: Memory, zeros: Array, inputs: Sequence[Array]) -> None:
        self._plan = plan
        self._arena = memory.at_least(plan.arena_bytes)
        self._outside: dict[Buffer, Array] = {plan.zeros: zeros, **plan.constants}
        self._outside.update(zip(plan.inputs, (np.ascontiguousarray(x) for x in inputs), strict=True))
        for buffer in plan.outputs:
            root = plan.alias.get(buffer, buffer)
            if root not in self._outside:
                self._outside[root] = memory.results.empty(root.type.dims, root.type.dtype)

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
        root, start = self._plan.alias.get(buffer, buffer), buffer.start
        if root in self._outside:
            memory = self._outside[root].reshape(-1).view(np.uint8)
        else:
            memory, start = self._arena, start + self._plan.offsets[buffer]
        return memory[start : start + buffer.nbytes].view(buffer.type.dtype).reshape(buffer.type.dims)

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


def _shares(clock: Array, elapsed: float) -> list[float]:
    """Milliseconds of each call of a segment, from the time stamps of its threads and the time of the whole."""
    ticks = np.diff(clock.max(axis=1)).astype(float)
    return list(ticks * (elapsed / ticks.sum()))


def step_of(work: Work) -> Step:
    """What `explain()` says of a step."""
    nodes = (work.node, *work.covers)
    result = work.prepared.nbytes if work.prepared else nodes[-1].type.nbytes
    if isinstance(work.step, Fallback):
        inputs = sum(buffer.nbytes for buffer in work.step.inputs)
        return Step(
            work.node.name, work.node.op.name, work.label, node_macs(work.node), result, work.note, 0, inputs + result
        )
    values = work.step.arguments.values()
    weights = weight_bytes([work])
    moved = sum(value.nbytes for value in values if isinstance(value, Buffer) and not isinstance(value, Zeros))
    macs = 0 if work.is_conversion or work.prepared else sum(node_macs(node) for node in nodes)
    blocking = work.step.kernel.blocking and f"{work.step.kernel.blocking}, {work.step.units} units"
    note = ", ".join(filter(None, (*_covered(work), blocking, work.note)))
    return Step(work.node.name, work.node.op.name, work.label, macs, result, note, weights, moved + weights)


def _covered(work: Work) -> Iterator[str]:
    """The nodes that a step computes along with its own, unless its note names them."""
    for node in work.covers:
        if node.op.name not in work.note:
            yield f"with {node.name or node.op.name}"

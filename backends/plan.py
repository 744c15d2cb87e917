"""Memory planning: which value of a bound graph lies where, as pure data.

Every computed value belongs to a buffer. A value joins the buffer of one of its inputs when it is a view of it, or
when it may overwrite it because nothing reads it afterwards. Buffers that hold an output of the graph are fresh
arrays; all others, and the scratch of every step, share one arena. Offsets are found greedily, largest buffer first,
each into the tightest gap that its lifetime allows (Pisarchyk & Lee, "Efficient memory management for deep neural net
inference", 2020, "greedy by size").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from graphsr.ir import Const, Graph, Input, Node

ALIGNMENT = 64
"""Bytes: one cache line."""


@dataclass(frozen=True, slots=True)
class Need:
    """What the step of one node asks of the plan."""

    scratch: int = 0
    """Bytes that live during the step only."""
    overwrites: tuple[int, ...] = ()
    """Inputs (of the type of the output) that the step may overwrite with its output."""
    is_view: bool = False
    """The output is the first input in another shape: nothing needs to run."""


NOTHING = Need()


@dataclass(frozen=True, slots=True)
class Buffer:
    """Bytes that live from the step `first` to the step `last`, both included."""

    nbytes: int
    first: int
    last: int
    offset: int | None
    """Where it begins in the arena; None for a fresh array that is returned."""

    def meets(self, other: Buffer) -> bool:
        """Whether both live at some step."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class Plan:
    """Where everything lies. Sizes are Python integers, so no graph overflows them."""

    order: tuple[Node, ...]
    """The computed nodes, in the order of their steps."""
    value: Mapping[Node, Buffer]
    scratch: Mapping[Node, Buffer]
    arena_bytes: int
    output_bytes: int
    live_bytes: int
    """The largest sum of buffers alive at one step, scratch and outputs included: no plan can take less."""

    @property
    def planned_bytes(self) -> int:
        return self.arena_bytes + self.output_bytes


def plan_memory(graph: Graph, needs: Mapping[Node, Need]) -> Plan:
    """Plan a bound graph; `needs` may leave out nodes that need nothing."""
    order = tuple(node for node in graph.nodes() if not isinstance(node.op, Input | Const))
    groups = _share(graph, order, needs)
    scratch = {
        node: _Group(needs[node].scratch, step, step)
        for step, node in enumerate(order)
        if node in needs and needs[node].scratch
    }
    distinct = list(dict.fromkeys([*groups.values(), *scratch.values()]))
    offsets = pack([group for group in distinct if not group.is_output])
    buffers = {g: Buffer(g.nbytes, g.first, g.last, offsets.get(g)) for g in distinct}
    arena = [b.offset + b.nbytes for b in buffers.values() if b.offset is not None]
    return Plan(
        order,
        {node: buffers[group] for node, group in groups.items()},
        {node: buffers[group] for node, group in scratch.items()},
        max(arena, default=0),
        sum(node.type.nbytes for node in graph.outputs.values()),
        _largest_live_set(distinct, len(order)),
    )


@dataclass(eq=False, slots=True)
class _Group:
    """A buffer while it is planned."""

    nbytes: int
    first: int
    last: int
    is_output: bool = False
    members: list[Node] = field(default_factory=list)

    def add(self, node: Node, last: int, is_output: bool) -> None:
        self.members.append(node)
        self.last = max(self.last, last)
        self.is_output = self.is_output or is_output


def _share(graph: Graph, order: tuple[Node, ...], needs: Mapping[Node, Need]) -> dict[Node, _Group]:
    """The buffer of every computed value. Outputs live to the end."""
    last = {child: step for step, node in enumerate(order) for child in node.inputs}
    outputs = set(graph.outputs.values())
    last.update(dict.fromkeys(outputs, len(order)))
    groups: dict[Node, _Group] = {}
    for step, node in enumerate(order):
        need = needs.get(node, NOTHING)
        candidates = [node.inputs[0]] if need.is_view else [node.inputs[k] for k in need.overwrites]
        free = (groups[child] for child in candidates if child in groups and _may_join(groups[child], node, need, step))
        group = next(free, None) if not (node in outputs and _holds_output(candidates, groups)) else None
        if group is None:
            group = _Group(node.type.nbytes, step, step)
        group.add(node, last.get(node, step), node in outputs)
        groups[node] = group
    return groups


def _may_join(group: _Group, node: Node, need: Need, step: int) -> bool:
    """A view may always share; an overwriting step only when nothing reads the buffer afterwards."""
    return group.nbytes == node.type.nbytes and (need.is_view or (group.last <= step and not group.is_output))


def _holds_output(candidates: Iterable[Node], groups: Mapping[Node, _Group]) -> bool:
    """Two outputs are never the same memory."""
    return any(groups[child].is_output for child in candidates if child in groups)


class Interval(Protocol):
    """Bytes that are needed from the step `first` to the step `last`, both included."""

    @property
    def nbytes(self) -> int: ...
    @property
    def first(self) -> int: ...
    @property
    def last(self) -> int: ...


Live = TypeVar("Live", bound=Interval)


def pack(groups: Iterable[Live]) -> dict[Live, int]:
    """An offset for each buffer, such that no two that live at the same time overlap."""
    placed: list[tuple[int, Live]] = []
    for group in sorted(groups, key=lambda g: (-g.nbytes, g.first)):
        placed.append((_tightest_gap(group, placed), group))
        placed.sort(key=lambda item: item[0])
    return {group: offset for offset, group in placed}


def _tightest_gap(group: Live, placed: list[tuple[int, Live]]) -> int:
    """The start of the smallest gap that takes the buffer, else the end. `placed` is sorted by offset."""
    best, smallest, end = None, 0, 0
    for offset, other in placed:
        if group.first <= other.last and other.first <= group.last:
            gap = offset - end
            if gap >= group.nbytes and (best is None or gap < smallest):
                best, smallest = end, gap
            end = max(end, _aligned(offset + other.nbytes))
    return end if best is None else best


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def _largest_live_set(groups: Iterable[_Group], steps: int) -> int:
    change = [0] * (steps + 2)
    for group in groups:
        change[group.first] += group.nbytes
        change[group.last + 1] -= group.nbytes
    live = largest = 0
    for delta in change:
        live += delta
        largest = max(largest, live)
    return largest

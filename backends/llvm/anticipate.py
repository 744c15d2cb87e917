"""Plans that are never run: no form of a weight is made, nothing is compiled.

For the kernels that a network will need at sizes that have not come yet, so that a new size compiles nothing. Kernels
do not depend on sizes, but which ones are chosen may: an axis of one element is merged with its neighbour, two
convolutions are computed as one in a large image. So the network is planned for a few sizes that differ in such ways.

For the memory that other choices would take.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graphsr.dim import symbols_of
from graphsr.errors import ShapeError
from graphsr.ir import Graph

from ..weights import WeightCache
from .kernel import Call, Kernel
from .kernels.conv_winograd import ConvWinograd
from .plan import Plan, Planner
from .target import Target
from .weight_forms import weight_bytes

SIZES = ((1, 1, 1), (2, 1, 1), (1, 16, 16), (2, 16, 16), (1, 128, 128))
"""Batch, height and width: axes of one element, small images, batches of them, and images above all thresholds of the
kernels, of multiples of what networks ask sizes to be."""


def kernels_of_all_sizes(graph: Graph, target: Target, threads: int, weights: WeightCache, keep: float) -> set[Kernel]:
    """The kernels of a graph with open sizes; empty where none are open, as its only size comes anyway."""
    found: set[Kernel] = set()
    for shapes in _probes(graph):
        try:
            bound = graph.bind(shapes)
        except ShapeError:  # the network does not take this size
            continue
        plan = _unrun(bound, target, threads, weights, keep)
        found.update(work.step.kernel for work in plan.works if isinstance(work.step, Call))
    every: set[Kernel] = set()
    for kernel in found:
        if kernel not in every:  # nor stands in for one that was asked
            every |= kernel.for_any_width(target)
    return every


def _probes(graph: Graph) -> Iterator[dict[str, tuple[int, ...]]]:
    """Input shapes: the first axes stand for batches, the last for widths, and all others for heights."""
    types = graph.input_types()
    shapes = [t.shape for t in types.values() if t.rank]
    names = {name for shape in shapes for size in shape for name in symbols_of(size)}
    first = {name for shape in shapes for name in symbols_of(shape[0])}
    last = {name for shape in shapes for name in symbols_of(shape[-1])}
    for n, h, w in SIZES if names else ():
        sizes = {name: n if name in first else w if name in last else h for name in names}
        yield {name: t.substitute(sizes).dims for name, t in types.items()}


@dataclass(frozen=True)
class Cost:
    """Bytes that a bound network takes."""

    planned: int
    """In a run."""
    kept: int
    """Of the weights as the kernels read them, between runs, those included that they read as the graph has them."""
    made: int
    """Of the weights that every run makes."""

    def __str__(self) -> str:
        made = f", {self.made / 1e6:.1f} MB of weights made in every run" if self.made else ""
        return f"{self.planned / 1e6:.1f} MB planned, {self.kept / 1e6:.1f} MB of weights kept{made}"


def cost_of(graph: Graph, target: Target, threads: int, weights: WeightCache, keep: float) -> Cost:
    """What a bound graph takes where so much of its weights is kept."""
    plan = _unrun(graph, target, threads, weights, keep)
    made = 0
    for work in plan.works:
        if work.prepared:
            made += work.prepared.nbytes
        elif isinstance(work.step, Call) and isinstance(work.step.kernel, ConvWinograd):
            made += work.step.kernel.unkept_bytes
    kept = weight_bytes(plan.works) + sum(array.nbytes for array in plan.constants.values())
    return Cost(plan.planned_bytes, kept, made)


def _unrun(graph: Graph, target: Target, threads: int, weights: WeightCache, keep: float) -> Plan:
    return Planner(graph, target, threads, weights, _run_nothing, keep).plan()


def _run_nothing(call: Call) -> None:
    pass

"""Which kernels a network will need at sizes that have not come yet: so that a new size compiles nothing.

Kernels do not depend on sizes, but which ones are chosen may: an axis of one element is merged with its neighbour, two
convolutions are computed as one in a large image. So the network is planned for a few sizes that differ in such ways;
weights stay as they are meanwhile, since nothing is run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from graphsr.dim import symbols_of
from graphsr.errors import ShapeError
from graphsr.ir import Graph
from graphsr.op import Array

from ..weights import WeightCache
from .kernel import Call, Kernel
from .plan import Planner
from .target import Target

SIZES = ((1, 1, 1), (2, 1, 1), (1, 16, 16), (2, 16, 16), (1, 128, 128))
"""Batch, height and width: axes of one element, small images, batches of them, and images above all thresholds of the
kernels, of multiples of what networks ask sizes to be."""


def kernels_of_all_sizes(graph: Graph, target: Target, threads: int, keep: float) -> set[Kernel]:
    """The kernels of a graph with open sizes; empty where none are open, as its only size comes anyway."""
    found: set[Kernel] = set()
    for shapes in _probes(graph):
        try:
            bound = graph.bind(shapes)
        except ShapeError:  # the network does not take this size
            continue
        plan = Planner(bound, target, threads, _AsTheyAre(), _run_nothing, keep).plan()
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


class _AsTheyAre(WeightCache):
    """Gives the weights themselves for any form of them."""

    def get(self, weight: Array, form: str, make: Callable[[Array], Array]) -> Array:
        return weight


def _run_nothing(call: Call) -> None:
    pass

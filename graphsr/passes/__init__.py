"""The pipeline: what happens to a graph between building it and running it. The page to read.

A pass is a pure function Graph -> Graph that keeps the meaning; one file each. `run_passes` verifies the graph after
each of them and, when one breaks it, says which, where, and shows the graph before and after. With
`GRAPHSR_DEBUG=1` the passes are listed as they run, with `GRAPHSR_DUMP=folder` each result is written there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TypeAlias

from graphsr.debug import dump, dumps, level
from graphsr.errors import GraphError
from graphsr.ir import Graph, Node
from graphsr.passes.choose_conv_algorithm import choose_conv_algorithm
from graphsr.passes.fold_batchnorm import fold_batchnorm
from graphsr.passes.fold_constants import fold_constants
from graphsr.passes.fold_scale import fold_scale
from graphsr.passes.fuse_activation import fuse_activation
from graphsr.passes.fuse_dense import fuse_dense
from graphsr.passes.fuse_residual import fuse_residual
from graphsr.passes.remove_dead import remove_dead
from graphsr.verify import verify

__all__ = [
    "DEFAULT",
    "Pass",
    "choose_conv_algorithm",
    "fold_batchnorm",
    "fold_constants",
    "fold_scale",
    "fuse_activation",
    "fuse_dense",
    "fuse_residual",
    "remove_dead",
    "run_passes",
]

Pass: TypeAlias = Callable[[Graph], Graph]

DEFAULT: tuple[Pass, ...] = (
    fold_constants,  # weight normalisation and whatever else depends on constants alone becomes constants
    remove_dead,  # nodes that change nothing no longer stand between those that the next passes match
    fuse_dense,  # a product with a known matrix and its bias are a layer, which the next passes know
    fold_batchnorm,  # batch normalisation goes into the weights beside it
    fold_scale,  # so do mean shifts, residual scales and the normalisation of pixel values
    fuse_residual,  # then every sum with a layer joins it: before the activation, which is applied to the sum
    fuse_activation,  # and every activation joins the layer or the sum before it
    choose_conv_algorithm,  # last, because it looks at the weights as they will be
)
"""What a backend normally runs. Each pass says in its docstring what it rewrites and on which condition."""


def run_passes(graph: Graph, passes: Sequence[Pass]) -> Graph:
    """Apply the passes in order, verifying after each. A pass is a function, or a `functools.partial` of one."""
    known: set[Node] = set()
    for number, apply in enumerate(passes):
        name: str = getattr(apply, "func", apply).__name__
        before = graph
        try:
            graph = apply(before)
            verify(graph, known)
        except GraphError as error:
            raise GraphError(
                f"pass {name} failed: {error}\n--- before {name}\n{before}\n--- after {name}\n{graph}"
            ) from error
        known.update(graph.nodes())
        if level():
            change = "no change" if graph is before else f"{sum(1 for _ in graph.nodes())} nodes"
            print(f"graphsr: pass {name}: {change}", file=sys.stderr)
        if dumps():
            dump(f"{number:02d}_{name}.txt", f"{graph}\n")
    return graph

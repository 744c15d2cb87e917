"""The pipeline: what happens to a graph between building it and running it. The page to read.

A pass is a pure function Graph -> Graph that keeps the meaning; one file each. `run_passes` verifies the graph after
each of them and, when one breaks it, says which, where, and shows the graph before and after. With
`GRAPHSR_DEBUG=1` the passes are listed as they run, with `GRAPHSR_DUMP=folder` each result is written there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from graphsr.errors import GraphError
from graphsr.ir import Graph
from graphsr.verify import verify

Pass: TypeAlias = Callable[[Graph], Graph]


def run_passes(graph: Graph, passes: Sequence[Pass]) -> Graph:
    """Apply the passes in order, verifying after each."""
    for number, apply in enumerate(passes):
        name = apply.__name__
        before = graph
        try:
            graph = apply(before)
            verify(graph)
        except GraphError as error:
            raise GraphError(
                f"pass {name} failed: {error}\n--- before {name}\n{before}\n--- after {name}\n{graph}"
            ) from error
        if os.environ.get("GRAPHSR_DEBUG", "0") not in ("", "0"):
            change = "no change" if graph is before else f"{sum(1 for _ in graph.nodes())} nodes"
            print(f"graphsr: pass {name}: {change}", file=sys.stderr)
        if folder := os.environ.get("GRAPHSR_DUMP"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            Path(folder, f"{number:02d}_{name}.txt").write_text(f"{graph}\n", encoding="utf-8")
    return graph

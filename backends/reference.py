"""The reference backend: every node by the `forward` of its op, in order. The truth the others are held to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from graphsr.backend import Backend, node_macs
from graphsr.errors import BackendError
from graphsr.explain import Step
from graphsr.ir import Const, Graph, Input, Node
from graphsr.op import Array

from .workers import one_blas_thread


class ReferenceBackend(Backend):
    """Every node by the `forward` of its op: what the others are held to.

    Runs in the graph's own dtype (float32), or in float64 with `ReferenceBackend("float64")`. One thread, whatever is
    asked for: a BLAS on several threads may round differently.
    """

    name = "reference"

    def __init__(self, dtype: str = "float32") -> None:
        if dtype not in ("float32", "float64"):
            raise BackendError(f"the reference backend computes in float32 or float64, not {dtype!r}")
        self.passes = () if dtype == "float32" else (_to_float64,)

    def program(self, graph: Graph, threads: int) -> ReferenceProgram:
        return ReferenceProgram(graph)


def _to_float64(graph: Graph) -> Graph:
    return graph.astype("float64")


@dataclass(frozen=True)
class ReferenceProgram:
    graph: Graph
    threads: int = 1

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Evaluate in topological order; a value is dropped after its last use."""
        values: dict[Node, Array] = dict(zip(self.graph.inputs, inputs, strict=True))
        pending: Counter[Node] = self.graph.uses()
        with one_blas_thread():
            for node in self.graph.nodes():
                if node not in values:
                    values[node] = node.op.forward(*(values[child] for child in node.inputs))
                for child in node.inputs:
                    pending[child] -= 1
                    if not pending[child]:
                        del values[child]
        return [values[node].copy() for node in self.graph.outputs.values()]

    @property
    def planned_bytes(self) -> int:
        """The largest sum of live values at any moment, without constants and what a `forward` needs meanwhile."""
        pending, live, largest = self.graph.uses(), 0, 0
        for node in self.graph.nodes():
            live += _bytes(node)
            largest = max(largest, live)
            for child in node.inputs:
                pending[child] -= 1
                live -= 0 if pending[child] else _bytes(child)
        return largest

    def steps(self) -> list[Step]:
        return [
            Step(node.name, node.op.name, "forward", node_macs(node), node.type.nbytes)
            for node in self.graph.nodes()
            if not isinstance(node.op, Input | Const)
        ]


def _bytes(node: Node) -> int:
    return 0 if isinstance(node.op, Const) else node.type.nbytes

"""What is legal in a graph, executable: run after every pass and on every imported graph.

Nodes are typed on construction, so what remains to check is the graph as a whole.
"""

from __future__ import annotations

from collections.abc import Collection

from graphsr.errors import GraphError
from graphsr.ir import Graph, Input, Node
from graphsr.op import OPS


def verify(graph: Graph, known: Collection[Node] = ()) -> None:
    """Raise `GraphError` unless the graph is well formed. The types of `known` nodes, which never change, were verified
    before."""
    if not graph.outputs:
        raise GraphError("a graph needs at least one output")
    names = [node.name for node in graph.inputs]
    if len(set(names)) != len(names) or not all(names):
        raise GraphError(f"inputs need distinct, non-empty names, got {names}")
    for node in graph.inputs:
        if not isinstance(node.op, Input):
            raise GraphError(f"{node.where()} is listed as an input of the graph but is not an input node")
    declared = set(graph.inputs)
    for node in graph.nodes():
        if isinstance(node.op, Input) and node not in declared:
            raise GraphError(f"{node.where()} is read but is not among the graph's inputs {names}")
        if node in known:
            continue
        if OPS.get(node.op.name) is not type(node.op):
            raise GraphError(f"{node.where()}: op {node.op.name!r} is not in the table of ops")
        again = node.op.infer(*(child.type for child in node.inputs))
        if again != node.type:
            raise GraphError(f"{node.where()} has type {node.type}, its op gives {again}")

"""One sweep over a graph that applies a rule to every node and knows how often each value is read.

A rule gets a node whose inputs are already rewritten and returns what stands in its place: the node itself, one of
its inputs, or new nodes. `uses` answers the question that every fusion must ask: is this value read by me alone?
Only then may its computation be changed or moved into its reader, because nothing expensive is ever computed twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from graphsr.ir import Graph, Node
from graphsr.op import Op

Rule: TypeAlias = Callable[[Node, Mapping[Node, int]], Node]
"""(node, how often each value is read) -> the node or its replacement."""


def rewrite(graph: Graph, rule: Rule) -> Graph:
    """Apply `rule` to each node, inputs first, until it returns the node that it was given.

    NumPy does not warn meanwhile: a file may hold any number, and a rule that computes looks at its result.
    """
    uses = _Uses(graph)

    def apply(old: Node, new: Node) -> Node:
        uses.rebuilt(old, new)
        while (better := rule(new, uses.count)) is not new:
            uses.replace(new, better)
            new = better
        return new

    with np.errstate(all="ignore"):
        return graph.map(apply)


class _Uses:
    """Reference counts, kept right while nodes are replaced one by one."""

    def __init__(self, graph: Graph) -> None:
        self.count: Counter[Node] = graph.uses()
        self._known = set(graph.nodes())

    def rebuilt(self, old: Node, new: Node) -> None:
        """`new` is `old` on replaced inputs, whose counts have this read already."""
        self.count[new] = self.count[old]
        self._known.add(new)

    def replace(self, old: Node, new: Node) -> None:
        """All readers of `old` read `new` from now on; what nothing reads any more releases its inputs."""
        self._acquire(new)
        self.count[new] += self.count[old]
        self.count[old] = 0
        self._release(old)

    def _acquire(self, root: Node) -> None:
        """Count the reads of a new node, and of the new nodes behind it."""
        stack = [root]
        while stack:
            node = stack.pop()
            if node not in self._known:
                self._known.add(node)
                self.count.update(node.inputs)
                stack.extend(node.inputs)

    def _release(self, root: Node) -> None:
        stack = [root]
        while stack:
            for child in stack.pop().inputs:
                self.count[child] -= 1
                if not self.count[child]:
                    stack.append(child)


def merge(op: Op, inputs: tuple[Node, ...], *merged: Node) -> Node:
    """A node in the place of several: it has the name of the first that has one, and the origins of all."""
    name = next((node.name for node in merged if node.name), "")
    origins = dict.fromkeys(part for node in merged for part in node.origin.split(" + ") if part)
    return Node(op, inputs, name, " + ".join(origins))

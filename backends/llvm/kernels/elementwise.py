"""Element-wise ops: which of them are computed as one loop, and in which layout.

A chain are ops of one shape, each of which is read by the next alone: its values never leave the registers. A node
whose only reader can take it along is left to that reader; so a chain is lowered when its last node is reached.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from graphsr.ir import Node
from graphsr.op import Op
from graphsr.ops import BatchNorm, Fused, PRelu
from graphsr.ops.compare import Comparison, Logic

from .elementwise_blocked import can_be_blocked, lower_blocked
from .elementwise_ops import FORMULAS, Step
from .elementwise_planar import ITEMSIZE, lower_planar

if TYPE_CHECKING:
    from ..plan import Planner

MOST_OPERANDS, MOST_STEPS = 8, 24
"""Of a chain: beyond, registers run out and the code gets long."""


@dataclass(frozen=True)
class Operand:
    """An input of a chain: a value, and the shape in which it is broadcast."""

    node: Node
    shape: tuple[int, ...]


Reference: TypeAlias = Operand | int
"""An operand of a step: an input of the chain, or an earlier step."""


@dataclass
class Chain:
    """The ops that are computed in one loop."""

    root: Node
    """The node whose value is written."""
    nodes: list[Node] = field(default_factory=list)
    steps: list[tuple[Op, tuple[Reference, ...]]] = field(default_factory=list)
    _operands: dict[Operand, None] = field(default_factory=dict)

    @property
    def operands(self) -> list[Operand]:
        return list(self._operands)

    @property
    def numbered(self) -> tuple[Step, ...]:
        """The steps as a kernel wants them: operands by number, inputs first."""
        number = {operand: i for i, operand in enumerate(self._operands)}

        def index(reference: Reference) -> int:
            return len(number) + reference if isinstance(reference, int) else number[reference]

        return tuple(Step(op, tuple(map(index, references))) for op, references in self.steps)

    @property
    def note(self) -> str:
        return ", ".join(op.name for op, _ in self.steps) if len(self.steps) > 1 else ""

    def add(self, plan: Planner, node: Node) -> int:
        """Append the steps of a node, after those of the nodes that were left to it; returns the last one."""
        references = [self._refer(plan, *given) for given in zip(node.inputs, shapes_of(node), strict=True)]
        before: tuple[Reference, ...] = ()
        for op, count in stages(node):
            self.steps.append((op, (*before, *references[:count])))
            references, before = references[count:], (len(self.steps) - 1,)
        self.nodes.append(node)
        return len(self.steps) - 1

    def _refer(self, plan: Planner, node: Node, shape: tuple[int, ...]) -> Reference:
        small = len(self._operands) + len(node.inputs) <= MOST_OPERANDS and len(self.steps) < MOST_STEPS
        if small and plan.take(node):
            return self.add(plan, node)
        plan.demand(node)
        operand = Operand(node, shape)
        self._operands[operand] = None
        return operand


def lower(plan: Planner, node: Node) -> None:
    """Compute a node along with those that were left to it, or leave it to its reader."""
    from ..plan import NoKernel

    reason = why_not(node)
    if reason:
        raise NoKernel(reason)
    reader = plan.only_user(node)
    if reader is not None and reader.type.shape == node.type.shape and not why_not(reader) and plan.leave(node):
        return
    chain = Chain(node)
    chain.add(plan, node)
    if can_be_blocked(plan, chain):
        lower_blocked(plan, chain)
    else:
        lower_planar(plan, chain)


def why_not(node: Node) -> str:
    """Why a node is not computed here; "" if it is."""
    for op, _ in stages(node):
        if type(op) not in FORMULAS:
            return f"no kernel for {op.name}"
    for type_ in (node.type, *(child.type for child in node.inputs)):
        if type_.dtype not in ITEMSIZE:
            return f"only {' and '.join(ITEMSIZE)}, not {type_.dtype}"
    if isinstance(node.op, Comparison) and not isinstance(node.op, Logic) and node.inputs[0].type.dtype == "bool":
        return "comparison of bool"
    return ""


def stages(node: Node) -> list[tuple[Op, int]]:
    """The ops that a node computes one after the other, and how many of its inputs each takes."""
    op = node.op
    if not isinstance(op, Fused):
        return [(op, len(node.inputs))]
    of_base = len(node.inputs) - (op.residual is not None)
    chosen = ((op.base, of_base), (op.residual, 1), (op.activation, 0))
    return [(stage, count) for stage, count in chosen if stage is not None]


def shapes_of(node: Node) -> list[tuple[int, ...]]:
    """The shape in which each input is broadcast: vectors of parameters lie along the channels."""
    first, *others = (child.type.dims for child in node.inputs)
    if isinstance(stages(node)[0][0], BatchNorm | PRelu):
        others = [shape if len(shape) != 1 else shape + (1,) * (len(first) - 2) for shape in others]
    return [first, *others]

"""Element-wise ops: which of them are computed as one loop, and in which layout.

A chain are ops of one shape, each of which is read by the next alone: its values never leave the registers. A node
whose only reader can take it along is left to that reader; so a chain is lowered when its last node is reached.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from graphsr.forksafe import once
from graphsr.ir import Node
from graphsr.op import Op
from graphsr.ops import BatchNorm, Expand, Fused, Linear, PRelu
from graphsr.ops.compare import Comparison, Logic

from .elementwise_blocked import can_be_blocked, lower_blocked
from .elementwise_ops import FORMULAS, Step, has_formula
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


@dataclass(frozen=True)
class Chain:
    """The ops that are computed in one loop."""

    nodes: tuple[Node, ...]
    """Each after its inputs; the value of the last one is written."""
    steps: tuple[tuple[Op, tuple[Reference, ...]], ...]

    @property
    def root(self) -> Node:
        return self.nodes[-1]

    @once
    def operands(self) -> tuple[Operand, ...]:
        references = (reference for _, given in self.steps for reference in given)
        return tuple(dict.fromkeys(r for r in references if isinstance(r, Operand)))

    @property
    def numbered(self) -> tuple[Step, ...]:
        """The steps as a kernel wants them: operands by number, inputs first."""
        number = {operand: i for i, operand in enumerate(self.operands)}

        def index(reference: Reference) -> int:
            return len(number) + reference if isinstance(reference, int) else number[reference]

        return tuple(Step(op, tuple(map(index, references))) for op, references in self.steps)

    @property
    def note(self) -> str:
        return ", ".join(op.name for op, _ in self.steps) if len(self.steps) > 1 else ""

    def moved(self, by: int) -> tuple[tuple[Op, tuple[Reference, ...]], ...]:
        """The steps when `by` others stand before them."""
        return tuple(
            (op, tuple(r + by if isinstance(r, int) else r for r in references)) for op, references in self.steps
        )


def lower(plan: Planner, node: Node) -> None:
    """Compute a node along with those that were left to it, or leave it to its reader."""
    from ..plan import NoKernel

    reason = why_not(node)
    if reason:
        raise NoKernel(reason)
    chain = chain_to(plan, node)

    def compute() -> None:
        lower_in = lower_blocked if can_be_blocked(plan, chain) else lower_planar
        lower_in(plan, chain)

    reader = plan.only_user(node)
    if reader is not None and reader.type.shape == node.type.shape and not why_not(reader):
        plan.leave(node, chain, compute)
    else:
        compute()


def chain_to(plan: Planner, node: Node) -> Chain:
    """The chain that ends in a node: chains that were left to it, as far as there is room, and its own steps."""
    nodes: tuple[Node, ...] = ()
    steps: tuple[tuple[Op, tuple[Reference, ...]], ...] = ()
    references: list[Reference] = []
    room = MOST_OPERANDS - len(node.inputs)
    for child, shape in zip(node.inputs, shapes_of(node), strict=True):
        part = plan.left(child)
        if isinstance(part, Chain) and len(part.operands) <= room + 1 and len(steps + part.steps) < MOST_STEPS:
            plan.take(child)
            nodes, steps = nodes + part.nodes, steps + part.moved(len(steps))
            references.append(len(steps) - 1)
            room -= len(part.operands) - 1
        else:
            plan.demand(child)
            references.append(Operand(child, shape))
    before: tuple[Reference, ...] = ()
    for op, count in stages(node):
        steps += ((op, (*before, *references[:count])),)
        references, before = references[count:], (len(steps) - 1,)
    return Chain((*nodes, node), steps)


def why_not(node: Node) -> str:
    """Why a node is not computed here; "" if it is."""
    operands, result = [child.type.dtype for child in node.inputs], node.type.dtype
    for dtype in (result, *operands):
        if dtype not in ITEMSIZE:
            return f"only {', '.join(ITEMSIZE)}, not {dtype}"
    for op, _ in stages(node):
        if type(op) not in FORMULAS:
            return f"no kernel for {op.name}"
        if not has_formula(op, operands, result):
            return f"no kernel for {op.name} of {', '.join(operands)} to {result}"
    if isinstance(node.op, Comparison) and not isinstance(node.op, Logic) and operands[0] == "bool":
        return "comparison of bool"
    return ""


def stages(node: Node) -> list[tuple[Op, int]]:
    """The ops that a node computes one after the other, and how many of its inputs each takes. `Expand` is broadcasting
    and nothing else; it has the sizes among its attributes, and kernels must not depend on them."""
    op = Linear() if isinstance(node.op, Expand) else node.op
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

"""Costs: y = scale · mean of w·ℓ(x, t), said in element-wise ops and one reduction.

d = x − t; ℓ = a formula of d, x and t; ℓ = w·ℓ where what is no object counts differently     (elementwise_planar.py)
y = the mean, or for the logistic cost the sum                                                 (reduce.py)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log, prod
from typing import TYPE_CHECKING

import numpy as np

from graphsr.ir import Node
from graphsr.op import Op
from graphsr.ops import (
    Abs,
    Add,
    Equal,
    HellingerCost,
    HingeCost,
    Less,
    Log,
    LogCoshCost,
    LogisticCost,
    MaeCost,
    MaskedCost,
    Maximum,
    MseCost,
    Mul,
    ReduceMean,
    ReduceSum,
    Reshape,
    SegCost,
    Sign,
    SmoothCost,
    SoftPlus,
    Sqrt,
    Sub,
    WganCost,
    Where,
)
from graphsr.ops.cost import Cost

from .elementwise_ops import Log1p
from .parts import part

if TYPE_CHECKING:
    from ..plan import Planner


@dataclass(frozen=True)
class Formula:
    """Builds the value of a node out of parts. Numbers stand for themselves."""

    plan: Planner
    node: Node

    def __call__(self, op: Op, *operands: Node | float) -> Node:
        inputs = (x if isinstance(x, Node) else Node.const(np.asarray(x, np.float32)) for x in operands)
        return part(self.plan, self.node, op, *inputs)

    def distance(self, x: Node, t: Node) -> Node:
        """|x − t|"""
        return self(Abs(), self(Sub(), x, t))

    def square(self, x: Node) -> Node:
        return self(Mul(), x, x)


def _smooth(f: Formula, op: Op, x: Node, t: Node) -> Node:
    d = f.distance(x, t)
    return f(Where(), f(Less(), d, 1.0), f.square(d), f(Sub(), f(Mul(), d, 2.0), 1.0))


def _masked(f: Formula, op: MaskedCost, x: Node, t: Node) -> Node:
    return f.square(f(Where(), f(Equal(), t, op.mark), 0.0, f(Sub(), x, t)))


def _wgan(f: Formula, op: Op, x: Node, t: Node) -> Node:
    return f(Mul(), x, f(Sub(), 1.0, f(Mul(), f(Sign(), f(Abs(), t)), 2.0)))


def _cross_entropy(f: Formula, op: Op, x: Node, t: Node) -> Node:
    made = f(Mul(), f(Sub(), 1.0, t), f(Log1p(), f(Mul(), x, -1.0)))
    return f(Sub(), f(Mul(), f(Mul(), t, -1.0), f(Log(), x)), made)


def _log_cosh(f: Formula, op: Op, x: Node, t: Node) -> Node:
    d = f.distance(x, t)
    return f(Sub(), f(Add(), d, f(SoftPlus(), f(Mul(), d, -2.0))), log(2))


def _logistic(f: Formula, op: Op, x: Node, t: Node) -> Node:
    rest = f(SoftPlus(), f(Mul(), f(Abs(), x), -1.0))
    return f(Add(), f(Sub(), f(Maximum(), x, 0.0), f(Mul(), t, x)), rest)


LOSSES: dict[type[Op], Callable[..., Node]] = {
    HellingerCost: lambda f, op, x, t: f.square(f(Sub(), f(Sqrt(), t), f(Sqrt(), x))),
    HingeCost: lambda f, op, x, t: f(Maximum(), f(Sub(), 1.0, f(Mul(), t, x)), 0.0),
    LogCoshCost: _log_cosh,
    LogisticCost: _logistic,
    MaeCost: lambda f, op, x, t: f.distance(x, t),
    MaskedCost: _masked,
    MseCost: lambda f, op, x, t: f.square(f(Sub(), x, t)),
    SegCost: _cross_entropy,
    SmoothCost: _smooth,
    WganCost: _wgan,
}
"""(formula, op, x, t) -> ℓ"""


def lower(plan: Planner, node: Node) -> None:
    """In float32."""
    from ..plan import NoKernel

    op, (x, t) = node.op, node.inputs
    if node.type.dtype != "float32":
        raise NoKernel(f"only float32, not {node.type.dtype}")
    f = Formula(plan, node)
    if not isinstance(op, Cost):
        plan.view(node, f(ReduceSum((0,), False), f(Reshape((-1,)), LOSSES[type(op)](f, op, x, t))))
        return
    if op.threshold or op.ratio:
        raise NoKernel("elements are chosen by the rank of their slopes")
    truth = t
    if op.smoothing:
        shift = op.smoothing * t.type.dims[0] / prod(t.type.dims)
        truth = f(Add(), f(Mul(), t, 1 - op.smoothing), shift)
    loss = LOSSES[type(op)](f, op, x, truth)
    if op.noobject_scale != 1:
        loss = f(Mul(), f(Where(), f(Equal(), t, 0.0), op.noobject_scale, 1.0), loss)
    mean = f(ReduceMean((0,), False), f(Reshape((-1,)), loss))
    plan.view(node, f(Mul(), mean, op.scale))

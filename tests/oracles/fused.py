"""A layer with its epilogue: the oracle of the base, the formula of the residual, the oracle of the activation."""

from __future__ import annotations

from collections.abc import Callable

from graphsr.op import Array
from graphsr.ops import Fused
from graphsr.testing import Case

from oracles import activation, conv, dense


def fused(case: Case) -> Array:
    """y = f(α·base + β·r)"""
    op = case.op
    assert isinstance(op, Fused)
    bases = {**conv.ORACLES, **dense.ORACLES}
    y = bases[op.base.name](Case(op.base, case.inputs[:-1] if op.residual else case.inputs))
    if op.residual:
        y = op.residual.alpha * y + op.residual.beta * case.inputs[-1]
    return activation.ORACLES[op.activation.name](Case(op.activation, (y,))) if op.activation else y


ORACLES: dict[str, Callable[[Case], Array]] = {"fused": fused}

"""Weights in the forms that kernels read: asked for while a network is planned, made when the plan is known to fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from graphsr.op import Array

from ..weights import WeightCache
from .kernel import Argument, Call

if TYPE_CHECKING:
    from .plan import Plan, Work


@dataclass(frozen=True, eq=False, slots=True)
class WeightForm:
    """`make(weight)` as an argument of a call; the name `form` tells all that it depends on but the weight."""

    weight: Array
    form: str
    make: Callable[[Array], Array]
    nbytes: int
    """What it takes, but for lanes that are no channel."""


def with_weights(plan: Plan, cache: WeightCache) -> Plan:
    """The plan with arrays for all forms: those of the cache, which makes what it does not have."""

    def made(argument: Argument) -> Argument:
        if isinstance(argument, WeightForm):
            return cache.get(argument.weight, argument.form, argument.make)
        return argument

    def filled(work: Work) -> Work:
        if not isinstance(work.step, Call):
            return work
        arguments = {slot: made(argument) for slot, argument in work.step.arguments.items()}
        return replace(work, step=replace(work.step, arguments=arguments))

    return replace(plan, works=tuple(map(filled, plan.works)))


def unmade_bytes(works: Iterable[Work], cache: WeightCache) -> int:
    """Bytes of the forms that the cache does not have yet."""
    return sum(x.nbytes for x in _weights(works) if isinstance(x, WeightForm) and not cache.has(x.weight, x.form))


def weight_bytes(works: Iterable[Work]) -> int:
    """Bytes of what these steps read of weights, made or not: each form once."""
    return sum(x.nbytes for x in _weights(works))


def _weights(works: Iterable[Work]) -> Iterable[WeightForm | Array]:
    """The arrays that calls are given, and the forms that will be arrays."""
    found: dict[object, WeightForm | Array] = {}
    for work in works:
        for x in work.step.arguments.values() if isinstance(work.step, Call) else ():
            if isinstance(x, WeightForm):
                found[id(x.weight), x.form] = x
            elif isinstance(x, np.ndarray):
                found[id(x)] = x
    return found.values()

"""How many threads pay: where there is little to do, they would wait for each other and fetch the same weights.

The time of a step on p threads, of which `busy` = min(p, units) have something to do, is about

    macs / (RATE · busy) + (traffic − weights) / (BANDWIDTH · busy) + weights / BANDWIDTH · (1 or 2) + a barrier

since each thread reads all weights, past the other ones that do. The result does not depend on the choice.
"""

from __future__ import annotations

from collections.abc import Iterator

from graphsr.explain import Step

from .kernel import Call
from .plan import Plan
from .program import step_of

RATE = 8e10
"""Multiply-adds per second of one thread in small images."""
BANDWIDTH = 1.5e10
"""Bytes per second from the last cache."""
BARRIER = 5e-7
"""Seconds until all threads have met."""


def useful_threads(plan: Plan, most: int) -> int:
    """Of 1, 2, 4, … and `most` threads those that take the least time."""
    steps = [(step_of(work), work.step.units if isinstance(work.step, Call) else 1) for work in plan.works]
    return min(_candidates(most), key=lambda threads: sum(_seconds(step, units, threads) for step, units in steps))


def _candidates(most: int) -> Iterator[int]:
    threads = 1
    while threads < most:
        yield threads
        threads *= 2
    yield most


def _seconds(step: Step, units: int, threads: int) -> float:
    busy = max(1, min(threads, units))
    weights = step.weight_bytes * min(busy, 2)
    shared = (step.macs / RATE + (step.traffic - step.weight_bytes) / BANDWIDTH) / busy
    return shared + weights / BANDWIDTH + (BARRIER if threads > 1 else 0.0)

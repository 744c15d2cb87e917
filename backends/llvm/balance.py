"""How many threads pay: where there is little to do, they would wait for each other and fetch the same weights.

The time of a step on p threads, of which `busy` = min(p, units) have something to do, is about

    macs / (RATE · busy) + (traffic − weights) / (BANDWIDTH · busy) + weights / BANDWIDTH · (1 or 2) + a barrier

since each thread reads all weights, past the other ones that do; where they are shared out, weights / BANDWIDTH / busy.
Once for all steps, the threads have to start. The result does not depend on the choice.
"""

from __future__ import annotations

from collections.abc import Iterator

from graphsr.explain import Step

from .kernel import Call
from .plan import Fallback, Plan
from .program import step_of

RATE = 8e10
"""Multiply-adds per second of one thread in small images."""
BANDWIDTH = 1.5e10
"""Bytes per second from the last cache."""
BARRIER = 5e-7
"""Seconds until all threads have met."""
START = 2e-5
"""Seconds until threads that were asleep take part in a run."""


def useful_threads(plan: Plan, most: int) -> int:
    """Of 1, 2, 4, … and `most` threads those that take the least time."""
    steps = [(step_of(work), work.step) for work in plan.works]

    def seconds(threads: int) -> float:
        return sum(_seconds(step, how, threads) for step, how in steps) + (START if threads > 1 else 0.0)

    return min(_candidates(most), key=seconds)


def _candidates(most: int) -> Iterator[int]:
    threads = 1
    while threads < most:
        yield threads
        threads *= 2
    yield most


def _seconds(step: Step, how: Call | Fallback, threads: int) -> float:
    units, once = (how.units, how.kernel.reads_weights_once) if isinstance(how, Call) else (1, False)
    busy = max(1, min(threads, units))
    weights = step.weight_bytes * (1 / busy if once else min(busy, 2))
    shared = (step.macs / RATE + (step.traffic - step.weight_bytes) / BANDWIDTH) / busy
    return shared + weights / BANDWIDTH + (BARRIER if threads > 1 else 0.0)

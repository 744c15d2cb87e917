"""The llvm backend: kernels compiled for this machine, all cores in one parallel region."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from graphsr.backend import MUCH, Backend
from graphsr.errors import BackendError, ShapeError
from graphsr.ir import Graph
from graphsr.memory import shortage
from graphsr.ops.winograd import ERROR
from graphsr.passes import DEFAULT, Pass, choose_conv_algorithm
from graphsr.textform import print_graph
from graphsr.threads import processors

from ..weights import WeightCache
from .anticipate import cost_of, kernels_of_all_sizes
from .balance import useful_threads
from .kernel import Call
from .library import library
from .loops import LANES
from .memory import Memory
from .plan import Plan, Planner
from .program import LlvmProgram
from .segment import run_once
from .target import host
from .weight_forms import unmade_bytes, with_weights

TRANSFORM_COST = 2.0
"""Of a multiplication in a Winograd transform, relative to one in the products; see `choose_conv_algorithm`."""

ACCURACY = {"default": ERROR[6], "high": ERROR[2]}
"""Largest rounding error of one convolution that a choice admits, in deviations of its output. Over a whole network the
default keeps 1e-4 of the output's deviation, `high` 2e-5 (EDSR, WDSR and what is like them). F(2, 3) rounds less than a
plain sum, whose errors reach 2e-5 in a deep network, as those of F(4, 3) do. Networks that magnify every error show
more: SRResNet x2 on noise 2.4e-5 with `high`, where a plain sum has 1.9e-5; one with random weights 6e-5."""

MEMORY = {"low": 0.0, "default": 2.0, "high": math.inf}
"""How many times the bytes of the 3x3 weights may be kept between runs of what is made of them for Winograd. F(6, 3)
takes 7 times the bytes, F(4, 3) 4 times; what is not kept is transformed anew in every run."""


class LlvmBackend(Backend):
    """Kernels generated as LLVM IR and compiled for the instruction set of this machine.

    `accuracy="high"` forbids F(4, 3) and F(6, 3): errors are about those of a plain sum, at about twice the time.
    `memory="high"` keeps all transformed weights between runs, `"low"` none, the default those that the second cache
    holds, see `MEMORY`: a convolution makes larger ones itself, in no more time than it would take to read them. What a
    step of every run transforms costs as much time as the products of some tens of tiles: nothing in a large image.

    NaN and infinities are where NumPy has them. Winograd's transforms would spread them over whole tiles: where one
    meets some, the network is computed once more with plain sums, which makes it three to five times the time.
    """

    name = "llvm"

    def __init__(self, accuracy: str = "default", memory: str = "default") -> None:
        for option, value, known in (("accuracy", accuracy, ACCURACY), ("memory", memory, MEMORY)):
            if not isinstance(value, str) or value not in known:
                raise BackendError(f"{option}={value!r} is not one of {', '.join(known)}")
        self.options = (accuracy, memory)
        self.keep = MEMORY[memory]
        self.target = host()
        self.weights = WeightCache()
        self.memory = Memory()
        self.passes: Sequence[Pass] = (
            *DEFAULT[:-1],
            partial(
                choose_conv_algorithm,
                max_error=ACCURACY[accuracy],
                transform_cost=TRANSFORM_COST,
                lanes=LANES,
                volumes=True,
            ),
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return LlvmBackend, self.options

    @property
    def held_bytes(self) -> int:
        return self.memory.held_bytes

    def prepare(self, graph: Graph, threads: int) -> None:
        """Compile the kernels of all sizes, so that a new one compiles nothing."""
        threads = min(threads, processors())
        network = f"{print_graph(graph)}\n{threads} threads, {self.options}"
        find = partial(kernels_of_all_sizes, graph, self.target, threads, self.weights, self.keep)
        library(self.target).add_network(network, find)

    def program(self, graph: Graph, threads: int) -> LlvmProgram:
        return self._program(graph, threads, lambda plan, most: most)

    def program_at_most(self, graph: Graph, threads: int) -> LlvmProgram:
        return self._program(graph, threads, useful_threads)

    def _program(self, graph: Graph, threads: int, choose: Callable[[Plan, int], int]) -> LlvmProgram:
        kernels = library(self.target)
        threads = min(threads, processors())  # more could only wait for each other, and the bits are the same

        def execute(call: Call) -> None:
            run_once(call, kernels, threads)

        def without_winograd() -> LlvmProgram:
            program = self.program(choose_conv_algorithm(graph, tiles=(), volumes=True), threads)
            if lack := shortage(program.planned_bytes - self.held_bytes):
                raise ShapeError(f"the inputs hold NaN or infinities, or lead to some: a run for such inputs {lack}")
            return program

        plan = Planner(graph, self.target, threads, self.weights, execute, self.keep).plan()
        self._check_weights(plan)
        plan = with_weights(plan, self.weights)
        choices = partial(self._choices, graph, threads)
        return LlvmProgram(plan, kernels, self.memory, choose(plan, threads), without_winograd, choices)

    def _check_weights(self, plan: Plan) -> None:
        """Raise `ShapeError` where the weights, in the forms that are still to be made, and a run take more memory than
        there is."""
        new = unmade_bytes(plan.works, self.weights)
        if new < MUCH:
            return
        advice = "use memory='low', which keeps the fewest bytes" if self.keep else "use a smaller network"
        if lack := shortage(new):
            raise ShapeError(f"the network is too large: keeping its weights as the kernels read them {lack}; {advice}")
        if lack := shortage(new + plan.planned_bytes - self.held_bytes):
            raise ShapeError(
                "inputs of these sizes are too large: a run, with the weights as the kernels read them, "
                f"{lack}; give smaller ones, such as pieces of an image, or {advice}"
            )

    def _choices(self, graph: Graph, threads: int) -> str:
        """What each choice of `memory` takes for a bound graph."""
        costs = (
            f"memory={name!r}: {cost_of(graph, self.target, threads, self.weights, keep)}"
            for name, keep in MEMORY.items()
        )
        return "\n".join(costs)

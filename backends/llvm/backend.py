"""The llvm backend: kernels compiled for this machine, all cores in one parallel region."""

from __future__ import annotations

from functools import partial

from graphsr.backend import Backend
from graphsr.ir import Graph
from graphsr.ops.winograd import ERROR
from graphsr.passes import DEFAULT, Pass, choose_conv_algorithm

from ..numpy_kernel import WeightCache
from .library import library
from .loops import LANES
from .plan import Planner
from .memory import Memory
from .program import LlvmProgram
from .segment import run_once
from .target import host

TRANSFORM_COST = 2.0
"""Of a multiplication in a Winograd transform, relative to one in the products; see `choose_conv_algorithm`."""


class LlvmBackend(Backend):
    """Kernels generated as LLVM IR and compiled for the instruction set of this machine."""

    name = "llvm"
    passes: tuple[Pass, ...] = (
        *DEFAULT[:-1],
        partial(choose_conv_algorithm, max_error=ERROR[6], transform_cost=TRANSFORM_COST, lanes=LANES),
    )

    def __init__(self) -> None:
        self.target = host()
        self.weights = WeightCache()
        self.memory = Memory()

    def program(self, graph: Graph, threads: int) -> LlvmProgram:
        kernels = library(self.target)
        planner = Planner(graph, self.target, threads, self.weights, lambda call: run_once(call, kernels, threads))
        return LlvmProgram(planner.plan(), kernels, self.memory, threads)

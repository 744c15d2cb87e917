"""The numpy backend: convolutions as blocked im2col or Winograd over BLAS, memory planned by liveness.

It needs nothing but NumPy, its BLAS and threadpoolctl. Nodes without a kernel run through the `forward` of their op,
and `explain()` says so. Results have the same bits for any number of threads, and an image has the same result
anywhere in a batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphsr.backend import Backend, node_macs
from graphsr.explain import Step
from graphsr.ir import Const, Graph, Input, Node
from graphsr.op import Array
from graphsr.ops import Activation, BatchNorm, Conv2d, ConvTranspose2d, DepthToSpace, PRelu, Reshape, Shortcut
from graphsr.ops.elementwise import Arithmetic
from graphsr.passes import DEFAULT

from .blas_conv import conv_kernel, transpose_kernel
from .blas_winograd import winograd_kernel
from .layer import layer_of
from .numpy_elementwise import Elementwise, Forward, PerChannel, Shuffle, View
from .numpy_kernel import Kernel
from .plan import ALIGNMENT, Buffer, Need, Plan, plan_memory
from .weights import WeightCache
from .workers import Team, one_blas_thread


class NumpyBackend(Backend):
    """Blocked im2col and Winograd over BLAS, on several threads.

    Weights in the form that the kernels want are kept as long as the weights themselves.
    """

    name = "numpy"
    passes = DEFAULT

    def __init__(self) -> None:
        self.weights = WeightCache()

    def program(self, graph: Graph, threads: int) -> NumpyProgram:
        computed = (node for node in graph.nodes() if not isinstance(node.op, Input | Const))
        with one_blas_thread():
            kernels = {node: choose_kernel(node, self.weights) for node in computed}
        needs = {node: _need(node, kernel, threads) for node, kernel in kernels.items()}
        constants = {node: np.asarray(node.value, order="C") for node in graph.nodes() if node.is_const}
        return NumpyProgram(graph, threads, constants, kernels, plan_memory(graph, needs))


def choose_kernel(node: Node, weights: WeightCache) -> Kernel:
    """How a node of a bound graph is computed."""
    base, epilogue = layer_of(node)
    itemsize = np.dtype(node.type.dtype).itemsize
    match base:
        case _ if node.type.size == 0:
            return Forward(node.op)
        case Conv2d(algorithm=algorithm) if not algorithm.startswith("winograd"):
            return conv_kernel(node, base, epilogue, weights)
        case Conv2d() if node.inputs[1].is_const:
            return winograd_kernel(node, base, epilogue, weights)
        case ConvTranspose2d() if node.inputs[1].is_const:
            return transpose_kernel(node, base, epilogue, weights)
        case Activation() | Shortcut() | Arithmetic() if base is node.op:
            return Elementwise(base, node.type.dims, itemsize)
        case BatchNorm() | PRelu() if base is node.op and node.type.rank > 1:
            return PerChannel(base, node.type.dims, itemsize)
        case DepthToSpace() if base is node.op:
            return Shuffle(base, node.type.dims)
        case Reshape() if base is node.op:
            return View()
        case _:
            return Forward(node.op)


def _need(node: Node, kernel: Kernel, threads: int) -> Need:
    same_type = tuple(k for k, child in enumerate(node.inputs) if child.type == node.type)
    return Need(
        scratch=_per_worker(kernel) * min(threads, kernel.units),
        overwrites=same_type if isinstance(kernel, Elementwise | PerChannel) else (),
        is_view=isinstance(kernel, View),
    )


def _per_worker(kernel: Kernel) -> int:
    """Scratch bytes of one worker, such that the next one's begin aligned."""
    return -(-kernel.scratch // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True, repr=False)
class NumpyProgram:
    """A bound graph with its kernels and its memory plan. Holds no memory between runs, so runs may overlap."""

    graph: Graph
    threads: int
    constants: Mapping[Node, Array]
    kernels: Mapping[Node, Kernel]
    plan: Plan

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        values = dict(self.constants)
        values.update((node, np.asarray(x, order="C")) for node, x in zip(self.graph.inputs, inputs, strict=True))
        arena = _aligned_empty(self.plan.arena_bytes)
        fresh: dict[Buffer, Array] = {}
        with one_blas_thread(), Team(self.threads) as team:
            for node in self.plan.order:
                values[node] = self._place(node, arena, fresh)
                self._step(node, values, arena, team)
        return self._outputs(values)

    def _place(self, node: Node, arena: Array, fresh: dict[Buffer, Array]) -> Array:
        """The memory of a value: a part of the arena, or the array that will be returned."""
        buffer = self.plan.value[node]
        if buffer.offset is not None:
            memory = arena[buffer.offset : buffer.offset + buffer.nbytes]
        else:
            if buffer not in fresh:
                fresh[buffer] = np.empty(buffer.nbytes, np.uint8)
            memory = fresh[buffer]
        return memory.view(node.type.dtype).reshape(node.type.dims)

    def _step(self, node: Node, values: Mapping[Node, Array], arena: Array, team: Team) -> None:
        kernel, output = self.kernels[node], values[node]
        arguments = [values[child] for child in node.inputs]
        if isinstance(kernel, View) and np.may_share_memory(arguments[0], output):
            return
        size = _per_worker(kernel)
        start = offset if size and (offset := self.plan.scratch[node].offset) is not None else 0

        def work(unit: int, worker: int) -> None:
            scratch = arena[start + worker * size : start + (worker + 1) * size]
            kernel.run(unit, arguments, output, scratch)

        team.for_each(kernel.units, work)

    def _outputs(self, values: Mapping[Node, Array]) -> list[Array]:
        """Each output in an array of its own: what was given, or is returned twice, is copied."""
        seen: set[Node] = set()
        results = []
        for node in self.graph.outputs.values():
            is_fresh = node in self.plan.value and node not in seen
            results.append(values[node] if is_fresh else values[node].copy())
            seen.add(node)
        return results

    @property
    def planned_bytes(self) -> int:
        """Arena and outputs, and the largest result that a `forward` returns before it is copied to its place."""
        temporary = (n.type.nbytes for n, kernel in self.kernels.items() if isinstance(kernel, Forward))
        return self.plan.planned_bytes + max(temporary, default=0)

    def steps(self) -> list[Step]:
        return [
            Step(node.name, node.op.name, self.kernels[node].label, node_macs(node), node.type.nbytes)
            for node in self.plan.order
        ]


def _aligned_empty(nbytes: int) -> Array:
    """Uninitialised bytes that start on a cache line."""
    memory = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + nbytes]

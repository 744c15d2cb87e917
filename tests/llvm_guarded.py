"""Runs of the llvm backend in which every buffer lies between guard pages. As a program:

    python tests/llvm_guarded.py conv 200          # 200 random cases of the family; 0 when all went well

A kernel that touches a byte outside dies by a signal, and the last line printed is its case; one that depends on bytes
that nobody wrote gives other bits than the run without guards.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Literal
from unittest import mock

import numpy as np
from guard import guarded, is_intact
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from llvm_layers import CHANNELS, SIZES, Draw, layer_case
from test_layers_nd import with_epilogue
from test_llvm_conv import ALL as CONVOLUTIONS
from test_llvm_crop import crops
from test_llvm_detection import heads
from test_llvm_local_conv import local_layers
from test_llvm_matmul import products
from test_llvm_normalise import normalisations
from test_llvm_quantise import endings, pictures
from test_llvm_recurrent import sequences
from test_llvm_sample import samples
from test_llvm_volumes import convolutions, transposed_convolutions

from graphsr import ops
from graphsr.backends.llvm import backend as backend_module
from graphsr.backends.llvm import plan as plan_module
from graphsr.backends.llvm import program as program_module
from graphsr.backends.llvm.backend import LlvmBackend
from graphsr.backends.llvm.kernel import Argument, Call, Kernel
from graphsr.backends.llvm.memory import Memory
from graphsr.backends.llvm.weight_forms import with_weights
from graphsr.backends.weights import WeightCache
from graphsr.op import Array, Op
from graphsr.testing.cases import LAYERS
from graphsr.testing.check import layer_graph
from graphsr.testing.graphs import GraphCase
from graphsr.testing.networks import networks
from graphsr.testing.wide import wide_layers

Side = Literal["before", "behind"]
LINE = 64


class Guards:
    """Puts what one run works on between guard pages, flush with the ones on `side`.

    Inputs may begin at any address; everything else begins on a cache line, as the backend promises its kernels.
    """

    def __init__(self, side: Side) -> None:
        self.side = side
        self.made: list[Array] = []

    def new(self, shape: tuple[int, ...], dtype: Any, fill: Array | None = None) -> Array:
        nbytes = int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
        array = guarded(
            shape, dtype, side=self.side, misaligned=-nbytes % LINE if self.side == "behind" else 0, fill=fill
        )
        self.made.append(array)
        return array

    def like(self, array: Array) -> Array:
        return self.new(array.shape, array.dtype, array)

    def check(self) -> None:
        assert all(map(is_intact, self.made)), "bytes between a buffer and its guard were written"

    def install(self) -> ExitStack:
        """Patch the backend until the stack is closed."""
        stack = ExitStack()
        stack.enter_context(mock.patch.object(program_module, "_Places", self._places()))
        stack.enter_context(mock.patch.object(backend_module, "with_weights", self._with_weights()))
        stack.enter_context(mock.patch.object(plan_module.Planner, "run_now", self._run_now()))
        return stack

    def _places(self) -> type:
        guards = self

        class Places(program_module._Places):
            """Every buffer on its own instead of inside the arena; what nobody wrote is NaN."""

            def __init__(self, plan: plan_module.Plan, memory: Memory, zeros: Array, inputs: Sequence[Array]) -> None:
                super().__init__(plan, memory, zeros, inputs)
                for buffer, array in self._outside.items():
                    if buffer not in plan.inputs:
                        self._outside[buffer] = guards.like(array)
                for buffer in plan.offsets:
                    if buffer not in plan.alias:
                        self._outside[buffer] = guards.new((buffer.nbytes,), np.uint8)
                self._own_scratch = guards.new((plan.scratch_bytes,), np.uint8)

            @property
            def scratch(self) -> int:
                return int(self._own_scratch.ctypes.data)

        return Places

    def _with_weights(self) -> Any:
        """Weights in guarded copies."""

        def guarded_with_weights(plan: plan_module.Plan, cache: WeightCache) -> plan_module.Plan:
            filled = with_weights(plan, cache)
            return replace(filled, works=tuple(map(guarded_work, filled.works)))

        def guarded_work(work: plan_module.Work) -> plan_module.Work:
            if not isinstance(work.step, Call):
                return work
            arguments = work.step.arguments.items()
            copies = {name: self.like(x) if isinstance(x, np.ndarray) else x for name, x in arguments}
            return replace(work, step=replace(work.step, arguments=copies))

        return guarded_with_weights

    def _run_now(self) -> Any:
        """What makes forms of weights, on guarded copies that are copied back."""
        run_now = plan_module.Planner.run_now

        def guarded_run_now(planner: Any, kernel: Kernel, arguments: Mapping[str, Argument], units: int) -> None:
            arrays = {name: x for name, x in arguments.items() if isinstance(x, np.ndarray)}
            copies = {name: self.like(x) for name, x in arrays.items()}
            run_now(planner, kernel, {**arguments, **copies}, units)
            for name, x in arrays.items():
                if x.flags.writeable:
                    x[...] = copies[name]

        return guarded_run_now


class AsWritten(LlvmBackend):
    """Without passes: convolutions keep the algorithm that a case asks for."""

    passes = ()

    def __init__(self) -> None:
        super().__init__()
        self.passes = ()


def check_case(backend: type[LlvmBackend], case: GraphCase, side: Side, misaligned: int) -> None:
    """The guarded run stays inside, leaves its inputs alone, and gives the bits of the ordinary run."""
    want = backend().compile(case.graph, threads=1)(case.inputs)
    inputs = {
        name: guarded(x.shape, x.dtype, side=side, misaligned=misaligned, fill=x) for name, x in case.inputs.items()
    }
    guards = Guards(side)
    with guards.install():
        got = backend().compile(case.graph, threads=1)(inputs)
    guards.check()
    for name, x in inputs.items():
        assert is_intact(x), f"bytes beside input {name!r} were written"
        assert x.tobytes() == case.inputs[name].tobytes(), f"input {name!r} was written"
    for name, y in want.items():
        assert y.tobytes() == got[name].tobytes(), f"output {name!r} depends on bytes that nobody wrote\n{case}"


IMAGE_OPS: tuple[Op, ...] = (
    ops.MaxPool2d((3, 3), (1, 1), (1, 1, 1, 1)),
    ops.MaxPool2d((2, 2), (2, 2)),
    ops.MaxPool2d((5, 3), (2, 1), (2, 1, 2, 1), (1, 2)),
    ops.AvgPool2d((3, 2), (1, 2), (1, 1, 1, 0)),
    ops.GlobalAvgPool(),
    ops.GlobalMaxPool(),
    ops.DepthToSpace(2, "crd"),
    ops.DepthToSpace(3, "dcr"),
    ops.SpaceToDepth(2),
    ops.Relu(),
    ops.Tanh(),
    ops.Softmax(1),
    ops.Softmax(-1),
    ops.Transpose((0, 2, 3, 1)),
    ops.Resize((2.0, 3.0), mode="nearest"),
    ops.Resize((2.0, 1.5), mode="linear"),
    ops.Resize((2.0, 2.0), mode="cubic"),
    ops.Resize((3.0, 4.0), mode="linear"),
    ops.LogSoftmax(1),
    ops.ReduceLogSumExp((2, 3)),
    ops.ReduceL2((1,)),
    ops.ReduceMin((-1,)),
    ops.L2Norm((1,)),
    ops.L1Norm((2, 3)),
    ops.Roll((1, -2), (2, 3)),
    ops.Tile((1, 2, 1, 3)),
    ops.Pad((1, 2, 3, 1), "reflect"),
    ops.Pad((1, 0, 2, 3)),
    ops.LocalResponseNorm(5),
    ops.LocalResponseNorm(34, beta=0.6),
    ops.Triangle(-2, upper=False),
    ops.Hardmax(1),
    ops.LpPoolNd((3, 2), (2, 1), (1, 0, 1, 1), (1, 1), True),
    ops.CumulativeSum(1),
    ops.CumulativeSum(-1, exclusive=True, reverse=True),
)


@st.composite
def images(draw: Draw) -> GraphCase:
    """What has a kernel for images, planar and in blocks, at the sizes where vectors and blocks begin and end."""
    op, blocked = draw(st.sampled_from(IMAGE_OPS)), draw(st.booleans())
    channels = draw(st.sampled_from([c for c in CHANNELS if c >= 8 or not blocked]))
    if isinstance(op, ops.DepthToSpace):
        channels = min(channels, 33) * op.block**2
    h, w = (draw(st.sampled_from(SIZES)) + 4 for _ in "hw")
    if isinstance(op, ops.SpaceToDepth):
        h, w = 2 * h, 2 * w
    return layer_case(draw, op, (draw(st.integers(1, 2)), channels, h, w), blocked=blocked)


@st.composite
def layers(draw: Draw) -> GraphCase:
    """Every op of the table alone, in float32."""
    case = draw(LAYERS[draw(st.sampled_from(sorted(LAYERS)))]())
    return layer_graph(case.astype("float32"), draw(st.booleans()))


FAMILIES: dict[str, tuple[type[LlvmBackend], st.SearchStrategy[GraphCase]]] = {
    **{name: (AsWritten, cases) for name, cases in CONVOLUTIONS.items()},
    "images": (AsWritten, images()),
    "products": (AsWritten, products()),
    "normalisations": (AsWritten, normalisations()),
    "sequences": (AsWritten, sequences()),
    "heads": (AsWritten, heads()),
    "pictures": (AsWritten, st.one_of(pictures(), endings())),
    "layers": (AsWritten, layers()),
    "local connections": (AsWritten, local_layers()),
    "places": (AsWritten, st.booleans().flatmap(lambda blocked: st.one_of(samples(blocked), crops(blocked)))),
    "volumes": (LlvmBackend, with_epilogue(st.one_of(convolutions(), transposed_convolutions()))),
    "wide layers": (LlvmBackend, wide_layers()),
    "networks": (LlvmBackend, networks()),
}


def main(family: str, examples: int) -> None:
    backend, cases = FAMILIES[family]
    sides = st.sampled_from(["behind", "behind", "before"])
    offsets = st.sampled_from(range(0, 64, 4))

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize="GRAPHSR_EXPLORE" not in os.environ,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases, sides, offsets)
    def run(case: GraphCase, side: Side, misaligned: int) -> None:
        print(f"--- {side}, inputs moved by {misaligned} bytes: {case!r}", flush=True)
        check_case(backend, case, side, misaligned)

    run()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

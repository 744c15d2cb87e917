"""Every kernel of the llvm backend, for tests that read its code: nothing is compiled or run."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from inspect import isabstract

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from llvm_guarded import IMAGE_OPS
from llvm_layers import through_blocks
from test_llvm_conv import SPILLED as CONVOLUTIONS
from test_llvm_conv import layer_graph as convolution_graph

from graphsr import ops
from graphsr.backends.llvm import kernels as families
from graphsr.backends.llvm.backend import LlvmBackend
from graphsr.backends.llvm.kernel import Call, Kernel
from graphsr.backends.llvm.kernels import LOWER
from graphsr.backends.llvm.kernels.layout import ToBlocked, ToPlanar
from graphsr.backends.llvm.kernels.peak import CopyRate, FmaPeak
from graphsr.backends.llvm.kernels.register_tile import accumulators
from graphsr.backends.llvm.loops import LANES
from graphsr.backends.llvm.plan import Planner
from graphsr.backends.llvm.target import Target
from graphsr.backends.weights import WeightCache
from graphsr.ir import Graph, Node, TensorType
from graphsr.model import Model
from graphsr.models import edsr, espcn, srresnet, wdsr_a
from graphsr.op import Op
from graphsr.testing.cases import LAYERS, Case
from graphsr.testing.check import layer_graph

NETWORKS: dict[str, Callable[[], Model]] = {
    "EDSR": lambda: edsr(scale=2, blocks=1, features=32),
    "EDSR x3": lambda: edsr(scale=3, blocks=1, features=64),
    "WDSR": lambda: wdsr_a(scale=4, blocks=1),
    "SRResNet": lambda: srresnet(scale=2, blocks=1),
    "ESPCN": lambda: espcn(scale=3),
}
EXAMPLES = 6
"""Layers drawn of each op that has a kernel."""


@cache
def kernels(target: Target) -> tuple[Kernel, ...]:
    """What networks and single layers need on a target."""
    found: set[Kernel] = {FmaPeak(accumulators(target)), CopyRate()}

    def note(call: Call) -> None:
        found.add(call.kernel)

    for graph in graphs():
        plan = Planner(graph, target, 2, WeightCache(), note, keep=0).plan()
        found |= {work.step.kernel for work in plan.works if isinstance(work.step, Call)}
    return tuple(sorted(filter(_is_short, found), key=lambda kernel: kernel.symbol))


def _is_short(kernel: Kernel) -> bool:
    """All but layout conversions that say the same for ever more blocks of channels."""
    return not isinstance(kernel, ToBlocked | ToPlanar) or kernel.channels <= 3 * LANES


def kinds() -> set[type[Kernel]]:
    """All classes of kernels."""
    modules = [import_module(f"{families.__name__}.{info.name}") for info in pkgutil.iter_modules(families.__path__)]
    classes = [value for module in modules for value in vars(module).values() if isinstance(value, type)]
    return {kind for kind in classes if issubclass(kind, Kernel) and not isabstract(kind)}


def pictures() -> Iterator[Graph]:
    """The last steps of networks whose output is a picture."""
    for op, white, dtype in ((ops.DepthToSpace(4), 255.0, "uint8"), (ops.DepthToSpace(3, "dcr"), 1.0, "uint16")):
        x = Node.input("x", TensorType("float32", (1, 3 * op.block**2, 12, 12)))
        y = Node(op, (through_blocks(x),), "shuffle")
        yield picture(x, y, ops.Quantise(white, dtype, channels_last=True))
    for size in (3, 9):
        x, weight = Node.input("x", TensorType("float32", (1, 64, 12, 12))), np.ones((3, 64, size, size), np.float32)
        y = Node(ops.Conv2d(padding=(size // 2,) * 4), (x, Node.const(weight)), "tail")
        yield picture(x, y, ops.Quantise(channels_last=True))


def picture(x: Node, y: Node, op: ops.Quantise) -> Graph:
    return Graph((x,), {"pixels": Node(op, (y,)), "finite": Node(ops.AllFinite(), (y,))})


@cache
def graphs() -> tuple[Graph, ...]:
    """Bound graphs of the networks, of every op that has a kernel, of ops on blocked images, and of convolutions."""
    found = [graph for size in ((20, 28), (100, 120)) for graph in networks(*size)]
    for name in sorted(LOWER.keys() & LAYERS.keys()):
        cases = [case.astype("float32") for case in drawn(name)]
        found += [layer_graph(case, constant).graph for case in cases for constant in (False, True)]
    for op in IMAGE_OPS:
        cells = op.block**2 if isinstance(op, ops.DepthToSpace) else 1
        found += [blocked_layer(op, (1, channels * cells, 12, 12)) for channels in (20, 32)]
    found.append(blocked_layer(ops.Split(1, (16, 16), 0), (1, 32, 12, 12)))
    found += pictures()
    found += [layer_graph(case, constant=True).graph for case in layers()]
    for op, channels, weight in CONVOLUTIONS.values():
        found += [
            convolution_graph(op, (1, channels, 20, 20), [np.ones(weight, np.float32)], read_on=read_on)
            for read_on in (False, True)
        ]
    return tuple(graph.bind({x.name: x.type.dims for x in graph.inputs}) for graph in found)


def layers() -> Iterator[Case]:
    """What draws may miss."""
    weight, x = np.ones((64, 64), np.float32), np.ones((2, 5, 20), np.float32)
    for rows in (1, 64):
        yield Case(ops.Dense(), (weight[:rows], weight))
    yield Case(ops.Gather(1), (x, np.array([0, 3, 1])))
    yield Case(ops.L2Norm((1,)), (x,))
    row = np.ones((1, 1 << 17), np.float32)
    for reduction in (ops.ReduceMax, ops.ReduceProd, ops.ReduceMean, ops.ReduceL1, ops.ReduceSumSquare):
        yield Case(reduction((1,)), (row,))
    for op in (ops.Softmax(), ops.Softmax(-1, 0.5), ops.LogSoftmax(), ops.ReduceLogSumExp((1,))):
        yield Case(op, (row,))
    one = np.ones(1, np.float32)
    yield Case(ops.GroupNorm(1), (row[:, None], one, one))
    yield Case(ops.LayerNorm(), (row, row[0], row[0]))
    yield Case(ops.RmsNorm(), (row, row[0]))
    yield Case(ops.L1Norm((1,)), (row,))
    yield Case(ops.L2Norm((1,)), (row,))
    for axis in (1, 2):
        yield Case(ops.ArgMax(axis), (x,))
        yield Case(ops.TopK(2, axis), (x,))
        yield Case(ops.TopK(2, axis, False, "indices"), (x,))
    for column_major in (False, True):
        pool = ops.MaxPoolNd((2, 3), (1, 2), (0,) * 4, (1, 1), output="indices", column_major=column_major)
        yield Case(pool, (x[None],))
    yield Case(ops.TopK(40), (np.ones((2, 64), np.float32),))
    for channels in (1, 32):
        volume, weight = np.ones((1, channels, 3, 3, 20), np.float32), np.ones((32, channels, 3, 3, 3), np.float32)
        for algorithm in ("direct", "winograd_f4", "winograd_f6"):
            yield Case(ops.ConvNd((1,) * 3, (1,) * 6, (1,) * 3, algorithm=algorithm), (volume, weight))
    for outputs, stride in ((1, 1), (3, 1), (1, 2)):
        volume, weight = np.ones((1, 32, 3, 3, 20), np.float32), np.ones((outputs, 32, 3, 3, 3), np.float32)
        yield Case(ops.ConvNd((stride,) * 3, (1,) * 6, (1,) * 3), (volume, weight))
    for images in (1, 5):
        local = [np.ones(shape, np.float32) for shape in ((images, 35, 3, 3), (2, 2, 64, 35, 2, 2), (64, 2, 2))]
        yield Case(ops.LocalConv2d(), tuple(local))
    gates = np.ones((80, 20), np.float32)
    for samples in (8, 40):
        x, state, bias = np.ones((1, samples, 20), np.float32), np.ones((samples, 20), np.float32), gates[:, 0]
        yield Case(ops.Lstm(), (x, gates, gates, bias, state, state))
        yield Case(ops.SimpleRnn(), (x, gates[:20], gates[:20], bias[:20], state))
        for reset in ("before", "after"):
            yield Case(ops.Gru(reset=reset), (x, gates[:60], gates[:60], bias[:60], bias[:60], state))


def networks(height: int, width: int) -> Iterator[Graph]:
    for make in NETWORKS.values():
        model = make()
        (image,) = model.graph.inputs
        graph = LlvmBackend().compile(model.graph).graph
        yield graph.bind({image.name: (1, int(str(image.type.shape[1])), height, width)})


def drawn(name: str) -> list[Case]:
    """Always the same few layers of an op."""
    cases: list[Case] = []

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(LAYERS[name]())
    def note(case: Case) -> None:
        cases.append(case)

    note()
    return cases


def blocked_layer(op: Op, shape: tuple[int, ...]) -> Graph:
    """An op on an image in blocks."""
    x = Node.input("x", TensorType("float32", shape))
    return Graph((x,), {"y": Node(op, (through_blocks(x),), "layer")})

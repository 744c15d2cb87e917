"""Convolutions of the llvm backend: every kernel over sizes, attributes, epilogues, threads and non-finite values."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graphsr.ir import Graph, Node, TensorType
from graphsr.op import Array, Op
from graphsr.ops import Clip, Conv2d, ConvTranspose2d, DepthToSpace, Fused, Leaky, Relu, Shortcut
from graphsr.passes import choose_conv_algorithm
from graphsr.testing.check import assert_agrees
from graphsr.testing.graphs import GraphCase
from graphsr.testing.wide import repeated

pytest.importorskip("llvmlite")

from llvm_assembly import SPILL, innermost_loops

from graphsr.backends.llvm.backend import LlvmBackend
from graphsr.backends.llvm.jit import emit_assembly
from graphsr.backends.llvm.kernel import Call, Kernel
from graphsr.backends.llvm.kernels.conv_winograd import cut_tiles
from graphsr.backends.llvm.loops import module
from graphsr.backends.llvm.plan import Planner
from graphsr.backends.llvm.target import Target, named
from graphsr.backends.weights import WeightCache

CHANNELS = (1, 2, 3, 4, 7, 8, 15, 16, 17, 25, 31, 32, 33, 48, 64, 96, 100, 192)
SIZES = (1, 1, 2, 3, 5, 7, 8, 11, 12, 13, 14, 16, 17, 23, 33, 50)
PAIRS = st.tuples(st.integers(1, 3), st.integers(1, 3))
PADDING = st.tuples(*[st.integers(0, 3)] * 4)
ACTIVATIONS = (None, None, Relu(), Leaky(0.25), Clip(-0.75, 0.5))
FACTORS = (1.0, 1.0, -0.5, 0.25)
MOST_MACS = 20_000_000
"""The reference takes a fraction of a second for so many."""

several = settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))


class AsWritten(LlvmBackend):
    """Without passes: each test chooses the algorithm itself."""

    def __init__(self, memory: str = "default") -> None:
        super().__init__(memory=memory)
        self.passes = ()


def layer_graph(
    op: Op, shape: tuple[int, ...], constants: list[Array], follow: Op | None = None, read_on: bool = False
) -> Graph:
    """y = follow(op(x, *constants[, r])), where r is an input that is there when the op has a residual; with
    `read_on`, another convolution reads the layer as well: then it is not just written as NumPy has it."""
    inputs = [Node.input("x", TensorType("float32", shape))]
    arguments = [inputs[0], *(Node.const(array, f"c{i}") for i, array in enumerate(constants))]
    if isinstance(op, Fused) and op.residual:
        y_type = op.base.infer(*(node.type for node in arguments))
        inputs.append(Node.input("r", y_type))
        arguments.append(inputs[1])
    y = Node(op, tuple(arguments), "layer")
    outputs = {"y": y if follow is None else Node(follow, (y,), "follow")}
    if read_on:
        weight = np.ones((16, outputs["y"].type.dims[1], 1, 1), np.float32)
        outputs["z"] = Node(Conv2d(), (outputs["y"], Node.const(weight, "ones")), "reader")
    return Graph(tuple(inputs), outputs)


@st.composite
def epilogues(draw: st.DrawFn, conv: Op, residual: bool = True) -> Op:
    """The convolution, or a fused op around it."""
    activation = draw(st.sampled_from(ACTIVATIONS))
    factors = st.builds(Shortcut, st.sampled_from(FACTORS), st.sampled_from(FACTORS))
    shortcut = draw(st.none() | factors) if residual else None
    return Fused(conv, activation, shortcut) if activation or shortcut else conv


@st.composite
def cases(
    draw: st.DrawFn, conv: Op, x: tuple[int, ...], weight: tuple[int, ...], follow: Op | None = None
) -> GraphCase:
    """A convolution of drawn values with a drawn epilogue."""
    co = weight[1] * conv.groups if isinstance(conv, ConvTranspose2d) else weight[0]
    constants = [draw(repeated(weight)), *([draw(repeated((co,)))] if draw(st.booleans()) else [])]
    graph = layer_graph(draw(epilogues(conv, residual=follow is None)), x, constants, follow, draw(st.booleans()))
    inputs = {node.name: draw(repeated(node.type.dims)) for node in graph.inputs}
    return GraphCase(graph, inputs)


def image_size(draw: st.DrawFn, low: tuple[int, int], macs: int) -> tuple[int, int]:
    """Height and width of at least `low`, such that so many multiplications per pixel stay below the limit."""
    h, w = (low[a] + draw(st.sampled_from(SIZES)) - 1 for a in (0, 1))
    while h * w * macs > MOST_MACS and (h, w) != low:
        h, w = max(low[0], h // 2), max(low[1], w // 2)
    return h, w


@st.composite
def plain(draw: st.DrawFn, groups: st.SearchStrategy[tuple[int, int, int]]) -> GraphCase:
    """A convolution of any geometry; `groups` draws (groups, Ci of a group, Co of a group)."""
    g, ci, co = draw(groups)
    kernel = draw(st.tuples(st.integers(1, 7), st.integers(1, 7)) | st.sampled_from([(1, 1), (3, 3), (3, 3)]))
    stride, dilation, padding = draw(PAIRS), draw(PAIRS | st.just((1, 1))), draw(PADDING)
    low = tuple(max(1, dilation[a] * (kernel[a] - 1) + 1 - padding[a] - padding[a + 2]) for a in (0, 1))
    n = draw(st.integers(1, 3))
    h, w = image_size(draw, (low[0], low[1]), n * g * ci * co * kernel[0] * kernel[1])
    conv = Conv2d(stride, padding, dilation, g)
    return draw(cases(conv, (n, g * ci, h, w), (g * co, ci, *kernel)))


one_group = st.tuples(st.just(1), st.sampled_from(CHANNELS), st.sampled_from(CHANNELS))
several_groups = st.tuples(st.integers(2, 5), st.sampled_from((1, 2, 5, 16, 32)), st.sampled_from((1, 3, 8, 16, 48)))
depthwise = st.tuples(st.sampled_from((2, 3, 8, 16, 17, 25, 32, 100)), st.just(1), st.sampled_from((1, 1, 2, 3, 4, 9)))


@st.composite
def pointwise(draw: st.DrawFn) -> GraphCase:
    """A 1x1 convolution between so few channels that images stay planar."""
    g, ci, co = draw(st.sampled_from([(1, 8, 8), (1, 3, 5), (1, 1, 1), (1, 7, 100), (2, 3, 4), (8, 1, 1), (3, 5, 13)]))
    h, w = image_size(draw, (1, 1), g * ci * co)
    return draw(cases(Conv2d(groups=g), (draw(st.integers(1, 2)), g * ci, h, w), (g * co, ci, 1, 1)))


@st.composite
def transposed(draw: st.DrawFn) -> GraphCase:
    g, ci, co = draw(one_group | st.just((2, 16, 32)) | st.just((3, 2, 5)))
    kernel = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    stride, dilation = draw(PAIRS), draw(PAIRS | st.just((1, 1)))
    n = draw(st.integers(1, 2))
    size = image_size(draw, (1, 1), n * g * ci * co * kernel[0] * kernel[1])
    extra = tuple(draw(st.integers(0, max(stride[a], dilation[a]) - 1)) for a in (0, 1))
    full = [stride[a] * (size[a] - 1) + dilation[a] * (kernel[a] - 1) + 1 + extra[a] for a in (0, 1)]
    top, left = (draw(st.integers(0, min(3, full[a] - 1))) for a in (0, 1))
    bottom, right = (draw(st.integers(0, min(3, full[a] - 1 - (top, left)[a]))) for a in (0, 1))
    conv = ConvTranspose2d(stride, (top, left, bottom, right), dilation, (extra[0], extra[1]), g)
    return draw(cases(conv, (n, g * ci, *size), (g * ci, co, *kernel)))


@st.composite
def shuffled(draw: st.DrawFn, algorithms: tuple[str, ...] = ("direct",)) -> GraphCase:
    """A 3x3 convolution and a pixel shuffle that is fused into it."""
    ci, co = draw(st.sampled_from((3, 16, 25, 64))), draw(st.sampled_from((1, 3, 8, 12, 16, 40)))
    s = draw(st.integers(2, 3))
    conv = Conv2d(padding=(1, 1, 1, 1), algorithm=draw(st.sampled_from(algorithms)))
    h, w = image_size(draw, (1, 1), ci * co * 9 * s * s)
    follow = DepthToSpace(s, draw(st.sampled_from(["crd", "dcr"])))
    return draw(cases(conv, (draw(st.integers(1, 2)), ci, h, w), (co * s * s, ci, 3, 3), follow))


WINOGRAD = ("winograd_f2", "winograd_f4", "winograd_f6")


@st.composite
def winograd(draw: st.DrawFn) -> GraphCase:
    ci, co, padding = draw(st.sampled_from(CHANNELS)), draw(st.sampled_from(CHANNELS)), draw(PADDING)
    n = draw(st.integers(1, 2))
    low = (max(1, 3 - padding[0] - padding[2]), max(1, 3 - padding[1] - padding[3]))
    h, w = image_size(draw, low, n * ci * co * 9)
    conv = Conv2d(padding=padding, algorithm=draw(st.sampled_from(WINOGRAD)))
    return draw(cases(conv, (n, ci, h, w), (co, ci, 3, 3)))


ALL = {
    "one group": plain(one_group),
    "groups": plain(several_groups),
    "depthwise": plain(depthwise),
    "pointwise": pointwise(),
    "transposed": transposed(),
    "shuffled": shuffled(),
    "winograd": winograd(),
    "winograd shuffled": shuffled(WINOGRAD),
}


@pytest.mark.parametrize("kind", ALL)
def test_agrees_with_the_reference(kind: str) -> None:
    @several
    @given(ALL[kind])
    def run(case: GraphCase) -> None:
        executable = AsWritten().compile(case.graph, threads=1)
        assert_agrees(executable, case)
        steps = executable.bind(case.shapes).steps()
        kernels = [step.kernel for step in steps if step.node == "layer"]
        assert kernels, executable.explain()
        assert "forward" not in kernels or "groups" in executable.explain(), executable.explain()

    run()


@pytest.mark.parametrize("kind", ALL)
def test_same_bits_for_any_number_of_threads(kind: str) -> None:
    @settings(several, max_examples=15)
    @given(ALL[kind])
    def run(case: GraphCase) -> None:
        one, *others = (AsWritten().compile(case.graph, threads=n)(case.inputs)["y"] for n in (1, 2, 3))
        assert [y.tobytes() for y in others] == [one.tobytes()] * 2

    run()


@st.composite
def winograd_of_many_channels(draw: st.DrawFn) -> GraphCase:
    """Transformed weights that the second cache does not hold, in images that are large enough for them."""
    ci, co = draw(st.sampled_from((128, 137, 160))), draw(st.sampled_from((130, 144, 176)))
    size = draw(st.sampled_from([(19, 20), (27, 13), (2, 200)]))
    conv = Conv2d(padding=(1, 1, 1, 1), algorithm=draw(st.sampled_from(("winograd_f4", "winograd_f6"))))
    return draw(cases(conv, (1, ci, *size), (co, ci, 3, 3)))


@settings(several, max_examples=8)
@given(winograd_of_many_channels(), st.sampled_from(("low", "default", "high")))
def test_large_transformed_weights_are_made_in_the_kernel(case: GraphCase, memory: str) -> None:
    backend = AsWritten(memory)
    executable = backend.compile(case.graph, threads=1)
    assert_agrees(executable, case)
    steps = [step for step in executable.bind(case.shapes).steps() if step.node == "layer"]
    assert [step.kernel for step in steps if step.kernel == "taps"] == ["taps"] * (memory == "low")
    assert any("memory='high'" in step.note for step in steps) == (memory != "high")
    one = executable(case.inputs)["y"].tobytes()
    assert [backend.compile(case.graph, threads=n)(case.inputs)["y"].tobytes() for n in (2, 3)] == [one] * 2


@given(st.integers(1, 3000), st.sampled_from((1, 2, 4, 22)), st.integers(2, 22), st.integers(1, 8))
def test_units_of_winograd_are_all_tiles_once(total: int, groups: int, rows: int, threads: int) -> None:
    units = cut_tiles(total, groups * rows, rows, threads)
    assert units[:, 1].min() >= 1
    assert units[:, 1].max() <= groups * rows
    np.testing.assert_array_equal(units[:, 0], np.cumsum([0, *units[:-1, 1]]))
    assert units[:, 1].sum() == total


def test_threads_share_the_tiles_of_a_small_image() -> None:
    """11 tiles of 11 rows, for two threads: not 66 and 55 rows, but 61 and 60."""
    assert cut_tiles(121, 66, 11, 2).tolist() == [[0, 60], [60, 61]]
    assert cut_tiles(132, 66, 11, 2).tolist() == [[0, 66], [66, 66]]


@pytest.mark.parametrize("kind", ALL)
def test_not_a_number_is_where_the_reference_has_it(kind: str) -> None:
    """NaN and infinities spread as far as the kernel reaches: not to other channels, groups, rows or the padding, nor
    over a tile of Winograd's."""

    @settings(several, max_examples=40)
    @given(ALL[kind], st.lists(st.tuples(st.integers(0), st.sampled_from([np.nan, np.inf])), min_size=1, max_size=3))
    def run(case: GraphCase, broken: list[tuple[int, float]]) -> None:
        x = case.inputs["x"].copy()
        for position, value in broken:
            x.flat[position % x.size] = value
        inputs = {**case.inputs, "x": x}
        with np.errstate(invalid="ignore"):  # where a kernel is missing, or in the reference
            got = AsWritten().compile(case.graph, threads=1)(inputs)["y"]
            want = evaluate_reference(choose_conv_algorithm(case.graph, tiles=()), inputs)
        for kind_of in (np.isnan, np.isposinf, np.isneginf):
            np.testing.assert_array_equal(kind_of(got), kind_of(want), kind_of.__name__)

    run()


def evaluate_reference(graph: Graph, inputs: dict[str, Array]) -> Array:
    from graphsr.backends.reference import ReferenceBackend

    return ReferenceBackend("float64").compile(graph)(inputs)["y"]


SPILLED = {
    "direct": (Conv2d(padding=(1, 1, 1, 1)), 64, (64, 64, 3, 3)),
    "direct, 5 blocks": (Conv2d(padding=(1, 1, 1, 1)), 64, (80, 64, 3, 3)),
    "direct, 7 blocks": (Conv2d(padding=(1, 1, 1, 1)), 64, (112, 64, 3, 3)),
    "groups": (Conv2d(padding=(1, 1, 1, 1), groups=4), 256, (256, 64, 3, 3)),
    "1x1": (Conv2d(), 16, (16, 16, 1, 1)),
    "1x1, 3 blocks": (Conv2d(), 24, (48, 24, 1, 1)),
    "1x1, 4 blocks, stride 2": (Conv2d((2, 2)), 64, (64, 64, 1, 1)),
    "1x1, 5 blocks": (Conv2d(), 64, (80, 64, 1, 1)),
    "dilated": (Conv2d(padding=(2, 2, 2, 2), dilation=(2, 2)), 48, (48, 48, 3, 3)),
    "head": (Conv2d(padding=(1, 1, 1, 1)), 3, (64, 3, 3, 3)),
    "tail": (Conv2d(padding=(1, 1, 1, 1)), 64, (3, 64, 3, 3)),
    "winograd": (Conv2d(padding=(1, 1, 1, 1), algorithm="winograd_f6"), 64, (64, 64, 3, 3)),
    "winograd of many channels": (Conv2d(padding=(1, 1, 1, 1), algorithm="winograd_f6"), 128, (144, 128, 3, 3)),
    "planar": (Conv2d(padding=(1, 1, 1, 1)), 3, (100, 3, 3, 3)),
    "planar, stride 2": (Conv2d((2, 2), padding=(1, 1, 1, 1)), 3, (100, 3, 3, 3)),
    "planar 1x1": (Conv2d(), 8, (8, 8, 1, 1)),
    "planar depthwise, stride 2": (Conv2d((2, 2), padding=(1, 1, 1, 1), groups=8), 8, (8, 1, 3, 3)),
    "depthwise": (Conv2d(padding=(1, 1, 1, 1), groups=64), 64, (64, 1, 3, 3)),
    "depthwise 5x5": (Conv2d(padding=(2, 2, 2, 2), groups=64), 64, (64, 1, 5, 5)),
    "transposed": (ConvTranspose2d((2, 2), (1, 1, 1, 1)), 64, (64, 64, 4, 4)),
}


@pytest.mark.parametrize("target", ["x86-64-v4", "x86-64-v3", "x86-64-v2"])
@pytest.mark.parametrize("kind", SPILLED)
def test_innermost_loops_keep_their_vectors_in_registers(kind: str, target: str) -> None:
    op, channels, weight = SPILLED[kind]
    graph = layer_graph(op, (1, channels, 20, 20), [np.ones(weight, np.float32)], read_on=kind == "head")
    found = 0
    for kernel in kernels_of(graph, named(target)):
        for loop in innermost_loops(emit_assembly(module([kernel.function(named(target))]), named(target))):
            if len(re.findall(r"fmadd|mulps", loop)) >= 3:
                found += 1
                assert not SPILL.search(loop), loop
    assert found


def kernels_of(graph: Graph, target: Target) -> set[Kernel]:
    """The kernels that compute a bound graph on a target; nothing is compiled or run."""
    plan = Planner(graph, target, 1, WeightCache(), lambda call: None, keep=0).plan()
    return {work.step.kernel for work in plan.works if isinstance(work.step, Call) and work.node.name == "layer"}

"""Layers over three axes in the llvm backend, and transposed convolutions of signals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphsr.ir import Graph, Node, TensorType
from graphsr.op import Op
from graphsr.ops import (
    AllFinite,
    AvgPoolNd,
    Clip,
    ConvNd,
    ConvTransposeNd,
    Fused,
    MaxPoolNd,
    Quantise,
    Relu,
    Shortcut,
)
from graphsr.ops.conv import ALGORITHMS
from graphsr.passes import choose_conv_algorithm
from graphsr.testing.graphs import GraphCase
from graphsr.testing.wide import repeated

pytest.importorskip("llvmlite")

from llvm_layers import BACKEND, assert_has_kernel, assert_same_nans, layer_case, several, with_nans

from graphsr.backends.llvm.backend import LlvmBackend
from graphsr.backends.llvm.kernels.volumes_tail import MOST_CHANNELS
from graphsr.backends.reference import ReferenceBackend

EXTENTS = st.tuples(st.integers(3, 6), st.integers(3, 7), st.sampled_from([3, 7, 16, 19]))
"""Depth, height, width."""


def triples(least: int, most: int) -> st.SearchStrategy[tuple[int, int, int]]:
    return st.tuples(*[st.integers(least, most)] * 3)


@st.composite
def convolutions(draw: st.DrawFn) -> GraphCase:
    groups, ci, co = draw(st.integers(1, 2)), draw(st.sampled_from([1, 3, 16])), draw(st.sampled_from([1, 5, 16]))
    kernel, padding = draw(triples(1, 2)), draw(triples(0, 2)) + draw(triples(0, 2))
    op = ConvNd(draw(triples(1, 2)), padding, draw(triples(1, 2)), groups)
    weights = draw(repeated((co * groups, ci, *kernel))), draw(repeated((co * groups,)))
    return layer_case(draw, op, (draw(st.integers(1, 2)), ci * groups, *draw(EXTENTS)), constants=weights)


@several
@given(convolutions())
def test_convolution(case: GraphCase) -> None:
    assert_has_kernel(case)


@st.composite
def transposed_convolutions(draw: st.DrawFn) -> GraphCase:
    """Of signals, any; of volumes, those whose windows tile the depth."""
    ci, co, axes = draw(st.sampled_from([1, 3, 16])), draw(st.sampled_from([1, 5, 16])), draw(st.sampled_from([1, 3]))
    kernel, stride = draw(triples(1, 3))[:axes], draw(triples(1, 3))[:axes]
    if axes == 3:
        stride = (kernel[0], *stride[1:])
    extra = tuple(draw(st.integers(0, s - 1)) if a or axes == 1 else 0 for a, s in enumerate(stride))
    op = ConvTransposeNd(stride, (0,) * (2 * axes), (1,) * axes, 1, extra)
    bias = (draw(repeated((co,))),) if draw(st.booleans()) else ()
    shape = (draw(st.integers(1, 2)), ci, *draw(EXTENTS)[3 - axes :])
    return layer_case(draw, op, shape, constants=(draw(repeated((ci, co, *kernel))), *bias))


@several
@given(transposed_convolutions())
def test_transposed_convolution(case: GraphCase) -> None:
    assert_has_kernel(case)


@st.composite
def pools(draw: st.DrawFn) -> Op:
    kernel, stride, dilation = draw(triples(1, 3)), draw(triples(1, 3)), draw(triples(1, 2))
    most = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    padding = tuple(draw(st.integers(0, p)) for p in (*most, *most))
    windows = kernel, stride, padding, dilation, draw(st.booleans())
    kinds = [MaxPoolNd(*windows), AvgPoolNd(*windows), AvgPoolNd(*windows, count_include_pad=True)]
    return draw(st.sampled_from(kinds))


@several
@given(st.data(), pools(), st.sampled_from([1, 3, 16]))
def test_pools(data: st.DataObject, op: Op, channels: int) -> None:
    case = layer_case(data.draw, op, (2, channels, *(n + 4 for n in data.draw(EXTENTS))))
    assert_has_kernel(case)
    assert_same_nans(with_nans(case))


@pytest.mark.parametrize(
    ("channels", "groups", "outputs"), [(64, 1, 48), (33, 1, 112), (1, 1, 32), (24, 24, 24), (40, 2, 50)], ids=str
)
@several
@given(st.data())
def test_channels_of_networks(channels: int, groups: int, outputs: int, data: st.DataObject) -> None:
    """Whole blocks and panels or not; groups that are no blocks. NaN stays within its windows and its group."""
    op = ConvNd((1, 1, 1), (1,) * 6, (1, 1, 1), groups)
    weights = np.ones((outputs, channels // groups, 3, 3, 3), np.float32), data.draw(repeated((outputs,)))
    case = layer_case(data.draw, op, (1, channels, 3, 3, 17), constants=weights)
    assert_has_kernel(case)
    assert_same_nans(with_nans(case, every=1009))


@several
@given(st.data(), triples(1, 3), triples(1, 3), triples(1, 2), st.integers(1, 3))
def test_any_transposed_convolution(
    data: st.DataObject,
    kernel: tuple[int, int, int],
    stride: tuple[int, int, int],
    dilation: tuple[int, int, int],
    groups: int,
) -> None:
    """Phases that have no taps, windows that overlap, groups that are no blocks."""
    op = ConvTransposeNd(stride, (*data.draw(triples(0, 1)), 0, 0, 0), dilation, groups)
    weight = data.draw(repeated((5 * groups, 3, *kernel)))
    assert_has_kernel(layer_case(data.draw, op, (2, 5 * groups, *data.draw(EXTENTS)), constants=(weight,)))


@st.composite
def in_planes(draw: st.DrawFn) -> GraphCase:
    """What Winograd can compute in the planes, with any taps along the depth."""
    ci, co = draw(st.sampled_from([8, 16, 20, 33, 64])), draw(st.sampled_from([1, 5, 16, 32, 40]))
    taps, stride, space = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    padding = draw(triples(0, 2)) + draw(triples(0, 2))
    depth = max(1, space * (taps - 1) + 1 - padding[0] - padding[3]) + draw(st.integers(0, 3))
    op = ConvNd((stride, 1, 1), padding, (space, 1, 1), algorithm=draw(st.sampled_from(ALGORITHMS)))
    follow = Fused(op, Relu(), Shortcut(0.5, 2.0)) if draw(st.booleans()) else op
    size = depth, draw(st.sampled_from([3, 8, 17, 40])), draw(st.sampled_from([3, 13, 31, 60]))
    weights = draw(repeated((co, ci, taps, 3, 3))), draw(repeated((co,)))
    shape = (draw(st.integers(1, 2)), ci, *size)
    x = Node.input("x0", TensorType("float32", shape))
    arguments: list[Node] = [x, *map(Node.const, weights)]
    if follow is not op:
        result = op.infer(*(node.type for node in arguments))
        arguments.append(Node.input("x1", result))
    inputs = tuple(node for node in arguments if not node.is_const)
    graph = Graph(inputs, {"y": Node(follow, tuple(arguments), "layer")})
    return GraphCase(graph, {node.name: draw(repeated(node.type.dims)) for node in inputs})


@several
@given(in_planes())
def test_convolution_of_planes_by_winograd(case: GraphCase) -> None:
    """Beside the reference, which has NaN where plain sums have it."""
    assert_has_kernel(case)
    plain = GraphCase(choose_conv_algorithm(case.graph, tiles=(), volumes=True), with_nans(case, every=1009).inputs)
    got = BACKEND.compile(case.graph, threads=2)(plain.inputs)["y"]
    want = ReferenceBackend("float64").compile(plain.graph)(plain.inputs)["y"]
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))


@st.composite
def tails(draw: st.DrawFn) -> GraphCase:
    """To few channels over three and four axes, with any epilogue."""
    axes = draw(st.sampled_from([3, 3, 4]))
    ci, co = draw(st.sampled_from([8, 16, 20, 33])), draw(st.integers(1, MOST_CHANNELS))
    some = st.tuples(*[st.integers(0, 2)] * axes)
    kernel, stride, dilation = ([1 + n for n in draw(some)] for _ in range(3))
    before, behind = draw(some), draw(some)
    least = [d * (k - 1) + 1 - p - q for k, d, p, q in zip(kernel, dilation, before, behind, strict=True)]
    *outer, width = (max(1, n) for n in least)
    size = *(n + draw(st.integers(0, 3)) for n in outer), width + draw(st.sampled_from([0, 1, 14, 16, 33]))
    op = ConvNd(tuple(stride), (*before, *behind), tuple(dilation))
    x = Node.input("x", TensorType("float32", (draw(st.integers(1, 2)), ci, *size)))
    arguments = [x, Node.const(draw(repeated((co, ci, *kernel)))), Node.const(draw(repeated((co,))))]
    result = op.infer(*(node.type for node in arguments))
    layer = draw(st.sampled_from([op, Fused(op, Clip(-0.75, 0.5)), Fused(op, Relu(), Shortcut(0.5, 2.0))]))
    inputs = [x, Node.input("r", result)] if isinstance(layer, Fused) and layer.residual else [x]
    y = Node(layer, (*arguments, *inputs[1:]), "layer")
    return GraphCase(Graph(tuple(inputs), {"y": y}), {node.name: draw(repeated(node.type.dims)) for node in inputs})


@several
@given(tails())
def test_last_layers_of_networks(case: GraphCase) -> None:
    """Same bits for any number of threads, NaN where the reference has it."""
    assert_has_kernel(case)
    assert_same_nans(with_nans(case, every=509))
    assert "tail" in BACKEND.compile(case.graph).bind(case.shapes).steps()[-1].kernel
    one, *others = (BACKEND.compile(case.graph, threads=n)(case.inputs)["y"].tobytes() for n in (1, 2, 3))
    assert others == [one] * 2


@pytest.mark.parametrize("finite", [False, True])
def test_last_layers_that_end_in_pixels(finite: bool) -> None:
    """The pixels of a volume, side by side, without its numbers."""
    x = Node.input("x", TensorType("float32", (2, 32, 3, 5, 19)))
    rng = np.random.default_rng(0)
    weight = Node.const(rng.standard_normal((3, 32, 3, 3, 3), np.float32))
    layer = Node(ConvNd((1,) * 3, (1,) * 6, (1,) * 3), (x, weight), "layer")
    outputs = {"y": Node(Quantise(1.0, channels_last=True), (layer,))}
    outputs |= {"finite": Node(AllFinite(), (layer,))} if finite else {}
    run, value = BACKEND.compile(Graph((x,), outputs), threads=2), rng.standard_normal(x.type.dims, np.float32)
    got, want = run({"x": value}), ReferenceBackend("float32").compile(Graph((x,), outputs))({"x": value})
    assert any("tail 3x3x3 to pixels" in step.kernel for step in run.bind({"x": x.type.dims}).steps())
    assert np.abs(got["y"].astype(int) - want["y"]).max() <= 1  # a number between two integers may be rounded otherwise
    assert not finite or got["finite"] == want["finite"]


@pytest.mark.parametrize(("channels", "outputs", "tail"), [(32, 1, True), (8, 6, True), (3, 1, False), (32, 8, False)])
def test_few_channels_out_of_many_have_a_kernel_of_their_own(channels: int, outputs: int, tail: bool) -> None:
    x = Node.input("x", TensorType("float32", (1, channels, 4, 12, 12)))
    weight = Node.const(np.ones((outputs, channels, 3, 3, 3), np.float32))
    graph = Graph((x,), {"y": Node(ConvNd((1,) * 3, (1,) * 6, (1,) * 3), (x, weight), "layer")})
    steps = BACKEND.compile(graph).bind({"x": x.type.dims}).steps()
    assert any("tail" in step.kernel for step in steps) == tail


@pytest.mark.parametrize(("accuracy", "kernel"), [("default", "winograd F(6,3) of 3 slices"), ("high", "F(2,3)")])
def test_passes_choose_winograd_for_volumes(accuracy: str, kernel: str) -> None:
    x = Node.input("x", TensorType("float32", (1, 32, 8, 42, 42)))
    weight = Node.const(np.ones((32, 32, 3, 3, 3), np.float32))
    graph = Graph((x,), {"y": Node(ConvNd((1,) * 3, (1,) * 6, (1,) * 3), (x, weight), "layer")})
    steps = LlvmBackend(accuracy).compile(graph, threads=1).bind({"x": x.type.dims}).steps()
    assert any(kernel in step.kernel for step in steps)


def test_volumes_stay_in_blocks_between_convolutions() -> None:
    """Two convolutions take one conversion there and one back; a value that is returned besides, one more."""
    x = Node.input("x", TensorType("float32", (1, 16, 4, 5, 6)))
    weight = Node.const(np.ones((16, 16, 3, 3, 3), np.float32))
    op = ConvNd((1, 1, 1), (1,) * 6, (1, 1, 1))
    first = Node(op, (x, weight), "first")
    second = Node(op, (first, weight), "second")
    for outputs, conversions in (({"y": second}, 2), ({"y": second, "z": first}, 3)):
        steps = BACKEND.compile(Graph((x,), outputs)).bind({"x": x.type.dims}).steps()
        assert sum("layout" in step.kernel for step in steps) == conversions

"""Pixels, and the question whether all is finite, in the llvm backend."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsr.ir import Graph, Node, TensorType
from graphsr.op import Op
from graphsr.ops import AllFinite, Conv2d, DepthToSpace, Quantise
from graphsr.ops.quantise import MAXIMUM
from graphsr.testing.graphs import GraphCase
from graphsr.testing.quantise import with_some
from graphsr.testing.wide import repeated

pytest.importorskip("llvmlite")

from llvm_layers import BACKEND, SIZES, assert_has_kernel, several, through_blocks

from graphsr.backends.llvm.kernels import quantise

DTYPES = st.sampled_from(["uint8", "uint16"])
WHITES = st.sampled_from([1.0, 2.0, 255.0])
NOT_FINITE = (np.nan, np.inf, -np.inf)


def asked(x: Node, *ops: Op) -> Graph:
    """The graph with an output for each op on x."""
    return Graph((x,), {f"y{i}": Node(op, (x,)) for i, op in enumerate(ops)})


@st.composite
def questions(draw: st.DrawFn) -> GraphCase:
    """One to three of them, in any order, asked of an array of any size."""
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 4)), *(draw(st.sampled_from(SIZES)) for _ in "hw"))
    white = draw(WHITES)
    ops = (Quantise(white, draw(DTYPES)), AllFinite(), Quantise(white, draw(DTYPES), channels_last=True))
    chosen = draw(st.lists(st.sampled_from(ops), min_size=1, max_size=3))
    x = Node.input("x", TensorType("float32", shape))
    odd_ones = (np.inf, -np.inf) if any(isinstance(op, Quantise) for op in chosen) else NOT_FINITE
    return GraphCase(asked(x, *chosen), {"x": draw(with_some(draw(repeated(shape)) * np.float32(white), odd_ones))})


@several
@given(questions(), st.sampled_from([64, 256, quantise.CHUNK]))
def test_questions(case: GraphCase, chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantise, "CHUNK", chunk)
        assert_has_kernel(case)


@st.composite
def pictures(draw: st.DrawFn) -> GraphCase:
    """The last steps of a network as `upscale` asks for them: a pixel shuffle out of blocks, and its pixels."""
    b, channels = draw(st.sampled_from([1, 2, 3, 4, 8])), draw(st.integers(1, 4))
    shape = (draw(st.integers(1, 2)), channels * b * b, draw(st.integers(1, 3)), draw(st.sampled_from(SIZES)))
    x = Node.input("x", TensorType("float32", shape))
    y = Node(DepthToSpace(b, draw(st.sampled_from(["crd", "dcr"]))), (through_blocks(x),), "shuffle")
    white = draw(WHITES)
    pixels = Quantise(white, draw(DTYPES), channels_last=True)
    outputs = {"pixels": Node(pixels, (y,)), "finite": Node(AllFinite(), (y,)), "numbers": y}
    chosen = draw(
        st.sampled_from([("pixels", "finite"), ("pixels", "finite"), ("finite", "pixels"), ("pixels",), tuple(outputs)])
    )
    graph = Graph((x,), {name: outputs[name] for name in chosen})
    return GraphCase(graph, {"x": draw(repeated(shape)) * np.float32(white)})


@st.composite
def endings(draw: st.DrawFn) -> GraphCase:
    """The same where the last layer is a convolution of 32 channels to a few, with a residual or without."""
    channels, width = draw(st.integers(1, 4)), draw(st.sampled_from(SIZES))
    shape = (draw(st.integers(1, 2)), 32, draw(st.integers(1, 3)), width)
    x, weight = Node.input("x", TensorType("float32", shape)), draw(repeated((channels, 32, 3, 3)))
    y = Node(Conv2d(padding=(1, 1, 1, 1)), (x, Node.const(weight), Node.const(weight[:, 0, 0, 0])), "tail")
    pixels = Node(Quantise(255.0, draw(DTYPES), channels_last=True), (y,))
    return GraphCase(Graph((x,), {"pixels": pixels, "finite": Node(AllFinite(), (y,))}), {"x": draw(repeated(shape))})


@several
@given(endings(), st.sampled_from(NOT_FINITE), st.integers(0, 10**6))
def test_endings(case: GraphCase, wrong: float, place: int) -> None:
    """The pixels are those of the numbers that the same layer gives: against the reference, sums may be rounded to the
    next pixel."""
    (y,), op, (x,) = case.graph.outputs["pixels"].inputs, case.graph.outputs["pixels"].op, case.inputs.values()
    assert isinstance(op, Quantise)
    numbers = BACKEND.compile(Graph(case.graph.inputs, {"y": y}))(case.inputs)["y"]
    broken = x.copy()
    broken.flat[place % x.size] = wrong
    for threads in (1, 3):
        run = BACKEND.compile(case.graph, threads=threads)
        kernels = [step.kernel for step in run.bind({"x": x.shape}).steps()]
        assert kernels[-2:] == ["tail 3x3 to pixels", "all true"]
        got = run(case.inputs)
        np.testing.assert_array_equal(got["pixels"], op.forward(numbers), strict=True)
        assert got["finite"].tolist() is True
        assert run({"x": broken})["finite"].tolist() is False


@several
@given(pictures())
def test_pictures(case: GraphCase) -> None:
    assert_has_kernel(case)


@pytest.mark.parametrize("wrong", NOT_FINITE)
@given(st.integers(0, 2 * 12 * 3 * 21 - 1))
@settings(several, max_examples=20)
def test_no_pixel_of_a_picture_is_overlooked(wrong: float, place: int) -> None:
    x = Node.input("x", TensorType("float32", (2, 12, 3, 21)))
    y = Node(DepthToSpace(2), (through_blocks(x),))
    run = BACKEND.compile(
        Graph((x,), {"y0": Node(Quantise(1.0, channels_last=True), (y,)), "y1": Node(AllFinite(), (y,))})
    )
    assert [step.kernel for step in run.bind({"x": x.type.dims}).steps()][-2:] == [
        "depth to space to pixels",
        "all true",
    ]
    values = np.resize(np.linspace(0, 1, 251, dtype=np.float32), x.type.dims)
    assert run({"x": values})["y1"].tolist() is True
    values.flat[place] = wrong
    assert run({"x": values})["y1"].tolist() is False


@pytest.mark.parametrize("wrong", NOT_FINITE)
def test_what_is_not_finite_is_found_anywhere(wrong: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantise, "CHUNK", 32)
    run = BACKEND.compile(asked(Node.input("x", TensorType("float32", (75,))), Quantise(1.0), AllFinite()), threads=2)
    x = np.linspace(-1, 2, 75, dtype=np.float32)
    pixels = Quantise(1.0).forward(x)
    assert run({"x": x})["y1"].tolist() is True
    for place in range(x.size):
        changed = x.copy()
        changed[place] = wrong
        got = run({"x": changed})
        assert got["y1"].tolist() is False
        pixel = 255 if wrong > 0 else 0
        np.testing.assert_array_equal(got["y0"], [*pixels[:place], pixel, *pixels[place + 1 :]])


@pytest.mark.parametrize("dtype", sorted(MAXIMUM))
def test_every_edge_of_rounding(dtype: str) -> None:
    """Where white is that of the pixels the kernel neither divides nor multiplies. Either way pixels never fall when x
    grows, so both agree everywhere if they do on either side of every number where the pixel changes."""
    white = MAXIMUM[dtype]
    edges = np.arange(white, dtype=np.float32) + np.float32(0.5)
    around = [edges, np.nextafter(edges, np.float32(-np.inf)), np.nextafter(edges, np.float32(np.inf))]
    x = np.concatenate([*around, np.array([-1, -0.0, 0, white, white + 1, np.inf, -np.inf], np.float32)])
    for op in (Quantise(white, dtype), Quantise(1.0, dtype), Quantise(white / 2, dtype)):
        scaled = (x * np.float32(op.white / white)).astype(np.float32)
        got = BACKEND.compile(asked(Node.input("x", TensorType("float32", x.shape)), op))({"x": scaled})["y0"]
        np.testing.assert_array_equal(got, op.forward(scaled), strict=True)


def test_more_channels_than_pixels_have() -> None:
    """They are put side by side by the op itself; the other question still has its kernel."""
    graph = asked(Node.input("x", TensorType("float32", (1, 5, 2, 3))), AllFinite(), Quantise(1.0, channels_last=True))
    run, x = BACKEND.compile(graph), np.linspace(0, 1, 30, dtype=np.float32).reshape(1, 5, 2, 3)
    got = run({"x": x})
    assert [step.kernel for step in run.bind({"x": x.shape}).steps()] == ["all finite", "all true", "forward"]
    assert got["y0"].tolist() is True
    np.testing.assert_array_equal(got["y1"], Quantise(1.0, channels_last=True).forward(x), strict=True)


def test_one_pass_over_memory() -> None:
    graph = asked(Node.input("x", TensorType("float32", (4, 5))), AllFinite(), Quantise())
    steps = BACKEND.compile(graph).bind({"x": (4, 5)}).steps()
    assert [step.kernel for step in steps] == ["quantise", "all true"]

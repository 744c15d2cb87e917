"""Every op written as ONNX: onnx's checker accepts the file, onnxruntime computes what our reference does, and our own
importer reads it back."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("onnx", reason="writes ONNX files")
pytest.importorskip("onnxruntime", reason="the oracle")

import onnx
from onnx_oracle import OnnxRuntime, session

from graphsr.backends.reference import ReferenceBackend
from graphsr.dim import Dim
from graphsr.errors import GraphError, ModelError
from graphsr.importers.onnx_export import onnx_model
from graphsr.importers.onnx_export_ops import REFUSED, RULES
from graphsr.importers.onnx_import import build_graph
from graphsr.importers.onnx_reader import Source
from graphsr.ir import Graph, Node, TensorType
from graphsr.op import OPS, Array, Op
from graphsr.ops import (
    Abs,
    Add,
    ArgMax,
    ArgMin,
    CropAndResize,
    CumulativeSum,
    Equal,
    Greater,
    Gru,
    Less,
    Lstm,
    MatMul,
    Maximum,
    MaxPoolNd,
    Minimum,
    Mod,
    MseCost,
    Mul,
    Neg,
    PadNd,
    Pow,
    Quotient,
    ReduceMax,
    ReduceMin,
    ReduceProd,
    ReduceSum,
    Resize,
    Rnn,
    Sign,
    SimpleRnn,
    Slice,
    SoftSign,
    Sub,
    TopK,
    Triangle,
)
from graphsr.ops.resize import LARGEST_DENOMINATOR
from graphsr.passes import DEFAULT
from graphsr.testing import LAYERS, Case, GraphCase
from graphsr.testing.check import assert_agrees, layer_graph

NOT_A_RULE = {"input", "const", "fused"}
"""The file has them by itself, and a fused op is written as its parts."""
NOT_WRITTEN = {"dropout"}
"""Its mask comes of a generator of 64-bit integers that ONNX has no operator for; inference has no dropout."""
WRITTEN = sorted(set(LAYERS) - NOT_WRITTEN)
FEW = settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))


def test_what_has_no_rule() -> None:
    written = {kind.name for kind in RULES}
    assert set(OPS) - written == NOT_A_RULE | NOT_WRITTEN
    assert {kind.name for kind in REFUSED} == NOT_WRITTEN
    assert set(LAYERS) >= written


def imported(model: onnx.ModelProto) -> Graph:
    return build_graph(Source(model), {}, {})


@pytest.mark.parametrize("name", WRITTEN)
@FEW
@given(st.data())
def test_layers(name: str, data: st.DataObject) -> None:
    """Before the passes or after them, with weights that are constants or inputs. What onnxruntime has no kernels for
    passes the checker at least."""
    case, constant = data.draw(LAYERS[name]()), data.draw(st.booleans())
    dtype = data.draw(st.sampled_from(["float32", "float32", "float64"]))
    drawn = layer_graph(case.astype(dtype), constant)
    oracle = OnnxRuntime(data.draw(st.sampled_from([(), DEFAULT])))
    if all(map(oracle.supports, drawn.graph.nodes())):
        assert_agrees(oracle.compile(drawn.graph), drawn)
    else:
        onnx.checker.check_model(onnx_model(drawn.graph), full_check=True)


@pytest.mark.parametrize("name", WRITTEN)
@FEW
@given(st.data())
def test_layers_are_read_back(name: str, data: st.DataObject) -> None:
    drawn = layer_graph(data.draw(LAYERS[name]()), constant=True)
    assert_agrees(ReferenceBackend().compile(imported(onnx_model(drawn.graph))), drawn)


@pytest.mark.parametrize("name", WRITTEN)
@FEW
@given(st.data())
def test_layers_of_open_sizes(name: str, data: st.DataObject) -> None:
    """One file for all sizes, where the op can be typed without knowing them. Some ask for sizes, and say so."""
    drawn = opened(data, layer_graph(data.draw(LAYERS[name]()), data.draw(st.booleans())))
    if drawn is None or known_to_differ(drawn):
        return
    try:
        run = OnnxRuntime().compile(drawn.graph)
    except ModelError as error:
        assert "known" in str(error)  # noqa: PT017  # not every drawing raises
        return
    assert_agrees(run, drawn)


def opened(data: st.DataObject, drawn: GraphCase) -> GraphCase | None:
    """The case with some sizes of its first input open; None where the op does not allow it."""
    if not drawn.graph.inputs:
        return None
    first = drawn.graph.inputs[0]
    shape = tuple(Dim.symbol(f"d{i}") if data.draw(st.booleans()) else n for i, n in enumerate(first.type.shape))
    given_ = Node.input(first.name, TensorType(first.type.dtype, shape))
    try:
        graph = drawn.graph.map(lambda old, new: given_ if old is first else new)
        graph.bind(drawn.shapes)
    except GraphError:
        return None
    return replace(drawn, graph=graph)


def known_to_differ(drawn: GraphCase) -> bool:
    """Where onnxruntime is not the oracle.

    Its Resize leaves an axis alone that keeps its size, also where a region of it is asked for; puts the last corner at
    a whole pixel, against the text of ONNX; and finds the nearest pixel with a scale in float32. Its MaxPool takes no
    padding as wide as the kernel, and its Pad mirrors no more than there is. A slice of open sizes is taken not to be
    empty, by `Slice` itself.
    """
    node = drawn.graph.bind(drawn.shapes).outputs["y"]
    sizes = node.inputs[0].type.dims
    match node.op:
        case CropAndResize(size=size):
            return any(m == n for m, n in zip(size, sizes[2:], strict=True))
        case Resize(coordinates="align_corners", size=None, scale=scale):
            return any(scale_of(s) * n % 1 != 0 for s, n in zip(scale, sizes[2:], strict=True))
        case Resize(mode="nearest"):
            quotients = [Fraction(m, n) for m, n in zip(node.type.dims[2:], sizes[2:], strict=True)]
            scales = quotients if node.op.size else map(scale_of, node.op.scale)
            return any(float(np.float32(s)) != s for s in scales)
        case MaxPoolNd(kernel=kernel, padding=padding, output="indices"):
            return max(padding) >= min(kernel)
        case Slice():
            return 0 in node.type.dims
        case PadNd(padding=padding, mode="reflect"):
            return any(isinstance(p, int) and (p >= n or p < 0) for p, n in zip(padding, sizes * 2, strict=True))
    return False


def scale_of(number: float) -> Fraction:
    return Fraction(number).limit_denominator(LARGEST_DENOMINATOR)


def recurrent(gates: int, biases: int, states: int) -> tuple[Array, ...]:
    """x of 3 steps, the two weights, the biases and the states, for 3 hidden values."""
    rows = 3 * gates
    shapes = [(3, 2, 2), (rows, 2), (rows, 3), *[(rows,)] * biases, *[(2, 3)] * states]
    return tuple(np.linspace(-0.5, 0.5, int(np.prod(shape)), dtype=np.float32).reshape(shape) for shape in shapes)


INTS = np.array([7, -7, 0, 5], np.int64)
RAMP = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
CASES = {
    "activation without a name": Case(SimpleRnn(SoftSign()), recurrent(1, 1, 1)),
    "shortcut": Case(Rnn(SoftSign(), shortcut=True), recurrent(1, 2, 1)),
    "cells": Case(Lstm("figo", "cell"), recurrent(4, 1, 2)),
    "reset before": Case(Gru("zrh", "before", SoftSign()), recurrent(3, 2, 1)),
    "reset after": Case(Gru("rzh", "after", SoftSign()), recurrent(3, 2, 1)),
    "remainder of zero": Case(Mod(), (INTS, np.array([0, 3, 0, -3]))),
    "truncated remainder": Case(Mod(truncated=True), (INTS, np.array([-2]))),
    "quotient of zero": Case(Quotient(), (INTS, np.array([0, 2, 0, -2]))),
    "largest part": Case(MseCost(ratio=0.5, noobject_scale=0.5, threshold=0.25), (RAMP, RAMP.T.reshape(3, 4) + 0.01)),
    "bool in order": Case(Less(), (np.array([True, False]), np.array([True]))),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_the_strategies_do_not_draw(case: Case) -> None:
    for constant in (False, True):
        drawn = layer_graph(case, constant)
        assert_agrees(OnnxRuntime().compile(drawn.graph), drawn)
        assert_agrees(ReferenceBackend().compile(imported(onnx_model(drawn.graph))), drawn)


BINARY = (Add(), Sub(), Mul(), Maximum(), Minimum(), Pow(), Mod(), Quotient(), Equal(), Less(), Greater(), MatMul())
UNARY = (
    Abs(),
    Neg(),
    Sign(),
    ReduceSum((1,)),
    ReduceProd((0,), keepdims=False),
    ReduceMax((0, 1)),
    ReduceMin(()),
    CumulativeSum(0, exclusive=True),
    ArgMax(1),
    ArgMin(0, last=True),
    TopK(2, 0),
    Triangle(1),
    PadNd((1, 0, 0, 2), value=3),
)


@pytest.mark.parametrize("dtype", ["int64", "int32", "int8", "uint8", "uint16"])
@pytest.mark.parametrize("op", [*BINARY, *UNARY], ids=lambda op: op.name)
@FEW
@given(st.data())
def test_integers(op: Op, dtype: str, data: st.DataObject) -> None:
    """Small ones: nobody says what happens at the ends of their range."""
    low = 0 if dtype.startswith("u") else -4
    numbers = st.lists(st.integers(low, 4), min_size=9, max_size=9)
    inputs = [np.array(data.draw(numbers), dtype).reshape(3, 3) for _ in range(1 + (op in BINARY))]
    if isinstance(op, Sub | Neg | Pow):
        inputs = [np.sort(np.abs(x), axis=None)[::-1].reshape(3, 3).copy() for x in inputs]
    drawn = layer_graph(Case(op, tuple(inputs)), data.draw(st.booleans()))
    model = onnx_model(drawn.graph)
    onnx.checker.check_model(model, full_check=True)
    if OnnxRuntime().supports(drawn.graph.outputs["y"]):
        (got,) = session(model).run(None, drawn.inputs)
        want = op.forward(*inputs)
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    "op",
    [
        Resize(size=(3, 5), mode="linear", antialias=True),
        Resize(scale=(0.6, 4 / 3), rounding="floor"),
        Resize(scale=(0.75, 1.5), mode="cubic", coordinates="align_corners"),
        CropAndResize((0.1, -0.2, 0.9, 0.8), (6, 3), value=2.0),
        PadNd((0, 0, 3, 1, 0, 0, 7, 2), "wrap"),
    ],
    ids=str,
)
def test_only_sizes_of_the_image_must_be_known(op: Op) -> None:
    x = Node.input("x0", TensorType("float32", (Dim.symbol("N"), 2, 6, 7)))
    graph = Graph((x,), {"y": Node(op, (x,), "layer")})
    run = OnnxRuntime().compile(graph)
    for n in (1, 3):
        image = np.linspace(-1, 1, n * 84, dtype=np.float32).reshape(n, 2, 6, 7)
        assert_agrees(run, GraphCase(graph, {"x0": image}))

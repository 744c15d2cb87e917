"""Normalisation by the statistics of the input in the llvm backend, beside the reference and PyTorch."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphsr.ir import Graph, Node, TensorType
from graphsr.op import Array, Op
from graphsr.ops import GroupNorm, InstanceNorm, L1Norm, L2Norm, LayerNorm, RmsNorm, WeightNorm
from graphsr.testing import LAYERS
from graphsr.testing.check import layer_graph
from graphsr.testing.graphs import GraphCase
from graphsr.testing.wide import repeated

pytest.importorskip("llvmlite")

from llvm_layers import BACKEND, SIZES, assert_has_kernel, assert_same_nans, layer_case, several, with_nans

from graphsr.backends.llvm.kernels.reduce import FEW_ROWS, LONG_ROW, PART

SHAPES = st.tuples(st.integers(1, 3), st.sampled_from([1, 4, 16, 36]), st.sampled_from(SIZES), st.sampled_from(SIZES))


@pytest.mark.parametrize("name", ["layer_norm", "rms_norm", "group_norm", "instance_norm", "weight_norm"])
@several
@given(st.data())
def test_every_strategy(name: str, data: st.DataObject) -> None:
    assert_has_kernel(layer_graph(data.draw(LAYERS[name]()), constant=False))


@st.composite
def normalisations(draw: st.DrawFn) -> GraphCase:
    """With parameters: of the last axes, or of groups of channels."""
    shape, axis = draw(SHAPES), draw(st.integers(0, 3))
    n, quarter, height, width = shape
    op = draw(
        st.sampled_from(
            [LayerNorm(axis, 0.25), RmsNorm(axis - 4, 0.25), GroupNorm(1, 0.25), GroupNorm(4, 0.25), InstanceNorm(0.25)]
        )
    )
    if isinstance(op, LayerNorm | RmsNorm):
        count = 1 if isinstance(op, RmsNorm) else draw(st.integers(1, 2))
        return layer_case(draw, op, shape, constants=tuple(draw(repeated(shape[axis:])) for _ in range(count)))
    parameters = tuple(draw(repeated((4 * quarter,))) for _ in range(2))
    return layer_case(draw, op, (n, 4 * quarter, height, width), constants=parameters)


@several
@given(normalisations())
def test_rows_and_groups(case: GraphCase) -> None:
    assert_has_kernel(case)
    assert_same_nans(with_nans(case))


@several
@given(st.data(), SHAPES, st.sampled_from([L1Norm, L2Norm]), st.sampled_from([(1,), (-1,), (2, 3), (0,), (1, 2, 3)]))
def test_norms(data: st.DataObject, shape: tuple[int, ...], kind: type[L1Norm | L2Norm], axes: tuple[int, ...]) -> None:
    case = layer_case(data.draw, kind(axes, 0.25), shape)
    assert_has_kernel(case)
    assert_same_nans(with_nans(case))


@several
@given(st.data(), SHAPES)
def test_weights(data: st.DataObject, shape: tuple[int, ...]) -> None:
    case = layer_case(data.draw, WeightNorm(), shape, (shape[0], 1, 1, 1))
    assert_has_kernel(case)
    assert_same_nans(with_nans(case))


@pytest.mark.parametrize("size", [17, LONG_ROW + 3])
def test_long_weights_are_shared_by_threads_and_zeros_have_no_direction(size: int) -> None:
    v, g = np.random.default_rng(0).random((3, size), np.float32), np.array([[1], [-2], [3]], np.float32)
    v[1] = 0
    one, two, three = (run(WeightNorm(), v, g, threads=n) for n in (1, 2, 3))
    np.testing.assert_array_equal(np.isnan(one), v == 0)
    np.testing.assert_allclose(one, WeightNorm().forward(v, g), rtol=(4 + size**0.5) * np.finfo(np.float32).eps)
    assert one.tobytes() == two.tobytes() == three.tobytes()


@st.composite
def long_rows(draw: st.DrawFn) -> GraphCase:
    """Around the length from which rows are computed in parts: one run, or channels that parts begin or end in."""
    rows = draw(st.sampled_from([1, 2, FEW_ROWS]))
    channels = draw(st.sampled_from([1, 3, LONG_ROW]))
    width = LONG_ROW // channels + draw(st.sampled_from([0, 1, PART + 17] if channels < 4 else [0, 1]))
    shape = (rows, channels, width)
    op = draw(
        st.sampled_from([LayerNorm(1, 0.25), RmsNorm(1, 0.25), GroupNorm(1, 0.25), L1Norm((1, 2)), L2Norm((1, 2))])
    )
    parameters: list[tuple[int, ...]] = []
    if isinstance(op, LayerNorm | RmsNorm):
        parameters = [shape[1:]] * (2 if isinstance(op, LayerNorm) else 1)
    elif isinstance(op, GroupNorm):
        parameters = [(channels,)] * 2
    return layer_case(draw, op, shape, constants=tuple(draw(repeated(of)) for of in parameters))


@several
@given(long_rows())
def test_long_rows(case: GraphCase) -> None:
    assert_has_kernel(case)
    assert_same_nans(with_nans(case, every=next(iter(case.inputs.values())).size // 2 + 1))


@pytest.mark.parametrize("op", [LayerNorm(1), RmsNorm(1), GroupNorm(1), InstanceNorm(), L1Norm((1,)), L2Norm((1, 2))])
def test_long_rows_have_the_same_bits_for_any_number_of_threads(op: Op) -> None:
    x = np.random.default_rng(0).random((1, 2, LONG_ROW + 3), np.float32)
    shape = (2,) if isinstance(op, GroupNorm | InstanceNorm) else x.shape[1:]
    count = 0 if isinstance(op, L1Norm | L2Norm) else 1 if isinstance(op, RmsNorm) else 2
    parameters = [np.linspace(0.5, 2, prod(shape), dtype=np.float32).reshape(shape)] * count
    one, two, three = (run(op, x, *parameters, threads=n).tobytes() for n in (1, 2, 3))
    assert one == two == three


def test_rows_of_zeros_stay_zeros() -> None:
    x = np.zeros((2, 3, 17), np.float32)
    for op in (L1Norm((2,)), L2Norm((1,))):
        node = Node.input("x", TensorType("float32", x.shape))
        graph = Graph((node,), {"y": Node(op, (node,), "norm")})
        np.testing.assert_array_equal(BACKEND.compile(graph)({"x": x})["y"], x)


@pytest.mark.parametrize("size", [900, LONG_ROW + 1])
def test_large_mean_does_not_cancel(size: int) -> None:
    """x = 1000 + noise: the variance of float32 sums of squares would be lost, that of differences is not."""
    noise = np.random.default_rng(0).standard_normal((4, size), np.float32)
    x, one = np.float32(1000) + noise, np.ones(size, np.float32)
    node = Node.input("x", TensorType("float32", x.shape))
    graph = Graph((node,), {"y": Node(LayerNorm(-1, 0.0), (node, Node.const(one), Node.const(0 * one)), "norm")})
    want = LayerNorm(-1, 0.0).forward(x.astype(np.float64), one.astype(np.float64))
    np.testing.assert_allclose(BACKEND.compile(graph)({"x": x})["y"], want, atol=1000 * 4 * np.finfo(np.float32).eps)


def run(op: Op, *inputs: Array, threads: int = 1) -> Array:
    nodes = [Node.input(f"x{i}", TensorType("float32", x.shape)) for i, x in enumerate(inputs)]
    graph = Graph(tuple(nodes), {"y": Node(op, tuple(nodes), "norm")})
    return BACKEND.compile(graph, threads=threads)({node.name: x for node, x in zip(nodes, inputs, strict=True)})["y"]


def test_against_pytorch() -> None:
    torch = pytest.importorskip("torch")
    generator = np.random.default_rng(1)
    x = generator.standard_normal((2, 12, 9, 11), np.float32)
    scale, bias = (generator.standard_normal((12,), np.float32) for _ in range(2))
    tail = generator.standard_normal((11,), np.float32)
    functional, tensor = torch.nn.functional, torch.from_numpy
    pairs = (
        (run(GroupNorm(3), x, scale, bias), functional.group_norm(tensor(x), 3, tensor(scale), tensor(bias))),
        (
            run(InstanceNorm(), x, scale, bias),
            functional.instance_norm(tensor(x), None, None, tensor(scale), tensor(bias)),
        ),
        (run(LayerNorm(), x, tail, tail), functional.layer_norm(tensor(x), (11,), tensor(tail), tensor(tail))),
        (run(RmsNorm(), x, tail), functional.rms_norm(tensor(x), (11,), tensor(tail), 1e-5)),
        (run(L2Norm((1,)), x), functional.normalize(tensor(x), dim=1)),
    )
    for got, want in pairs:
        np.testing.assert_allclose(got, want.numpy(), rtol=0, atol=36 * 9 * float(np.finfo(np.float32).eps))

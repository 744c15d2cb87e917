"""The ops of imported and trained networks, beyond the walk over all ops: open sizes, refusals, gradients, masks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphsr.dim import Dim, Size
from graphsr.errors import GraphError
from graphsr.ir import Graph, Node, TensorType
from graphsr.op import Op
from graphsr.ops import (
    Add,
    Arange,
    ArgMax,
    AvgPoolNd,
    Cast,
    Celu,
    ConvNd,
    CropAndResize,
    Dropout,
    Einsum,
    Expand,
    Full,
    Gather,
    GatherND,
    GroupNorm,
    Gru,
    L2Norm,
    LayerNorm,
    Lstm,
    MaskedCost,
    MatMul,
    Mod,
    MseCost,
    OneHot,
    PadNd,
    Pow,
    Quotient,
    ReduceMin,
    ReduceProd,
    Roll,
    ScatterND,
    ShapeOf,
    SmoothCost,
    Tile,
    TopK,
    Transpose,
    Where,
)
from graphsr.testing import arrays, tolerance
from graphsr.testing.bounds import evaluate

H, W = Dim.symbol("H"), Dim.symbol("W")
FLOATS = TensorType("float32", (1, 2, 4, 4))
INDICES = TensorType("int64", (3,))
BOOLS = TensorType("bool", (4,))


@pytest.mark.parametrize(
    ("op", "shapes", "expected"),
    [
        (Full((1, H, W * 2)), [], (1, H, W * 2)),
        (Arange(H), [], (H,)),
        (Arange(2 * H, step=2), [], (H,)),
        (Arange(0, H, -1), [], (H,)),
        (ShapeOf(1, 3), [(1, 2, H, W)], (2,)),
        (Expand((1, H, 1)), [(W,)], (1, H, W)),
        (Tile((1, 2, 1)), [(H, W, 3)], (H, 2 * W, 3)),
        (PadNd((0, H, 0, 1)), [(2, W)], (2, H + W + 1)),
        (MatMul(), [(H, W, 3), (3, 5)], (H, W, 5)),
        (Einsum("bij,bjk->bki"), [(H, W, 3), (H, 3, 5)], (H, 5, W)),
        (OneHot(W, 0), [(H,), (2,)], (W, H)),
        (Where(), [(H, W), (1, W), (1,)], (H, W)),
        (TopK(2), [(H, W)], (H, 2)),
        (ConvNd((2,), (1, 1), (1,)), [(1, 2, H), (4, 2, 3)], (1, 4, (H - 1) // 2 + 1)),
        (AvgPoolNd((2, 2, 2), (2, 2, 2), (0,) * 6, (1, 1, 1)), [(1, 2, H, W, 8)], (1, 2, H // 2, W // 2, 4)),
        (CropAndResize((0.0, 0.0, 1.0, 1.0), (H, 3)), [(1, 2, H, W)], (1, 2, H, 3)),
    ],
    ids=lambda value: value.name if isinstance(value, Op) else "",
)
def test_open_sizes(op: Op, shapes: list[tuple[Size, ...]], expected: tuple[Size, ...]) -> None:
    types = [TensorType("float32", shape) for shape in shapes]
    if isinstance(op, Where):
        types[0] = TensorType("bool", shapes[0])
    assert op.infer(*types).shape == expected


def test_arrays_made_of_open_sizes_are_bound_with_them() -> None:
    """0 … H−1 added to the rows of an image, as position codes are."""
    x = Node.input("x", TensorType("float32", (1, 1, H, W)))
    rows = Node(Expand((1, 1, 1, H)), (Node(Cast("float32"), (Node(Arange(H)),)),))
    column = Node(Transpose((0, 1, 3, 2)), (rows,))
    graph = Graph((x,), {"y": Node(Add(), (x, column)), "size": Node(ShapeOf(2), (x,))})
    bound = graph.bind({"x": (1, 1, 2, 3)})
    values = evaluate(bound, {"x": np.zeros((1, 1, 2, 3), np.float32)})
    assert values[bound.outputs["y"]].tolist() == [[[[0, 0, 0], [1, 1, 1]]]]
    assert values[bound.outputs["size"]].tolist() == [2, 3]


@pytest.mark.parametrize(
    ("op", "types", "message"),
    [
        (Mod(), [BOOLS, BOOLS], "bool"),
        (Quotient(), [FLOATS, FLOATS], "integers expected"),
        (Pow(), [FLOATS, BOOLS], "bool"),
        (Where(), [FLOATS, FLOATS, FLOATS], "condition must be bool"),
        (Celu(0.0), [FLOATS], "positive"),
        (ReduceMin((4,)), [FLOATS], "axis 4"),
        (ArgMax(0), [TensorType("float32", (0,))], "too small"),
        (TopK(5), [FLOATS], "k = 5"),
        (TopK(1, output="both"), [FLOATS], "neither"),
        (Gather(), [FLOATS, FLOATS], "int32 or int64"),
        (GatherND(), [FLOATS, TensorType("int64", (2, 5))], "do not fit"),
        (ScatterND("mul"), [FLOATS, INDICES, FLOATS], "reduction"),
        (Einsum("ij,jk->il"), [TensorType("float32", (2, 2))] * 2, "bad equation"),
        (Einsum("ij,jk"), [TensorType("float32", (2, 2)), TensorType("float32", (3, 2))], "size of 'j'"),
        (Einsum("ij"), [TensorType("float32", (2, 2))] * 2, "1 inputs"),
        (MatMul(), [TensorType("float32", (2, 3)), TensorType("float32", (2, 3))], "number of rows"),
        (Roll((1,), (4,)), [FLOATS], "axis 4"),
        (Tile((2,)), [FLOATS], "repeats"),
        (Cast("complex64"), [FLOATS], "dtype"),
        (PadNd((0,) * 7), [FLOATS], "padding"),
        (PadNd((0, 0, -5, 0, 0, 0, 0, 0)), [FLOATS], "-1 elements"),
        (GroupNorm(3), [FLOATS, TensorType("float32", (2,)), TensorType("float32", (2,))], "3 groups"),
        (LayerNorm(2), [FLOATS, TensorType("float32", (4,))], "2 dimensions"),
        (ConvNd((1,), (0, 0), (1,)), [FLOATS, FLOATS], "3 dimensions"),
        (AvgPoolNd((2,), (1,), (2, 0), (1,)), [TensorType("float32", (1, 1, 4))], "padding 2"),
        (Lstm("ifg"), [FLOATS] * 6, "order"),
        (Gru(reset="never"), [FLOATS] * 6, "reset"),
        (Dropout(1.0), [FLOATS], "probability"),
        (MaskedCost(smoothing=0.1), [FLOATS, FLOATS], "smoothed"),
        (MseCost(), [FLOATS, INDICES], "one dtype"),
    ],
    ids=lambda value: value.name if isinstance(value, Op) else "",
)
def test_refusals_say_why(op: Op, types: list[TensorType], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        op.infer(*types)


@pytest.mark.parametrize("index", [4, -5])
def test_an_index_outside_is_our_own_error(index: int) -> None:
    with pytest.raises(GraphError, match="leave an axis of 4 elements"):
        Gather(0).forward(np.arange(4.0), np.array([0, index]))


def test_a_product_with_a_zero_has_a_gradient() -> None:
    x = np.array([2.0, 0.0, 3.0])
    op = ReduceProd((0,))
    (dx,) = op.vjp((x,), op.forward(x), np.ones(1))
    assert dx is not None
    assert dx.tolist() == [0.0, 6.0, 0.0]


def test_the_direction_of_nothing_is_nothing() -> None:
    """As ONNX says; `WeightNorm` has NaN, as PyTorch."""
    x = np.zeros((1, 2))
    op = L2Norm((1,))
    np.testing.assert_array_equal(op.forward(x), x)
    (dx,) = op.vjp((x,), op.forward(x), np.ones((1, 2)))
    assert dx is not None
    assert np.isfinite(dx).all()


def test_hard_examples_alone_count() -> None:
    """With ratio ½ the two largest of four differences, and only those are in the gradient."""
    x, t = np.array([1.0, 2.0, 3.0, 4.0]), np.zeros(4)
    op = MseCost(ratio=0.5)
    assert op.forward(x, t) == pytest.approx((9 + 16) / 4, rel=1e-15)
    dx, _ = op.vjp((x, t), op.forward(x, t), np.array(1.0))
    assert dx is not None
    np.testing.assert_allclose(dx, [0, 0, 1.5, 2.0], rtol=1e-15)


def test_the_smooth_cost_pulls_toward_the_truth_from_both_sides() -> None:
    """NumPyNet's δ has the wrong sign where |d| > 1."""
    x, t = np.array([-3.0, -0.5, 0.5, 3.0]), np.zeros(4)
    op = SmoothCost()
    dx, _ = op.vjp((x, t), op.forward(x, t), np.array(4.0))
    assert dx is not None
    assert dx.tolist() == [-2.0, -1.0, 1.0, 2.0]


@given(st.integers(0, 2**64 - 1), st.integers(0, 1000))
def test_a_mask_follows_from_seed_and_step(seed: int, step: int) -> None:
    x, op = np.ones((50, 40)), Dropout(0.25, seed)
    first, again, next_ = (op.forward(x, np.array(k)) for k in (step, step, step + 1))
    np.testing.assert_array_equal(first, again)
    assert (first != next_).any()
    kept = (first > 0).mean()
    assert abs(kept - 0.75) < 6 * (0.25 * 0.75 / x.size) ** 0.5  # six standard deviations


@given(st.data())
def test_a_sequence_in_two_parts(data: st.DataObject) -> None:
    """A scan that goes on from the state of the first part gives what one scan over all gives."""
    weight, recurrent, bias = (data.draw(arrays(shape, 0.5)) for shape in ((8, 3), (8, 2), (8,)))
    x, h, c = data.draw(arrays((5, 1, 3))), np.zeros((1, 2), np.float32), np.zeros((1, 2), np.float32)
    hidden, cell = Lstm(), Lstm(output="cell")
    whole = hidden.forward(x, weight, recurrent, bias, h, c)
    cut = data.draw(st.integers(1, 4))
    first = hidden.forward(x[:cut], weight, recurrent, bias, h, c)
    cells = cell.forward(x[:cut], weight, recurrent, bias, h, c)
    second = hidden.forward(x[cut:], weight, recurrent, bias, first[-1], cells[-1])
    np.testing.assert_allclose(np.concatenate([first, second]), whole, rtol=0, atol=tolerance("float32", 5 * 5))


def test_a_sequence_without_steps() -> None:
    x, zero = np.zeros((0, 2, 3)), np.zeros((2, 4))
    y = Gru().forward(x, np.zeros((12, 3)), np.zeros((12, 4)), np.zeros(12), np.zeros(12), zero)
    assert y.shape == (0, 2, 4)

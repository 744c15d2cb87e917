"""Sampling beyond images: volumes and rows, gradients, and places far away or that are no numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphsr.errors import GraphError, ModelError
from graphsr.importers.onnx_export import onnx_model
from graphsr.ir import Graph, Node, TensorType
from graphsr.ops import GridSample
from graphsr.ops.sample import PADDINGS, REACH
from graphsr.testing import tolerance
from graphsr.testing.sample import sampling

FLOATS = TensorType("float32", (1, 2, 4, 5))


@given(st.data(), st.sampled_from([1, 3]), st.sampled_from(["nearest", "linear"]))
def test_rows_and_volumes_with_their_gradients(data: st.DataObject, axes: int, mode: str) -> None:
    """PyTorch has no rows: there they are images of one row, in which the place along the other axis is the middle."""
    torch = pytest.importorskip("torch")
    from oracles.sample import by_torch

    case = data.draw(sampling(axes, mode)).astype("float64")
    assert isinstance(case.op, GridSample)
    x, grid = (torch.tensor(array, requires_grad=True) for array in case.inputs)
    if axes == 1:
        middle = torch.zeros_like(grid)
        y = by_torch(case.op, x[:, :, None], torch.cat([grid, middle], -1)[:, None])[:, :, 0]
    else:
        y = by_torch(case.op, x, grid)
    (dy,) = (torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape),)
    y.backward(dy)
    got = case.forward()
    atol = tolerance("float64", y.numel() * REACH[mode] ** axes, 64.0)
    np.testing.assert_allclose(got, y.detach().numpy(), rtol=0, atol=atol)
    for gradient, want in zip(case.op.vjp(case.inputs, got, dy.numpy()), (x.grad, grid.grad), strict=True):
        assert gradient is not None
        np.testing.assert_allclose(gradient, want.numpy(), rtol=0, atol=atol)


@pytest.mark.parametrize("mode", REACH)
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_places_far_away_and_none(mode: str, padding: str, dtype: str) -> None:
    """Zero or a pixel of the image, and NaN stays where it is."""
    x = np.ones((1, 1, 2, 2), dtype)
    grid = np.array([[[[1e30, -1e30], [np.inf, -np.inf], [np.nan, 0.0], [0.5, 0.5]]]], dtype)
    y = GridSample(mode, padding).forward(x, grid)[0, 0, 0]
    far = 0 if padding == "zeros" else 1
    np.testing.assert_array_equal(y[:3], [far, far, np.nan])
    assert np.isfinite(y[3])


@pytest.mark.parametrize(
    ("op", "grid", "said"),
    [
        (GridSample("area"), (1, 3, 3, 2), "mode 'area'"),
        (GridSample(padding="wrap"), (1, 3, 3, 2), "padding 'wrap'"),
        (GridSample(), (1, 3, 3, 3), "size of the last axis of the grid: expected 2, got 3"),
        (GridSample(), (2, 3, 3, 2), "size of the batch"),
        (GridSample(), (1, 3, 2), "grid must have 4 dimensions"),
    ],
    ids=str,
)
def test_what_does_not_fit(op: GridSample, grid: tuple[int, ...], said: str) -> None:
    with pytest.raises(GraphError, match=said):
        op.infer(FLOATS, TensorType("float32", grid))


def test_a_volume_is_not_written_as_onnx() -> None:
    pytest.importorskip("onnx")
    x = Node.input("x", TensorType("float32", (1, 1, 2, 2, 2)))
    grid = Node.input("grid", TensorType("float32", (1, 1, 1, 1, 3)))
    with pytest.raises(ModelError, match="images alone"):
        onnx_model(Graph((x, grid), {"y": Node(GridSample(), (x, grid))}))

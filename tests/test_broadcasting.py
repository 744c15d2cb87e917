"""The type rule of arithmetic: NumPy's broadcasting on known sizes, and what is sure on open ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphsr.dim import Dim, Size
from graphsr.errors import GraphError
from graphsr.ir import TensorType
from graphsr.ops import Add, Div, Mul, Sub
from graphsr.ops.elementwise import Arithmetic, broadcast

H, W = Dim.symbol("H"), Dim.symbol("W")
SHAPES = st.lists(st.lists(st.integers(0, 3), max_size=4).map(tuple), max_size=3)


@given(SHAPES)
def test_known_sizes_as_in_numpy(shapes: list[tuple[int, ...]]) -> None:
    try:
        want = np.broadcast_shapes(*shapes)
    except ValueError:
        with pytest.raises(GraphError, match="cannot be broadcast"):
            broadcast(*shapes)
    else:
        assert broadcast(*shapes) == want


@pytest.mark.parametrize(
    ("a", "b", "want"),
    [
        ((1, 3, H, W), (3, 1, 1), (1, 3, H, W)),
        ((1, 3, H, W), (1, 3, H, W), (1, 3, H, W)),
        ((2 * H,), (H + H,), (2 * H,)),
        ((1,), (W,), (W,)),
        ((), (H, W), (H, W)),
    ],
)
def test_open_sizes_are_broadcast_against_one(a: tuple[Size, ...], b: tuple[Size, ...], want: tuple[Size, ...]) -> None:
    assert broadcast(a, b) == broadcast(b, a) == want


@pytest.mark.parametrize(("a", "b"), [((H,), (W,)), ((H,), (3,)), ((H,), (2 * H,)), ((H,), (0,))])
def test_open_sizes_that_might_differ_are_refused(a: tuple[Size, ...], b: tuple[Size, ...]) -> None:
    with pytest.raises(GraphError, match="cannot be broadcast"):
        broadcast(a, b)


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8"])
@pytest.mark.parametrize(("op", "want"), [(Add(), 10), (Sub(), 4), (Mul(), 21)])
def test_integers_stay_integers(op: Arithmetic, want: int, dtype: str) -> None:
    a, b = np.full((2, 1), 7, dtype), np.full(3, 3, dtype)
    y = op.forward(a, b)
    assert TensorType(y.dtype.name, y.shape) == op.infer(*(TensorType(dtype, x.shape) for x in (a, b)))
    assert (y == want).all()


@pytest.mark.parametrize(
    ("op", "dtypes"), [(Add(), ("bool", "bool")), (Div(), ("int64", "int64")), (Mul(), ("float32", "float64"))]
)
def test_dtypes_without_meaning_are_refused(op: Arithmetic, dtypes: tuple[str, str]) -> None:
    with pytest.raises(GraphError):
        op.infer(*(TensorType(dtype, (2,)) for dtype in dtypes))

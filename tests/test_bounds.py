"""The error bounds of `graphsr.testing` hold for what is right, however long its sums, and not for what is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from graphsr.backend import backends, get_backend
from graphsr.errors import BackendError
from graphsr.ir import Graph, Node, TensorType
from graphsr.op import Array, Op
from graphsr.ops import ReduceMax, ReduceMean, ReduceSum
from graphsr.ops.reduce import Reduction
from graphsr.ops.reduce_kinds import (
    CumulativeSum,
    ReduceL1,
    ReduceL2,
    ReduceLogSum,
    ReduceLogSumExp,
    ReduceMin,
    ReduceProd,
    ReduceSumSquare,
)
from graphsr.testing import LAYERS, Case
from graphsr.testing.bounds import gains, rounding
from graphsr.testing.wide import repeated

SUMS: tuple[type[Reduction], ...] = (ReduceL1, ReduceL2, ReduceMean, ReduceSum, ReduceSumSquare, ReduceLogSumExp)
KINDS: tuple[type[Reduction], ...] = (*SUMS, ReduceLogSum, ReduceMax, ReduceMin, ReduceProd)
several = settings(max_examples=6)


@st.composite
def long_rows(draw: st.DrawFn, kind: type[Reduction]) -> tuple[Op, Array]:
    """A reduction of 10⁵ to 10⁶ elements along any one of the axes, or along two. Half of the arrays hold one value:
    all roundings of their sum then go in the same direction."""
    size = draw(st.integers(100_000, 1_000_000))
    rows = draw(st.integers(1, 3))
    axes, shape = draw(
        st.sampled_from(
            [((1,), (rows, size)), ((0,), (size, rows)), ((2,), (1, rows, size)), ((0, 1), (size // 100, 100, rows))]
        )
    )
    x = np.full(shape, draw(repeated((1,)))) if draw(st.booleans()) else draw(repeated(shape))
    if kind is ReduceLogSum:
        x = np.abs(x)
    if kind is ReduceProd:
        x = 1 + x / np.float32(1 << 21)  # neither overflows nor vanishes
    return kind(axes, draw(st.booleans())), x


def error_of_backend(name: str, op: Op, x: Array, want: Array) -> float:
    node = Node.input("x", TensorType("float32", x.shape))
    run = get_backend(name).compile(Graph((node,), {"y": Node(op, (node,), "y")}), threads=2)
    return float(np.abs(run({"x": x})["y"] - want).max())


def has_backend(name: str) -> bool:
    try:
        return bool(get_backend(name))
    except BackendError:
        return False


@pytest.mark.parametrize("kind", KINDS)
@several
@given(data=st.data())
def test_long_reductions_are_within_the_bound(kind: type[Reduction], data: st.DataObject) -> None:
    """On every backend: NumPy adds pairs, along the first axis one after the other, and llvm chunk by chunk."""
    op, x = data.draw(long_rows(kind))
    exact = x.astype(np.float64)
    want = op.forward(exact)
    bound = rounding(op, (exact,), want, "float32")
    for name in filter(has_backend, sorted(backends())):
        assert error_of_backend(name, op, x, want) <= bound, name


@several
@given(data=st.data(), exclusive=st.booleans(), reverse=st.booleans())
def test_long_running_sums_are_within_the_bound(data: st.DataObject, exclusive: bool, reverse: bool) -> None:
    kind, x = data.draw(long_rows(ReduceSum))
    assert isinstance(kind, Reduction)
    op, exact = CumulativeSum(kind.axes[0], exclusive, reverse), x.astype(np.float64)
    want = op.forward(exact)
    bound = rounding(op, (exact,), want, "float32")
    for name in filter(has_backend, sorted(backends())):
        assert error_of_backend(name, op, x, want) <= bound, name


@pytest.mark.parametrize("kind", [ReduceL1, ReduceL2, ReduceMean, ReduceSum, ReduceSumSquare, ReduceLogSum])
@given(data=st.data(), axis=st.integers(0, 2), size=st.integers(2, 200))
def test_an_element_that_is_left_out_is_noticed(
    kind: type[Reduction], data: st.DataObject, axis: int, size: int
) -> None:
    shape = [1, 2, 1]
    shape[axis] = size
    x = 1 + np.abs(data.draw(repeated(tuple(shape)))).astype(np.float64)
    op = kind((axis,))
    want = op.forward(x)
    shorter = x.copy()
    shorter[(slice(None),) * axis + (data.draw(st.integers(0, size - 1)),)] = 0
    assert np.abs(op.forward(shorter) - want).min() > rounding(op, (x,), want, "float32")


@pytest.mark.parametrize("kind", [*KINDS, CumulativeSum])
@given(data=st.data())
def test_errors_of_inputs_are_carried_on_by_the_gain(kind: type[Op], data: st.DataObject) -> None:
    """To first order: errors are small."""
    case = data.draw(LAYERS[kind.name]()).astype("float64")
    assert isinstance(case, Case)
    (x,) = case.inputs
    assume(x.size)
    size = 1e-6
    signs = np.where(np.resize(data.draw(repeated((251,))), x.shape) > 0, 1, -1)
    change = np.abs(case.op.forward(x + size * signs) - case.op.forward(x)).max()
    (gain,) = gains(case.op, (x,))
    curved = 1 + 1e-3  # the second order
    assert change <= gain * size * curved + rounding(case.op, (x,), case.op.forward(x), "float64")

"""Where maxima of windows lie in the llvm backend: as NumPy has it, with ties, zeros of both signs, NaN and −∞."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphsr.ir import Graph, Node, TensorType
from graphsr.op import Array
from graphsr.ops import MaxPoolNd
from graphsr.testing.conv_nd import windows

pytest.importorskip("llvmlite")

from llvm_layers import BACKEND, several

VALUES = st.lists(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, 1e-45, np.nan]) | st.floats(width=32), min_size=1
)
MOSTLY_NOTHING = st.lists(st.sampled_from([-np.inf, -np.inf, -np.inf, np.nan]), min_size=1)


def assert_as_forward(op: MaxPoolNd, x: Array) -> None:
    node = Node.input("x", TensorType("float32", x.shape))
    graph = Graph((node,), {"y": Node(op, (node,), "places")})
    want = op.forward(x)
    for threads in (1, 2, 3):
        run = BACKEND.compile(graph, threads=threads)
        assert "forward" not in run.explain({"x": x.shape})
        np.testing.assert_array_equal(run({"x": x})["y"], want)


@several
@given(st.data(), windows(), st.booleans())
def test_every_window(data: st.DataObject, drawn: tuple[dict[str, Any], tuple[int, ...]], column_major: bool) -> None:
    attributes, shape = drawn
    op = MaxPoolNd(**attributes, output="indices", column_major=column_major)
    assert_as_forward(op, np.resize(np.array(data.draw(VALUES | MOSTLY_NOTHING), np.float32), shape))


@several
@given(st.data(), st.integers(1, 3), st.integers(1, 5), st.integers(1, 3), st.integers(1, 3), st.booleans())
def test_wide_rows(data: st.DataObject, axes: int, kernel: int, stride: int, dilation: int, ceil: bool) -> None:
    """Wider than a vector, and of sizes that fill vectors or do not."""
    span = dilation * (kernel - 1) + 1
    padding = data.draw(st.tuples(*[st.integers(0, span - 1)] * (2 * axes)))
    op = MaxPoolNd((kernel,) * axes, (stride,) * axes, padding, (dilation,) * axes, ceil, output="indices")
    shape = (2, 1, *(span,) * (axes - 1), span + data.draw(st.sampled_from([0, 14, 15, 16, 30, 47])))
    assert_as_forward(op, np.resize(np.array(data.draw(VALUES | MOSTLY_NOTHING), np.float32), shape))

"""Sampling by a grid in the llvm backend: every mode and padding, planar and in blocks, of one to three axes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphsr.ir import Graph, Node, TensorType
from graphsr.ops import GridSample
from graphsr.ops.sample import PADDINGS, REACH
from graphsr.testing.check import layer_graph
from graphsr.testing.graphs import GraphCase
from graphsr.testing.sample import places_along, sampling
from graphsr.testing.wide import repeated

pytest.importorskip("llvmlite")

from llvm_layers import BACKEND, CHANNELS, SIZES, assert_has_kernel, assert_same_nans, several, through_blocks

UNUSUAL = (np.nan, np.inf, -np.inf, 3e38, -3e38, -0.0, 1e-42, 1e8, -1e8)


@several
@given(st.data())
def test_every_strategy(data: st.DataObject) -> None:
    """Signals, images and volumes."""
    case = data.draw(sampling(data.draw(st.integers(1, 3)), data.draw(st.sampled_from(sorted(REACH)))))
    assert_has_kernel(layer_graph(case, data.draw(st.booleans())))


@st.composite
def samples(draw: st.DrawFn, blocked: bool) -> GraphCase:
    """Images of many sizes, at a few drawn places and those near them, inside and around the image."""
    op = GridSample(draw(st.sampled_from(sorted(REACH))), draw(st.sampled_from(PADDINGS)), draw(st.booleans()))
    channels = draw(st.sampled_from([c for c in CHANNELS[:9] if c >= 8 or not blocked]))
    n, pixels = draw(st.integers(1, 2)), (draw(st.sampled_from(SIZES)), draw(st.sampled_from(SIZES)))
    out = (n, draw(st.sampled_from(SIZES)), draw(st.sampled_from(SIZES)))
    places = [np.resize(draw(places_along(op, size, (61,))), out) for size in reversed(pixels)]
    x = Node.input("x0", TensorType("float32", (n, channels, *pixels)))
    grid = Node.input("grid", TensorType("float32", (*out, 2)))
    y = Node(op, (through_blocks(x) if blocked else x, grid), "layer")
    inputs = {"x0": draw(repeated(x.type.dims)), "grid": np.stack(places, axis=-1)}
    return GraphCase(Graph((x, grid), {"y": y}), inputs)


@several
@given(samples(blocked=False))
def test_planar(case: GraphCase) -> None:
    assert_has_kernel(case)


@several
@given(samples(blocked=True))
def test_in_blocks(case: GraphCase) -> None:
    assert_has_kernel(case)


@several
@given(samples(blocked=False), st.sampled_from([3, 7, 50]))
def test_places_that_are_none(case: GraphCase, every: int) -> None:
    """Not numbers, or far away: NaN where the reference has it. In the image too, whatever the weight."""
    grid, x = (case.inputs[name].copy() for name in ("grid", "x0"))
    grid.reshape(-1)[::every] = np.resize(UNUSUAL, -(-grid.size // every))
    with np.errstate(invalid="ignore", over="ignore"):
        assert_same_nans(GraphCase(case.graph, {"x0": x, "grid": grid}))
        x.reshape(-1)[::every] = np.nan
        assert_same_nans(GraphCase(case.graph, {"x0": x, "grid": grid}))


def test_what_has_no_kernel_is_told() -> None:
    def explained(dtype: str, *shapes: tuple[int, ...]) -> str:
        x, grid = (Node.input(name, TensorType(dtype, shape)) for name, shape in zip("xg", shapes, strict=True))
        run = BACKEND.compile(Graph((x, grid), {"y": Node(GridSample(), (x, grid), "layer")}))
        return run.explain(dict(zip("xg", shapes, strict=True)))

    assert "only float32, not float64" in explained("float64", (1, 1, 2, 2), (1, 1, 1, 2))
    assert "only up to 3 axes, not 4" in explained("float32", (1, 1, 1, 1, 1, 1), (1, 1, 1, 1, 1, 4))
    assert "too large for 32-bit addresses" in explained("float32", (1, 1, 1 << 13, 1 << 12), (1, 1, 1, 2))

"""Local response normalisation in the llvm backend, planar and in blocks, beside the reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphsr.ops import LocalResponseNorm
from graphsr.testing import LAYERS
from graphsr.testing.check import layer_graph
from graphsr.testing.graphs import GraphCase

pytest.importorskip("llvmlite")

from llvm_layers import BACKEND, CHANNELS, SIZES, assert_has_kernel, assert_same_nans, layer_case, several, with_nans

WINDOWS = st.sampled_from([1, 2, 3, 5, 8, 33, 70, 300])
RESPONSES = st.builds(
    LocalResponseNorm,
    size=WINDOWS,
    alpha=st.sampled_from([1e-4, 0.5]),
    beta=st.sampled_from([0.5, 0.75, 1.0, 0.6, 2.0]),
    kappa=st.sampled_from([1.0, 2.0]),
)


@several
@given(st.data())
def test_every_strategy(data: st.DataObject) -> None:
    assert_has_kernel(layer_graph(data.draw(LAYERS["local_response_norm"]()), constant=False))


@st.composite
def responses(draw: st.DrawFn) -> GraphCase:
    """Signals and images, planar, with NaN in some places."""
    image = draw(st.lists(st.sampled_from(SIZES), max_size=2))
    return layer_case(draw, draw(RESPONSES), (draw(st.integers(1, 2)), draw(st.sampled_from(CHANNELS)), *image))


@several
@given(responses())
def test_planar(case: GraphCase) -> None:
    assert_has_kernel(case)
    assert_same_nans(with_nans(case))


@several
@given(st.data(), RESPONSES, st.sampled_from([16, 17, 33, 100]), st.sampled_from(SIZES), st.sampled_from(SIZES))
def test_in_blocks(data: st.DataObject, op: LocalResponseNorm, channels: int, height: int, width: int) -> None:
    case = layer_case(data.draw, op, (2, channels, height, width), blocked=True)
    assert_has_kernel(case)
    assert "in blocks" in BACKEND.compile(case.graph).explain({"x0": (2, channels, height, width)})


@several
@given(st.data(), st.sampled_from([0.75, 0.6]))
def test_a_sum_that_is_negative_zero_or_infinite(data: st.DataObject, beta: float) -> None:
    """As IEEE 754's power has it: 0 becomes ∞, a negative number NaN, −∞ and ∞ become 0."""
    values = [0.0, -0.0, 1.0, 2.0, 1e-30, 1e30, np.inf, np.nan]
    x = np.array(data.draw(st.lists(st.sampled_from(values), min_size=9, max_size=40)), np.float32)[None, :, None]
    op = LocalResponseNorm(3, data.draw(st.sampled_from([1.0, -1.0])), beta, data.draw(st.sampled_from([0.0, -0.5])))
    case = layer_case(data.draw, op, x.shape)
    with np.errstate(all="ignore"):
        want = op.forward(x)
    got = BACKEND.compile(case.graph)({"x0": x})["y"]
    np.testing.assert_allclose(got, want, rtol=1e-6)

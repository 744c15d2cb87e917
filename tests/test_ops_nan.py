"""NaN and infinity in every op. A broken pixel must not turn into a plausible one, nor spread further than it is
read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from graphsr.op import OPS, Array, Op
from graphsr.ops import Activation, Mod, Pow, Resize, Where
from graphsr.ops.elementwise import Arithmetic
from graphsr.testing import LAYERS, Case, growth, tolerance

WITHOUT_NAN = {
    "all_finite",
    "and",
    "arange",
    "arg_max",
    "arg_min",
    "cast",
    "equal",
    "eye",
    "full",
    "greater",
    "greater_equal",
    "is_inf",
    "is_nan",
    "less",
    "less_equal",
    "not",
    "or",
    "quantise",
    "quotient",
    "shape_of",
    "top_k",
    "xor",
}
"""Ops that take or give no real numbers, or for which a NaN is only the largest of them."""

NAMES = sorted(set(LAYERS) - WITHOUT_NAN)
ELEMENTWISE = sorted(
    name
    for name, op in OPS.items()
    if issubclass(op, Activation | Arithmetic) or name in ("batch_norm", "prelu", "shortcut")
)
"""Ops whose output element reads the elements at its own place."""

WITHOUT_LIMIT = {
    "batch_norm_train",
    "cos",
    "crop_and_resize",
    "dropout",
    "grid_head",
    "grid_sample",
    "group_norm",
    "hellinger_cost",
    "instance_norm",
    "l1_norm",
    "l2_norm",
    "layer_norm",
    "local_response_norm",
    "log",
    "log_softmax",
    "logistic_cost",
    "mod",
    "reduce_log_sum",
    "region_head",
    "resize",
    "rms_norm",
    "seg_cost",
    "sin",
    "softmax",
    "sqrt",
    "weight_norm",
}
"""∞ − ∞ or ∞/∞ in their statistics; 0·∞ in the weights of an interpolation; functions without a limit."""

MATRIX_PRODUCTS = {
    "conv2d",
    "conv_nd",
    "conv_transpose2d",
    "conv_transpose_nd",
    "dense",
    "einsum",
    "fused",
    "gru",
    "lstm",
    "matmul",
    "rnn",
    "simple_rnn",
}
"""OpenBLAS computes on unused lanes too, and NumPy then warns of 0·∞ although no result is NaN."""

BROADCASTING = (Arithmetic, Mod, Pow, Where)
"""Ops that repeat axes of size 1."""

PROBE = 1000.0


def with_element(case: Case, i: int, index: int, value: float) -> Case:
    """The case with one element of its i-th input replaced."""
    x = case.inputs[i].copy()
    x.flat[index] = value
    return replace(case, inputs=(*case.inputs[:i], x, *case.inputs[i + 1 :]))


def draw_element(data: st.DataObject, name: str, inputs: slice) -> tuple[Case, int, int]:
    """(case in float64, number of an input, flat index of an element of it); `inputs` counts those of real numbers."""
    case = data.draw(LAYERS[name]()).astype("float64")
    real = [i for i, x in enumerate(case.inputs) if x.dtype.kind == "f" and x.size]
    assume(real[inputs] and case.forward().dtype.kind == "f")
    i = data.draw(st.sampled_from(real[inputs]))
    return case, i, data.draw(st.integers(0, case.inputs[i].size - 1))


def is_winograd(op: Op) -> bool:
    """Whether the op computes whole tiles, in which the transforms spread a NaN over all pixels."""
    return growth(op) > 1


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_output_that_reads_a_nan_is_nan(name: str, data: st.DataObject) -> None:
    """An output element that changes when an input element is raised or lowered by much is NaN when that element is."""
    case, i, index = draw_element(data, name, slice(None))
    x = float(case.inputs[i].flat[index])
    y = case.forward()
    broken = with_element(case, i, index, np.nan).forward()
    atol = tolerance("float64", case.terms, PROBE**2 * growth(case.op))
    for value in (x + PROBE, x - PROBE):
        with np.errstate(invalid="ignore"):  # a variance below zero
            probed = with_element(case, i, index, value).forward()
        changed = ~(np.abs(probed - y) <= atol)
        assert np.isnan(broken[changed]).all()


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_nan_stays_within_the_window_of_needs(name: str, data: st.DataObject) -> None:
    """An output pixel is NaN only if `needs` says that it reads the row and the column of a NaN."""
    case, i, index = draw_element(data, name, slice(1))
    x = case.inputs[i]
    broken = with_element(case, i, index, np.nan).forward()
    if is_winograd(case.op) or x.ndim != 4 or broken.ndim != 4:
        return
    position = np.unravel_index(index, x.shape)
    for axis in (2, 3):
        for p in np.unique(np.argwhere(np.isnan(broken))[:, axis]).tolist():
            window = case.op.needs(p, p, axis, *case.types)
            assert window is None or reaches(case.op, window, int(position[axis]), x.shape[axis])


def reaches(op: Op, window: tuple[int, int], position: int, size: int) -> bool:
    """Whether the window holds the position. Interpolation reads the edge for whatever lies outside the image;
    an axis of size 1 is broadcast."""
    low, high = window
    if isinstance(op, BROADCASTING) and size == 1:
        return True
    if isinstance(op, Resize):
        low, high = min(low, size - 1), max(high, 0)
    return low <= position <= high


@pytest.mark.parametrize("name", ELEMENTWISE)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_elementwise_ops_keep_nan_in_its_place(name: str, data: st.DataObject) -> None:
    case, i, index = draw_element(data, name, slice(2 if issubclass(OPS[name], Arithmetic) else 1))
    broken = with_element(case, i, index, np.nan)
    y = broken.forward()
    np.testing.assert_array_equal(np.isnan(y), np.broadcast_to(np.isnan(broken.inputs[i]), y.shape))


@pytest.mark.parametrize("name", sorted(set(NAMES) - WITHOUT_LIMIT))
@settings(max_examples=40, deadline=None)
@given(data=st.data(), infinity=st.sampled_from([-np.inf, np.inf]))
def test_one_infinity_gives_limits(name: str, data: st.DataObject, infinity: float) -> None:
    """Where the limit exists, it comes out: no NaN, and no warning (which pytest makes an error)."""
    case, i, index = draw_element(data, name, slice(1))
    if is_winograd(case.op):
        return
    with np.errstate(invalid="ignore" if name in MATRIX_PRODUCTS else "warn"):
        y = with_element(case, i, index, infinity).forward()
    assert not np.isnan(y).any()


def test_division_by_zero_is_that_of_numpy() -> None:
    with np.errstate(all="ignore"):
        y: Array = OPS["div"]().forward(np.array([1.0, -1.0, 0.0]), np.array([0.0]))
    np.testing.assert_array_equal(y, [np.inf, -np.inf, np.nan])


def test_softmax_of_infinity() -> None:
    """−∞ masks a score; a maximum that is infinite has no softmax."""
    softmax = OPS["softmax"]()
    np.testing.assert_array_equal(softmax.forward(np.array([0.0, -np.inf, 0.0])), [0.5, 0.0, 0.5])
    assert np.isnan(softmax.forward(np.array([0.0, np.inf]))).all()
    assert np.isnan(softmax.forward(np.array([-np.inf, -np.inf]))).all()


def test_a_direction_of_length_zero_is_nan() -> None:
    v = np.array([[0.0, 0.0], [3.0, 4.0]])
    w = OPS["weight_norm"]().forward(v, np.ones((2, 1)))
    assert np.isnan(w[0]).all()
    np.testing.assert_allclose(w[1], [0.6, 0.8], rtol=1e-15)

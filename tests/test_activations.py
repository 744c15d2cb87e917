"""Activations beyond the walk over all ops: the thesis' derivatives, limits, continuity, and the error function."""

from __future__ import annotations

import math
from collections.abc import Callable
from math import e, exp, inf, pi, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphsr.errors import GraphError
from graphsr.ir import TensorType
from graphsr.op import OPS, Array
from graphsr.ops import Activation, Clip, Erf, Gelu, Leaky, PRelu
from graphsr.ops.activation import SELU_ALPHA, SELU_LAMBDA
from graphsr.ops.erf import erfc
from graphsr.testing import tolerance
from graphsr.testing.activation import ACTIVATIONS

NAMES = sorted(ACTIVATIONS)
EPS = float(np.finfo("float64").eps)

DERIVATIVES: dict[str, Callable[[Array], Array]] = {
    "linear": lambda y: np.ones_like(y),
    "logistic": lambda y: y * (1 - y),
    "loggy": lambda y: (1 - y**2) / 2,
    "relu": lambda y: np.where(y > 0, 1, 0),
    "elu": lambda y: np.where(y >= 0, 1, y + 1),
    "relie": lambda y: np.where(y > 0, 1, 0.01),
    "ramp": lambda y: (y > 0) + 0.1,
    "tanh": lambda y: 1 - y**2,
    "plse": lambda y: np.where((y < 0) | (y > 1), 0.01, 0.125),
    "leaky": lambda y: np.where(y > 0, 1, 0.1),
    "hardtan": lambda y: np.where((y > -1) & (y < 1), 1, 0),
    "lhtan": lambda y: np.where((y > 0) & (y < 1), 1, 0.001),
    "selu": lambda y: np.where(y > 0, SELU_LAMBDA, y + SELU_LAMBDA * SELU_ALPHA),
    "softplus": lambda y: 1 - np.exp(-y),
    "softsign": lambda y: (1 - np.abs(y)) ** 2,
    "elliot": lambda y: 0.5 * (1 - np.abs(2 * y - 1)) ** 2,
    "symmelliot": lambda y: (1 - np.abs(y)) ** 2,
    "stair": lambda y: np.where(y == np.floor(y), 0, 1),
}
"""f' as a function of y = f(x) with the default attributes: Table 2.1 of the thesis, where it is wrong corrected."""

LIMITS: dict[str, tuple[float, float]] = {
    "celu": (-1, inf),
    "clip": (-inf, inf),
    "elliot": (0, 1),
    "elu": (-1, inf),
    "gelu": (0, inf),
    "hardsigmoid": (0, 1),
    "hardswish": (0, inf),
    "hardtan": (-1, 1),
    "leaky": (-inf, inf),
    "lhtan": (-inf, inf),
    "linear": (-inf, inf),
    "loggy": (-1, 1),
    "logistic": (0, 1),
    "mish": (0, inf),
    "plse": (-inf, inf),
    "ramp": (-inf, inf),
    "relie": (-inf, inf),
    "relu": (0, inf),
    "relu6": (0, 6),
    "selu": (-SELU_LAMBDA * SELU_ALPHA, inf),
    "silu": (0, inf),
    "softplus": (0, inf),
    "softsign": (-1, 1),
    "stair": (-inf, inf),
    "symmelliot": (-1, 1),
    "tanh": (-1, 1),
}
"""f(−∞) and f(∞) with the default attributes."""


def make(name: str) -> Activation:
    op = OPS[name]()
    assert isinstance(op, Activation)
    return op


def test_every_activation_of_the_thesis_exists() -> None:
    thesis = [
        "linear",
        "logistic",
        "loggy",
        "relu",
        "elu",
        "relie",
        "ramp",
        "tanh",
        "plse",
        "leaky",
        "hardtan",
        "lhtan",
        "selu",
        "softplus",
        "softsign",
        "elliot",
        "symmelliot",
        "stair",
    ]
    assert len(thesis) == 18
    assert set(thesis) == set(DERIVATIVES) <= set(NAMES)
    assert set(LIMITS) == set(NAMES)


@pytest.mark.parametrize("name", sorted(DERIVATIVES))
@given(x=st.integers(-2000, 1999).map(lambda k: (k + 0.5) / 64))
def test_derivative_as_the_function_of_the_output_in_the_thesis(name: str, x: float) -> None:
    """Between the kinks, which are at integers."""
    op, array = make(name), np.array([x])
    y = op.forward(array)
    np.testing.assert_allclose(op.derivative(array, y), DERIVATIVES[name](y), rtol=0, atol=tolerance("float64"))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NAMES)
def test_extremes(name: str, dtype: str) -> None:
    """Far out and at infinity f takes its limits without a warning (which pytest makes an error), f' is a number."""
    op, x = make(name), np.array([-inf, -1e4, -0.0, 0.0, 1e4, inf], dtype)
    y = op.forward(x)
    slope = op.derivative(x, y)
    assert y.dtype == slope.dtype == dtype
    assert np.isfinite(slope).all()
    assert y[2] == y[3]
    for limit, infinite, far in zip(LIMITS[name], (y[0], y[-1]), (y[1], y[-2]), strict=True):
        assert float(infinite) == pytest.approx(limit, rel=float(np.finfo(dtype).eps))
        if math.isfinite(limit):
            assert float(far) == pytest.approx(limit, abs=1.01e-4)  # the slowest approach their limits as 1/x
        else:
            assert np.isfinite(far)
            assert np.sign(far) == np.sign(limit)
    assert np.isnan(op.forward(np.array([np.nan], dtype))).all()


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data(), x=st.floats(-20, 20) | st.integers(-20, 20).map(float))
def test_continuous(name: str, data: st.DataObject, x: float) -> None:
    """Pieces meet: no activation is steeper than 2, so neither is any step, also across a knot."""
    op = data.draw(ACTIVATIONS[name])
    before, at = op.forward(np.array([np.nextafter(x, -inf), x]))
    assert abs(at - before) <= 2 * np.spacing(abs(x)) + tolerance("float64", 1, max(1.0, abs(at)))


def test_selu_has_the_fixed_point_of_the_paper() -> None:
    """Klambauer et al. 2017, equation 14: the α and λ that map mean 0 and variance 1 to themselves."""
    a, b = math.erfc(1 / sqrt(2)), math.erfc(sqrt(2))
    alpha = -sqrt(2 / pi) / (a * sqrt(e) - 1)
    root = sqrt(2 * b * e**2 + pi * a**2 * e - 2 * (2 + pi) * a * sqrt(e) + pi + 2)
    assert pytest.approx(alpha, rel=32 * EPS) == SELU_ALPHA
    assert pytest.approx((1 - a * sqrt(e)) * sqrt(2 * pi) / root, rel=32 * EPS) == SELU_LAMBDA


@given(st.floats(-40, 26) | st.floats(-0.5, 0.5) | st.sampled_from([-inf, inf, 0.46875, -0.46875, 4.0, -4.0]))
def test_erfc_is_accurate_to_a_few_units_in_the_last_place(x: float) -> None:
    double, single = np.array([x]), np.array([x], "float32")
    np.testing.assert_allclose(erfc(double), math.erfc(x), rtol=8 * EPS)
    got = erfc(single)
    assert got.dtype == "float32"
    tiny = float(np.finfo("float32").tiny)
    eps = float(np.finfo("float32").eps)
    np.testing.assert_allclose(got, math.erfc(float(single[0])), rtol=8 * eps, atol=tiny)


@given(st.floats(-30, 30) | st.floats(-0.5, 0.5) | st.floats(-1e-300, 1e-300))
def test_erf_is_accurate_to_a_few_units_in_the_last_place(x: float) -> None:
    """Also near 0, where 1 − erfc(x) keeps no digit, and of −0 the sign."""
    for dtype in (np.float64, np.float32):
        values = np.array([x], dtype)
        got, want = Erf().forward(values), math.erf(float(values[0]))
        eps, tiny = float(np.finfo(dtype).eps), float(np.finfo(dtype).smallest_subnormal)
        np.testing.assert_allclose(got, want, rtol=8 * eps, atol=2 * tiny)
        assert np.signbit(got[0]) == np.signbit(values[0])


def test_erf_of_nan_infinities_and_no_axes() -> None:
    np.testing.assert_array_equal(Erf().forward(np.array([np.nan, np.inf, -np.inf, 1e300])), [np.nan, 1, -1, 1])
    assert Erf().forward(np.array(0.5)) == pytest.approx(math.erf(0.5), rel=1e-15)


def test_erfc_of_nan_and_of_nothing() -> None:
    assert np.isnan(erfc(np.array([np.nan, 1.0]))).tolist() == [True, False]
    assert erfc(np.zeros((2, 0, 3))).shape == (2, 0, 3)


def test_gelu_keeps_its_small_values() -> None:
    """x·Φ(x) by 1 + erf would be zero from −8 on; here it follows −φ(x)·(1 − 1/x²) (Mills' ratio)."""
    x = -20.0
    want = -exp(-(x**2) / 2) / sqrt(2 * pi) * (1 - 1 / x**2)
    assert Gelu().forward(np.array([x]))[0] == pytest.approx(want, rel=3 / x**4)


@given(st.floats(-2, 2), st.floats(-5, 5))
def test_prelu_with_one_slope_is_leaky(slope: float, x: float) -> None:
    array = np.array([[x]])
    np.testing.assert_array_equal(PRelu().forward(array, np.array([slope])), Leaky(slope).forward(array))


@pytest.mark.parametrize("op", [Clip(1.0, 0.0), Clip(math.nan, 0.0), Gelu("erf")])
def test_attributes_without_meaning_are_refused(op: Activation) -> None:
    with pytest.raises(GraphError):
        op.infer(TensorType("float32", (1,)))


@pytest.mark.parametrize("name", NAMES)
def test_integers_are_refused(name: str) -> None:
    with pytest.raises(GraphError, match="floating-point"):
        make(name).infer(TensorType("int64", (1,)))

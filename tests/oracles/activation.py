"""Activations by PyTorch; those that it does not have, from other formulas than ours."""

from __future__ import annotations

from collections.abc import Callable
from math import floor
from typing import Any

import numpy as np
import pytest

from graphsr.op import Array
from graphsr.ops import Gelu
from graphsr.testing import Case

Oracle = Callable[[Case], Array]


def torch_function(name: str, *attributes: str, **constants: Any) -> Oracle:
    """`torch.nn.functional.name`, with those attributes of the op by position and constants by name."""

    def oracle(case: Case) -> Array:
        torch = pytest.importorskip("torch")
        function = getattr(torch.nn.functional, name, None) or getattr(torch, name)
        arguments = [getattr(case.op, attribute) for attribute in attributes]
        return function(*map(torch.from_numpy, case.inputs), *arguments, **constants).numpy()

    return oracle


def numpy_function(f: Callable[[Any, Array], Array]) -> Oracle:
    """f(op, x)"""
    return lambda case: f(case.op, case.inputs[0])


def bent(x: Array, low: float, high: float, inside: float, outside: float) -> Array:
    """The continuous function through 0 with one slope between two knots and another beyond them."""
    middle = np.clip(x, low, high)
    return inside * middle + outside * (x - middle)


def soft_sign(x: Array) -> Array:
    """x / (1 + |x|) as ±(1 − 1/(1 + |x|))"""
    return np.sign(x) * (1 - 1 / (1 + np.abs(x)))


def gelu(case: Case) -> Array:
    assert isinstance(case.op, Gelu)
    return torch_function("gelu", approximate=case.op.approximate)(case)


def stair(op: Any, x: Array) -> Array:
    """darknet's stair_activate, one number at a time."""

    def one(value: float) -> float:
        n = floor(value)
        return floor(value / 2) if n % 2 == 0 else (value - n) + floor(value / 2)

    return np.array([one(value) for value in x.ravel()], dtype=x.dtype).reshape(x.shape)


ORACLES: dict[str, Oracle] = {
    "celu": torch_function("celu", "alpha"),
    "clip": torch_function("clamp", "low", "high"),
    "elliot": numpy_function(lambda op, x: (soft_sign(op.steepness * x) + 1) / 2),
    "elu": torch_function("elu", "alpha"),
    "gelu": gelu,
    "hardsigmoid": numpy_function(lambda op, x: np.interp(op.alpha * x + op.beta, [0, 1], [0, 1])),
    "hardswish": torch_function("hardswish"),
    "hardtan": torch_function("hardtanh"),
    "leaky": torch_function("leaky_relu", "slope"),
    "lhtan": numpy_function(lambda op, x: bent(x, 0, 1, 1, 0.001)),
    "linear": numpy_function(lambda op, x: x),
    "loggy": numpy_function(lambda op, x: (np.exp(x) - 1) / (np.exp(x) + 1)),
    "logistic": torch_function("sigmoid"),
    "mish": torch_function("mish"),
    "plse": numpy_function(lambda op, x: bent(x, -4, 4, 0.125, 0.01) + 0.5),
    "prelu": torch_function("prelu"),
    "ramp": numpy_function(lambda op, x: np.select([x > 0, x <= 0], [1.1 * x, 0.1 * x])),
    "relie": torch_function("leaky_relu", negative_slope=0.01),
    "relu": torch_function("relu"),
    "relu6": torch_function("relu6"),
    "selu": torch_function("selu"),
    "silu": torch_function("silu"),
    "softplus": torch_function("softplus", threshold=1000),  # by default PyTorch returns x from 20 on
    "softsign": torch_function("softsign"),
    "stair": numpy_function(stair),
    "symmelliot": numpy_function(lambda op, x: soft_sign(op.steepness * x)),
    "tanh": torch_function("tanh"),
}

"""Pixels one at a time, in Python's own numbers."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from graphsr.op import Array
from graphsr.ops import Quantise
from graphsr.testing import Case


def quantise(case: Case) -> Array:
    op, (x,) = case.op, case.inputs
    assert isinstance(op, Quantise)
    highest = 2 ** (8 * np.dtype(op.dtype).itemsize) - 1

    def pixel(value: float) -> int:
        if math.isinf(value):
            return highest if value > 0 else 0
        return round(min(max(Fraction(value) / Fraction(op.white), Fraction(0)), Fraction(1)) * highest)

    x = np.stack([x[:, c] for c in range(x.shape[1])], axis=-1) if op.channels_last else x
    return np.array([pixel(value) for value in x.ravel().tolist()], op.dtype).reshape(x.shape)


def all_finite(case: Case) -> Array:
    return np.array(all(map(math.isfinite, case.inputs[0].ravel().tolist())))


ORACLES = {"quantise": quantise, "all_finite": all_finite}

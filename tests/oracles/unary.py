"""Elementary functions, comparisons and the rest of arithmetic by PyTorch, where they have the same names or nearly."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from graphsr.op import OPS, Array
from graphsr.ops import IsInf, Mod, Shrink, ThresholdedRelu
from graphsr.ops.unary import Unary
from graphsr.testing import Case

NAMES = {
    "equal": "eq",
    "less": "lt",
    "less_equal": "le",
    "greater": "gt",
    "greater_equal": "ge",
    "and": "logical_and",
    "or": "logical_or",
    "xor": "logical_xor",
    "not": "logical_not",
    "where": "where",
    "maximum": "maximum",
    "minimum": "minimum",
    "pow": "pow",
    "is_nan": "isnan",
    **{name: name for name, kind in OPS.items() if issubclass(kind, Unary)},
}


def torch_function(name: str) -> Callable[[Case], Array]:
    def oracle(case: Case) -> Array:
        torch = pytest.importorskip("torch")
        return getattr(torch, name)(*map(torch.tensor, case.inputs)).numpy()

    return oracle


def mod(case: Case) -> Array:
    assert isinstance(case.op, Mod)
    return torch_function("fmod" if case.op.truncated else "remainder")(case)


def quotient(case: Case) -> Array:
    torch = pytest.importorskip("torch")
    return torch.div(*map(torch.tensor, case.inputs), rounding_mode="trunc").numpy()


def thresholded_relu(case: Case) -> Array:
    torch = pytest.importorskip("torch")
    assert isinstance(case.op, ThresholdedRelu)
    return torch.nn.functional.threshold(torch.from_numpy(case.inputs[0]), case.op.threshold, 0.0).numpy()


def shrink(case: Case) -> Array:
    """The two cases of the definition."""
    op, (x,) = case.op, case.inputs
    assert isinstance(op, Shrink)
    return np.select([x < -op.threshold, x > op.threshold], [x + op.bias, x - op.bias], 0.0)


def is_inf(case: Case) -> Array:
    torch = pytest.importorskip("torch")
    op, x = case.op, torch.from_numpy(case.inputs[0])
    assert isinstance(op, IsInf)
    parts = [torch.isneginf(x)] * op.negative + [torch.isposinf(x)] * op.positive
    return sum(parts, torch.zeros_like(x)).bool().numpy()


ORACLES: dict[str, Callable[[Case], Array]] = {
    **{ours: torch_function(theirs) for ours, theirs in NAMES.items()},
    "mod": mod,
    "quotient": quotient,
    "is_inf": is_inf,
    "thresholded_relu": thresholded_relu,
    "shrink": shrink,
}

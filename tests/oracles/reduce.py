"""Reductions by PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from graphsr.op import Array
from graphsr.ops.reduce import Reduction
from graphsr.testing import Case


def reduction(name: str) -> Callable[[Case], Array]:
    def oracle(case: Case) -> Array:
        torch = pytest.importorskip("torch")
        op, (x,) = case.op, map(torch.from_numpy, case.inputs)
        assert isinstance(op, Reduction)
        if not op.axes:  # to PyTorch no axes are all axes
            return x.numpy()
        return getattr(torch, name)(x, dim=op.axes, keepdim=op.keepdims).numpy()

    return oracle


ORACLES: dict[str, Callable[[Case], Array]] = {
    "reduce_mean": reduction("mean"),
    "reduce_sum": reduction("sum"),
    "reduce_max": reduction("amax"),
}

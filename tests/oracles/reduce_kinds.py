"""The other reductions by PyTorch, and what sorts: places of extrema, the k largest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from graphsr.op import Array
from graphsr.ops import CumulativeSum, Hardmax, ReduceProd, TopK
from graphsr.ops.order import Place
from graphsr.ops.reduce import Reduction
from graphsr.testing import Case


def reduction(function: Callable[[Any, Any, tuple[int, ...], bool], Any]) -> Callable[[Case], Array]:
    """`function(torch, x, axes, keepdims)`. To PyTorch no axes are all axes: one of size 1 is added."""

    def oracle(case: Case) -> Array:
        torch = pytest.importorskip("torch")
        op, x = case.op, torch.from_numpy(case.inputs[0])
        assert isinstance(op, Reduction)
        if not op.axes:
            return function(torch, x[None], (0,), False).numpy()
        return function(torch, x, op.axes, op.keepdims).numpy()

    return oracle


def reduce_prod(case: Case) -> Array:
    """PyTorch multiplies along one axis at a time."""
    torch = pytest.importorskip("torch")
    op, y = case.op, torch.from_numpy(case.inputs[0])
    assert isinstance(op, ReduceProd)
    for axis in sorted((axis % y.ndim for axis in op.axes), reverse=True):
        y = y.prod(axis, keepdim=op.keepdims)
    return y.numpy()


def cumulative_sum(case: Case) -> Array:
    """Element by element from the definition."""
    op, x = case.op, np.moveaxis(case.inputs[0], getattr(case.op, "axis", 0), 0)
    assert isinstance(op, CumulativeSum)
    y = np.zeros_like(x)
    for i in range(len(x)):
        before = x[i + op.exclusive :] if op.reverse else x[: i + 1 - op.exclusive]
        y[i] = before.sum(axis=0)
    return np.moveaxis(y, 0, op.axis)


def place(extremum: Callable[[Any], Any]) -> Callable[[Case], Array]:
    """The first or last place in each line that equals its extremum, by lists."""

    def oracle(case: Case) -> Array:
        op = case.op
        assert isinstance(op, Place)

        def one(line: Array) -> int:
            places = [i for i, value in enumerate(line.tolist()) if value == extremum(line.tolist())]
            return places[-1 if op.last else 0]

        y = np.apply_along_axis(one, op.axis, case.inputs[0])
        return np.expand_dims(y, op.axis) if op.keepdims else y

    return oracle


def hardmax(case: Case) -> Array:
    torch = pytest.importorskip("torch")
    assert isinstance(case.op, Hardmax)
    x, axis = torch.from_numpy(case.inputs[0]), case.op.axis
    return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1.0).numpy()


def top_k(case: Case) -> Array:
    torch = pytest.importorskip("torch")
    op = case.op
    assert isinstance(op, TopK)
    x = torch.from_numpy(case.inputs[0])
    in_order = torch.sort(x, dim=op.axis, descending=op.largest, stable=True)  # topk takes any of equal elements
    return getattr(in_order, op.output).narrow(op.axis, 0, op.k).numpy()


ORACLES: dict[str, Callable[[Case], Array]] = {
    "reduce_min": reduction(lambda torch, x, axes, keep: torch.amin(x, axes, keep)),
    "reduce_prod": reduce_prod,
    "reduce_l1": reduction(lambda torch, x, axes, keep: torch.linalg.vector_norm(x, 1, axes, keep)),
    "reduce_l2": reduction(lambda torch, x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keep)),
    "reduce_sum_square": reduction(lambda torch, x, axes, keep: torch.sum(x.square(), axes, keep)),
    "reduce_log_sum": reduction(lambda torch, x, axes, keep: torch.sum(x, axes, keep).log()),
    "reduce_log_sum_exp": reduction(lambda torch, x, axes, keep: torch.logsumexp(x, axes, keep)),
    "cumulative_sum": cumulative_sum,
    "arg_max": place(max),
    "arg_min": place(min),
    "hardmax": hardmax,
    "top_k": top_k,
}

"""Pooling by PyTorch where it has the layer (the same padding on both sides, at most half a window; averages without
dilation), else window by window from the definition."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from graphsr.op import Array
from graphsr.ops import AvgPool2d, MaxPool2d
from graphsr.testing import Case


def max_pool2d(case: Case) -> Array:
    op, (x,) = case.op, case.inputs
    assert isinstance(op, MaxPool2d)
    if torch_pads(op):
        return torch_pool("max_pool2d", op, x, dilation=op.dilation)
    return by_windows(op, x, lambda pixels, positions: pixels.max(axis=-1))


def avg_pool2d(case: Case) -> Array:
    op, (x,) = case.op, case.inputs
    assert isinstance(op, AvgPool2d)
    if torch_pads(op) and op.dilation == (1, 1):
        return torch_pool("avg_pool2d", op, x, count_include_pad=op.count_include_pad)
    if op.count_include_pad:
        return by_windows(op, x, lambda pixels, positions: pixels.sum(axis=-1) / positions)
    return by_windows(op, x, lambda pixels, positions: pixels.sum(axis=-1) / pixels.shape[-1])


def torch_pads(op: MaxPool2d | AvgPool2d) -> bool:
    top, left, bottom, right = op.padding
    return (top, left) == (bottom, right) and all(2 * p <= k for p, k in zip((top, left), op.kernel, strict=True))


def torch_pool(name: str, op: MaxPool2d | AvgPool2d, x: Array, **attributes: Any) -> Array:
    torch = pytest.importorskip("torch")
    function = getattr(torch.nn.functional, name)
    y = function(torch.from_numpy(x), op.kernel, op.stride, op.padding[:2], ceil_mode=op.ceil_mode, **attributes)
    return y.numpy()


def by_windows(op: MaxPool2d | AvgPool2d, x: Array, reduce: Callable[[Array, int], Array]) -> Array:
    """`reduce(pixels of the window [n, c, pixels], number of its positions in x and its padding)` for each window."""
    rows, columns = (list(windows(op, x.shape[2 + a], a)) for a in (0, 1))
    y = np.empty((*x.shape[:2], len(rows), len(columns)))
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            inside = [(p, q) for p in row for q in column if 0 <= p < x.shape[2] and 0 <= q < x.shape[3]]
            pixels = np.stack([x[:, :, p, q] for p, q in inside], axis=-1)
            y[:, :, i, j] = reduce(pixels, len(row) * len(column))
    return y


def windows(op: MaxPool2d | AvgPool2d, n: int, a: int) -> Iterator[list[int]]:
    """The positions of each window along one axis, as far as they lie in the input or its padding: windows follow each
    other until one has reached the end of the padding, which it does exactly, or beyond it in ceil mode only."""
    start, end = -op.padding[a], n + op.padding[a + 2]
    while True:
        positions = [start + op.dilation[a] * i for i in range(op.kernel[a])]
        if (positions[-1] >= end and not op.ceil_mode) or start >= n:
            return
        yield [position for position in positions if position < end]
        if positions[-1] >= end - 1:
            return
        start += op.stride[a]


def global_pool(name: str) -> Callable[[Case], Array]:
    def oracle(case: Case) -> Array:
        torch = pytest.importorskip("torch")
        return getattr(torch.nn.functional, name)(torch.from_numpy(case.inputs[0]), 1).numpy()

    return oracle


ORACLES: dict[str, Callable[[Case], Array]] = {
    "max_pool2d": max_pool2d,
    "avg_pool2d": avg_pool2d,
    "global_avg_pool": global_pool("adaptive_avg_pool2d"),
    "global_max_pool": global_pool("adaptive_max_pool2d"),
}

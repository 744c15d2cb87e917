"""Convolutions over one to three axes by PyTorch, pooling window by window from the definition."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest

from graphsr.op import Array
from graphsr.ops import AvgPoolNd, ConvNd, ConvTransposeNd, LpPoolNd, MaxPoolNd
from graphsr.ops.pool_nd import PoolNd
from graphsr.testing import Case


def torch_pairs(padding: tuple[int, ...]) -> list[int]:
    """(before, behind) of the last axis first, as `torch.nn.functional.pad` wants them."""
    axes = len(padding) // 2
    return [p for a in reversed(range(axes)) for p in (padding[a], padding[a + axes])]


def conv_nd(case: Case) -> Array:
    torch = pytest.importorskip("torch")
    op, (x, weight, *bias) = case.op, map(torch.from_numpy, case.inputs)
    assert isinstance(op, ConvNd)
    f = torch.nn.functional
    conv = getattr(f, f"conv{x.ndim - 2}d")
    y = conv(f.pad(x, torch_pairs(op.padding)), weight, None, op.stride, 0, op.dilation, op.groups)
    return plus(y, bias).numpy()


def plus(y: Any, bias: list[Any]) -> Any:
    return y + bias[0].reshape(-1, *[1] * (y.ndim - 2)) if bias else y


def conv_transpose_nd(case: Case) -> Array:
    """All of the output, from which the padding is cut."""
    torch = pytest.importorskip("torch")
    op, (x, weight, *bias) = case.op, map(torch.from_numpy, case.inputs)
    assert isinstance(op, ConvTransposeNd)
    f, axes = torch.nn.functional, x.ndim - 2
    y = getattr(f, f"conv_transpose{axes}d")(x, weight, None, op.stride, 0, 0, op.groups, op.dilation)
    extra = op.output_padding or (0,) * axes
    y = f.pad(y, torch_pairs((*[0] * axes, *extra)))
    for a in range(axes):
        y = y.narrow(2 + a, op.padding[a], y.shape[2 + a] - op.padding[a] - op.padding[a + axes])
    return plus(y, bias).numpy()


def max_pool_nd(case: Case) -> Array:
    op, (x,) = case.op, case.inputs
    assert isinstance(op, MaxPoolNd)
    if op.output == "values":
        return by_windows(op, x, lambda pixels, positions: pixels.max())
    order: Any = "F" if op.column_major else "C"
    y = np.empty(op.infer(*case.types).dims, np.int64)
    for n, c in np.ndindex(*x.shape[:2]):
        for at, inside, _ in windows(op, x.shape):
            best = max(inside, key=lambda place: x[n, c][place])
            plane = (n * x.shape[1] + c) * int(np.prod(x.shape[2:]))
            y[n, c][at] = plane + np.ravel_multi_index(best, x.shape[2:], order=order)
    return y


def avg_pool_nd(case: Case) -> Array:
    op, (x,) = case.op, case.inputs
    assert isinstance(op, AvgPoolNd)
    return by_windows(op, x, lambda pixels, n: pixels.sum() / (n if op.count_include_pad else len(pixels)))


def lp_pool_nd(case: Case) -> Array:
    op, (x,) = case.op, case.inputs
    assert isinstance(op, LpPoolNd)
    return by_windows(op, x, lambda pixels, _: np.linalg.norm(pixels, op.p))


def by_windows(op: PoolNd, x: Array, f: Callable[[Array, int], Any]) -> Array:
    """`f(elements of a window, number of its positions in x and its padding)` for each window."""
    y = np.empty(op.infer(Case(op, (x,)).types[0]).dims)
    for n, c in np.ndindex(*x.shape[:2]):
        for at, inside, positions in windows(op, x.shape):
            y[n, c][at] = f(np.array([x[n, c][place] for place in inside]), positions)
    return y


def windows(op: PoolNd, shape: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], list[tuple[int, ...]], int]]:
    """For each window (its index, the places in x that it covers, the number of those in x and its padding)."""
    axes = len(op.kernel)
    lines = [list(line(op, n, a, op.padding[a], op.padding[a + axes])) for a, n in enumerate(shape[2:])]
    for at in product(*(range(len(positions)) for positions in lines)):
        along = [lines[a][i] for a, i in enumerate(at)]
        inside = [place for place in product(*along) if all(0 <= p < n for p, n in zip(place, shape[2:], strict=True))]
        yield at, inside, int(np.prod([len(positions) for positions in along]))


def line(op: PoolNd, n: int, a: int, before: int, behind: int) -> Iterator[list[int]]:
    """The positions of each window along one axis that lie in x or its padding.

    Windows follow each other until one has reached the end of the padding, which it does exactly, or beyond it in ceil
    mode only.
    """
    start, end = -before, n + behind
    while True:
        positions = [start + op.dilation[a] * i for i in range(op.kernel[a])]
        if (positions[-1] >= end and not op.ceil_mode) or start >= n:
            return
        yield [position for position in positions if position < end]
        if positions[-1] >= end - 1:
            return
        start += op.stride[a]


ORACLES: dict[str, Callable[[Case], Array]] = {
    "conv_nd": conv_nd,
    "conv_transpose_nd": conv_transpose_nd,
    "max_pool_nd": max_pool_nd,
    "avg_pool_nd": avg_pool_nd,
    "lp_pool_nd": lp_pool_nd,
}

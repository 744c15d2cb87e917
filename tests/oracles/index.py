"""Products, gathering, scattering, repeating and padding: PyTorch where it has the op, else from the definition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from graphsr.op import Array
from graphsr.ops import (
    Arange,
    Cast,
    Einsum,
    Expand,
    Eye,
    Full,
    Gather,
    GatherElements,
    GatherND,
    OneHot,
    PadNd,
    Roll,
    ScatterElements,
    ScatterND,
    ShapeOf,
    Tile,
    Triangle,
)
from graphsr.testing import Case

Oracle = Callable[[Case], Array]


def by_torch(function: Callable[..., Any]) -> Oracle:
    """`function(torch, op, *tensors)`"""

    def oracle(case: Case) -> Array:
        torch = pytest.importorskip("torch")
        return function(torch, case.op, *map(torch.tensor, case.inputs)).numpy()

    return oracle


def einsum(torch: Any, op: Einsum, *inputs: Any) -> Any:
    return torch.einsum(op.equation, *inputs)


def gather(torch: Any, op: Gather, x: Any, indices: Any) -> Any:
    n, axis = x.shape[op.axis], op.axis % x.ndim
    picked = x.index_select(axis, (indices.flatten() % n).long())
    return picked.reshape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


def gather_elements(torch: Any, op: GatherElements, x: Any, indices: Any) -> Any:
    return torch.gather(x, op.axis, (indices % x.shape[op.axis]).long())


def gather_nd(case: Case) -> Array:
    """Row by row."""
    op, (x, indices) = case.op, case.inputs
    assert isinstance(op, GatherND)
    y = np.empty(op.infer(*case.types).dims)
    for place in np.ndindex(*indices.shape[:-1]):
        y[place] = x[place[: op.batch_axes] + tuple(indices[place])]
    return y


def scatter_elements(torch: Any, op: ScatterElements, x: Any, indices: Any, updates: Any) -> Any:
    places = indices % x.shape[op.axis]
    if op.reduction == "add":
        return x.scatter_add(op.axis, places, updates)
    return x.scatter(op.axis, places, updates)


def scatter_nd(torch: Any, op: ScatterND, x: Any, indices: Any, updates: Any) -> Any:
    return x.index_put(tuple(indices.unbind(-1)), updates, accumulate=op.reduction == "add")


def one_hot(case: Case) -> Array:
    """Element by element."""
    op, (indices, (off, on)) = case.op, case.inputs
    assert isinstance(op, OneHot)
    y = np.full(op.infer(*case.types).dims, off)
    lines = np.moveaxis(y, op.axis, -1)
    for place in np.ndindex(*indices.shape):
        if -lines.shape[-1] <= indices[place] < lines.shape[-1]:
            lines[place][indices[place]] = on
    return y


def expand(torch: Any, op: Expand, x: Any) -> Any:
    return torch.broadcast_tensors(x, torch.empty(op.shape))[0]


def tile(torch: Any, op: Tile, x: Any) -> Any:
    return x.repeat(*op.repeats)


def roll(torch: Any, op: Roll, x: Any) -> Any:
    return torch.roll(x, op.shifts, op.axes) if op.axes else x


def triangle(torch: Any, op: Triangle, x: Any) -> Any:
    return torch.triu(x, op.k) if op.upper else torch.tril(x, op.k)


def cast(torch: Any, op: Cast, x: Any) -> Any:
    return x.to(getattr(torch, op.dtype))


def pad_nd(case: Case) -> Array:
    """NumPy's own padding, of what is left after cutting."""
    op, (x,) = case.op, case.inputs
    assert isinstance(op, PadNd)
    numbers = [int(str(p)) for p in op.padding]
    pairs = list(zip(numbers[: x.ndim], numbers[x.ndim :], strict=True))
    if op.mode != "constant":  # then padding comes first, and may repeat what is cut off at the other end
        mode: Any = op.mode
        padded = np.pad(x, [(max(b, 0), max(a, 0)) for b, a in pairs], mode=mode)
        return padded[tuple(slice(max(-b, 0), n - max(-a, 0)) for (b, a), n in zip(pairs, padded.shape, strict=True))]
    kept = x[tuple(slice(max(-b, 0), n - max(-a, 0)) for (b, a), n in zip(pairs, x.shape, strict=True))]
    return np.pad(kept, [(max(b, 0), max(a, 0)) for b, a in pairs], constant_values=op.value)


def full(torch: Any, op: Full) -> Any:
    return torch.full(op.shape, op.value, dtype=getattr(torch, op.dtype))


def arange(case: Case) -> Array:
    op = case.op
    assert isinstance(op, Arange)
    return np.array(range(int(str(op.start)), int(str(op.stop)), op.step), np.int64)


def eye(case: Case) -> Array:
    op = case.op
    assert isinstance(op, Eye)
    rows, columns = int(str(op.rows)), int(str(op.columns))
    return np.array([[j == i + op.k for j in range(columns)] for i in range(rows)], op.dtype).reshape(rows, columns)


def shape_of(torch: Any, op: ShapeOf, x: Any) -> Any:
    return torch.tensor(list(x.shape)[op.start : op.stop], dtype=torch.int64)


ORACLES: dict[str, Oracle] = {
    "matmul": by_torch(lambda torch, op, a, b: torch.matmul(a, b)),
    "einsum": by_torch(einsum),
    "gather": by_torch(gather),
    "gather_elements": by_torch(gather_elements),
    "gather_nd": gather_nd,
    "scatter_elements": by_torch(scatter_elements),
    "scatter_nd": by_torch(scatter_nd),
    "one_hot": one_hot,
    "expand": by_torch(expand),
    "tile": by_torch(tile),
    "roll": by_torch(roll),
    "triangle": by_torch(triangle),
    "cast": by_torch(cast),
    "pad_nd": pad_nd,
    "full": by_torch(full),
    "arange": arange,
    "eye": eye,
    "shape_of": by_torch(shape_of),
}

"""Ops that move elements: PyTorch where it has them, else element by element from the definition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from graphsr.op import Array
from graphsr.ops import Concat, Pad, Reshape, Slice, Split, Transpose
from graphsr.testing import Case


def reshape(case: Case) -> Array:
    torch = pytest.importorskip("torch")
    assert isinstance(case.op, Reshape)
    return torch.from_numpy(case.inputs[0]).reshape(case.op.shape).numpy()


def transpose(case: Case) -> Array:
    torch = pytest.importorskip("torch")
    assert isinstance(case.op, Transpose)
    return torch.from_numpy(case.inputs[0]).permute(case.op.axes).numpy()


def concat(case: Case) -> Array:
    torch = pytest.importorskip("torch")
    assert isinstance(case.op, Concat)
    return torch.cat([torch.from_numpy(x) for x in case.inputs], dim=case.op.axis).numpy()


def split(case: Case) -> Array:
    torch = pytest.importorskip("torch")
    op = case.op
    assert isinstance(op, Split)
    return torch.split(torch.from_numpy(case.inputs[0]), op.sizes, dim=op.axis)[op.index].numpy()


def slice_(case: Case) -> Array:
    """Python's rules for lists, one axis after the other."""
    op, (y,) = case.op, case.inputs
    assert isinstance(op, Slice)
    for start, stop, axis, step in zip(op.starts, op.stops, op.axes, op.steps, strict=True):
        cut: Any = slice(start, stop, step)
        y = y.take(np.array(list(range(y.shape[axis]))[cut], dtype=np.int64), axis)
    return y


def pad(case: Case) -> Array:
    """PyTorch pads batches of images, so the outer axes become two."""
    torch = pytest.importorskip("torch")
    op, (x,) = case.op, case.inputs
    assert isinstance(op, Pad)
    top, left, bottom, right = op.padding
    mode = "replicate" if op.mode == "edge" else op.mode
    value = {"value": op.value} if mode == "constant" else {}
    images = torch.from_numpy(x).reshape(1, -1, *x.shape[-2:])
    y = torch.nn.functional.pad(images, (left, right, top, bottom), mode, **value).numpy()
    return y.reshape(*x.shape[:-2], *y.shape[-2:])


ORACLES: dict[str, Callable[[Case], Array]] = {
    "reshape": reshape,
    "transpose": transpose,
    "concat": concat,
    "split": split,
    "slice": slice_,
    "pad": pad,
}
